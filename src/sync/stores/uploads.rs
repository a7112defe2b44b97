//! Multipart uploads that have begun: what is not completed is aborted, whatever ends the copy.
//!
//! An [`Upload`] is a guard. Dropped before it was completed, by an error, a closed gate or a future that nobody polls any
//! more, it has itself aborted in the background: tried a few times, for its backend may be what is broken. Where a
//! completion was sent and its outcome is unknown, that waits for `settle`: before, it may yet take effect, and to abort
//! what is being put together is asking for trouble. After that an abort does nothing to what is complete.
//!
//! What a process that is killed, or a backend that stays away, leaves behind is for a lifecycle rule of the bucket.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use super::{request, site::Site};
use crate::journal::Object;

/// Uploads to be aborted at once; more are left behind, and told of.
const MOST: usize = 256;
/// For one try.
const TRY: Duration = Duration::from_secs(10);
/// Before each further try.
const PAUSES: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

/// What is to be aborted, of one process.
pub struct Uploads {
    settle: Duration,
    /// One for each that is under way.
    slots: Arc<Semaphore>,
    /// The process ends: no try is waited for any more.
    ending: watch::Sender<bool>,
}

impl Uploads {
    pub fn new(settle: Duration) -> Arc<Uploads> {
        let slots = Arc::new(Semaphore::new(MOST));
        Arc::new(Uploads { settle, slots, ending: watch::Sender::new(false) })
    }

    /// Holds the end of the process up; `None` = there are too many.
    pub fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Has what waits for a further try be tried at once, and waits for all that is under way. What has to wait for
    /// `settle` is left behind.
    pub async fn end(&self, within: Duration) {
        self.ending.send_replace(true);
        if timeout(within, self.slots.acquire_many(MOST as u32)).await.is_err() {
            log::warn!("uploads in parts are left behind: not all could be aborted within {within:?}");
        }
    }
}

/// What becomes of an upload when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Abort,
    /// It may be complete, or become so.
    AbortSettled,
    Complete,
}

/// An upload that has begun.
pub struct Upload {
    uploads: Arc<Uploads>,
    target: Arc<Site>,
    object: Object,
    pub id: String,
    fate: Fate,
}

impl Upload {
    pub fn new(uploads: Arc<Uploads>, target: Arc<Site>, object: Object, id: String) -> Upload {
        Upload { uploads, target, object, id, fate: Fate::Abort }
    }

    /// It is about to be completed, and nobody knows how that ends.
    pub fn completing(&mut self) {
        self.fate = Fate::AbortSettled;
    }

    /// The answer says so, or that it is not.
    pub fn completed(&mut self, is_complete: bool) {
        self.fate = if is_complete { Fate::Complete } else { Fate::Abort };
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.fate == Fate::Complete {
            return;
        }
        let left = Left {
            uploads: self.uploads.clone(),
            target: self.target.clone(),
            object: self.object.clone(),
            id: std::mem::take(&mut self.id),
        };
        let (slot, runtime) = (self.uploads.slot(), tokio::runtime::Handle::try_current());
        let (Some(slot), Ok(runtime)) = (slot, runtime) else { return left.tell() };
        let rests = if self.fate == Fate::AbortSettled { self.uploads.settle } else { Duration::ZERO };
        runtime.spawn(async move {
            left.abort(rests).await;
            drop(slot);
        });
    }
}

/// An upload that nobody completes.
struct Left {
    uploads: Arc<Uploads>,
    target: Arc<Site>,
    object: Object,
    id: String,
}

impl Left {
    async fn abort(self, rests: Duration) {
        sleep(rests).await;
        let mut ending = self.uploads.ending.subscribe();
        for pause in PAUSES.map(Some).into_iter().chain([None]) {
            if self.is_gone().await {
                return;
            }
            let Some(pause) = pause else { break };
            tokio::select! {
                _ = ending.wait_for(|ending| *ending) => {}
                () = sleep(pause) => {}
            }
        }
        self.tell();
    }

    /// Whether there is no such upload any more.
    async fn is_gone(&self) -> bool {
        let query = format!("uploadId={}", request::encoded(&self.id));
        let Ok(head) = request::head(&self.target, Method::DELETE, &self.object, &query) else {
            return false;
        };
        match timeout(TRY, self.target.commit(head, Bytes::new())).await {
            Ok(Ok(reply)) => reply.status.is_success() || reply.status == StatusCode::NOT_FOUND,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    fn tell(&self) {
        log::warn!("{}: the upload {:?} of {} could not be aborted", self.target.url(), self.id, self.object);
    }
}

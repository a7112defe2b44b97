//! What is left of a request when its client is answered: driven to its end in the background, as far as there is room.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    Latch, Reply,
    background::{Background, Place},
    order::Commit,
    subs::{Happened, Subs},
};
use crate::{config::MirrorConfig, telemetry::metrics::Cut};

/// What is left of a request when its client is answered.
pub struct Rest {
    pub(super) subs: Subs,
    pub(super) replies: Vec<Option<Reply>>,
    pub(super) background: Arc<Background>,
    pub(super) config: MirrorConfig,
    pub(super) stop: Arc<Latch>,
}

impl Rest {
    /// Its number among the writes of objects that this process has committed; `None` if it was not committed, or is of
    /// no object.
    pub fn committed(&self) -> Option<i64> {
        self.subs.committed.as_ref().map(Commit::number)
    }

    /// Whether all replies are in.
    pub fn is_done(&self) -> bool {
        self.subs.live().next().is_none()
    }

    /// The replies so far.
    pub fn replies(&self) -> impl Iterator<Item = &Reply> {
        self.replies.iter().flatten()
    }

    /// Drives what is left to its end and gives the replies of all backends, in the order of the job's targets.
    pub async fn finish(mut self) -> Vec<Reply> {
        let mut places = self.admit();
        let stop = self.stop.clone();
        while !self.is_done() {
            tokio::select! {
                biased;
                () = stop.wait() => self.cut_pending(),
                happened = self.subs.next(None) => if let Happened::Ended(sub, end) = happened {
                    self.replies[sub] = Some(end.reply);
                    self.subs.note_refusals(&self.replies);
                    places[sub] = None;
                },
            }
        }
        self.replies.into_iter().flatten().collect()
    }

    /// Takes a place in the background for each sub-request; those for which there is none are aborted.
    fn admit(&mut self) -> Vec<Option<Place>> {
        let mut places: Vec<_> = self.subs.all.iter().map(|_| None).collect();
        for sub in self.subs.pending() {
            let pending = &self.subs.all[sub];
            pending.progress.detached.store(true, Relaxed);
            places[sub] = self.background.admit(pending.backend.id, pending.queue.waiting(), &self.config);
            if places[sub].is_none() {
                let end = self.subs.cut(sub, Cut::Background);
                self.replies[sub] = Some(end.reply);
            }
        }
        places
    }

    fn cut_pending(&mut self) {
        for sub in self.subs.pending() {
            let end = self.subs.cut(sub, Cut::Stopping);
            self.replies[sub] = Some(end.reply);
        }
    }
}

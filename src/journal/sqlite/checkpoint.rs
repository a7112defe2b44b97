//! The write-ahead log goes into the file on a thread of its own, beside the commits that fill it.
//!
//! A checkpoint writes all pages that have changed since the last one, thousands in a file with many objects, and whoever
//! commits would wait for all of it. So the log is copied beside the commits. What they add meanwhile is little: the next commit copies that,
//! after which the log begins anew, as it only does where nothing of it is left to copy. A log that grows faster than it
//! can be copied makes commits wait.

use std::{
    ffi::c_int,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use pingora_prometheus::prometheus::IntCounter;
use rusqlite::{Connection, ErrorCode, hooks::Wal, wal::CheckpointMode};

use super::{
    JournalError,
    open::{open, told},
};
use crate::{journal::trouble::NowAndThen, telemetry::metrics::JournalMetrics};

/// Pages of the log that are gathered before they go into the file: the more there are, the more pages of the file are
/// written once for several changes.
const GATHERED: c_int = 8192;
/// With so many, commits wait for the file. What the log may keep of the disk ([`super::open`]).
pub const MOST: c_int = 2 * GATHERED;

/// How far the copying is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is to be done until enough is gathered.
    Gathering,
    /// The thread copies, or is about to.
    Copying,
    /// It has copied: what is left is short.
    Copied,
}

/// What the thread and the commits share.
#[derive(Debug)]
struct Shared {
    stage: Mutex<Stage>,
    /// Held while the thread copies.
    copying: Mutex<()>,
    failed: IntCounter,
    trouble: NowAndThen,
}

/// From now on the log goes into the file beside the commits of this connection, as long as it is open.
pub fn beside(connection: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let shared = Arc::new(Shared::counting(JournalMetrics::of_process().checkpoints_failed));
    let (wake, woken) = sync_channel(1);
    let (copying, theirs) = (open(path)?, shared.clone());
    std::thread::Builder::new()
        .name("journal-log".to_owned())
        .spawn(move || copy(&copying, &woken, &theirs))
        .map_err(|error| JournalError::Unavailable(format!("no thread: {error}")))?;
    // What it returns would be the outcome of the commit, which is done.
    let hook = move |wal: &mut Wal, pages: c_int| {
        committed(wal, pages, &shared, &wake);
        Ok(())
    };
    connection.wal_hook(Some(hook)).map_err(|error| told(&error))
}

fn copy(connection: &Connection, woken: &Receiver<()>, shared: &Shared) {
    while woken.recv().is_ok() {
        let copying = shared.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let copied = connection.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::PASSIVE);
        drop(copying);
        shared.enter(if copied.is_ok() { Stage::Copied } else { Stage::Gathering });
        shared.tell(copied.err());
    }
}

/// A commit has left so many pages in the log.
fn committed(wal: &mut Wal, pages: c_int, shared: &Shared, wake: &SyncSender<()>) {
    let is_full = pages >= MOST;
    match shared.stage() {
        Stage::Gathering if pages >= GATHERED && !is_full => {
            shared.enter(Stage::Copying);
            // There is room: it takes one for each time that it copies.
            wake.try_send(()).unwrap_or_else(|_| shared.enter(Stage::Gathering));
        }
        Stage::Gathering | Stage::Copying if !is_full => {}
        _ => {
            let _copying = shared.copying.lock().unwrap_or_else(PoisonError::into_inner);
            shared.tell(wal.checkpoint().err());
            shared.enter(Stage::Gathering);
        }
    }
}

impl Shared {
    fn counting(failed: IntCounter) -> Shared {
        let stage = Mutex::new(Stage::Gathering);
        Shared { stage, copying: Mutex::default(), failed, trouble: NowAndThen::default() }
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// It is tried again with the next commit: nothing is lost, but the log grows.
    fn tell(&self, error: Option<rusqlite::Error>) {
        // Another process copies.
        let error = error.filter(|error| error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy));
        if let Some(error) = error {
            self.failed.inc();
            self.trouble.error(format_args!("journal: its write-ahead log cannot go into the file: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{Error, ffi};

    use super::*;

    #[test]
    fn a_log_that_cannot_be_copied_is_counted_and_one_that_another_process_copies_is_not() {
        let shared = Shared::counting(IntCounter::new("failed", "of this test").unwrap());
        for (outcome, counted) in [(None, 0), (Some(ffi::SQLITE_BUSY), 0), (Some(ffi::SQLITE_FULL), 1)] {
            shared.tell(outcome.map(|code| Error::SqliteFailure(ffi::Error::new(code), None)));
            assert_eq!(shared.failed.get(), counted, "{outcome:?}");
        }
    }
}

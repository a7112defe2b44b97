//! A thread with a connection, on which all work with the file is done, one job after the other.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::{
    sync::{mpsc, oneshot},
    time::{timeout, timeout_at},
};

use super::{
    JournalError, checkpoint,
    open::{open, told},
};

/// Jobs that wait; who comes later waits for a place, as long as for the job.
const QUEUE: usize = 256;
/// For a job with its waiting. More than SQLite waits for the locks of others.
const DEADLINE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(&mut File) + Send>;

/// How safe a change must be when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// On disk.
    Disk,
    /// It outlives the processes, but not the machine's crash.
    Process,
}

/// What is done on a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Read,
    Write,
}

/// Ends with its value, when all jobs are done.
pub struct Thread {
    jobs: mpsc::Sender<Job>,
}

/// What a job gets.
pub struct File {
    connection: Connection,
    safety: Safety,
}

impl Thread {
    pub fn spawn(path: &Path, usage: Use) -> Result<Thread, JournalError> {
        let mut file = File { connection: open(path)?, safety: Safety::Disk };
        if usage == Use::Write {
            checkpoint::beside(&mut file.connection, path)?;
        }
        let name = if usage == Use::Read { "journal-reader" } else { "journal" };
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut file);
            }
        });
        thread.map_err(|error| JournalError::Unavailable(format!("no thread: {error}")))?;
        Ok(Thread { jobs })
    }

    /// What has not begun by the deadline is not done.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut File) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let deadline = Instant::now() + DEADLINE;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |file: &mut File| {
            if Instant::now() < deadline {
                // Whoever asked may have gone.
                answer.send(work(file)).ok();
            }
        });
        let late = || JournalError::Unavailable(format!("it does not answer for {DEADLINE:?}"));
        let ended = || JournalError::Unavailable("its thread has ended".to_owned());
        timeout(DEADLINE, self.jobs.send(job)).await.map_err(|_| late())?.map_err(|_| ended())?;
        match timeout_at(deadline.into(), answered).await {
            Ok(Ok(done)) => done.map_err(|error| told(&error)),
            Ok(Err(_)) if Instant::now() < deadline => Err(ended()),
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

impl File {
    /// A transaction that sees one state of the file.
    pub fn read<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&transaction)
    }

    /// A transaction that holds the file's one lock for writers.
    pub fn write<T>(
        &mut self,
        safety: Safety,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.safety != safety {
            let mode = if safety == Safety::Disk { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", mode)?;
            self.safety = safety;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

//! A thread with a connection, on which all work with the file is done, one job after the other.
//!
//! The file is that of its path. Where another has been put there, or it was deleted, nobody else would ever see what is
//! written into the old one: so no job is done any more, and each is told why.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::{
    sync::{mpsc, oneshot},
    time::{timeout, timeout_at},
};

use super::{
    JournalError, checkpoint,
    open::{make, open, told},
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

/// What a job gets: the file that was there when it was opened. Another that takes its place is not opened: SQLite knows
/// its `-shm` by the path, and cuts off what connections to the old one have mapped into the memory of this process.
pub struct File {
    path: PathBuf,
    identity: Identity,
    connection: Connection,
    safety: Safety,
}

/// Which file it is: no two that exist have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Thread {
    pub fn spawn(path: &Path, usage: Use) -> Result<Thread, JournalError> {
        // Also after the process has gone to another directory.
        let path = std::path::absolute(path).map_err(|error| unavailable(path, &error))?;
        let mut file = File::open(&path, usage)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let name = if usage == Use::Read { "journal-reader" } else { "journal" };
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
        work: impl FnOnce(&mut File) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let deadline = Instant::now() + DEADLINE;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |file: &mut File| {
            if Instant::now() < deadline {
                // Whoever asked may have gone.
                answer.send(file.is_there().and_then(|()| work(file))).ok();
            }
        });
        let late = || JournalError::Unavailable(format!("it does not answer for {DEADLINE:?}"));
        let ended = || JournalError::Unavailable("its thread has ended".to_owned());
        timeout(DEADLINE, self.jobs.send(job)).await.map_err(|_| late())?.map_err(|_| ended())?;
        match timeout_at(deadline.into(), answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) if Instant::now() < deadline => Err(ended()),
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

impl File {
    fn open(path: &Path, usage: Use) -> Result<File, JournalError> {
        make(path)?;
        let identity = Identity::of(path).map_err(|error| unavailable(path, &error))?;
        let mut connection = open(path)?;
        if usage == Use::Write {
            checkpoint::beside(&mut connection, path)?;
        }
        let file = File { path: path.to_owned(), identity, connection, safety: Safety::Disk };
        file.is_there()?;
        Ok(file)
    }

    /// `Err` = it is not, or nobody can tell.
    fn is_there(&self) -> Result<(), JournalError> {
        match Identity::of(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unavailable(&self.path, &error)),
            Ok(_) | Err(_) => Err(JournalError::Unavailable(format!(
                "{} was replaced or deleted since it was opened: restart what has it open",
                self.path.display()
            ))),
        }
    }

    /// A transaction that sees one state of the file.
    pub fn read<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let read = || work(&self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?);
        read().map_err(|error| told(&error))
    }

    /// A transaction that holds the file's one lock for writers.
    pub fn write<T>(
        &mut self,
        safety: Safety,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let done = self.commit(safety, work).map_err(|error| told(&error))?;
        self.is_there()?;
        Ok(done)
    }

    fn commit<T>(
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

fn unavailable(path: &Path, error: &io::Error) -> JournalError {
    JournalError::Unavailable(format!("{}: {error}", path.display()))
}

impl Identity {
    fn of(path: &Path) -> io::Result<Identity> {
        let metadata = fs::metadata(path)?;
        Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
    }
}

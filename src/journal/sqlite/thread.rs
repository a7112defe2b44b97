//! A thread with a connection, on which all work with the file is done, one job after the other.
//!
//! The file is that of its path. Where another has been put there, or it was deleted, nobody else would ever see what is
//! written into the old one: so it is left, and the next job gets what is there now.

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
    JournalError, Mark, checkpoint,
    open::{make, open, told},
};
use crate::journal::trouble::NowAndThen;

/// Jobs that wait; who comes later waits for a place, as long as for the job.
const QUEUE: usize = 256;
/// For a job with its waiting. More than SQLite waits for the locks of others.
const DEADLINE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(&mut Place) + Send>;

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

/// A path, and the file that was there last.
struct Place {
    path: PathBuf,
    usage: Use,
    file: File,
    trouble: NowAndThen,
}

/// What a job gets.
pub struct File {
    path: PathBuf,
    identity: Identity,
    connection: Connection,
    safety: Safety,
    /// How many were left before it.
    left: u64,
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
        let file = File::open(&path, usage)?;
        let mut place = Place { path, usage, file, trouble: NowAndThen::default() };
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let name = if usage == Use::Read { "journal-reader" } else { "journal" };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut place);
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
        let job = Box::new(move |place: &mut Place| {
            if Instant::now() < deadline {
                // Whoever asked may have gone.
                answer.send(place.file().and_then(work)).ok();
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

impl Place {
    /// The file that is there now.
    fn file(&mut self) -> Result<&mut File, JournalError> {
        if !self.file.is_there()? {
            let path = self.path.display();
            self.trouble.error(format_args!("journal: {path} is another file than before, or was deleted"));
            let left = self.file.left + 1;
            self.file = File { left, ..File::open(&self.path, self.usage)? };
        }
        Ok(&mut self.file)
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
        let file = File { path: path.to_owned(), identity, connection, safety: Safety::Disk, left: 0 };
        match file.is_there()? {
            true => Ok(file),
            false => Err(file.is_gone()),
        }
    }

    /// What cannot be looked at may be there, or not: nothing is done with it meanwhile.
    fn is_there(&self) -> Result<bool, JournalError> {
        match Identity::of(&self.path) {
            Ok(identity) => Ok(identity == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unavailable(&self.path, &error)),
        }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    /// The file, if it is that of the mark.
    pub fn still(&mut self, mark: Mark) -> Result<&mut File, JournalError> {
        match self.left == mark.left {
            true => Ok(self),
            false => Err(self.is_gone()),
        }
    }

    fn is_gone(&self) -> JournalError {
        JournalError::Unavailable(format!("{} was replaced or deleted meanwhile", self.path.display()))
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
        match self.is_there()? {
            true => Ok(done),
            false => Err(self.is_gone()),
        }
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

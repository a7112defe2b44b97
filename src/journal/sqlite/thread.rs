//! A thread with a connection, on which all work with the file is done, one job after the other. Changes that wait are
//! one transaction (`group.rs`): what putting it on disk costs they pay together.
//!
//! The file is that of its path. Where another has been put there, or it was deleted, nobody else would ever see what is
//! written into the old one: so no job is done any more, and each is told why.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    sync::{mpsc, oneshot},
    time::{timeout, timeout_at},
};

use super::{
    JournalError, checkpoint,
    group::{self, Change, Work},
    index::{Index, Tables},
    open::{make, open, told},
};

/// Jobs that wait; who comes later waits for a place, as long as for the job.
const QUEUE: usize = 256;
/// For a job with its waiting. More than SQLite waits for the locks of others.
const DEADLINE: Duration = Duration::from_secs(10);

/// So many changes are one transaction at most: nobody waits much longer for those behind them.
const GROUP: usize = 64;

enum Job {
    Read(Box<dyn FnOnce(&mut File) + Send>),
    Change(Box<dyn Change>),
}

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
    index: Index,
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
            let mut next = None;
            while let Some(job) = next.take().or_else(|| waiting.blocking_recv()) {
                match job {
                    Job::Read(read) => read(&mut file),
                    Job::Change(change) => {
                        let mut group = vec![change];
                        while group.len() < GROUP && next.is_none() {
                            match waiting.try_recv() {
                                Ok(Job::Change(change)) => group.push(change),
                                Ok(job) => next = Some(job),
                                Err(_) => break,
                            }
                        }
                        file.change(group);
                    }
                }
            }
        });
        thread.map_err(|error| JournalError::Unavailable(format!("no thread: {error}")))?;
        Ok(Thread { jobs })
    }

    /// In a transaction that sees one state of the file. What has not begun by the deadline is not done.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let deadline = Instant::now() + DEADLINE;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |file: &mut File| {
            if Instant::now() < deadline {
                // Whoever asked may have gone.
                answer.send(file.is_there().and_then(|()| file.read(work))).ok();
            }
        });
        self.run(Job::Read(job), answered, deadline).await
    }

    /// In a transaction that holds the file's one lock for writers. What has not begun by the deadline is not done.
    pub async fn change<T: Send + 'static>(
        &self,
        safety: Safety,
        work: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let deadline = Instant::now() + DEADLINE;
        let (answer, answered) = oneshot::channel();
        let job = Job::Change(Box::new(Work::new(safety, deadline, work, answer)));
        self.run(job, answered, deadline).await
    }

    async fn run<T>(
        &self,
        job: Job,
        answered: oneshot::Receiver<Result<T, JournalError>>,
        deadline: Instant,
    ) -> Result<T, JournalError> {
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
        let file = File {
            path: path.to_owned(),
            identity,
            connection,
            index: Index::default(),
            safety: Safety::Disk,
        };
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

    fn read<T>(&mut self, work: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred);
        let read = transaction.and_then(|transaction| work(&Tables::of(&transaction, &mut self.index)));
        read.map_err(|error| told(&error))
    }

    /// One transaction, and whoever waits is told what it came to.
    fn change(&mut self, mut group: Vec<Box<dyn Change>>) {
        let now = Instant::now();
        group.retain(|change| now < change.deadline());
        if group.is_empty() {
            return;
        }
        let done = match self.is_there() {
            Ok(()) => self.commit(&mut group).map_err(|error| told(&error)).and_then(|()| self.is_there()),
            Err(error) => Err(error),
        };
        group.into_iter().for_each(|change| change.end(done.clone()));
    }

    fn commit(&mut self, group: &mut [Box<dyn Change>]) -> rusqlite::Result<()> {
        let is_safe = group.iter().any(|change| change.safety() == Safety::Disk);
        let safety = if is_safe { Safety::Disk } else { Safety::Process };
        if self.safety != safety {
            let mode = if safety == Safety::Disk { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", mode)?;
            self.safety = safety;
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tables = Tables::of(&transaction, &mut self.index);
        let done = group::work(&tables, group).and_then(|()| tables.advance());
        let done = done.and_then(|()| transaction.commit());
        if done.is_err() {
            self.index.forget();
        }
        done
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

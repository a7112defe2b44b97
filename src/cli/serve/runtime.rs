//! What operators changed while the process ran, and what stays so across restarts and takeovers.
//!
//! One file, `runtime.json` in `StateDirectory`, is the truth: a change is written to it before it is in force, and
//! every process of the gateway looks at it every second. So it does not matter which of two processes hears of a
//! change during a takeover: each begins with what the file says, under a lock. The file is replaced as a whole, and
//! synced: it is never half there. A change that says what the configuration says is none, and is dropped by the
//! process that serves.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::task::spawn_blocking;

use crate::telemetry::report::Report;

const FILE: &str = "runtime.json";
/// A line for each of thousands of backends.
const MOST_BYTES: u64 = 4 << 20;
/// For another process to make its change.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// What is different from the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// By [`endpoint`](crate::topology::Backend::endpoint).
    #[serde(default)]
    pub maintenance: BTreeMap<String, Maintenance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    pub on: bool,
    /// RFC 3339
    pub since: String,
    #[serde(default)]
    pub reason: String,
}

/// The file cannot be used.
#[derive(Debug, Error)]
#[error("{}: {problem}", .path.display())]
pub struct StoreError {
    pub path: PathBuf,
    problem: Problem,
}

#[derive(Debug, Error)]
enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not what this program writes ({0}); mend it, or remove it to have what the configuration says")]
    Content(#[from] serde_json::Error),
}

/// The file, and what it was like when it was read last.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    seen: Option<Seen>,
}

/// Tells a replaced file from the one before it.
type Seen = (u64, u64, Option<SystemTime>);

/// What the main log is told of looks at the file.
#[derive(Debug)]
pub struct Trouble {
    report: Report,
    now: Option<Unread>,
}

/// Why changes are as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    /// The file could not be read, and is read again at the next look.
    Away,
    /// It says nothing that can be used, and is not read again before there is another.
    Wrong,
}

impl Trouble {
    pub fn new() -> Trouble {
        Trouble { report: Report::new("reload"), now: None }
    }

    /// What a look came to; `None` = nothing new.
    pub fn tell(&mut self, read: Result<Option<Changes>, StoreError>) -> Option<Changes> {
        match &read {
            Err(error) => {
                let is_wrong = matches!(error.problem, Problem::Content(_));
                self.now = Some(if is_wrong { Unread::Wrong } else { Unread::Away });
                self.report.error(format_args!("changes at run time are as before: {error}"));
            }
            Ok(None) if self.now == Some(Unread::Wrong) => {}
            Ok(_) if self.now.take().is_some() => {
                self.report.over(format_args!("changes at run time can be read again"));
            }
            Ok(_) => {}
        }
        read.ok().flatten()
    }
}

/// A store whose disk nobody on a runtime waits for.
#[derive(Debug, Clone)]
pub struct SharedStore(Arc<Mutex<Store>>);

impl SharedStore {
    pub fn new(store: Store) -> SharedStore {
        SharedStore(Arc::new(Mutex::new(store)))
    }

    pub async fn read_if_new(&self) -> Result<Option<Changes>, StoreError> {
        self.aside(Store::read_if_new).await
    }

    /// Whether there is a file.
    pub async fn is_there(&self) -> bool {
        self.aside(|store| Ok(store.look().is_some())).await.unwrap_or(false)
    }

    /// Changes what the file says, and gives that.
    pub async fn update(
        &self,
        change: impl FnOnce(&mut Changes) + Send + 'static,
    ) -> Result<Changes, StoreError> {
        self.aside(move |store| store.update(change)).await
    }

    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.0.clone();
        let done = spawn_blocking(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner)));
        match done.await {
            Ok(outcome) => outcome,
            Err(error) => {
                let store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                Err(store.error(io::Error::other(error)))
            }
        }
    }
}

impl Store {
    pub fn at(directory: &Path) -> Store {
        Store { directory: directory.to_path_buf(), seen: None }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn error(&self, problem: impl Into<Problem>) -> StoreError {
        StoreError { path: self.path(), problem: problem.into() }
    }

    /// What it says; nothing if there is no file.
    pub fn read(&mut self) -> Result<Changes, StoreError> {
        let found = self.look();
        let read = self.parse();
        // One that could not be read, for want of descriptors maybe, can be at another time.
        if !matches!(read, Err(StoreError { problem: Problem::Io(_), .. })) {
            self.seen = found;
        }
        read
    }

    fn parse(&self) -> Result<Changes, StoreError> {
        let mut text = Vec::new();
        let read = File::open(self.path()).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
        match read {
            Ok(_) => serde_json::from_slice(&text).map_err(|error| self.error(error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Changes::default()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// As [`read`](Self::read), if it is another file than the last one read or written.
    pub fn read_if_new(&mut self) -> Result<Option<Changes>, StoreError> {
        if self.look() == self.seen { Ok(None) } else { self.read().map(Some) }
    }

    fn look(&self) -> Option<Seen> {
        let metadata = fs::metadata(self.path()).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
    }

    /// Changes what it says, for good, and gives that. Other processes wait meanwhile.
    pub fn update(&mut self, change: impl FnOnce(&mut Changes)) -> Result<Changes, StoreError> {
        let _lock = self.lock().map_err(|error| self.error(error))?;
        let is_seen = self.look() == self.seen;
        let before = self.parse()?;
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            self.replace(&after).map_err(|error| self.error(error))?;
        }
        // What another process wrote meanwhile is still to be read.
        if is_seen {
            self.seen = self.look();
        }
        Ok(after)
    }

    /// Held by one process at a time, until it is dropped.
    fn lock(&self) -> io::Result<File> {
        fs::create_dir_all(&self.directory)?;
        let directory = File::open(&self.directory)?;
        let start = Instant::now();
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(directory),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_RETRY),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn replace(&self, changes: &Changes) -> io::Result<()> {
        let draft = self.directory.join(format!("{FILE}.{}", std::process::id()));
        let mut text = serde_json::to_vec_pretty(changes)?;
        text.push(b'\n');
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        // Written by root once, it is still the service's.
        let (own, theirs) = (file.metadata()?, fs::metadata(&self.directory)?);
        if (own.uid(), own.gid()) != (theirs.uid(), theirs.gid()) {
            fchown(&file, Some(theirs.uid()), Some(theirs.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&draft, self.path())?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(on: bool) -> Changes {
        let maintenance = Maintenance { on, since: "2026-01-02T03:04:05Z".into(), reason: "disks".into() };
        Changes { maintenance: BTreeMap::from([("http://a:80".into(), maintenance)]) }
    }

    #[test]
    fn what_was_written_is_read_and_each_new_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("state");
        let (mut one, mut other) = (Store::at(&directory), Store::at(&directory));
        assert_eq!(one.read().unwrap(), Changes::default());
        assert_eq!(one.read_if_new().unwrap(), None);
        assert_eq!(other.update(|all| *all = changes(true)).unwrap(), changes(true));
        assert_eq!(one.read_if_new().unwrap(), Some(changes(true)));
        assert_eq!((one.read_if_new().unwrap(), other.read_if_new().unwrap()), (None, None));
        // Begins with what the file says, whoever wrote it.
        let flip = |all: &mut Changes| all.maintenance.values_mut().for_each(|entry| entry.on = !entry.on);
        assert_eq!(one.update(flip).unwrap(), changes(false));
        assert_eq!(other.read_if_new().unwrap(), Some(changes(false)));
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
    }

    #[test]
    fn what_cannot_be_read_now_is_read_later_and_what_is_wrong_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, path) = (Store::at(dir.path()), dir.path().join(FILE));
        assert_eq!(store.read().unwrap(), Changes::default());
        fs::create_dir(&path).unwrap();
        assert!(store.read_if_new().is_err() && store.read_if_new().is_err());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "{").unwrap();
        assert!(store.read_if_new().is_err());
        assert_eq!(store.read_if_new().unwrap(), None);
    }

    #[test]
    fn trouble_ends_when_the_file_can_be_read_and_not_when_it_is_only_not_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, path) = (Store::at(dir.path()), dir.path().join(FILE));
        let mut trouble = Trouble::new();
        let mut look = || (trouble.tell(store.read_if_new()), trouble.now);
        assert_eq!(look(), (None, None));
        fs::create_dir(&path).unwrap();
        assert_eq!(look(), (None, Some(Unread::Away)));
        // As it was before.
        fs::remove_dir(&path).unwrap();
        assert_eq!(look(), (None, None));
        fs::write(&path, "{").unwrap();
        assert_eq!((look(), look()), ((None, Some(Unread::Wrong)), (None, Some(Unread::Wrong))));
        fs::write(&path, "{ }").unwrap();
        assert_eq!(look(), (Some(Changes::default()), None));
    }

    #[test]
    fn what_cannot_be_read_or_written_is_told_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::at(dir.path());
        fs::write(dir.path().join(FILE), "{\"maintenance\": 1}").unwrap();
        let error = store.read().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}: not what this program writes", store.path().display())),
            "{error}"
        );
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::at(&file).update(|all| *all = changes(true)).unwrap_err().to_string();
        assert!(error.contains("file/runtime.json: "), "{error}");
    }
}

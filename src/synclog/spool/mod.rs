//! The spool: where records wait on disk until the database has them.
//!
//! # On disk
//!
//! `<StateDirectory>/synclog-spool/`, for its owner only:
//!
//! | file | what it is |
//! |---|---|
//! | `<20 digits>.records` | a segment: lines, in the order in which they came; numbers grow |
//! | `position` | the segment and the offset up to which records are delivered, twice (see [`position`]) |
//! | `append.lock`, `owner.lock` | held (flock) by whoever appends a batch, and by the one process that delivers |
//! | `rejected.jsonl` | records that the database refuses, with its reason, and damaged lines: for an operator |
//!
//! A line is `CRC ID RECORD`: the CRC-32 of what follows the first blank, in hexadecimal; the record's id, a UUID of
//! version 7; the record as the JSON object that other destinations get. No record has a line break in it.
//!
//! # What always holds
//!
//! - Bytes of a segment are appended, and never changed. A line is a record once its line break is there.
//! - Only the segment with the highest number grows; one that has a successor is final. A process begins with a
//!   segment of its own, and goes on in those that other living processes begin: one that a crash may have torn is
//!   never appended to. Nor is one whose last byte is no line break.
//! - Batches of all processes are appended one after the other, under `append.lock`: their order is the order of
//!   delivery. A batch is followed by fdatasync before it counts as written, so it survives a power cut.
//! - One process delivers, the one that holds `owner.lock`; the kernel gives it back however a process ends. It alone
//!   writes `position` and `rejected.jsonl`, and deletes segments, each after the position has passed it.
//! - A directory that is put in the place of another is another spool: its position is its own, and nothing of it is
//!   deleted or appended to because of what was in the former.
//! - The position moves after the database has committed. It is not synced: what a crash or a power cut sets it back
//!   by is delivered again. Records keep their ids, so that a unique key on them makes that harmless.
//!
//! # Recovery
//!
//! There is none to do: a reader starts at the position. What stands behind the last line break of a final segment
//! was never reported as written, and is passed over. A line whose CRC is wrong goes to `rejected.jsonl`, counted and
//! with an error, and the next one is read. Without a readable position everything is delivered again.
//!
//! # When it is full
//!
//! The bound counts what is not delivered, and `rejected.jsonl`; at most one delivered segment more is on disk. A
//! batch that does not fit is a failed write, as one to a full disk is, and what [`synclog`](crate::synclog) says
//! of failing destinations holds: it is tried again and counted, other destinations go on, and without any the channel
//! fills and requests wait once their clients have the answer.

mod append;
mod frame;
mod position;
mod read;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

pub use self::{
    append::Appender,
    frame::{Stored, new_id},
    read::Reader,
};
use crate::telemetry::metrics::{METRICS, SpoolMetrics};

/// Its place below the state directory.
pub const FOLDER: &str = "synclog-spool";
const SEGMENT: &str = "records";
const REJECTED: &str = "rejected.jsonl";
const POSITION: &str = "position";
const APPEND_LOCK: &str = "append.lock";
const OWNER_LOCK: &str = "owner.lock";

/// For another process to append its batch.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(2);
const LARGEST_SEGMENT: u64 = 16 << 20;
const SMALLEST_SEGMENT: u64 = 64 << 10;

/// A spool's place and bounds, and what its two sides have in common.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Most bytes that are not delivered.
    limit: u64,
    /// A segment with as many bytes is followed by a new one.
    segment: u64,
    /// Notified of each batch that this process has appended.
    pub appended: Notify,
    pub metrics: SpoolMetrics,
}

/// A file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    number: u64,
    bytes: u64,
}

impl Spool {
    pub fn new(folder: PathBuf, limit: u64) -> Spool {
        METRICS.limit("Logging.Synclog.database.spool", limit);
        let segment = (limit / 16).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT);
        Spool { folder, limit, segment, appended: Notify::new(), metrics: SpoolMetrics::of_process() }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes its directory if it is not there.
    pub fn create(&self) -> io::Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn segment_file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}.{SEGMENT}"))
    }

    /// All segments, by number.
    fn segments(&self) -> io::Result<Vec<Segment>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(SEGMENT)?.strip_suffix('.')?.parse().ok());
            let Some(number) = number else { continue };
            match entry.metadata() {
                Ok(metadata) => segments.push(Segment { number, bytes: metadata.len() }),
                // Deleted in between: delivered.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// The bytes that count, and tells of them.
    fn used(&self, segments: &[Segment]) -> u64 {
        let rejected = fs::metadata(self.file(REJECTED)).map_or(0, |metadata| metadata.len());
        let position = position::load(&self.file(POSITION)).unwrap_or_default();
        let left = segments.iter().filter(|segment| segment.number >= position.segment).map(|segment| {
            let delivered = if segment.number == position.segment { position.offset } else { 0 };
            segment.bytes.saturating_sub(delivered)
        });
        let used = left.sum::<u64>() + rejected;
        self.metrics.bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        used
    }

    /// Waits for `append.lock`, which others hold for a moment only.
    fn lock_for_append(&self) -> io::Result<File> {
        let start = Instant::now();
        loop {
            match self.try_lock(APPEND_LOCK)? {
                Some(lock) => return Ok(lock),
                None if start.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_RETRY),
                None => {
                    let message = format!("another process appends for more than {LOCK_PATIENCE:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
            }
        }
    }

    /// Dropped, the file gives the lock back. None: another one has it.
    fn try_lock(&self, name: &str) -> io::Result<Option<File>> {
        let file = private().write(true).create(true).truncate(false).open(self.file(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether an open file is the one that has this path; not where there is none.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

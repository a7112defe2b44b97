//! The side of the spool that takes records: a destination of the synclog.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use chrono::Utc;

use super::{POSITION, Segment, Spool, frame, is_same, position, private};
use crate::telemetry::{SYNCLOG, destination::Sink, report::Report};

/// Lines are appended in pieces of about so many bytes.
const PIECE: u64 = 1 << 20;

pub struct Appender {
    spool: Arc<Spool>,
    /// The first segment that this process has begun: it may append to this and to later ones.
    since: Option<u64>,
    current: Option<(u64, File)>,
    unsynced: Report,
}

impl Appender {
    pub fn new(spool: Arc<Spool>) -> Appender {
        Appender { spool, since: None, current: None, unsynced: Report::new(SYNCLOG) }
    }

    /// Appends as many lines as a piece may have and there is room for; the number of their bytes.
    fn append(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.spool.create()?;
        let lock = self.spool.lock_for_append()?;
        let segments = self.spool.segments()?;
        let room = self.spool.limit.saturating_sub(self.spool.used(&segments));
        let (text, ends) = framed(lines, room.min(PIECE).min(self.spool.segment));
        if text.len() as u64 > room {
            let message = format!("the spool is full: it holds {} bytes at most", self.spool.limit);
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let mut file = self.segment(&segments)?;
        let (written, outcome) = write_counted(&mut file, &text);
        drop(lock);
        // What is torn is in no record; the rest counts.
        let whole = text[..written].iter().filter(|byte| **byte == b'\n').count();
        if whole == 0 {
            return outcome.map(|()| 0);
        }
        if let Err(error) = file.sync_data() {
            // Trying again would not help, and the lines are there to be read: they are not written twice.
            let folder = self.spool.folder().display();
            self.unsynced.error(format_args!(
                "{SYNCLOG}: {folder} cannot be synced: {error}; a power cut may lose it"
            ));
        }
        self.spool.appended.notify_one();
        Ok(ends.get(whole - 1).copied().unwrap_or(lines.len()))
    }

    /// The segment to append to, a new one where the last is not ours to go on with.
    fn segment(&mut self, segments: &[Segment]) -> io::Result<File> {
        let last = segments.last().copied();
        let ours = last.filter(|last| self.since.is_some_and(|since| last.number >= since));
        if let Some(last) = ours.filter(|last| last.bytes < self.spool.segment) {
            let path = self.spool.segment_file(last.number);
            let file = match self.current.take() {
                Some((number, file)) if number == last.number && is_same(&file, &path)? => file,
                _ => private().read(true).append(true).open(path)?,
            };
            if is_whole(&file, last.bytes)? {
                self.current = Some((last.number, file.try_clone()?));
                return Ok(file);
            }
        }
        // Where all segments are gone, what the position has passed is not begun again.
        let passed = position::load(&self.spool.file(POSITION)).map_or(0, |position| position.segment);
        let number = last.map_or(0, |last| last.number).max(passed) + 1;
        let path = self.spool.segment_file(number);
        let file = private().read(true).append(true).create_new(true).open(path)?;
        File::open(self.spool.folder())?.sync_all()?;
        // In another directory numbers begin again.
        self.since = Some(self.since.map_or(number, |since| since.min(number)));
        self.current = Some((number, file.try_clone()?));
        Ok(file)
    }
}

impl Sink for Appender {
    fn label(&self) -> &'static str {
        "database"
    }

    fn write(&mut self, bytes: &[u8], written: &mut dyn FnMut(usize)) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.append(rest)?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written(taken);
            rest = &rest[taken..];
        }
        Ok(())
    }
}

impl fmt::Display for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the spool in {}", self.spool.folder().display())
    }
}

/// The lines of the spool for as many of `lines` as come to `most` bytes, for one at least, and where each of these
/// ends.
fn framed(lines: &[u8], most: u64) -> (Vec<u8>, Vec<usize>) {
    let (mut text, mut ends, mut end) = (Vec::new(), Vec::new(), 0);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let before = text.len();
        let id = frame::new_id(Utc::now());
        frame::push(&id, line.strip_suffix(b"\n").unwrap_or(line), &mut text);
        if text.len() as u64 > most && before > 0 {
            text.truncate(before);
            break;
        }
        end += line.len();
        ends.push(end);
    }
    (text, ends)
}

/// How much was written, also before an error.
fn write_counted(file: &mut File, text: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < text.len() {
        match file.write(&text[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Whether nobody was interrupted in the middle of a line.
fn is_whole(file: &File, bytes: u64) -> io::Result<bool> {
    let Some(last) = bytes.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

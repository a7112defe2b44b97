//! The side of the spool that gives records to the database: one process at a time.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    OWNER_LOCK, POSITION, REJECTED, Segment, Spool, frame,
    frame::Stored,
    is_same,
    position::{Position, PositionFile},
    private,
};
use crate::telemetry::{SYNCLOG, line, report::Report};

/// Read at once; more where a single line is longer.
const CHUNK: usize = 1 << 20;

/// The owner's side. Dropped, it can be another's.
pub struct Reader {
    spool: Arc<Spool>,
    owner: File,
    positions: PositionFile,
    position: Position,
    unsaved: Report,
    damaged: Report,
}

#[derive(Serialize)]
struct Rejected<'a> {
    #[serde(serialize_with = "line::timestamp")]
    rejected: DateTime<Utc>,
    id: &'a str,
    error: &'a str,
    /// Of a damaged line, which is no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<String>,
}

impl Reader {
    /// Becomes the owner; `None` while another process is.
    pub fn own(spool: &Arc<Spool>) -> io::Result<Option<Reader>> {
        spool.create()?;
        let Some(owner) = spool.try_lock(OWNER_LOCK)? else { return Ok(None) };
        let path = spool.file(POSITION);
        let (positions, position, damaged) = PositionFile::open(&path)?;
        if damaged {
            log::error!(
                "{SYNCLOG}: {} is damaged: what is in the spool is delivered from its start",
                path.display()
            );
        }
        let (unsaved, damaged) = (Report::new(SYNCLOG), Report::new(SYNCLOG));
        Ok(Some(Reader { spool: spool.clone(), owner, positions, position, unsaved, damaged }))
    }

    /// The first records that are not delivered, at most so many; none if there is none now. Damaged lines before
    /// them are set aside.
    pub fn next(&mut self, most: usize) -> io::Result<Vec<Stored>> {
        loop {
            // In this order: a segment that has a successor now grows no more, so its end is its end; and what was
            // listed is of the directory that the position is of.
            let segments = self.spool.segments()?;
            self.is_in_place()?;
            self.spool.used(&segments);
            self.delete_delivered(&segments)?;
            let Some(segment) = segments.iter().find(|segment| segment.number >= self.position.segment)
            else {
                return Ok(Vec::new());
            };
            if segment.number > self.position.segment {
                self.position = Position { segment: segment.number, offset: 0 };
            }
            let is_final = segments.last().is_some_and(|last| last.number > segment.number);
            let lines = self.lines(*segment)?;
            let (records, damaged) = parse(&lines, self.position.offset, most);
            if !records.is_empty() {
                return Ok(records);
            }
            match damaged {
                Some(length) => self.set_damaged_aside(&lines[..length])?,
                None if is_final => self.leave(*segment),
                None => return Ok(Vec::new()),
            }
        }
    }

    /// An error where the directory was replaced: what is in another one is not what the position speaks of, and
    /// nothing there is to be deleted by it. The inode of a file that is open is not given to another.
    fn is_in_place(&self) -> io::Result<()> {
        match is_same(&self.owner, &self.spool.file(OWNER_LOCK))? {
            true => Ok(()),
            false => {
                Err(io::Error::other("its directory was replaced; it begins anew with the one that is there"))
            }
        }
    }

    /// Some lines from the position on, whole but for the last one.
    fn lines(&self, segment: Segment) -> io::Result<Vec<u8>> {
        let file = File::open(self.spool.segment_file(segment.number))?;
        let mut lines = Vec::new();
        loop {
            let read = lines.len();
            lines.resize(read + CHUNK, 0);
            let n = read_at(&file, &mut lines[read..], self.position.offset + read as u64)?;
            lines.truncate(read + n);
            if n < CHUNK || lines.contains(&b'\n') {
                return Ok(lines);
            }
        }
    }

    /// Notes that everything up to the end of this record is delivered.
    pub fn acknowledge(&mut self, record: &Stored) {
        self.move_to(Position { offset: record.end, ..self.position });
    }

    fn move_to(&mut self, position: Position) {
        self.position = position;
        if let Err(error) = self.positions.save(position) {
            let folder = self.spool.folder().display();
            self.unsaved.error(format_args!(
                "{SYNCLOG}: the position in {folder} cannot be written: {error}; after a crash records are delivered again"
            ));
        }
    }

    /// Puts a record that the database refuses where an operator finds it, and passes it.
    pub fn reject(&mut self, stored: &Stored, error: &str) -> io::Result<()> {
        let mut entry = Vec::new();
        line::push_json(&Rejected { rejected: Utc::now(), id: &stored.id, error, line: None }, &mut entry)?;
        // The record as it is, before the object's last brace.
        entry.truncate(entry.len().saturating_sub(2));
        entry.extend_from_slice(b",\"record\":");
        entry.extend_from_slice(stored.record.as_bytes());
        entry.extend_from_slice(b"}\n");
        self.set_aside(&entry)?;
        self.spool.metrics.rejected.inc();
        self.acknowledge(stored);
        Ok(())
    }

    fn set_damaged_aside(&mut self, damaged: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(damaged.strip_suffix(b"\n").unwrap_or(damaged)).into_owned();
        let mut entry = Vec::new();
        let error = "the line is damaged";
        line::push_json(&Rejected { rejected: Utc::now(), id: "", error, line: Some(text) }, &mut entry)?;
        self.set_aside(&entry)?;
        self.spool.metrics.damaged.inc();
        let path = self.spool.file(REJECTED);
        self.damaged.error(format_args!(
            "{SYNCLOG}: a damaged line of the spool was set aside in {}",
            path.display()
        ));
        let offset = self.position.offset + damaged.len() as u64;
        self.move_to(Position { offset, ..self.position });
        Ok(())
    }

    /// Durable before the position passes it.
    fn set_aside(&self, entry: &[u8]) -> io::Result<()> {
        let mut file = private().read(true).append(true).create(true).open(self.spool.file(REJECTED))?;
        let length = file.metadata()?.len();
        if length > 0 {
            let mut last = [0];
            file.read_exact_at(&mut last, length - 1)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        file.write_all(entry)?;
        file.sync_data()
    }

    /// Goes on to the segment behind a final one, of which nothing is left but perhaps part of a line.
    fn leave(&mut self, segment: Segment) {
        let torn = segment.bytes.saturating_sub(self.position.offset);
        if torn > 0 {
            log::warn!(
                "{SYNCLOG}: {torn} bytes of a line that was never written whole are passed over in the spool"
            );
        }
        self.move_to(Position { segment: segment.number + 1, offset: 0 });
    }

    fn delete_delivered(&self, segments: &[Segment]) -> io::Result<()> {
        for segment in segments.iter().filter(|segment| segment.number < self.position.segment) {
            match fs::remove_file(self.spool.segment_file(segment.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Records at the beginning of `lines`; and how long the first line is if it is damaged.
fn parse(lines: &[u8], mut offset: u64, most: usize) -> (Vec<Stored>, Option<usize>) {
    let mut records = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        // The last one may still be growing.
        let Some(whole) = line.strip_suffix(b"\n").filter(|_| records.len() < most) else { break };
        let Some((id, record)) = frame::parse(whole) else {
            let first = records.is_empty();
            return (records, first.then_some(line.len()));
        };
        offset += line.len() as u64;
        records.push(Stored { id: id.to_owned(), record: record.to_owned(), end: offset });
    }
    (records, None)
}

/// Fills the buffer unless the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

//! Up to where records are delivered.
//!
//! The file has two places of 64 bytes, which are written in turn: where one was torn, the other one holds. Each is
//! `CRC SEGMENT OFFSET`, filled up with blanks. The greater of those that are sound is in force: positions only grow.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::private;

const PLACE: usize = 64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// The file, opened to be written.
#[derive(Debug)]
pub struct PositionFile {
    file: File,
    place: usize,
}

/// The position in a file; `None` if there is none.
pub fn load(path: &Path) -> Option<Position> {
    let file = File::open(path).ok()?;
    (0..2).filter_map(|place| read(&file, place)).max()
}

fn read(file: &File, place: usize) -> Option<Position> {
    let mut bytes = [0; PLACE];
    file.read_exact_at(&mut bytes, (place * PLACE) as u64).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?.trim_end();
    let (crc, rest) = text.split_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(rest.as_bytes()) {
        return None;
    }
    let (segment, offset) = rest.split_once(' ')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

impl PositionFile {
    /// Opens it, and gives the position; says whether what was there could not be read.
    pub fn open(path: &Path) -> io::Result<(PositionFile, Position, bool)> {
        let file = private().read(true).write(true).create(true).truncate(false).open(path)?;
        let places = [read(&file, 0), read(&file, 1)];
        let position = places.iter().flatten().max().copied();
        let damaged = position.is_none() && file.metadata()?.len() > 0;
        // Not over the one that is in force.
        let place = if places[0] == position && position.is_some() { 1 } else { 0 };
        Ok((PositionFile { file, place }, position.unwrap_or_default(), damaged))
    }

    pub fn save(&mut self, position: Position) -> io::Result<()> {
        let text = format!("{:020} {:020}", position.segment, position.offset);
        let line = format!("{:08x} {text}", crc32fast::hash(text.as_bytes()));
        let mut bytes = format!("{line:<0$}", PLACE - 1).into_bytes();
        bytes.push(b'\n');
        self.file.write_all_at(&bytes, (self.place * PLACE) as u64)?;
        self.place = 1 - self.place;
        Ok(())
    }
}

//! A line of the spool: `CRC ID RECORD`.

use chrono::{DateTime, Utc};

/// A record in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub id: String,
    /// A JSON object.
    pub record: String,
    /// Where its line ends in its segment.
    pub end: u64,
}

/// Appends a record's line; `record` has no line break.
pub fn push(id: &str, record: &[u8], lines: &mut Vec<u8>) {
    let mut crc = crc32fast::Hasher::new();
    for part in [id.as_bytes(), b" ", record] {
        crc.update(part);
    }
    lines.extend_from_slice(format!("{:08x} {id} ", crc.finalize()).as_bytes());
    lines.extend_from_slice(record);
    lines.push(b'\n');
}

/// Id and record of a line, without its line break; `None` for a damaged one.
pub fn parse(line: &[u8]) -> Option<(&str, &str)> {
    let (crc, rest) = line.split_at_checked(9)?;
    let crc = std::str::from_utf8(crc).ok()?.strip_suffix(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(rest) {
        return None;
    }
    std::str::from_utf8(rest).ok()?.split_once(' ')
}

/// An id that no other record has, a UUID of version 7 (RFC 9562): ids of a later time are greater.
pub fn new_id(now: DateTime<Utc>) -> String {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default() & 0xffff_ffff_ffff;
    let fraction = u64::from(now.timestamp_subsec_nanos() % 1_000_000) * 4096 / 1_000_000;
    let random: u64 = rand::random();
    let (time, low) = (millis << 16 | 0x7000 | fraction, random >> 2 | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        time >> 32,
        time >> 16 & 0xffff,
        time & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

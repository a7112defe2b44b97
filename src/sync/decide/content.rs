//! Whether two backends hold the same bytes, by what they say of them.

use crate::sync::{Held, Md5};

/// Whether the bytes are the same; `None` = that is not known.
pub(in crate::sync) fn content(a: &Held, b: &Held) -> Option<bool> {
    if a.length != b.length {
        return Some(false);
    }
    match (a.md5, b.md5) {
        (Some(one), Some(other)) => Some(one == other),
        _ => None,
    }
}

pub(super) fn is_true(answer: Option<bool>) -> bool {
    answer == Some(true)
}

pub(super) fn unquoted(etag: &str) -> &str {
    etag.trim().trim_matches('"')
}

/// The digest that an ETag is, if it is one.
pub(super) fn md5_of(etag: &str) -> Option<Md5> {
    let text = unquoted(etag).as_bytes();
    if text.len() != 32 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut md5 = Md5::default();
    for (byte, pair) in md5.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(md5)
}

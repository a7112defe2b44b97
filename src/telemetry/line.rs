//! One entry, one line: JSON and plain text that no content can break.
//!
//! Keys, paths and user agents are whatever a client sends. A log is read line by line, by terminals and by
//! programs of which some also split at U+0085 or U+2028. So every control character (C0, DEL, C1), the two
//! Unicode line separators and the characters that turn the direction of text are escaped, in JSON as
//! `\uXXXX`, in plain text as `\n`, `\u{1b}` and the like.

use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

/// Appends `entry` as one JSON line to `line`; on an error `line` is as before.
pub fn push_json<T: Serialize>(entry: &T, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let start = line.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *line, OneLine);
    let result = entry.serialize(&mut serializer);
    match result {
        Ok(()) => line.push(b'\n'),
        Err(_) => line.truncate(start),
    }
    result
}

/// `text` with everything escaped that could break its line.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if breaks_line(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Serialises a request target without its query, which can hold a presigned URL's signature.
pub fn path<S: Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.split_once('?').map_or(path, |(path, _)| path))
}

/// Serialises a time as RFC 3339 with nanoseconds.
pub fn timestamp<S: Serializer>(ts: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&ts.to_rfc3339_opts(SecondsFormat::Nanos, true))
}

fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// serde_json's compact form; it escapes C0 itself, what else can break a line is escaped here.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| breaks_line(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn separators_and_terminal_controls_are_escaped() {
        let mut line = Vec::new();
        push_json(&"a\n\u{7f}\u{85}\u{9b}\u{2028}\u{202e}ż\"\\", &mut line).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "\"a\\n\\u007f\\u0085\\u009b\\u2028\\u202eż\\\"\\\\\"\n"
        );
        assert_eq!(escape("one\r\ntwo\u{1b}[31m ż\u{2029}"), "one\\r\\ntwo\\u{1b}[31m ż\\u{2029}");
    }

    #[test]
    fn a_query_is_cut_off() {
        #[derive(Serialize)]
        struct Target(#[serde(serialize_with = "path")] &'static str);
        for (target, line) in
            [("/b/k?X-Amz-Signature=s?t", "\"/b/k\"\n"), ("/b/k%3Fx", "\"/b/k%3Fx\"\n"), ("?acl", "\"\"\n")]
        {
            let mut written = Vec::new();
            push_json(&Target(target), &mut written).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), line);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_and_survives(text in any::<String>()) {
            let mut line = b"before\n".to_vec();
            push_json(&text, &mut line).unwrap();
            let line = String::from_utf8(line).unwrap();
            let json = line.strip_prefix("before\n").unwrap().strip_suffix('\n').unwrap();
            prop_assert!(!json.chars().any(breaks_line));
            prop_assert_eq!(serde_json::from_str::<String>(json).unwrap(), text.clone());
            prop_assert!(!escape(&text).chars().any(breaks_line));
        }
    }
}

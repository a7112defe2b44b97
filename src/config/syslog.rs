//! `syslog` and `syslogaddr` of a log: a facility by name, and where its messages go.

use std::path::PathBuf;

use super::reader::{At, MapReader, Text};

/// syslog(3)'s facilities, without the prefix `LOG_`, and their codes.
const FACILITIES: [(&str, u8); 20] = [
    ("KERN", 0),
    ("USER", 1),
    ("MAIL", 2),
    ("DAEMON", 3),
    ("AUTH", 4),
    ("SYSLOG", 5),
    ("LPR", 6),
    ("NEWS", 7),
    ("UUCP", 8),
    ("CRON", 9),
    ("AUTHPRIV", 10),
    ("FTP", 11),
    ("LOCAL0", 16),
    ("LOCAL1", 17),
    ("LOCAL2", 18),
    ("LOCAL3", 19),
    ("LOCAL4", 20),
    ("LOCAL5", 21),
    ("LOCAL6", 22),
    ("LOCAL7", 23),
];

const RIGHT: &str = "write unix:/dev/log or udp:HOST:PORT";

/// A syslog as a log's destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// As RFC 5424 numbers them.
    pub facility: u8,
    pub address: SyslogAddress,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A socket of this host, of datagrams or a stream.
    Unix(PathBuf),
    /// A collector; a name is looked up when the log is written.
    Udp { host: String, port: u16 },
}

/// Reads both keys; an empty facility, the original's way to say none, is none.
pub fn read(map: &mut MapReader) -> Option<Syslog> {
    let facility = map.get("syslog").map(|at| facility(&at));
    let address = map.get("syslogaddr");
    let parsed = address.as_ref().map(address_of);
    match facility {
        Some(facility) => {
            let address = parsed.unwrap_or(Some(SyslogAddress::Unix("/dev/log".into())));
            Some(Syslog { facility: facility?, address: address? })
        }
        None => {
            if let Some(at) = address.filter(|_| !map.is_unknown("syslog")) {
                at.warning("without syslog: FACILITY, such as LOG_LOCAL1, it has no effect");
            }
            None
        }
    }
}

fn facility(at: &At) -> Option<u8> {
    let Text { value, shown, .. } = at.text()?;
    if value.is_empty() {
        return None;
    }
    let name = value.strip_prefix("LOG_").unwrap_or(&value);
    match FACILITIES.iter().find(|(known, _)| *known == name) {
        Some((_, code)) => Some(*code),
        None => at.error(format!("{shown} is no facility; write one such as LOG_LOCAL1")),
    }
}

fn address_of(at: &At) -> Option<SyslogAddress> {
    let Text { value, shown, .. } = at.text()?;
    if let Some(path) = value.strip_prefix("unix:") {
        if !path.starts_with('/') || path.len() > 107 {
            return at.error(format!("{shown} names no absolute path of at most 107 bytes; {RIGHT}"));
        }
        return Some(SyslogAddress::Unix(path.into()));
    }
    let Some((host, port)) = value.strip_prefix("udp:").and_then(|rest| rest.rsplit_once(':')) else {
        return at.error(format!("{shown} is no address of a syslog; {RIGHT}"));
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let plain = !host.is_empty()
        && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "[]/".contains(c));
    match port.parse() {
        Ok(port) if port > 0 && plain && (bare.is_some() || !host.contains(':')) => {
            Some(SyslogAddress::Udp { host: host.to_owned(), port })
        }
        _ => at.error(format!("{shown} names no host and port; {RIGHT}, an IPv6 address in brackets")),
    }
}

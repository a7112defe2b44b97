//! Children of a family in a table: counting is an index and an atomic addition.
//!
//! A child is made when it is first counted, so that only what has happened is exported; where most rows of a table
//! never happen (there are five hundred statuses), binding all of them beforehand would bury the rest.

use std::{fmt, sync::OnceLock};

use http::{Method, StatusCode};
use pingora_prometheus::prometheus::IntCounter;

pub struct Cells(Box<[OnceLock<IntCounter>]>);

impl Cells {
    pub fn new(count: usize) -> Cells {
        Cells((0..count).map(|_| OnceLock::new()).collect())
    }

    /// Counts in a cell; `make` looks its child up, once.
    pub fn count(&self, at: usize, make: impl FnOnce() -> IntCounter) {
        if let Some(cell) = self.0.get(at) {
            cell.get_or_init(make).inc();
        }
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} cells", self.0.iter().filter(|cell| cell.get().is_some()).count(), self.0.len())
    }
}

/// The values of the label `method`: clients invent methods, which are "other".
pub const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "other"];

/// Index among [`METHODS`].
pub fn method_at(method: &Method) -> usize {
    match method.as_str() {
        "GET" => 0,
        "HEAD" => 1,
        "PUT" => 2,
        "POST" => 3,
        "DELETE" => 4,
        "OPTIONS" => 5,
        _ => 6,
    }
}

/// The values of the label `status` where it is that of a backend.
pub const CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Index among [`CLASSES`].
pub fn class_at(status: Option<StatusCode>) -> usize {
    match status.map(|status| status.as_u16()) {
        None => 0,
        Some(code @ 100..=599) => usize::from(code / 100),
        Some(_) => 6,
    }
}

/// How many statuses are told apart: none, 100 to 599, and all others.
pub const STATUSES: usize = 502;

/// Index among those.
pub fn status_at(status: Option<StatusCode>) -> usize {
    match status.map(|status| status.as_u16()) {
        None => 0,
        Some(code @ 100..=599) => usize::from(code) - 99,
        Some(_) => STATUSES - 1,
    }
}

/// The value of the label `status` with this index.
pub fn status_label(at: usize) -> String {
    match at {
        0 => "none".to_owned(),
        at if at < STATUSES - 1 => (at + 99).to_string(),
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_of_bounded_sets() {
        let label = |code| status_label(status_at(Some(StatusCode::from_u16(code).unwrap())));
        let class = |code| CLASSES[class_at(Some(StatusCode::from_u16(code).unwrap()))];
        assert_eq!(["100", "200", "599"].map(|code| label(code.parse().unwrap())), ["100", "200", "599"]);
        assert_eq!(
            (label(600), label(999), status_label(status_at(None))),
            ("other".into(), "other".into(), "none".into())
        );
        assert_eq!((class(100), class(404), class(599), class(600)), ("1xx", "4xx", "5xx", "other"));
        assert_eq!(CLASSES[class_at(None)], "none");
        for name in METHODS {
            assert_eq!(METHODS[method_at(&Method::from_bytes(name.as_bytes()).unwrap())], name);
        }
        for invented in ["get", "X1", "PROPFIND", "PATCH"] {
            assert_eq!(METHODS[method_at(&Method::from_bytes(invented.as_bytes()).unwrap())], "other");
        }
    }
}

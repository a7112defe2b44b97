//! Objects that a human dropped: what was known of them, and why nothing had to be repaired.

use super::{Object, Record};

/// An object that was dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    /// Later ones have greater numbers.
    pub number: i64,
    pub object: Object,
    /// In milliseconds since 1970.
    pub at: i64,
    pub reason: String,
    /// What the journal had of it; `None` = it cannot be read.
    pub records: Option<Vec<Record>>,
}

/// As [`records_payload`](super::row::records_payload) made it.
pub fn records(payload: &[u8]) -> Option<Vec<Record>> {
    serde_json::from_slice(payload).ok()
}

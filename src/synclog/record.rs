//! The wire form of records.

use chrono::{DateTime, Utc};

/// One failed backend of one request.
#[derive(Debug, Clone)]
pub struct Record {
    pub method: String,
    /// The backend that is not good, its URL.
    pub failedhost: String,
    /// The request's path, raw, without query.
    pub path: String,
    /// A backend whose reply was good; empty where none was.
    pub successhost: String,
    pub useragent: String,
    pub content_length: u64,
    pub error: String,
    pub req_id: String,
    pub ts: DateTime<Utc>,
    pub region: String,
    pub cluster: String,
    pub bucket: String,
    pub key: String,
    /// Status of the failed backend's answer, 0 = none.
    pub status: u16,
    pub outcome: Outcome,
    /// ETag and version id that the good backend answered with.
    pub etag: Option<String>,
    pub version: Option<String>,
    pub sub_resource: Option<String>,
}

/// What the failed backend's exchange came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Good, but disagrees with another good reply.
    Good,
    NotApplied,
    Unknown,
}

/// An object found on another cluster than its home: `{"Key","Expected","Actual"}`.
#[derive(Debug, Clone)]
pub struct Misplacement {
    pub key: String,
    pub expected: String,
    pub actual: String,
}

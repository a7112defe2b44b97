//! The wire form of records.
//!
//! The field names and their order up to `ts` are those of the Go program that this one replaces: tools that
//! read its synclog read ours. What follows `ts` is new: enough to find the object, and what the backend said
//! of it, without parsing the path. Text that was no UTF-8 was replaced before it came here.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use crate::telemetry::line;

/// One failed backend of one request, in the order of its line's fields.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub method: String,
    /// The backend that is not good, its URL.
    pub failedhost: String,
    /// The request's path, raw, without query; a query is cut off when the line is made.
    #[serde(serialize_with = "line::path")]
    pub path: String,
    /// A backend whose reply was good; empty where none was.
    pub successhost: String,
    pub useragent: String,
    #[serde(rename = "content-length")]
    pub content_length: u64,
    pub error: String,
    #[serde(rename = "reqID")]
    pub req_id: String,
    #[serde(serialize_with = "line::timestamp")]
    pub ts: DateTime<Utc>,
    pub region: String,
    pub cluster: String,
    pub bucket: String,
    pub key: String,
    /// Status of the failed backend's answer, 0 = none.
    pub status: u16,
    pub outcome: Outcome,
    /// ETag and version id that the good backend answered with; empty strings in the line where there are none.
    #[serde(serialize_with = "or_empty")]
    pub etag: Option<String>,
    #[serde(serialize_with = "or_empty")]
    pub version: Option<String>,
    /// Left out of the line where there is none.
    #[serde(rename = "subresource", skip_serializing_if = "Option::is_none")]
    pub sub_resource: Option<String>,
}

/// What the failed backend's exchange came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// Good, but disagrees with another good reply.
    #[serde(rename = "good")]
    Good,
    #[serde(rename = "not applied")]
    NotApplied,
    #[serde(rename = "unknown")]
    Unknown,
}

/// An object found on another cluster than its home: `{"Key","Expected","Actual"}`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Misplacement {
    pub key: String,
    pub expected: String,
    pub actual: String,
}

fn or_empty<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.as_deref().unwrap_or_default())
}

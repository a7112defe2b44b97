//! S3's XML error answers.

use bytes::Bytes;
use http::StatusCode;

/// An error that the gateway itself answers with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct S3Error {
    pub status: StatusCode,
    /// An S3 error code (`NoSuchKey`, `SlowDown`, ...).
    pub code: &'static str,
    pub message: String,
}

impl S3Error {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        S3Error { status, code, message: message.into() }
    }

    /// The XML document. `resource` and `request_id` may hold anything: they are escaped, and what XML 1.0 cannot
    /// carry is replaced.
    pub fn to_xml(&self, resource: &str, request_id: &str) -> Bytes {
        let _ = (resource, request_id);
        todo!()
    }
}

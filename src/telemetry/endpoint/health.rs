//! The health path's answer, the gateway's and the technical endpoint's.

use bytes::Bytes;
use http::{StatusCode, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;

/// 200, or 503 once the process is on its way to its end. Headers and bodies are the original's.
pub fn health(draining: bool) -> Result<(ResponseHeader, Bytes)> {
    let (status, body) = match draining {
        false => (StatusCode::OK, "OK"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let mut head = ResponseHeader::build(status, Some(6))?;
    head.insert_header(header::CONTENT_TYPE, "text/html")?;
    head.insert_header(header::CACHE_CONTROL, "no-cache, no-store")?;
    Ok((head, Bytes::from_static(body.as_bytes())))
}

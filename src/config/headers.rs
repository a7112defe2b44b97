//! `AdditionalRequestHeaders` and `AdditionalResponseHeaders`.
//!
//! What would break a request or an answer is refused here, once, instead of being filtered on every
//! request. Values are never repeated in messages: they may be tokens.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue};

use super::{
    errors::quoted,
    reader::{At, MapReader},
    tree::Value,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To backends.
    Request,
    /// To clients.
    Response,
}

/// About one connection or the framing of one message: never ours to set (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

pub fn read(top: &mut MapReader, key: &'static str, direction: Direction) -> Vec<(HeaderName, HeaderValue)> {
    let Some(map) = top.get(key).and_then(|at| at.map()) else { return Vec::new() };
    let (mut headers, mut known) = (Vec::new(), HashSet::new());
    for (key, at) in map.entries() {
        let Some((name, value)) = read_header(key, &at, direction) else { continue };
        if known.insert(name.clone()) {
            headers.push((name, value));
        } else {
            at.report.error(&at.path, at.node.line, "this header is already set above; keep one of the two");
        }
    }
    headers
}

fn read_header(key: &str, at: &At, direction: Direction) -> Option<(HeaderName, HeaderValue)> {
    let Ok(name) = HeaderName::from_bytes(key.as_bytes()) else {
        return at.error(format!("{} is not the name of a header", quoted(key)));
    };
    if let Some(reason) = refusal(name.as_str(), direction) {
        return at.error(reason);
    }
    let Value::Scalar(scalar) = &at.node.value else {
        return at.text().and(None);
    };
    match HeaderValue::from_str(&scalar.text) {
        Ok(mut value) => {
            value.set_sensitive(scalar.source.is_some());
            Some((name, value))
        }
        Err(_) => {
            at.error("the value has characters that a header cannot hold; write printable ASCII on one line")
        }
    }
}

/// Why a header must not be set.
fn refusal(name: &str, direction: Direction) -> Option<&'static str> {
    if HOP_BY_HOP.contains(&name) || name.starts_with("proxy-") {
        return Some("this header belongs to one connection or message and cannot be set here; leave it out");
    }
    if direction == Direction::Response {
        return None;
    }
    if name.starts_with("x-amz-") {
        return Some(
            "storages refuse requests with x-amz headers that the client did not sign; leave it out",
        );
    }
    match name {
        "host" => Some("the client's Host is signed and cannot be replaced; leave it out"),
        "expect" => Some("the gateway answers Expect itself and does not forward it; leave it out"),
        _ => None,
    }
}

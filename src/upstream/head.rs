//! A request's head in the form in which it is sent, and how its body is delimited.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::header;
use pingora_core::protocols::http::v1::client::http_req_header_to_wire;
use pingora_http::RequestHeader;

use super::{
    failure::Cause,
    observer::{Observed, Observer},
};
use crate::topology::Backend;

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, or one of this many bytes.
    Length(u64),
    Chunked,
}

/// A request's head in the form in which it is sent, shared by all sub-requests of one client request.
#[derive(Debug, Clone)]
pub struct Head {
    pub(super) wire: Bytes,
    pub framing: Framing,
    /// HEAD: the answer has no body whatever its headers say.
    pub(super) is_head: bool,
    observer: Option<Arc<dyn Observer>>,
}

impl Head {
    /// Serialises a head. `header` carries the framing headers that `framing` says.
    pub fn new(header: &RequestHeader, framing: Framing) -> Result<Head, Cause> {
        let length = header.headers.get(header::CONTENT_LENGTH).map(|value| value.as_bytes());
        let consistent = match framing {
            Framing::Length(0) => length.is_none_or(|length| length == b"0"),
            Framing::Length(expected) => {
                length.is_some_and(|length| length == expected.to_string().as_bytes())
            }
            Framing::Chunked => length.is_none(),
        };
        if !consistent {
            // The backend would take the next request for this one's body.
            return Err(Cause::Unsendable("its Content-Length is not that of its body".into()));
        }
        let wire = http_req_header_to_wire(header)
            .ok_or_else(|| Cause::Unsendable("the request target holds forbidden bytes".into()))?;
        Ok(Head {
            wire: wire.freeze(),
            framing,
            is_head: header.method == http::Method::HEAD,
            observer: None,
        })
    }

    /// The same, with somebody who is told of each exchange.
    pub fn observed_by(self, observer: Option<Arc<dyn Observer>>) -> Head {
        Head { observer, ..self }
    }

    /// Who is told of an exchange with this backend, if anybody is.
    pub(super) fn observed(&self, backend: &Backend, started: Instant, reused: bool) -> Option<Observed> {
        let observer = self.observer.as_ref()?;
        Some(Observed::new(observer, &backend.url, started, reused))
    }

    /// Whether the request is complete with its head.
    pub fn has_no_body(&self) -> bool {
        self.framing == Framing::Length(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_whose_length_is_not_its_bodys_is_not_sent() {
        let head = |length: Option<&str>, framing| {
            let mut header = RequestHeader::build("PUT", b"/b/k", None).unwrap();
            if let Some(length) = length {
                header.insert_header("Content-Length", length).unwrap();
            }
            Head::new(&header, framing).is_ok()
        };
        assert!(head(Some("5"), Framing::Length(5)));
        assert!(head(Some("0"), Framing::Length(0)) && head(None, Framing::Length(0)));
        assert!(!head(Some("36"), Framing::Length(0)));
        assert!(!head(None, Framing::Length(5)));
        assert!(!head(Some("5"), Framing::Chunked));
    }
}

//! From a request's head to region, operation and clusters.

use std::sync::Arc;

use http::{HeaderMap, header};
use pingora_proxy::Session;

use super::admit;
use crate::{
    s3::{self, Operation, S3Error, S3Request},
    topology::{Cluster, Region, Topology, host_name},
    upstream::Framing,
};

/// What a request is about and where it belongs.
pub struct Route {
    pub region: Arc<Region>,
    pub request: S3Request,
    pub framing: Framing,
    /// Bytes of the object that the body makes; `None` = it makes none by itself, or the head does not tell.
    pub object_length: Option<u64>,
}

/// Finds the route of a request, or says why there is none.
pub fn find(topology: &Topology, session: &Session) -> Result<Route, S3Error> {
    let header = session.req_header();
    let raw = session.downstream_session.to_h1_raw();
    let framing = admit::framing(&header.headers);
    let host = match header.headers.get(header::HOST) {
        Some(value) => {
            let host = host_name(value.as_bytes());
            Some(host.ok_or_else(|| S3Error::bad_request("the Host header is malformed"))?)
        }
        // HTTP/1.0
        None => None,
    };
    let target = target(&raw).unwrap_or_else(|| header.raw_path());
    let found = topology.region_for(host.as_deref()).ok_or_else(S3Error::no_region)?;
    let style = found.region.virtual_host_style;
    let request = s3::request::classify(&header.method, target, &header.headers, found.bucket, style)?;
    let object_length = object_length(&request, &header.headers, &framing);
    Ok(Route { region: found.region.clone(), request, framing, object_length })
}

/// A completion lists parts, a copy has no body, and signed chunks are longer than what they hold.
fn object_length(request: &S3Request, headers: &HeaderMap, framing: &Framing) -> Option<u64> {
    if request.operation != Operation::Write {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(decoded) = text("x-amz-decoded-content-length") {
        return decoded.parse().ok();
    }
    let is_encoded = text("x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-"))
        || text("content-encoding").is_some_and(|coding| coding.contains("aws-chunked"));
    match framing {
        Framing::Length(length) if !is_encoded => Some(*length),
        _ => None,
    }
}

/// The request target as it came: HTTP types cut it off at a `#`.
fn target(raw: &[u8]) -> Option<&[u8]> {
    let line = raw.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty())?;
    let start = line.iter().position(|byte| *byte == b' ')? + 1;
    let end = line.iter().rposition(|byte| *byte == b' ')?;
    line.get(start..end)
}

impl Route {
    /// The clusters to ask, in order: for an object its home, then backwards; for buckets all.
    pub fn clusters_to_read(&self) -> Vec<Arc<Cluster>> {
        match self.request.operation {
            Operation::BucketRead { .. } => self.region.clusters.clone(),
            _ => {
                let most = if self.request.home_only { 1 } else { usize::MAX };
                let home = self.region.home(&self.request.ring_key);
                self.region.chain(home).take(most).cloned().collect()
            }
        }
    }

    /// Whether the request copies an object whose home is another cluster than the target's.
    pub fn copies_between_clusters(&self) -> bool {
        let source = self.request.copy_source.as_ref();
        source.is_some_and(|source| {
            self.region.home(&source.ring_key) != self.region.home(&self.request.ring_key)
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method};

    use super::*;
    use crate::config::VirtualHostStyle;

    #[test]
    fn the_target_is_taken_from_the_request_line_as_it_came() {
        assert_eq!(target(b"PUT /b/k#x?y HTTP/1.1\r\nHost: a\r\n\r\n"), Some(b"/b/k#x?y".as_slice()));
        assert_eq!(target(b"GET / HTTP/1.1\r\n\r\n"), Some(b"/".as_slice()));
        assert_eq!(target(b"garbage"), None);
    }

    #[test]
    fn the_length_of_an_object_is_not_always_that_of_the_body() {
        let of = |method: &str, target: &str, headers: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let style = VirtualHostStyle::default();
            let request = s3::request::classify(&method, target.as_bytes(), &headers, None, style).unwrap();
            object_length(&request, &headers, &admit::framing(&headers))
        };
        let length = ("content-length", "390");
        assert_eq!(of("PUT", "/b/k", &[length]), Some(390));
        assert_eq!(of("PUT", "/b/k", &[("transfer-encoding", "chunked")]), None);
        assert_eq!(of("PUT", "/b/k", &[length, ("x-amz-decoded-content-length", "300")]), Some(300));
        let signed = ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        assert_eq!(of("PUT", "/b/k", &[length, signed]), None);
        assert_eq!(of("PUT", "/b/k", &[length, ("content-encoding", "gzip,aws-chunked")]), None);
        assert_eq!(of("PUT", "/b/k", &[("content-length", "0"), ("x-amz-copy-source", "/b/a")]), None);
        assert_eq!(of("POST", "/b/k?uploadId=1", &[length]), None);
    }
}

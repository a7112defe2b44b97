//! Heads as they are passed on: hop-by-hop headers removed, framing restored, ours added.
//!
//! The client's signature covers headers and query, so everything else stays as it came.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{s3::target::RawTarget, upstream::Framing};

const HOP_BY_HOP: [HeaderName; 5] =
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE];
const KEEP_ALIVE: &str = "keep-alive";
const PROXY: &str = "proxy-";
/// Never removed because Connection names them: they delimit and address the message.
const ESSENTIAL: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

type Extra = [(HeaderName, HeaderValue)];

/// An absolute target as storages are asked for it (RFC 9112, 3.2.1); `None` where it has that form.
pub fn origin_form(target: &[u8]) -> Option<Vec<u8>> {
    let parts = RawTarget::parse(target).ok()?;
    parts.authority?;
    let path = if parts.path.is_empty() { b"/" } else { parts.path };
    Some(match parts.query {
        [] => path.to_vec(),
        query => [path, b"?", query].concat(),
    })
}

/// The head for backends, with the method that they are to see.
pub fn for_backends(
    client: &RequestHeader,
    method: Method,
    framing: Framing,
    extra: &Extra,
    request_id: &str,
) -> Result<RequestHeader> {
    let mut head = client.clone();
    head.set_version(Version::HTTP_11);
    head.set_method(method);
    for name in hop_by_hop(&head.headers) {
        head.remove_header(&name);
    }
    // The gateway answers it; a backend's 100 would be taken for nothing but noise.
    head.remove_header(&header::EXPECT);
    match framing {
        Framing::Chunked => head.insert_header(header::TRANSFER_ENCODING, "chunked")?,
        // The client's own length may announce a body, which is not passed on with a read.
        Framing::Length(0)
            if head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0") =>
        {
            head.remove_header(&header::CONTENT_LENGTH);
        }
        // Of chunks that were read whole.
        Framing::Length(length) if length > 0 && !head.headers.contains_key(header::CONTENT_LENGTH) => {
            head.insert_header(header::CONTENT_LENGTH, length)?;
        }
        Framing::Length(_) => {}
    }
    for (name, value) in extra {
        if !head.headers.contains_key(name) {
            head.insert_header(name.clone(), value.clone())?;
        }
    }
    head.insert_header("X-Akubra-Request-Id", request_id)?;
    Ok(head)
}

/// The head for the client. `length` is the body's length where all of it is here.
pub fn for_client(
    mut head: ResponseHeader,
    length: Option<usize>,
    extra: &Extra,
    request_id: &str,
    client: &RequestHeader,
) -> Result<ResponseHeader> {
    head.set_version(Version::HTTP_11);
    for name in hop_by_hop(&head.headers) {
        head.remove_header(&name);
    }
    let bodiless = client.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    if !bodiless && !head.headers.contains_key(header::CONTENT_LENGTH) {
        match length {
            Some(length) => head.insert_header(header::CONTENT_LENGTH, length)?,
            // HTTP/1.0 knows no chunks: there the connection's end delimits the body.
            None if client.version >= Version::HTTP_11 => {
                head.insert_header(header::TRANSFER_ENCODING, "chunked")?
            }
            None => {}
        }
    }
    add_ours(&mut head, extra, request_id)?;
    Ok(head)
}

/// What every answer carries.
pub fn add_ours(head: &mut ResponseHeader, extra: &Extra, request_id: &str) -> Result<()> {
    for (name, value) in extra {
        if !head.headers.contains_key(name) {
            head.insert_header(name.clone(), value.clone())?;
        }
    }
    if !head.headers.contains_key("x-amz-request-id") {
        head.insert_header("x-amz-request-id", request_id)?;
    }
    head.insert_header("x-akubra-request-id", request_id)
}

/// Names of the hop-by-hop headers that are present, those that Connection names included (RFC 9110, 7.6.1).
fn hop_by_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse::<HeaderName>().ok())
        .filter(|name| !ESSENTIAL.contains(name));
    let own = headers.keys().filter(|name| {
        HOP_BY_HOP.contains(name) || name.as_str() == KEEP_ALIVE || name.as_str().starts_with(PROXY)
    });
    own.cloned().chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut head = RequestHeader::build("PUT", b"/b/k?x=1", None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn hop_by_hop_headers_go_and_all_others_stay() {
        let client = request(&[
            ("Host", "b.example"),
            ("Connection", "close, X-Hop, Content-Length, Host"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "secret"),
            ("TE", "trailers"),
            ("Upgrade", "websocket"),
            ("Expect", "100-continue"),
            ("Content-Length", "5"),
            ("Authorization", "AWS4-HMAC-SHA256 ..."),
            ("x-amz-meta-a", "b"),
        ]);
        let head = for_backends(&client, Method::PUT, Framing::Length(5), &[], "ID").unwrap();
        let mut names: Vec<_> = head.headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["authorization", "content-length", "host", "x-akubra-request-id", "x-amz-meta-a"]);
        assert_eq!(head.raw_path(), b"/b/k?x=1");
    }

    #[test]
    fn an_absolute_target_is_asked_for_in_origin_form() {
        let cases: [(&[u8], &[u8]); 3] =
            [(b"http://h/b/k?x=1", b"/b/k?x=1"), (b"http://h", b"/"), (b"http://h:1?x", b"/?x")];
        for (absolute, origin) in cases {
            assert_eq!(origin_form(absolute).as_deref(), Some(origin));
        }
        assert_eq!((origin_form(b"/b/k"), origin_form(b"*")), (None, None));
    }

    #[test]
    fn extra_headers_are_added_only_where_absent() {
        let extra = [
            (HeaderName::from_static("cache-control"), HeaderValue::from_static("public")),
            (HeaderName::from_static("x-akubra-version"), HeaderValue::from_static("1")),
        ];
        let client = request(&[("Cache-Control", "private")]);
        let head = for_backends(&client, Method::PUT, Framing::Chunked, &extra, "ID").unwrap();
        assert_eq!(head.headers["cache-control"], "private");
        assert_eq!(head.headers["x-akubra-version"], "1");
        assert_eq!(head.headers["transfer-encoding"], "chunked");
    }

    #[test]
    fn an_answer_without_length_is_framed_again() {
        let backend = ResponseHeader::build(200, None).unwrap();
        let client = request(&[]);
        let whole = for_client(backend.clone(), Some(7), &[], "ID", &client).unwrap();
        assert_eq!(whole.headers["content-length"], "7");
        let streamed = for_client(backend, None, &[], "ID", &client).unwrap();
        assert_eq!(streamed.headers["transfer-encoding"], "chunked");
        assert_eq!(streamed.headers["x-amz-request-id"], "ID");
    }
}

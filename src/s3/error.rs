//! S3's XML error answers: those that the gateway makes, and how to recognise those of backends.
//!
//! Clients decide by `Code` what to do next, so every refusal of the gateway's own carries one that S3 tools
//! know where there is one. Documents of backends are looked at with a scanner rather than an XML parser: it
//! sees only a first piece of a streamed body, and must answer cheaply and never fail.

use std::fmt::Write;

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

    /// 400 for a request that is malformed in a way no other code names.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    /// 400 for a request target that cannot be parsed.
    pub fn invalid_uri(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidURI", message)
    }

    /// 400 for a header or query parameter with a value that makes no sense.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    /// 404 for a Host that belongs to no region.
    pub fn no_region() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchRegion", "No region found for this domain.")
    }

    /// 404 for an object that no cluster has.
    pub fn no_such_key() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
        )
    }

    /// 408 for a client that does not send its request.
    pub fn request_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeout",
            "The request was not read within the timeout period.",
        )
    }

    /// 413 for a body over `BodyMaxSize`, in bytes.
    pub fn entity_too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "EntityTooLarge",
            format!("The request body exceeds the maximum of {limit} bytes."),
        )
    }

    /// 431 for a request head over the limit.
    pub fn headers_too_large() -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "RequestHeaderSectionTooLarge",
            "The request header and query parameters exceed the maximum allowed size.",
        )
    }

    /// 500 for what is our own fault.
    pub fn internal_error(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 501 for an operation that this gateway does not offer.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// 501 for ListObjects and its like in a region of several clusters.
    pub fn listing_not_merged() -> Self {
        Self::not_implemented("listing over several clusters is not merged yet")
    }

    /// 501 for CopyObject and UploadPartCopy between clusters.
    pub fn copy_between_clusters() -> Self {
        Self::not_implemented("the source of the copy lives on another cluster")
    }

    /// 501 for a browser's form upload.
    pub fn form_post() -> Self {
        Self::not_implemented("uploads by HTML form are not supported")
    }

    /// 503 when no backend gave an answer that could be passed on.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// 503 over `MaxConcurrentRequests`; to be sent with `Retry-After`.
    pub fn slow_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.")
    }

    /// The XML document. `resource` and `request_id` may hold anything: they are escaped, and what XML 1.0 cannot
    /// carry is replaced by U+FFFD.
    pub fn to_xml(&self, resource: &str, request_id: &str) -> Bytes {
        let mut xml = String::with_capacity(256 + self.message.len() + resource.len());
        xml.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
        for (name, text) in [
            ("Code", self.code),
            ("Message", self.message.as_str()),
            ("Resource", resource),
            ("RequestId", request_id),
        ] {
            // Writing to a String cannot fail.
            write!(xml, "<{name}>{}</{name}>", Escaped(text)).unwrap_or_default();
        }
        xml.push_str("</Error>");
        Bytes::from(xml)
    }
}

/// Text as XML 1.0 character data.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                // A raw carriage return would be read as a line feed.
                '\r' => f.write_str("&#13;")?,
                '\t' | '\n' => f.write_char(c)?,
                '\0'..' ' | '\u{fffe}' | '\u{ffff}' => f.write_char(char::REPLACEMENT_CHARACTER)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a body is an `<Error>` document. CopyObject, UploadPartCopy and CompleteMultipartUpload may send one
/// under a status of 200, after blanks that keep the connection alive. A first piece of the body is enough.
pub fn body_is_error(body: &[u8]) -> bool {
    after_error_tag(body).is_some()
}

/// The `Code` of an S3 error document, such as `NoSuchKey`; `None` when the body is something else.
pub fn error_code(body: &[u8]) -> Option<&str> {
    let inside = after_error_tag(body)?;
    let mut rest = inside;
    while let Some(at) = find(rest, b"<Code") {
        rest = &rest[at + b"<Code".len()..];
        if let Some(text) = tag_end(rest) {
            let code = std::str::from_utf8(&text[..find(text, b"<")?]).ok()?.trim();
            let is_name = !code.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
            return is_name.then_some(code);
        }
    }
    None
}

/// What follows the opening tag of the root element, if that is `Error`.
fn after_error_tag(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    loop {
        rest = rest.trim_ascii_start();
        // Prolog: declaration, comments, document type.
        let end: &[u8] = match rest {
            [b'<', b'?', ..] => b"?>",
            [b'<', b'!', b'-', b'-', ..] => b"-->",
            [b'<', b'!', ..] => b">",
            _ => return tag_end(rest.strip_prefix(b"<Error")?),
        };
        rest = &rest[find(rest, end)? + end.len()..];
    }
}

/// What follows a tag whose name has just been read; `None` when the name goes on.
fn tag_end(rest: &[u8]) -> Option<&[u8]> {
    let (first, _) = rest.split_first()?;
    (*first == b'>' || *first == b'/' || first.is_ascii_whitespace())
        .then(|| find(rest, b">").map(|at| &rest[at + 1..]))
        .flatten()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_document_has_the_form_of_s3() {
        let xml = S3Error::no_such_key().to_xml("/b/k", "id-1");
        assert_eq!(
            std::str::from_utf8(&xml).unwrap(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>\
             <Message>The specified key does not exist.</Message><Resource>/b/k</Resource>\
             <RequestId>id-1</RequestId></Error>"
        );
    }

    #[test]
    fn what_xml_cannot_carry_is_escaped_or_replaced() {
        for (raw, written) in [
            ("</Resource><x a='1'>&\"", "&lt;/Resource&gt;&lt;x a=&apos;1&apos;&gt;&amp;&quot;"),
            ("a\0b\x1b\x0b", "a\u{fffd}b\u{fffd}\u{fffd}"),
            ("a\tb\nc\rd", "a\tb\nc&#13;d"),
            ("\u{fffe}\u{ffff}\u{1f600}ł\u{7f}", "\u{fffd}\u{fffd}\u{1f600}ł\u{7f}"),
            ("]]>", "]]&gt;"),
            (&String::from_utf8_lossy(b"/b/\xff"), "/b/\u{fffd}"),
        ] {
            assert_eq!(Escaped(raw).to_string(), written);
        }
    }

    #[test]
    fn the_code_of_an_error_document_is_found() {
        for (body, code) in [
            ("<Error><Code>NoSuchKey</Code></Error>", Some("NoSuchKey")),
            ("<?xml version='1.0'?>\n<Error><Code>NoSuchKey</Code>", Some("NoSuchKey")),
            ("\u{feff} \n<!-- a > b --><Error xmlns=\"x\"><Code >\n Slow \n</Code>", Some("Slow")),
            ("<!DOCTYPE Error><Error><Message>m</Message><Code>A</Code></Error>", Some("A")),
            ("<Error><CodeX>A</CodeX><Code>B</Code></Error>", Some("B")),
            ("<Error><Code></Code></Error>", None),
            ("<Error><Code>NoSuch", None),
            ("<Error><Code>a b</Code></Error>", None),
            ("<Error/>", None),
            ("<Errors><Error><Code>A</Code></Error></Errors>", None),
            ("<DeleteResult><Error><Code>A</Code></Error></DeleteResult>", None),
            ("NoSuchKey", None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()), code, "{body}");
        }
    }

    #[test]
    fn an_error_under_a_good_status_is_recognised() {
        for (body, expected) in [
            ("<?xml version=\"1.0\"?>   \n   <Error><Code>InternalError</Code></Error>", true),
            ("   \n<Error>", true),
            ("<Error/>", true),
            ("<?xml version=\"1.0\"?><CopyObjectResult></CopyObjectResult>", false),
            ("<ErrorLog>", false),
            ("<Error", false),
            ("<?xml", false),
            ("text <Error>", false),
            ("", false),
        ] {
            assert_eq!(body_is_error(body.as_bytes()), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn our_own_documents_are_recognised(resource: String, id: String) {
            let xml = S3Error::slow_down().to_xml(&resource, &id);
            prop_assert_eq!(error_code(&xml), Some("SlowDown"));
        }

        #[test]
        fn no_body_panics(body in "(<|>|/|!|-|\\?|Error|Code| |x){0,40}", cut in 0usize..100) {
            let body = &body.as_bytes()[..cut.min(body.len())];
            prop_assert!(error_code(body).is_none() || body_is_error(body));
        }
    }
}

//! Heads of requests: targets that mean an object's bytes and no others, conditions, and what an object brings along.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, header};
use md5::Digest;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use pingora_http::{IntoCaseHeaderName, RequestHeader};

use super::site::Site;
use crate::{
    journal::Object,
    sync::{Held, Md5},
    upstream::Cause,
};

/// As SigV4 has it: all but unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The head of a request for an object; `query` is encoded, or empty.
pub fn head(site: &Site, method: Method, object: &Object, query: &str) -> Result<RequestHeader, Cause> {
    let (bucket, key) = (percent_encode(&object.bucket, ENCODED), percent_encode(&object.key, IN_PATH));
    let mut target = format!("/{bucket}/{key}");
    if !query.is_empty() {
        target = format!("{target}?{query}");
    }
    let mut head =
        RequestHeader::build(method, target.as_bytes(), Some(16)).map_err(|error| unsendable(&error))?;
    set(&mut head, header::HOST, site.authority())?;
    set(&mut head, header::USER_AGENT, concat!("akubra/", env!("CARGO_PKG_VERSION")))?;
    Ok(head)
}

pub fn set(
    head: &mut RequestHeader,
    name: impl IntoCaseHeaderName,
    value: impl AsRef<str>,
) -> Result<(), Cause> {
    let value = HeaderValue::from_bytes(value.as_ref().as_bytes())
        .map_err(|_| Cause::Unsendable("a header's value holds forbidden bytes".into()))?;
    head.insert_header(name, value).map_err(|error| unsendable(&error))
}

fn unsendable(error: &pingora_error::Error) -> Cause {
    Cause::Unsendable(error.etype().as_str().to_owned())
}

/// A name or a value in a query.
pub fn encoded(text: &str) -> String {
    percent_encode(text.as_bytes(), ENCODED).to_string()
}

/// What makes the object beside its bytes.
pub fn describe(head: &mut RequestHeader, held: &Held, tags: Option<&str>) -> Result<(), Cause> {
    for (name, value) in &held.metadata {
        set(head, name.clone(), value)?;
    }
    match tags {
        Some(tags) => set(head, "x-amz-tagging", tags),
        None => Ok(()),
    }
}

/// An ETag as headers have it; one that is weak has kept its quotes.
pub fn quoted(etag: &str) -> String {
    if etag.contains('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

pub fn unquoted(etag: &str) -> String {
    let inside = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inside.unwrap_or(etag).to_owned()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes))
}

pub fn content_md5(md5: &Md5) -> String {
    STANDARD.encode(md5)
}

pub fn md5(bytes: &[u8]) -> Md5 {
    md5::Md5::digest(bytes).into()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_lose_and_get_quotes() {
        for (header, etag) in [("\"abc\"", "abc"), ("abc", "abc"), ("W/\"x\"", "W/\"x\""), ("\"", "\"")] {
            assert_eq!(unquoted(header), etag);
        }
        assert_eq!((quoted("abc").as_str(), quoted("W/\"x\"").as_str()), ("\"abc\"", "W/\"x\""));
    }

    #[test]
    fn what_is_not_unreserved_is_encoded() {
        assert_eq!(encoded("a/b c+%é~"), "a%2Fb%20c%2B%25%C3%A9~");
        assert_eq!(percent_encode(b"a//../ \n\xff'", IN_PATH).to_string(), "a//../%20%0A%FF%27");
    }
}

//! From the answer to HEAD to what a backend holds.

use chrono::DateTime;
use http::{HeaderMap, HeaderName, StatusCode, header::CONTENT_TYPE};

use super::{request::unquoted, site::Reply};
use crate::sync::{Held, Md5, State};

/// Headers that belong to an object beside `x-amz-meta-*`, sorted.
const CONTENT: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];
const NO_TYPE: &str = "binary/octet-stream";
const META: &str = "x-amz-meta-";

pub fn state(url: &str, reply: &Reply, object_version: Option<&HeaderName>) -> State {
    match reply.status {
        StatusCode::NOT_FOUND => State::Absent,
        StatusCode::OK => {
            // A client may have written it. That other headers are not there is no object's fault.
            let Some(metadata) = metadata(&reply.headers) else {
                return State::Refused(format!("{url}: its answer to HEAD has metadata that is no text"));
            };
            match held(reply, metadata, object_version) {
                Ok(held) => State::Present(held),
                Err(why) => State::Unknown(format!("{url}: its answer to HEAD has {why}")),
            }
        }
        status => State::Unknown(format!("{url}: {} to HEAD", status.as_u16())),
    }
}

fn held(
    reply: &Reply,
    metadata: Vec<(String, String)>,
    object_version: Option<&HeaderName>,
) -> Result<Held, &'static str> {
    let etag = unquoted(reply.header("etag").ok_or("no ETag")?);
    let modified = reply.header("last-modified").ok_or("no Last-Modified")?;
    let modified = DateTime::parse_from_rfc2822(modified).map_err(|_| "no readable Last-Modified")?;
    let length =
        reply.header("content-length").and_then(|text| text.parse().ok()).ok_or("no Content-Length")?;
    Ok(Held {
        version: reply.header("x-amz-version-id").map(str::to_owned),
        modified: modified.timestamp_millis(),
        length,
        object_version: object_version.and_then(|name| reply.header(name.as_str())?.parse().ok()),
        md5: plain_md5(&etag, &reply.headers),
        metadata,
        etag,
    })
}

/// The MD5 that an ETag is, where it is one: not that of parts, nor of an object that is encrypted with a key.
pub fn plain_md5(etag: &str, headers: &HeaderMap) -> Option<Md5> {
    let kms = headers.get("x-amz-server-side-encryption").is_some_and(|kind| kind.as_bytes() != b"AES256");
    if kms || headers.contains_key("x-amz-server-side-encryption-customer-algorithm") || etag.len() != 32 {
        return None;
    }
    let digits: Option<Vec<u8>> = etag.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits?;
    Some(std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1]))
}

/// Names in lower case, sorted; what stands several times is one value, as S3 has it. An object that was written without
/// a type has S3's: some storages say that, some say nothing. `None` = not UTF-8.
pub fn metadata(headers: &HeaderMap) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    for name in headers.keys().map(HeaderName::as_str) {
        if CONTENT.contains(&name) || name.starts_with(META) {
            let values = headers.get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes()).ok());
            found.push((name.to_owned(), values.collect::<Option<Vec<_>>>()?.join(",")));
        }
    }
    if !headers.contains_key(CONTENT_TYPE) {
        found.push((CONTENT_TYPE.as_str().to_owned(), NO_TYPE.to_owned()));
    }
    found.sort_unstable();
    Some(found)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn reply(status: u16, headers: &[(&'static str, &str)]) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Reply { status: StatusCode::from_u16(status).unwrap(), headers: map, body: Bytes::new() }
    }

    #[test]
    fn an_answer_says_what_is_held() {
        let name = HeaderName::from_static("x-amz-meta-version");
        let quoted = format!("\"{MD5}\"");
        let headers = [
            ("etag", quoted.as_str()),
            ("last-modified", "Fri, 24 May 2013 00:00:01 GMT"),
            ("content-length", "0"),
            ("x-amz-meta-version", "7"),
            ("x-amz-version-id", "v1"),
            ("content-type", "text/plain"),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-a", "zażółć"),
            ("x-amz-storage-class", "GLACIER"),
            ("server", "s"),
        ];
        let State::Present(held) = state("u", &reply(200, &headers), Some(&name)) else { panic!() };
        assert_eq!((held.etag.as_str(), held.version.as_deref()), (MD5, Some("v1")));
        assert_eq!((held.modified, held.length, held.object_version), (1_369_353_601_000, 0, Some(7)));
        assert_eq!(held.md5.map(|md5| super::super::request::hex(&md5)).as_deref(), Some(MD5));
        let metadata =
            [("content-type", "text/plain"), ("x-amz-meta-a", "1,zażółć"), ("x-amz-meta-version", "7")];
        assert_eq!(held.metadata, metadata.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let typeless = super::metadata(&reply(200, &headers[..3]).headers).unwrap();
        assert_eq!(typeless, [("content-type".to_owned(), NO_TYPE.to_owned())]);
        for (index, missing) in [(0, "no ETag"), (1, "no Last-Modified"), (2, "no Content-Length")] {
            let mut headers = headers.to_vec();
            headers.remove(index);
            let State::Unknown(why) = state("u", &reply(200, &headers), None) else { panic!("{missing}") };
            assert!(why.contains(missing), "{why}");
        }
        let mut unreadable = reply(200, &headers);
        unreadable.headers.insert("x-amz-meta-a", http::HeaderValue::from_bytes(b"\xff").unwrap());
        let State::Refused(why) = state("u", &unreadable, None) else { panic!("it is no text") };
        assert!(why.contains("metadata that is no text"), "{why}");
    }

    #[test]
    fn only_404_means_that_there_is_nothing() {
        assert_eq!(state("u", &reply(404, &[("x-amz-delete-marker", "true")]), None), State::Absent);
        for status in [204, 206, 301, 304, 307, 405, 410, 429, 500, 501, 503] {
            assert!(matches!(state("u", &reply(status, &[]), None), State::Unknown(_)), "{status}");
        }
    }

    #[test]
    fn an_etag_is_an_md5_only_if_it_can_be() {
        let is = |etag: &str, headers: &[(&'static str, &str)]| {
            plain_md5(etag, &reply(200, headers).headers).is_some()
        };
        assert!(is(MD5, &[]) && is(MD5, &[("x-amz-server-side-encryption", "AES256")]));
        assert!(!is(MD5, &[("x-amz-server-side-encryption", "aws:kms")]));
        assert!(!is(MD5, &[("x-amz-server-side-encryption-customer-algorithm", "AES256")]));
        assert!(!is(&format!("{MD5}-1"), &[]) && !is(&MD5.replace('d', "g"), &[]) && !is("é", &[]));
    }
}

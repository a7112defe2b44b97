//! The request target: from the bytes of the request line to the decoded path that the ring hashes.
//!
//! The path is decoded exactly once and not normalised in any other way, as the original's HTTP server did:
//! every deviation would send objects to another home than where they are. What its server refused (bad
//! escapes, control characters, targets without a leading slash) is refused here too.

use super::S3Error;

/// A request target (RFC 9112 section 3.2) in parts, none of them decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawTarget<'a> {
    /// `host[:port]` of an absolute-form target, which by RFC 9112 section 3.2.2 replaces the Host header.
    pub authority: Option<&'a [u8]>,
    /// Everything before the first `?`: begins with a slash, or is empty (absolute form only), or is `*`.
    pub path: &'a [u8],
    pub query: &'a [u8],
}

impl<'a> RawTarget<'a> {
    /// Takes a target apart; `InvalidURI` when it has none of the forms of a request to an origin server.
    pub fn parse(raw: &'a [u8]) -> Result<RawTarget<'a>, S3Error> {
        if raw.iter().any(u8::is_ascii_control) {
            return Err(S3Error::invalid_uri("the request target contains a control character"));
        }
        let (authority, rest) = match raw {
            [b'/', ..] => (None, raw),
            b"*" => (None, raw),
            _ => split_authority(raw)
                .ok_or_else(|| S3Error::invalid_uri("the request target has no leading slash"))?,
        };
        let (path, query) = split_once(rest, b'?');
        Ok(RawTarget { authority, path, query: query.unwrap_or_default() })
    }

    /// The percent-decoded path: the key that the ring hashes, in path style.
    pub fn decoded_path(&self) -> Result<Vec<u8>, S3Error> {
        percent_decode(self.path).ok_or_else(|| S3Error::invalid_uri("the path has a bad percent escape"))
    }
}

/// `http://host:port/path` into `host:port` and `/path`.
fn split_authority(raw: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let colon = raw.iter().position(|&b| b == b':')?;
    let (scheme, rest) = raw.split_at(colon);
    let scheme_is_good = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    let rest = rest.strip_prefix(b"://").filter(|_| scheme_is_good)?;
    let end = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Some(((!authority.is_empty()).then_some(authority), path))
}

/// Splits at the first `separator`, which belongs to neither part.
pub(super) fn split_once(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|&b| b == separator) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Decodes every `%XX` once and nothing else; `None` on a bad escape (RFC 3986 section 2.1).
pub(super) fn percent_decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        decoded.push(match first {
            b'%' => {
                let (escape, tail) = tail.split_at_checked(2)?;
                rest = tail;
                hex_digit(escape[0])? << 4 | hex_digit(escape[1])?
            }
            byte => *byte,
        });
    }
    Some(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A path without the slashes at both ends.
fn trim_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().position(|&b| b != b'/').unwrap_or(0);
    &path[start..end]
}

/// Whether a decoded path is about a bucket (or the service): it has at most one segment.
pub fn is_bucket_path(path: &[u8]) -> bool {
    !trim_slashes(path).contains(&b'/')
}

/// Bucket and key of a decoded path. Both are empty for the service, the key is `None` for a bucket path.
///
/// Leading slashes belong to neither; after the slash that ends the bucket everything is key, so that the key
/// of `/b//k` is `/k` and that of `/b/k/` is `k/`.
pub fn bucket_and_key(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    if is_bucket_path(path) {
        return (trim_slashes(path), None);
    }
    let start = path.iter().position(|&b| b != b'/').unwrap_or(0);
    split_once(&path[start..], b'/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topology::fixture::{hex, vectors};

    #[test]
    fn targets_decode_as_in_go() {
        let vectors = vectors();
        assert_eq!(vectors.targets.len(), 60);
        for vector in &vectors.targets {
            let expected = match (&vector.path, &vector.path_hex) {
                (Some(path), _) => Some(path.clone().into_bytes()),
                (None, Some(path)) => Some(hex(path)),
                (None, None) => None,
            };
            let decoded = RawTarget::parse(vector.target.as_bytes()).and_then(|target| target.decoded_path());
            assert_eq!(decoded.ok(), expected, "{:?}", vector.target);
        }
    }

    #[test]
    fn bucket_paths_are_those_of_the_original() {
        for (path, expected) in &vectors().is_bucket_path {
            assert_eq!(is_bucket_path(path.as_bytes()), *expected, "{path:?}");
        }
    }

    #[test]
    fn the_authority_of_an_absolute_target_is_kept_apart() {
        for (raw, authority, path, query) in [
            ("http://h:80/b/k?q", Some("h:80"), "/b/k", "q"),
            ("http://h?x", Some("h"), "", "x"),
            ("s3+x://h", Some("h"), "", ""),
            ("http:///b/k", None, "/b/k", ""),
            ("//h/k", None, "//h/k", ""),
            ("/http://h/k?a?b", None, "/http://h/k", "a?b"),
        ] {
            let target = RawTarget::parse(raw.as_bytes()).unwrap();
            let expected = RawTarget {
                authority: authority.map(str::as_bytes),
                path: path.as_bytes(),
                query: query.as_bytes(),
            };
            assert_eq!(target, expected, "{raw}");
        }
        for raw in ["1http://h/", "://h/", "http:/b/k", "host:443", "**", "*?x"] {
            assert!(RawTarget::parse(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    #[test]
    fn the_key_begins_after_one_slash() {
        for (path, bucket, key) in [
            ("/", "", None),
            ("/b//", "b", None),
            ("//b", "b", None),
            ("/b/k", "b", Some("k")),
            ("/b//k", "b", Some("/k")),
            ("/b/k/", "b", Some("k/")),
            ("//b/k", "b", Some("k")),
            ("/b/a//k", "b", Some("a//k")),
        ] {
            let expected = (bucket.as_bytes(), key.map(str::as_bytes));
            assert_eq!(bucket_and_key(path.as_bytes()), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(path: Vec<u8>) {
            let encoded: String = path.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decode(encoded.as_bytes()), Some(path));
        }
    }
}

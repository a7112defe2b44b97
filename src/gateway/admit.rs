//! What the gateway refuses before anything is asked of a backend (`spec`: requests refused by the gateway).
//!
//! Framing is checked on the raw bytes of the head: Pingora drops a Content-Length beside a Transfer-Encoding
//! before any hook sees it, and two servers that frame one request differently see two requests (RFC 9112, 11.2).

use http::{HeaderMap, Version, header};

use crate::{s3::S3Error, upstream::Framing};

/// Checks a request's framing and says how its body is delimited.
///
/// `raw` is the head as it came, `headers` what Pingora made of it.
pub fn framing(raw: &[u8], headers: &HeaderMap, version: Version) -> Result<Framing, S3Error> {
    let mut length = None;
    let mut chunked = false;
    for line in raw.split(|byte| *byte == b'\n').skip(1) {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(S3Error::bad_request("a header continues on a second line"));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        match line[..colon].to_ascii_lowercase().as_slice() {
            name if name.trim_ascii() != name => {
                return Err(S3Error::bad_request("a header's name has spaces around it"));
            }
            b"content-length" if length.is_some() => {
                return Err(S3Error::bad_request("more than one Content-Length"));
            }
            b"content-length" => length = Some(content_length(value)?),
            b"transfer-encoding" if chunked => {
                return Err(S3Error::bad_request("more than one Transfer-Encoding"));
            }
            b"transfer-encoding" if value.eq_ignore_ascii_case(b"chunked") => chunked = true,
            b"transfer-encoding" => {
                return Err(S3Error::bad_request("Transfer-Encoding is not chunked"));
            }
            _ => {}
        }
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(S3Error::bad_request("more than one Host"));
    }
    match (length, chunked) {
        (Some(_), true) => Err(S3Error::bad_request("both Content-Length and Transfer-Encoding")),
        (_, true) if version < Version::HTTP_11 => {
            Err(S3Error::bad_request("Transfer-Encoding in a request older than HTTP/1.1"))
        }
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// RFC 9110, 8.6: digits only; no sign, no list.
fn content_length(value: &[u8]) -> Result<u64, S3Error> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    number.ok_or_else(|| S3Error::bad_request("Content-Length is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str) -> Result<Framing, String> {
        framing(head.as_bytes(), &HeaderMap::new(), Version::HTTP_11).map_err(|error| error.message)
    }

    #[test]
    fn framing_that_is_clear_is_accepted() {
        assert_eq!(of("PUT /b/k HTTP/1.1\r\nContent-Length: 12\r\n\r\n"), Ok(Framing::Length(12)));
        assert_eq!(of("PUT /b/k HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"), Ok(Framing::Chunked));
        assert_eq!(of("GET /b/k HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Framing::Length(0)));
    }

    #[test]
    fn framing_that_two_servers_could_read_differently_is_refused() {
        let refused = [
            "Content-Length: 12\r\nContent-Length: 12\r\n",
            "Content-Length: 12\r\nContent-Length: 13\r\n",
            "Content-Length: 12, 12\r\n",
            "Content-Length: +12\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x10\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length : 12\r\n",
            "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
        ];
        for headers in refused {
            assert!(of(&format!("PUT /b/k HTTP/1.1\r\n{headers}\r\n")).is_err(), "{headers:?}");
        }
    }
}

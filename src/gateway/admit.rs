//! Whether a request's head may be served at all, decided on its bytes before any parser has touched them.
//!
//! Two servers that read one head differently see two requests (RFC 9112, 11.2), and Pingora's parser is
//! lenient: it takes bare LF for a line's end, drops a Content-Length beside a Transfer-Encoding and escapes what
//! does not belong into a target. So only what RFC 9112 allows a sender to write gets as far as that parser, and
//! of that only what leaves no doubt about where the message ends and whom it is for.

use std::ops::Range;

use http::{HeaderMap, StatusCode, header, uri::Authority};

use crate::{
    s3::{S3Error, target::RawTarget},
    topology::host_name,
    upstream::Framing,
};

/// Largest head. Beyond it a client is answered 431.
pub const MOST_BYTES: usize = 64 * 1024;
/// Most header lines, as many as Pingora's parser takes.
const MOST_HEADERS: usize = 256;

/// The look at one head while it arrives. Every byte is looked at once, however small the pieces.
#[derive(Debug, Default)]
pub struct Scan {
    /// Where the first line begins that has not been looked at.
    line: usize,
    /// Up to where that line has no end.
    searched: usize,
    lines: usize,
    /// Where the target stands, and the value of Host.
    target: Range<usize>,
    host: Option<Range<usize>>,
    old_version: bool,
    length: Option<u64>,
    chunked: bool,
}

/// A whole head.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// Length in bytes, with its empty line.
    pub length: usize,
    pub framing: Framing,
}

impl Scan {
    /// Looks at what has come of a head, of which the last call saw a part; `None` until all of it is here.
    pub fn look(&mut self, bytes: &[u8]) -> Result<Option<Whole>, S3Error> {
        if self.lines == 0 && bytes.first().is_some_and(|byte| !is_token(*byte)) {
            return Err(S3Error::bad_request("this is no HTTP/1.1 request"));
        }
        while let Some(end) = memchr::memchr(b'\n', bytes.get(self.searched..).unwrap_or_default()) {
            let end = self.searched + end;
            let Some(line) = bytes[self.line..end].strip_suffix(b"\r") else {
                return Err(S3Error::bad_request("a line ends in LF without CR"));
            };
            let start = std::mem::replace(&mut self.line, end + 1);
            self.searched = self.line;
            if self.line > MOST_BYTES {
                return Err(S3Error::headers_too_large());
            }
            match (self.lines, line) {
                (0, line) => self.request_line(line, start)?,
                (_, []) => return self.end(bytes).map(Some),
                (lines, _) if lines > MOST_HEADERS => return Err(S3Error::headers_too_large()),
                (_, line) => self.header(line, start)?,
            }
            self.lines += 1;
        }
        self.searched = bytes.len();
        match bytes.len() > MOST_BYTES {
            true => Err(S3Error::headers_too_large()),
            false => Ok(None),
        }
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), S3Error> {
        let malformed = || S3Error::bad_request("the request line is malformed");
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(malformed());
        };
        self.old_version = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
                return Err(S3Error::new(status, "InvalidRequest", "this server speaks HTTP/1.1"));
            }
            _ => return Err(malformed()),
        };
        if method.is_empty() || target.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(malformed());
        }
        if method == b"CONNECT" {
            return Err(S3Error::method_not_allowed());
        }
        let from = start + method.len() + 1;
        self.target = from..from + target.len();
        Ok(())
    }

    fn header(&mut self, line: &[u8], start: usize) -> Result<(), S3Error> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(S3Error::bad_request("a header continues on a second line"));
        }
        let colon =
            memchr::memchr(b':', line).ok_or_else(|| S3Error::bad_request("a header has no colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(S3Error::bad_request("a header's name has characters that do not belong there"));
        }
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(S3Error::bad_request("a header's value has a control character"));
        }
        // The lengths are told apart first: few headers are compared at all.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value, start + colon + 1),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value.trim_ascii()),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding(value.trim_ascii())
            }
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8], start: usize) -> Result<(), S3Error> {
        if self.host.is_some() {
            return Err(S3Error::bad_request("more than one Host"));
        }
        let blanks = value.len() - value.trim_ascii_start().len();
        self.host = Some(start + blanks..start + blanks + value.trim_ascii().len());
        match value.contains(&b'@') {
            true => Err(S3Error::bad_request("the Host header is malformed")),
            false => Ok(()),
        }
    }

    /// RFC 9110, 8.6: digits only; no sign, no list.
    fn content_length(&mut self, value: &[u8]) -> Result<(), S3Error> {
        if self.length.is_some() {
            return Err(S3Error::bad_request("more than one Content-Length"));
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        self.length = Some(number.ok_or_else(|| S3Error::bad_request("Content-Length is not a number"))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), S3Error> {
        if self.chunked {
            return Err(S3Error::bad_request("more than one Transfer-Encoding"));
        }
        self.chunked = value.eq_ignore_ascii_case(b"chunked");
        match self.chunked {
            true => Ok(()),
            false => Err(S3Error::bad_request("Transfer-Encoding is not chunked")),
        }
    }

    fn end(&self, bytes: &[u8]) -> Result<Whole, S3Error> {
        let host = self.host.clone().and_then(|host| bytes.get(host));
        if !self.old_version && host.is_none() {
            return Err(S3Error::bad_request("the Host header is missing"));
        }
        check_target(bytes.get(self.target.clone()).unwrap_or_default(), host)?;
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => {
                return Err(S3Error::bad_request("both Content-Length and Transfer-Encoding"));
            }
            (None, true) if self.old_version => {
                return Err(S3Error::bad_request("Transfer-Encoding in a request older than HTTP/1.1"));
            }
            (None, true) => Framing::Chunked,
            (length, false) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(Whole { length: self.line, framing })
    }
}

/// Takes targets of an origin server only. An absolute target counts instead of the Host (RFC 9112, 3.2.2), but
/// backends see the Host: they must be one.
fn check_target(target: &[u8], host: Option<&[u8]>) -> Result<(), S3Error> {
    let parts = RawTarget::parse(target)?;
    // Of what RFC 3986 does not allow, a URI of the `http` crate takes all but these.
    let odd = parts.path.iter().any(|byte| b"<>`".contains(byte))
        || parts.query.iter().any(|byte| b"<>\"".contains(byte));
    if odd || !target.is_ascii() && std::str::from_utf8(target).is_err() {
        return Err(S3Error::invalid_uri("the request target has characters that must be escaped"));
    }
    match (parts.authority, target) {
        (None, [b'/', ..] | b"*") => Ok(()),
        (None, _) => Err(S3Error::invalid_uri("the request target names no host")),
        (Some(authority), _) if Some(authority) != host => {
            Err(S3Error::bad_request("the request target names another host than the Host header"))
        }
        // Pingora takes only what both allow: the crate refuses a percent sign in a host, for one.
        (Some(authority), _) => {
            match host_name(authority).is_some() && Authority::try_from(authority).is_ok() {
                true => Ok(()),
                false => Err(S3Error::bad_request("the request target names no valid host")),
            }
        }
    }
}

/// RFC 9110, 5.6.2.
const fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// How a request that was admitted delimits its body, from the headers that Pingora made of its head.
pub fn framing(headers: &HeaderMap) -> Framing {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Framing::Chunked;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    Framing::Length(length.unwrap_or(0))
}

#[cfg(test)]
mod tests;

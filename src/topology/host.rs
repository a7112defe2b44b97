//! From a Host header to the name that chooses the region.
//!
//! The value comes from outside and decides where objects go, so whatever is not `host[:port]` as RFC 9110
//! section 7.2 has it is refused rather than guessed at: a Host that we and a backend read differently would
//! send a request to the wrong bucket.

/// Longest host in bytes (RFC 3986 section 3.2.2). The search for a domain costs its square, so it is bounded.
const LONGEST: usize = 255;

/// The lower-cased host of a raw Host header value, without port. IPv6 literals lose their brackets, as in
/// `Domains`. An empty value is legal (RFC 9112 section 3.2) and gives an empty name; `None` means malformed,
/// to be answered with 400.
pub fn host_name(raw: &[u8]) -> Option<String> {
    let value = std::str::from_utf8(raw).ok()?.trim_matches([' ', '\t']);
    let (host, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, port)
        }
        None => {
            let (host, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            if !host.bytes().all(is_reg_name) {
                return None;
            }
            (host, port)
        }
    };
    let port_is_good = match port.strip_prefix(':') {
        // RFC 3986 section 3.2.3 allows a colon with nothing behind it.
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 5,
        None => port.is_empty(),
    };
    (port_is_good && host.len() <= LONGEST).then(|| host.to_ascii_lowercase())
}

/// Bytes of a registered name (RFC 3986 section 3.2.2).
fn is_reg_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_port_goes_and_the_case_is_lowered() {
        for (raw, expected) in [
            ("S3.Example.com", "s3.example.com"),
            ("s3.example.com:8080", "s3.example.com"),
            (" s3.example.com\t", "s3.example.com"),
            ("s3.example.com:", "s3.example.com"),
            ("my_bucket.s3", "my_bucket.s3"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "::1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host_name(raw.as_bytes()).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        let cases: [&[u8]; 16] = [
            b"a b",
            b"a, b",
            b"a/b",
            b"user@host",
            b"host:80:80",
            b"host:http",
            b"host:123456",
            b"host:-1",
            b"::1",
            b"[::1",
            b"[::1]80",
            b"[::1]x:80",
            b"[bucket.s3.example.com]",
            b"h\0st",
            b"h\xffst",
            "krak\u{f3}w".as_bytes(),
        ];
        for raw in cases {
            assert_eq!(host_name(raw), None, "{raw:?}");
        }
        assert!(host_name(".".repeat(LONGEST).as_bytes()).is_some());
        assert!(host_name(".".repeat(LONGEST + 1).as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn no_value_panics(raw: Vec<u8>) {
            if let Some(name) = host_name(&raw) {
                prop_assert!(name.is_ascii());
                prop_assert!(!name.bytes().any(|b| b.is_ascii_uppercase()));
            }
        }
    }
}

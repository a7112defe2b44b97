//! Addresses: where to listen, where backends are, which domains a region answers to.
//!
//! Pure functions on text. Their errors never repeat the text: a URL may hold a password, and the
//! caller knows better what it may show.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{BackendUrl, Collector, Listen};

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("not an address to listen on; write :8080, 127.0.0.1:8080, [::1]:8080 or unix:/path")]
    Listen,
    #[error("the path of a unix socket must be absolute and shorter than 108 bytes")]
    UnixPath,
    #[error("not a URL of a backend; write http://host or http://host:port")]
    Url,
    #[error("https backends are not supported yet; write http://host or http://host:port")]
    Https,
    #[error("a backend's URL has no user or password; write http://host or http://host:port")]
    UserInfo,
    #[error("a backend's URL has no path or query; write http://host or http://host:port")]
    PathOrQuery,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("not a host name or IP address; write ASCII letters, digits, \"-\", \"_\" and dots between")]
    Host,
}

impl Listen {
    /// `:8080` is every IPv4 address, so that it works on hosts without IPv6 too.
    pub fn parse(text: &str) -> Result<Listen, AddressError> {
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            let fits = path.starts_with('/') && path.len() < 108 && !path.contains('\0');
            return if fits { Ok(Listen::Unix(PathBuf::from(path))) } else { Err(AddressError::UnixPath) };
        }
        let tcp = |ip: Ipv4Addr, port: &str| match parse_port(port) {
            Some(port) => Ok(Listen::Tcp(SocketAddr::new(IpAddr::V4(ip), port))),
            None => Err(AddressError::Listen),
        };
        match text.split_once(':') {
            Some(("", port)) => tcp(Ipv4Addr::UNSPECIFIED, port),
            Some(("localhost", port)) => tcp(Ipv4Addr::LOCALHOST, port),
            _ => text.parse().map(Listen::Tcp).map_err(|_| AddressError::Listen),
        }
    }

    /// Whether two listeners cannot be bound at the same time.
    pub fn conflicts_with(&self, other: &Listen) -> bool {
        match (self, other) {
            (Listen::Unix(a), Listen::Unix(b)) => a == b,
            (Listen::Tcp(a), Listen::Tcp(b)) => {
                let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() == b.port() && a.port() != 0 && covers
            }
            _ => false,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl BackendUrl {
    /// `http://host[:port]`, with at most a slash behind it.
    pub fn parse(text: &str) -> Result<BackendUrl, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Url)?;
        if scheme.eq_ignore_ascii_case("https") {
            return Err(AddressError::Https);
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(AddressError::Url);
        }
        if rest.contains('@') {
            return Err(AddressError::UserInfo);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(AddressError::PathOrQuery);
        }
        let (host, port) = split_port(authority).ok_or(AddressError::Url)?;
        let port = match port {
            None => 80,
            Some(port) => parse_port(port).filter(|port| *port != 0).ok_or(AddressError::Port)?,
        };
        let host = check_host(host)?;
        let url = text.strip_suffix('/').unwrap_or(text).to_owned();
        Ok(BackendUrl { url, host, port })
    }

    /// Host and port in a form that is the same for all spellings.
    pub fn endpoint(&self) -> (String, u16) {
        (self.host.to_ascii_lowercase(), self.port)
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Collector {
    /// `HOST:PORT`.
    pub fn parse(text: &str) -> Option<Collector> {
        let (host, port) = split_port(text)?;
        let port = parse_port(port?).filter(|port| *port != 0)?;
        Some(Collector { host: check_host(host).ok()?, port })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A region's domain, lower-cased: a host without a port.
pub fn parse_domain(text: &str) -> Result<String, AddressError> {
    match split_port(text) {
        Some((host, None)) if host.contains(':') => {
            Ok(format!("[{}]", check_host(host)?.to_ascii_lowercase()))
        }
        Some((host, None)) => Ok(check_host(host)?.to_ascii_lowercase()),
        _ => Err(AddressError::Host),
    }
}

/// Host and port as text; the brackets of an IPv6 address are gone.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return if port.is_empty() {
            Some((host, None))
        } else {
            Some((host, Some(port.strip_prefix(':')?)))
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

/// Only digits: Rust's own parser would also take a sign.
fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn check_host(host: &str) -> Result<String, AddressError> {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = host.parse::<Ipv6Addr>().is_ok() || (host.len() <= 253 && host.split('.').all(label));
    if valid { Ok(host.to_owned()) } else { Err(AddressError::Host) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listen_takes_tcp_and_unix_addresses() {
        let tcp = |text: &str| Ok(Listen::Tcp(text.parse().unwrap()));
        let unix = |text: &str| Ok(Listen::Unix(text.into()));
        let cases = [
            (":8080", tcp("0.0.0.0:8080")),
            ("0.0.0.0:8080", tcp("0.0.0.0:8080")),
            ("127.0.0.1:0", tcp("127.0.0.1:0")),
            ("localhost:80", tcp("127.0.0.1:80")),
            ("[::1]:8080", tcp("[::1]:8080")),
            ("/run/akubra.sock", unix("/run/akubra.sock")),
            ("unix:/run/akubra.sock", unix("/run/akubra.sock")),
            ("unix:run/akubra.sock", Err(AddressError::UnixPath)),
            ("", Err(AddressError::Listen)),
            (":", Err(AddressError::Listen)),
            (":+80", Err(AddressError::Listen)),
            ("8080", Err(AddressError::Listen)),
            (":65536", Err(AddressError::Listen)),
            ("example.com:80", Err(AddressError::Listen)),
        ];
        for (text, expected) in cases {
            assert_eq!(Listen::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn listeners_conflict_when_one_covers_the_other() {
        let cases = [
            (":80", "0.0.0.0:80", true),
            (":80", "127.0.0.1:80", true),
            ("[::]:80", ":80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            (":80", ":81", false),
            (":0", ":0", false),
            ("/a", "unix:/a", true),
            ("/a", ":80", false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(
                Listen::parse(a).unwrap().conflicts_with(&Listen::parse(b).unwrap()),
                expected,
                "{a} {b}"
            );
        }
    }

    #[test]
    fn backend_urls_are_http_host_and_port() {
        let good = [
            ("http://s3.internal", "http://s3.internal", "s3.internal", 80),
            ("http://s3.internal:9000/", "http://s3.internal:9000", "s3.internal", 9000),
            ("HTTP://S3_a:1", "HTTP://S3_a:1", "S3_a", 1),
            ("http://127.0.0.1:9001", "http://127.0.0.1:9001", "127.0.0.1", 9001),
            ("http://[::1]:9001", "http://[::1]:9001", "::1", 9001),
        ];
        for (text, url, host, port) in good {
            let expected = BackendUrl { url: url.into(), host: host.into(), port };
            assert_eq!(BackendUrl::parse(text), Ok(expected), "{text}");
        }
        let bad = [
            ("s3.internal:9000", AddressError::Url),
            ("ftp://s3", AddressError::Url),
            ("https://s3", AddressError::Https),
            ("http://user:pass@s3", AddressError::UserInfo),
            ("http://s3/path", AddressError::PathOrQuery),
            ("http://s3//", AddressError::PathOrQuery),
            ("http://s3?x", AddressError::PathOrQuery),
            ("http://s3:0", AddressError::Port),
            ("http://s3:", AddressError::Port),
            ("http://s3:99999", AddressError::Port),
            ("http://s3:1:2", AddressError::Url),
            ("http://", AddressError::Host),
            ("http://:80", AddressError::Host),
            ("http://a b", AddressError::Host),
            ("http://a..b", AddressError::Host),
            ("http://[zz]", AddressError::Url),
        ];
        for (text, expected) in bad {
            assert_eq!(BackendUrl::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn collectors_are_host_and_port() {
        for text in ["graphite.internal:2003", "10.0.0.1:1", "[::1]:2003"] {
            assert_eq!(Collector::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "graphite", "graphite:", ":2003", "graphite:0", "::1:2003", "http://a:1", "a b:1"] {
            assert_eq!(Collector::parse(text), None, "{text}");
        }
    }

    #[test]
    fn domains_are_hosts_in_lower_case() {
        let cases = [
            ("MyRegion.Internal", Ok("myregion.internal")),
            ("localhost", Ok("localhost")),
            ("10.0.0.1", Ok("10.0.0.1")),
            ("[::1]", Ok("[::1]")),
            ("a:80", Err(AddressError::Host)),
            ("*.internal", Err(AddressError::Host)),
            (".internal", Err(AddressError::Host)),
            ("", Err(AddressError::Host)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_domain(text), expected.map(str::to_owned), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "(?s).{0,40}", shaped in "(http://)?[\\[\\]a-z0-9:./@]{0,40}") {
            for text in [text, shaped] {
                drop((Listen::parse(&text), BackendUrl::parse(&text), parse_domain(&text)));
            }
        }
    }
}

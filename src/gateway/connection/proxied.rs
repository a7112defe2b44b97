//! The PROXY protocol, versions 1 and 2: a proxy's word, before the first request, on whom it speaks for.
//!
//! Both are small and fixed (haproxy.org, proxy-protocol.txt, 2.1 and 2.2), so they are read here. What is not of
//! them to the letter is refused: whoever may speak it speaks for others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_PREFIX: &[u8] = b"PROXY ";
/// With its line end.
const V1_LONGEST: usize = 107;
/// Signature, version and command, family, and the length of what follows.
const V2_HEAD: usize = 16;
/// Addresses and extensions together; a few hundred bytes in practice.
const V2_LONGEST: usize = 4096;

/// Why bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header")]
pub struct NotProxied;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// In bytes.
    pub length: usize,
    /// `None` where the proxy speaks for itself (its health checks) or does not know.
    pub client: Option<SocketAddr>,
}

/// Reads the header that `bytes` begin with; `None` until all of it is here.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, NotProxied> {
    let begins_with = |what: &[u8]| {
        let known = bytes.len().min(what.len());
        bytes[..known] == what[..known]
    };
    match () {
        () if begins_with(SIGNATURE) => version_2(bytes),
        () if begins_with(V1_PREFIX) => version_1(bytes),
        () => Err(NotProxied),
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<Header>, NotProxied> {
    let most = &bytes[..bytes.len().min(V1_LONGEST)];
    let Some(end) = memchr::memchr(b'\n', most) else {
        return if most.len() < V1_LONGEST { Ok(None) } else { Err(NotProxied) };
    };
    let line = most[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<&str> = line.ok_or(NotProxied)?.split(' ').skip(1).collect();
    let client = match words.as_slice() {
        ["UNKNOWN", ..] => None,
        ["TCP4", client, proxy, port, to] => Some(v1_client(
            client.parse::<Ipv4Addr>().is_ok() && proxy.parse::<Ipv4Addr>().is_ok(),
            client,
            port,
            to,
        )?),
        ["TCP6", client, proxy, port, to] => Some(v1_client(
            client.parse::<Ipv6Addr>().is_ok() && proxy.parse::<Ipv6Addr>().is_ok(),
            client,
            port,
            to,
        )?),
        _ => return Err(NotProxied),
    };
    Ok(Some(Header { length: end + 1, client }))
}

fn v1_client(of_its_family: bool, client: &str, port: &str, to: &str) -> Result<SocketAddr, NotProxied> {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).ok_or(NotProxied)
    };
    let client: IpAddr = client.parse().map_err(|_| NotProxied)?;
    number(to)?;
    if of_its_family { Ok(SocketAddr::new(client, number(port)?)) } else { Err(NotProxied) }
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, NotProxied> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let proxies = match head[12] {
        0x20 => false,
        0x21 => true,
        _ => return Err(NotProxied),
    };
    if length > V2_LONGEST {
        return Err(NotProxied);
    }
    let Some(rest) = rest.get(..length) else { return Ok(None) };
    let client = match (proxies, head[13]) {
        (true, 0x11) => {
            let addresses = rest.first_chunk::<12>().ok_or(NotProxied)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (true, 0x21) => {
            let addresses = rest.first_chunk::<36>().ok_or(NotProxied)?;
            let client = addresses.first_chunk::<16>().ok_or(NotProxied)?;
            Some(SocketAddr::new(
                Ipv6Addr::from(*client).into(),
                u16::from_be_bytes([addresses[32], addresses[33]]),
            ))
        }
        // Unspecified, datagrams, unix sockets: addresses that say nothing to us.
        _ => None,
    };
    Ok(Some(Header { length: V2_HEAD + length, client }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    fn client(bytes: &[u8]) -> Result<Option<String>, NotProxied> {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{}", bytes[..end].escape_ascii());
        }
        let header = parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat())?.unwrap();
        assert_eq!(header.length, bytes.len());
        Ok(header.client.map(|client| client.to_string()))
    }

    #[test]
    fn both_versions_tell_the_client() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 0x04, 0, 80];
        let v6 = [Ipv6Addr::LOCALHOST.octets().as_slice(), &[0; 16], &[0, 9, 0, 80]].concat();
        let with_extension = [v4.as_slice(), &[4, 0, 1, 0]].concat();
        let told = |text: &str| Ok(Some(text.to_string()));
        for (bytes, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 80\r\n".to_vec(), told("192.0.2.7:56324")),
            (b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n".to_vec(), told("[2001:db8::7]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(None)),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), Ok(None)),
            (v2(0x21, 0x11, &v4), told("192.0.2.7:56324")),
            (v2(0x21, 0x21, &v6), told("[::1]:9")),
            (v2(0x21, 0x11, &with_extension), told("192.0.2.7:56324")),
            (v2(0x20, 0x11, &v4), Ok(None)),
            (v2(0x20, 0, &[]), Ok(None)),
            (v2(0x21, 0x31, &[0; 216]), Ok(None)),
        ] {
            assert_eq!(client(&bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"proxy TCP4 192.0.2.7 10.0.0.1 56324 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 80\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7  10.0.0.1 56324 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 80 x\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 80\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 80\r\n".to_vec(),
            long.into_bytes(),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(parse(&bytes), Err(NotProxied), "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in "[0-9a-fTCP.: \r\n]{0,60}") {
            let cases = [
                bytes.clone(),
                [SIGNATURE.as_slice(), &bytes].concat(),
                [b"PROXY ".as_slice(), text.as_bytes()].concat(),
            ];
            for bytes in cases {
                parse(&bytes).ok();
            }
        }
    }
}

//! Which address a request comes from, for the logs: the peer's, or what trusted proxies say in X-Forwarded-For.
//!
//! Each proxy appends the address that it was asked from, so the header is read from its end: the first address
//! that is no trusted proxy's is the client's. What stands before it may have been written by anybody.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::config::TrustedProxies;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// `peer` is whoever holds the connection; `None` = it is a unix socket.
pub fn client_address(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &TrustedProxies) -> Option<IpAddr> {
    if trusted.is_empty() || !trusted.contain(peer) {
        return peer;
    }
    let mut nearest = peer;
    let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let entries = values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries {
        // A proxy that hides its peer, or does not know it, says so in words: then nobody further away is known.
        let Some(address) = address(entry) else { break };
        nearest = Some(address);
        if !trusted.contain(nearest) {
            break;
        }
    }
    nearest
}

/// An address, with a port or without, as proxies write it.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t', '"']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn trusted(list: &str) -> TrustedProxies {
        let yaml = format!(
            "Listen: ':0'\nTrustedProxies: [{list}]\nClusters: {{c: {{Backends: [http://b]}}}}\n\
             Regions: {{r: {{Default: true, Clusters: [{{Cluster: c, Weight: 1}}]}}}}\n\
             Logging: {{Synclog: {{stderr: true}}}}"
        );
        Config::parse(&yaml, &|_| None).unwrap().trusted_proxies
    }

    fn of(peer: &str, headers: &[&str], list: &str) -> String {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(FORWARDED_FOR, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let address = client_address(peer.parse().ok(), &map, &trusted(list));
        address.map_or("none".to_string(), |address| address.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let lan = "10.0.0.0/8, 'fd00::/8'";
        for (peer, headers, list, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "", "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], lan, "192.0.2.1"),
            ("10.1.2.3", &[], lan, "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7"], lan, "198.51.100.7"),
            ("::ffff:10.1.2.3", &["198.51.100.7"], lan, "198.51.100.7"),
            // The client wrote the first one itself.
            ("10.1.2.3", &["203.0.113.9, 198.51.100.7, 10.9.9.9"], lan, "198.51.100.7"),
            ("10.1.2.3", &["203.0.113.9", "198.51.100.7", "10.9.9.9"], lan, "198.51.100.7"),
            ("10.1.2.3", &["203.0.113.9,  198.51.100.7:4711 ,fd00::1"], lan, "198.51.100.7"),
            ("10.1.2.3", &["[2001:db8::7]:80, [fd00::1]"], lan, "2001:db8::7"),
            ("10.1.2.3", &["10.4.4.4, 10.5.5.5"], lan, "10.4.4.4"),
            ("10.1.2.3", &["198.51.100.7, unknown, 10.5.5.5"], lan, "10.5.5.5"),
            ("10.1.2.3", &["198.51.100.7, _hidden"], lan, "10.1.2.3"),
            ("10.1.2.3", &[",,,"], lan, "10.1.2.3"),
            ("10.1.2.3", &["\u{e9}"], lan, "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7"], "10.1.2.3", "198.51.100.7"),
            ("10.1.2.4", &["198.51.100.7"], "10.1.2.3", "10.1.2.4"),
            ("unix", &["198.51.100.7"], lan, "none"),
            ("unix", &["198.51.100.7"], "unix", "198.51.100.7"),
            ("unix", &["198.51.100.7, 10.1.2.3"], "unix, 10.0.0.0/8", "198.51.100.7"),
        ] {
            assert_eq!(of(peer, headers, list), expected, "{peer} {headers:?} {list}");
        }
    }
}

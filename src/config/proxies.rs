//! `TrustedProxies` and `ProxyProtocol`: whose word on a client's address is believed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::reader::MapReader;

/// Proxies in front of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Whoever comes over a unix socket.
    unix: bool,
}

impl TrustedProxies {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether a peer is one of them; a peer without an address comes over a unix socket.
    pub fn contain(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|peer| peer.to_canonical()) {
            Some(peer) => self.networks.iter().any(|network| network.contains(&peer)),
            None => self.unix,
        }
    }
}

/// The proxies, and whether they speak the PROXY protocol.
pub fn read(top: &mut MapReader) -> (TrustedProxies, bool) {
    let mut trusted = TrustedProxies::default();
    for item in top.get("TrustedProxies").and_then(|at| at.items()).unwrap_or_default() {
        let Some(text) = item.text() else { continue };
        match (text.value.as_str(), network(&text.value)) {
            ("unix", _) => trusted.unix = true,
            (_, Some(network)) => {
                if network.prefix_len() == 0 {
                    item.warning("every address is trusted: any client can say that it is another");
                } else if network != network.trunc() {
                    item.warning(&format!("means {}", network.trunc()));
                }
                trusted.networks.push(network.trunc());
            }
            (_, None) => {
                let shown = &text.shown;
                item.error::<()>(format!("{shown} is no network; write 10.0.0.0/8, an address or unix"));
            }
        }
    }
    let speaks = top.get("ProxyProtocol").and_then(|at| {
        let speaks = at.boolean()?;
        match speaks && trusted.is_empty() {
            true => at.error("refuses every connection without TrustedProxies; name those who speak it"),
            false => Some(speaks),
        }
    });
    (trusted, speaks.unwrap_or(false))
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

//! Regions, clusters and backends: an immutable snapshot of what the configuration says.
//!
//! A request pins one snapshot from its start to its end, so that a reload never changes the rules under it.
//! The state of backends (health, connections, addresses) lives elsewhere, by [`BackendId`].
//!
//! | file | what it is |
//! |---|---|
//! | `build.rs` | from the configuration to the snapshot |
//! | `by_backend.rs` | the state of backends, by id: it outlives snapshots |
//! | `host.rs` | from a Host header to the name that chooses the region |
//! | `ring.rs` | from an object's key to its home cluster |

mod build;
mod by_backend;
#[cfg(test)]
pub(crate) mod fixture;
mod host;
pub mod ring;

use std::{collections::HashMap, sync::Arc};

pub use build::{Identities, Overridden};
pub use by_backend::{ByBackend, Change};
pub use host::host_name;

use crate::config::{BackendUrl, Consistency, ReadPolicy, VirtualHostStyle};

/// A small number that stands for one endpoint as long as the process lives ([`Identities`]).
pub type BackendId = usize;

/// One S3 endpoint.
#[derive(Debug)]
pub struct Backend {
    pub id: BackendId,
    /// Its name in logs, `http://host[:port]`.
    pub url: String,
    pub host: String,
    pub port: u16,
    /// Listed in `MaintainedBackends`: gets nothing.
    pub maintained: bool,
}

impl Backend {
    /// A URL that is the same for all spellings: lower-cased, with its port.
    pub fn endpoint(&self) -> String {
        let host = self.host.to_ascii_lowercase();
        match host.contains(':') {
            true => format!("http://[{host}]:{}", self.port),
            false => format!("http://{host}:{}", self.port),
        }
    }
}

impl Backend {
    /// What a request to it has as its Host.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

/// Backends that hold the same objects.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    /// In configuration order, each once.
    pub backends: Vec<Arc<Backend>>,
}

/// Clusters with weights, in configuration order.
#[derive(Debug)]
pub struct Region {
    pub name: String,
    pub clusters: Vec<Arc<Cluster>>,
    /// Of the clusters, 0 to 1.
    pub weights: Vec<f64>,
    /// Lower-cased, as written.
    pub domains: Vec<String>,
    /// Takes what no domain matches.
    pub default: bool,
    pub ring: ring::Ring,
    pub read_policy: ReadPolicy,
    pub virtual_host_style: VirtualHostStyle,
    pub allow_unmerged_listings: bool,
    pub consistency: Consistency,
}

impl Region {
    /// Index in `clusters` of the home cluster of a ring key (`s3::S3Request::ring_key`).
    /// Validation guarantees that the ring has points.
    pub fn home(&self, ring_key: &[u8]) -> usize {
        self.ring.pick(ring_key).unwrap_or(0)
    }

    /// The clusters to ask for an object, home first, then backwards in configuration order.
    pub fn chain(&self, home: usize) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.iter().take(home.saturating_add(1)).rev()
    }
}

/// A region as a Host names it.
#[derive(Debug)]
pub struct RegionMatch<'a> {
    pub region: &'a Arc<Region>,
    /// Virtual-host style: the bucket that stands in the Host.
    pub bucket: Option<&'a str>,
    /// The configured domain that matched; `None` for the default region.
    pub domain: Option<&'a str>,
}

/// The snapshot.
#[derive(Debug)]
pub struct Topology {
    /// Each endpoint once.
    pub backends: Vec<Arc<Backend>>,
    pub regions: Vec<Arc<Region>>,
    by_domain: HashMap<String, usize>,
    default: Option<usize>,
}

impl Topology {
    /// The region of a Host header without port, already lower-cased ([`host_name`]): exact domain, else the
    /// longest domain D with Host = `<bucket>.D`, else the default region.
    pub fn region_for<'a>(&'a self, host: Option<&'a str>) -> Option<RegionMatch<'a>> {
        let host = host.unwrap_or_default();
        let exact = || self.by_domain(host).map(|region| (region, None, Some(host)));
        // From left to right, so that the longest domain is met first. No bucket's name begins with a dot.
        let virtual_host = || {
            host.match_indices('.').take_while(|_| !host.starts_with('.')).find_map(|(dot, _)| {
                let (bucket, domain) = (&host[..dot], &host[dot + 1..]);
                self.by_domain(domain).map(|region| (region, Some(bucket), Some(domain)))
            })
        };
        let default = || Some((self.regions.get(self.default?)?, None, None));
        let (region, bucket, domain) = exact().or_else(virtual_host).or_else(default)?;
        Some(RegionMatch { region, bucket, domain })
    }

    /// The backend that a URL names, however it is written.
    pub fn backend(&self, url: &str) -> Option<&Arc<Backend>> {
        let asked = BackendUrl::parse(url).ok()?.endpoint();
        self.backends.iter().find(|backend| (backend.host.to_ascii_lowercase(), backend.port) == asked)
    }

    fn by_domain(&self, domain: &str) -> Option<&Arc<Region>> {
        self.regions.get(*self.by_domain.get(domain)?)
    }
}

#[cfg(test)]
mod tests;

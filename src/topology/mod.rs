//! Regions, clusters and backends: an immutable snapshot of what the configuration says.

pub mod ring;

use std::{collections::HashMap, sync::Arc};

use crate::config::{Config, ReadPolicy, VirtualHostStyle};

/// Index of a backend in [`Topology::backends`]; equal URLs share one.
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

/// Backends that hold the same objects.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    pub backends: Vec<Arc<Backend>>,
}

/// Clusters with weights, in configuration order.
#[derive(Debug)]
pub struct Region {
    pub name: String,
    pub clusters: Vec<Arc<Cluster>>,
    pub ring: ring::Ring,
    pub read_policy: ReadPolicy,
    pub virtual_host_style: VirtualHostStyle,
    pub allow_unmerged_listings: bool,
}

impl Region {
    /// Index in `clusters` of the home cluster of a ring key (`s3::S3Request::ring_key`).
    /// Validation guarantees that the ring has points.
    pub fn home(&self, ring_key: &[u8]) -> usize {
        let _ = ring_key;
        todo!()
    }

    /// The clusters to ask for an object, home first, then backwards in configuration order.
    pub fn chain(&self, home: usize) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters[..=home].iter().rev()
    }
}

/// A region as a Host names it.
#[derive(Debug)]
pub struct RegionMatch<'a> {
    pub region: &'a Arc<Region>,
    /// Virtual-host style: the bucket that stands in the Host.
    pub bucket: Option<&'a str>,
}

#[derive(Debug)]
pub struct Topology {
    pub backends: Vec<Arc<Backend>>,
    pub regions: Vec<Arc<Region>>,
    by_domain: HashMap<String, usize>,
    default: Option<usize>,
}

impl Topology {
    pub fn new(config: &Config) -> Topology {
        let _ = config;
        todo!()
    }

    /// The region of a Host header without port, already lower-cased: exact domain, else the longest domain
    /// D with Host = `<bucket>.D`, else the default region.
    pub fn region_for<'a>(&'a self, host: Option<&'a str>) -> Option<RegionMatch<'a>> {
        let _ = (host, &self.by_domain, self.default);
        todo!()
    }
}

//! From the configuration to the snapshot.
//!
//! Validation has refused what makes no sense (unknown clusters, doubled names, weights out of range), so
//! nothing here can fail: what would be nonsense all the same is left out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Backend, Cluster, Region, Topology, ring::Ring};
use crate::config::{BackendUrl, ClusterConfig, Config, RegionConfig};

/// What makes two URLs the same endpoint: scheme, host and port, however they are written.
#[derive(PartialEq, Eq, Hash)]
struct Endpoint {
    scheme: String,
    host: String,
    port: u16,
}

impl From<&BackendUrl> for Endpoint {
    fn from(url: &BackendUrl) -> Self {
        let scheme = url.url.split_once("://").map_or("http", |(scheme, _)| scheme);
        Endpoint { scheme: scheme.to_ascii_lowercase(), host: url.host.to_ascii_lowercase(), port: url.port }
    }
}

/// The backends met so far, each endpoint once.
struct Backends {
    list: Vec<Arc<Backend>>,
    by_endpoint: HashMap<Endpoint, Arc<Backend>>,
    maintained: HashSet<Endpoint>,
}

impl Backends {
    fn get_or_add(&mut self, url: &BackendUrl) -> Arc<Backend> {
        let endpoint = Endpoint::from(url);
        if let Some(known) = self.by_endpoint.get(&endpoint) {
            return Arc::clone(known);
        }
        let backend = Arc::new(Backend {
            id: self.list.len(),
            url: url.url.clone(),
            host: url.host.clone(),
            port: url.port,
            maintained: self.maintained.contains(&endpoint),
        });
        self.list.push(Arc::clone(&backend));
        self.by_endpoint.insert(endpoint, Arc::clone(&backend));
        backend
    }

    fn cluster(&mut self, config: &ClusterConfig) -> Arc<Cluster> {
        let mut backends: Vec<Arc<Backend>> = Vec::with_capacity(config.backends.len());
        for url in &config.backends {
            let backend = self.get_or_add(url);
            // The same endpoint twice would get every body twice.
            if backends.iter().all(|listed| listed.id != backend.id) {
                backends.push(backend);
            }
        }
        Arc::new(Cluster { name: config.name.clone(), backends })
    }
}

impl Topology {
    /// The snapshot of a valid configuration.
    pub fn new(config: &Config) -> Topology {
        let mut backends = Backends {
            list: Vec::new(),
            by_endpoint: HashMap::new(),
            maintained: config.maintained_backends.iter().map(Endpoint::from).collect(),
        };
        let clusters: HashMap<&str, Arc<Cluster>> = config
            .clusters
            .iter()
            .map(|cluster| (cluster.name.as_str(), backends.cluster(cluster)))
            .collect();
        let mut by_domain = HashMap::new();
        for (index, region) in config.regions.iter().enumerate() {
            by_domain
                .extend(region.domains.iter().map(|domain| (without_brackets(domain).to_owned(), index)));
        }
        Topology {
            backends: backends.list,
            regions: config.regions.iter().map(|config| Arc::new(region(config, &clusters))).collect(),
            by_domain,
            default: config.regions.iter().position(|region| region.default),
        }
    }
}

fn region(config: &RegionConfig, clusters: &HashMap<&str, Arc<Cluster>>) -> Region {
    // The ring's indexes are those of `clusters`, so both are made of the same list.
    let members: Vec<(&Arc<Cluster>, f64)> = config
        .clusters
        .iter()
        .filter_map(|(name, weight)| Some((clusters.get(name.as_str())?, *weight)))
        .collect();
    Region {
        name: config.name.clone(),
        clusters: members.iter().map(|(cluster, _)| Arc::clone(cluster)).collect(),
        weights: members.iter().map(|(_, weight)| *weight).collect(),
        domains: config.domains.clone(),
        default: config.default,
        ring: Ring::new(members.iter().map(|(cluster, weight)| (cluster.name.as_str(), *weight))),
        read_policy: config.read_policy,
        virtual_host_style: config.virtual_host_style,
        allow_unmerged_listings: config.allow_unmerged_listings,
    }
}

/// An IPv6 literal as [`super::host_name`] gives it.
fn without_brackets(domain: &str) -> &str {
    domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(domain)
}

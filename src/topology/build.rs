//! From the configuration to the snapshot.
//!
//! Validation has refused what makes no sense (unknown clusters, doubled names, weights out of range), so
//! nothing here can fail: what would be nonsense all the same is left out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Backend, BackendId, Cluster, Region, Topology, ring::Ring};
use crate::config::{BackendUrl, ClusterConfig, Config, RegionConfig};

/// Which endpoint has which id, for the life of the process: snapshots come and go, the state of a backend is
/// found by its id. What a reload takes out keeps its id, in case it comes back.
#[derive(Debug, Default)]
pub struct Identities(HashMap<Endpoint, BackendId>);

impl Identities {
    fn of(&mut self, endpoint: &Endpoint) -> BackendId {
        let next = self.0.len();
        *self.0.entry(endpoint.clone()).or_insert(next)
    }
}

/// What makes two URLs the same endpoint: scheme, host and port, however they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
struct Backends<'a> {
    identities: &'a mut Identities,
    list: Vec<Arc<Backend>>,
    by_endpoint: HashMap<Endpoint, Arc<Backend>>,
    maintained: HashSet<Endpoint>,
    overridden: Overridden<'a>,
}

/// Whether a backend is under maintenance in spite of what the configuration says; asked by [`Backend::endpoint`].
pub type Overridden<'a> = &'a dyn Fn(&str) -> Option<bool>;

impl Backends<'_> {
    fn get_or_add(&mut self, url: &BackendUrl) -> Arc<Backend> {
        let endpoint = Endpoint::from(url);
        if let Some(known) = self.by_endpoint.get(&endpoint) {
            return Arc::clone(known);
        }
        let mut backend = Backend {
            id: self.identities.of(&endpoint),
            url: url.url.clone(),
            host: url.host.clone(),
            port: url.port,
            maintained: self.maintained.contains(&endpoint),
        };
        backend.maintained = (self.overridden)(&backend.endpoint()).unwrap_or(backend.maintained);
        let backend = Arc::new(backend);
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
    /// The snapshot of a valid configuration, the only one.
    pub fn new(config: &Config) -> Topology {
        Topology::next(config, &mut Identities::default(), &|_| None)
    }

    /// The snapshot of a valid configuration, with what was changed at run time, after others or before them.
    pub fn next(config: &Config, identities: &mut Identities, overridden: Overridden) -> Topology {
        let mut backends = Backends {
            identities,
            overridden,
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
        consistency: config.consistency,
    }
}

/// An IPv6 literal as [`super::host_name`] gives it.
fn without_brackets(domain: &str) -> &str {
    domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(domain)
}

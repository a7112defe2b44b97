//! What the status page asks of the running gateway: an adapter, since the page knows nothing of topology and upstream.

use std::sync::Arc;

use crate::{
    config::Config,
    technical::status::{self, Condition, Installation, State},
    topology::{Backend, Region, Topology},
    upstream::Upstream,
};

/// The gateway's parts.
pub struct Installed {
    config: Arc<Config>,
    topology: Arc<Topology>,
    upstream: Arc<Upstream>,
}

impl Installed {
    pub fn new(config: Arc<Config>, topology: Arc<Topology>, upstream: Arc<Upstream>) -> Installed {
        Installed { config, topology, upstream }
    }

    fn condition(&self, backend: &Backend) -> Condition {
        let (state, reason) = if backend.maintained {
            (State::Maintenance, "listed in MaintainedBackends")
        } else if !self.upstream.is_usable(backend) {
            (State::Unresolved, "its name has no address")
        } else {
            (State::Healthy, "")
        };
        Condition { state, reason: reason.to_owned(), since: None }
    }
}

impl Installation for Installed {
    fn regions(&self) -> Vec<status::Region> {
        self.topology.regions.iter().map(|region| shown(region)).collect()
    }

    fn backends(&self) -> Vec<status::Backend> {
        let backends = self.topology.backends.iter();
        backends
            .map(|backend| status::Backend { url: backend.url.clone(), condition: self.condition(backend) })
            .collect()
    }

    fn configuration(&self) -> Arc<str> {
        self.config.in_force.text().clone()
    }
}

fn shown(region: &Region) -> status::Region {
    let clusters = region.clusters.iter().zip(&region.weights).zip(region.ring.shares());
    status::Region {
        name: region.name.clone(),
        default: region.default,
        domains: region.domains.clone(),
        clusters: clusters
            .map(|((cluster, weight), share)| status::Cluster {
                name: cluster.name.clone(),
                weight: *weight,
                share,
                backends: cluster.backends.iter().map(|backend| backend.url.clone()).collect(),
            })
            .collect(),
    }
}

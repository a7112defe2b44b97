//! What the status page asks of the running gateway: an adapter, since the page knows nothing of topology and upstream.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{journal::Office, reload::Orders};
use crate::{
    technical::status::{self, Condition, Installation, State, journal::Seen},
    topology::{Backend, Region},
    upstream::{self, Upstream},
};

/// The gateway's parts.
pub struct Installed {
    orders: Arc<Orders>,
    upstream: Arc<Upstream>,
    /// If there is a journal.
    office: Option<Arc<Office>>,
}

impl Installed {
    pub fn new(orders: Arc<Orders>, upstream: Arc<Upstream>, office: Option<Arc<Office>>) -> Installed {
        Installed { orders, upstream, office }
    }

    fn condition(&self, backend: &Backend) -> Condition {
        let changed = self.orders.changed_at_run_time(backend);
        if backend.maintained {
            let Some(change) = changed else {
                let reason = "listed in MaintainedBackends".to_owned();
                return Condition { state: State::Maintenance, reason, since: None };
            };
            let since = DateTime::parse_from_rfc3339(&change.since).ok().map(|since| since.to_utc());
            let reason = match change.reason.as_str() {
                "" => "set at run time".to_owned(),
                reason => format!("set at run time: {reason}"),
            };
            return Condition { state: State::Maintenance, reason, since };
        }
        if !self.upstream.has_address(backend) {
            let reason = "its name has no address".to_owned();
            return Condition { state: State::Unresolved, reason, since: None };
        }
        match self.upstream.health(backend.id) {
            Some(health) if health.state != upstream::State::Healthy => Condition {
                state: match health.state {
                    upstream::State::Probation => State::Probation,
                    _ => State::Ejected,
                },
                reason: health.reason.clone(),
                since: Some(DateTime::<Utc>::from(health.since)),
            },
            health => {
                // Worth telling: why it is back, that it is sick and needed, or that the file says otherwise.
                let reason = match (changed, health) {
                    (Some(_), _) => "maintenance is off at run time; MaintainedBackends lists it".to_owned(),
                    (_, Some(health)) if health.is_news() => health.reason.clone(),
                    _ => String::new(),
                };
                Condition { state: State::Healthy, reason, since: None }
            }
        }
    }
}

impl Installation for Installed {
    fn regions(&self) -> Vec<status::Region> {
        self.orders.snapshot().topology.regions.iter().map(|region| shown(region)).collect()
    }

    fn backends(&self) -> Vec<status::Backend> {
        let snapshot = self.orders.snapshot();
        let backends = snapshot.topology.backends.iter();
        backends
            .map(|backend| status::Backend { url: backend.url.clone(), condition: self.condition(backend) })
            .collect()
    }

    fn journal(&self) -> Option<Seen> {
        self.office.as_ref().map(|office| office.seen())
    }

    fn configuration(&self) -> Arc<str> {
        let snapshot = self.orders.snapshot();
        let text = snapshot.config.in_force.text();
        match snapshot.postponed.as_slice() {
            [] => text.clone(),
            keys => {
                let keys = keys.join(", ");
                format!("# As read at the last SIGHUP. Not in force before a takeover or restart:\n# {keys}\n\n{text}")
                    .into()
            }
        }
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

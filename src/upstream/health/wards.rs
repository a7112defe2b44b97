//! Which backends stand together: an ejection must leave enough of every cluster that the backend is in.
//!
//! Decisions are made one at a time, so that two backends that fall sick together do not both count on the other.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::{super::peer::Peer, Health};
use crate::topology::Topology;

/// The clusters, as sets of backends.
pub struct Wards {
    clusters: ArcSwap<Vec<Ward>>,
    deciding: Mutex<()>,
}

struct Ward {
    cluster: String,
    members: Vec<Arc<Peer>>,
}

impl Wards {
    pub fn new() -> Wards {
        Wards { clusters: ArcSwap::from_pointee(Vec::new()), deciding: Mutex::default() }
    }

    /// Takes over the clusters of a topology; `peers` by backend id.
    pub fn set(&self, topology: &Topology, peers: &[Arc<Peer>]) {
        let mut wards: Vec<Ward> = Vec::new();
        for cluster in topology.regions.iter().flat_map(|region| &region.clusters) {
            if wards.iter().all(|ward| ward.cluster != cluster.name) {
                let members = cluster.backends.iter().filter_map(|backend| peers.get(backend.id).cloned());
                wards.push(Ward { cluster: cluster.name.clone(), members: members.collect() });
            }
        }
        self.clusters.store(Arc::new(wards));
    }

    /// Takes a backend out by `take_out`, if every cluster that it is in can spare it; else names one that cannot.
    /// `is_out` says whether another one gets no requests.
    pub fn eject(
        &self,
        health: &Health,
        most: f64,
        is_out: impl Fn(&Peer) -> bool,
        take_out: impl FnOnce(),
    ) -> Result<(), String> {
        let _decision = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        for ward in self.clusters.load().iter().filter(|ward| ward.has(health)) {
            let out = ward.others(health).filter(|peer| is_out(peer)).count();
            if !spares(ward.members.len(), out, most) {
                return Err(ward.cluster.clone());
            }
        }
        take_out();
        Ok(())
    }

    /// Whether a cluster of an ejected backend has nobody else that is in and well.
    pub fn needs(&self, health: &Health, is_of_use: impl Fn(&Peer) -> bool) -> bool {
        let clusters = self.clusters.load();
        clusters.iter().any(|ward| ward.has(health) && !ward.others(health).any(|peer| is_of_use(peer)))
    }

    /// Of the backends that share a cluster with one and are in, the one with most connections in use; of several
    /// the one that fails, else the one itself.
    pub fn busiest(&self, peer: &Arc<Peer>) -> Arc<Peer> {
        let clusters = self.clusters.load();
        let beside = clusters.iter().filter(|ward| ward.has(&peer.health)).flat_map(|ward| &ward.members);
        beside
            .chain([peer])
            .filter(|other| other.health.is_in())
            .max_by_key(|other| {
                (other.in_flight(), other.health.failures_in_a_row(), Arc::ptr_eq(other, peer))
            })
            .unwrap_or(peer)
            .clone()
    }
}

impl Ward {
    fn has(&self, health: &Health) -> bool {
        self.members.iter().any(|peer| std::ptr::eq(&*peer.health, health))
    }

    fn others(&self, health: &Health) -> impl Iterator<Item = &Arc<Peer>> {
        self.members.iter().filter(move |peer| !std::ptr::eq(&*peer.health, health))
    }
}

/// Whether a cluster of so many backends, of which so many others are out, can spare one more; `most` is the part of
/// it that may be out. Never the last one.
fn spares(members: usize, out: usize, most: f64) -> bool {
    // A product such as 0.29 * 100 falls just short of the whole number that was meant.
    let most = (members as f64 * most + 1e-9).floor() as usize;
    out < most.min(members.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_part_of_a_cluster_is_out_and_never_the_last_backend() {
        // Members, part, how many may be out.
        let cases = [
            (1, 0.5, 0),
            (1, 1.0, 0),
            (2, 0.5, 1),
            (2, 1.0, 1),
            (3, 0.5, 1),
            (4, 0.5, 2),
            (5, 0.5, 2),
            (5, 1.0, 4),
            (100, 0.29, 29),
            (3, 0.3, 0),
            (0, 0.5, 0),
        ];
        for (members, part, most) in cases {
            let may_be_out = (0..=members).take_while(|out| spares(members, *out, part)).count();
            assert_eq!(may_be_out, most, "{members} {part}");
        }
    }
}

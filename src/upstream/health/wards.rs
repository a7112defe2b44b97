//! Which backends stand together: an ejection must leave enough of every cluster that the backend is in.
//!
//! Decisions are made one at a time, so that two backends that fall sick together do not both count on the other.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::{super::peer::Peer, Health};
use crate::topology::{BackendId, Topology};

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

    /// Takes over the clusters of a topology; `peer` by backend id.
    pub fn set(&self, topology: &Topology, peer: impl Fn(BackendId) -> Option<Arc<Peer>>) {
        let mut wards: Vec<Ward> = Vec::new();
        for cluster in topology.regions.iter().flat_map(|region| &region.clusters) {
            if wards.iter().all(|ward| ward.cluster != cluster.name) {
                let members = cluster.backends.iter().filter_map(|backend| peer(backend.id));
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
    use std::time::Duration;

    use super::{
        super::{State, tests::policy},
        *,
    };
    use crate::{
        topology::{Backend, fixture},
        upstream::health::SharedPolicy,
    };

    /// The wards of such clusters, and the backends a, b, ... by id.
    fn wards(clusters: &[(&str, &[&str])]) -> (Wards, Vec<Arc<Peer>>) {
        let weights: Vec<_> = clusters.iter().map(|(name, _)| (*name, 1.0)).collect();
        let clusters = clusters.iter().map(|(name, backends)| fixture::cluster(name, backends)).collect();
        let config = fixture::config(clusters, vec![fixture::region("r", &weights, &[])]);
        let topology = Topology::new(&config);
        let policy = SharedPolicy::new(ArcSwap::from_pointee(policy()));
        let new = |backend: &Arc<Backend>| Peer::new(backend.clone(), 0, Arc::default(), policy.clone());
        let peers: Vec<_> = topology.backends.iter().map(new).collect();
        let wards = Wards::new();
        wards.set(&topology, |id| peers.get(id).cloned());
        (wards, peers)
    }

    fn is_out(peer: &Peer) -> bool {
        !peer.health.is_in()
    }

    fn eject(wards: &Wards, peer: &Peer) -> Result<(), String> {
        let take_out = || peer.health.enter(State::Ejected, "a test".into());
        wards.eject(&peer.health, 0.5, is_out, take_out)
    }

    #[test]
    fn every_cluster_of_a_backend_must_spare_it() {
        let (wards, peers) = wards(&[("one", &["a", "b"]), ("two", &["b", "c", "d", "e"])]);
        let [a, b, c, d, e] = &peers[..] else { panic!("{}", peers.len()) };
        assert_eq!(eject(&wards, a), Ok(()));
        assert_eq!(eject(&wards, b), Err("one".into()));
        assert!(b.health.is_in());
        assert_eq!((eject(&wards, c), eject(&wards, d)), (Ok(()), Ok(())));
        assert_eq!(eject(&wards, e), Err("two".into()));
        // Who is out already does not stand in its own way.
        assert_eq!(eject(&wards, d), Ok(()));
        a.health.enter(State::Healthy, "a test".into());
        assert_eq!(eject(&wards, b), Err("two".into()));
        c.health.enter(State::Probation, "a test".into());
        assert_eq!(eject(&wards, b), Err("two".into()));
        c.health.enter(State::Healthy, "a test".into());
        assert_eq!(eject(&wards, b), Ok(()));
    }

    #[test]
    fn a_backend_is_needed_where_nobody_else_is_of_use() {
        let (wards, peers) = wards(&[("one", &["a", "b"]), ("two", &["b", "c"])]);
        let needed = |at: usize, useful: &[usize]| {
            wards.needs(&peers[at].health, |peer| useful.contains(&peer.backend.id))
        };
        assert!(needed(0, &[]) && !needed(0, &[1]) && needed(0, &[2]));
        assert!(needed(1, &[0]) && needed(1, &[2]) && !needed(1, &[0, 2]));
    }

    #[tokio::test]
    async fn the_busiest_backend_is_the_one_with_most_connections_in_use() {
        let (wards, peers) = wards(&[("one", &["a", "b", "c"]), ("two", &["d"])]);
        let busiest = |at: usize| wards.busiest(&peers[at]).backend.url.clone();
        assert_eq!((busiest(0), busiest(1)), ("http://a".into(), "http://b".into()));
        let mut leases = Vec::new();
        for at in [3, 3, 1, 0] {
            leases.push(peers[at].lease(Duration::ZERO).await.ok());
        }
        // Of equals the one that fails.
        peers[1].health.cut("a test");
        assert_eq!(busiest(0), "http://b");
        leases.push(peers[2].lease(Duration::ZERO).await.ok());
        leases.push(peers[2].lease(Duration::ZERO).await.ok());
        assert_eq!((busiest(0), busiest(3)), ("http://c".into(), "http://d".into()));
        peers[2].health.enter(State::Ejected, "a test".into());
        assert_eq!(busiest(0), "http://b");
    }

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

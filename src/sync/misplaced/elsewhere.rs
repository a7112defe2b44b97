//! Where an object may be beside its home, and whether anything else has to be done with it there first.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::OTHERS;
use crate::{
    journal::{Case, Journal, JournalError, Object, Record, Standing, What},
    sync::{
        Gate, State, Stores,
        places::{Place, Places},
        repair::{Outcome, Undisturbed},
    },
};

/// The clusters on which a region looks for an object beside its home, or on which it was seen.
#[derive(Default)]
pub struct Elsewhere<'a> {
    clusters: Vec<Cluster<'a>>,
    /// Backends where it stays.
    pub(super) stays: HashSet<String>,
    /// The object as other clusters have it that share a backend with any of these, or with the home.
    pub(super) others: Vec<Object>,
}

struct Cluster<'a> {
    name: &'a str,
    place: &'a Place,
    /// Without those of the home.
    backends: Vec<&'a String>,
}

impl<'a> Elsewhere<'a> {
    pub fn of(places: &'a Places, home: &Place, object: &Object, case: &Case) -> Elsewhere<'a> {
        let mut names = places.looked_on(object);
        // A cluster that is not there any more has nothing to move.
        names.extend(case.records.iter().filter_map(|record| places.named(found_on(record)?)));
        let mut clusters: Vec<Cluster> = Vec::new();
        for name in names.into_iter().filter(|name| *name != object.cluster) {
            let is_new = !clusters.iter().any(|known| known.name == name);
            let Some(place) = places.get(name).filter(|_| is_new) else { continue };
            let backends = place.backends.iter().filter(|backend| !home.backends.contains(backend)).collect();
            clusters.push(Cluster { name, place, backends });
        }
        let backends = || clusters.iter().flat_map(|cluster| cluster.backends.iter().copied());
        let mut stays = HashSet::new();
        for backend in backends() {
            if let Some(why) = places.is_needed(backend, object) {
                log::debug!("{object} stays on {backend} too: {why}");
                stays.insert(backend.clone());
            }
        }
        let sharing = places.sharing(backends().chain(&home.backends)).into_iter();
        let others = sharing.filter(|name| *name != object.cluster);
        let others = others.map(|name| Object { cluster: name.to_owned(), ..object.clone() }).collect();
        Elsewhere { clusters, stays, others }
    }

    pub fn places(&self) -> impl Iterator<Item = &'a Place> {
        self.clusters.iter().map(|cluster| cluster.place)
    }

    /// What the clusters' backends hold, without those of the home; each is asked once.
    pub(super) async fn ask(&self, stores: &dyn Stores, object: &Object) -> Vec<Vec<(String, State)>> {
        let mut wanted: Vec<(&str, &String)> = Vec::new();
        for cluster in &self.clusters {
            for backend in &cluster.backends {
                if !wanted.iter().any(|(_, known)| known == backend) {
                    wanted.push((cluster.name, backend));
                }
            }
        }
        let ask = wanted.iter().map(|(cluster, backend)| {
            let there = Object { cluster: (*cluster).to_owned(), ..object.clone() };
            async move { ((*backend).clone(), stores.state(backend, &there).await) }
        });
        let states: Vec<(String, State)> = join_all(ask).await;
        let of = |cluster: &Cluster| {
            let is_there = |(name, _): &&(String, State)| cluster.backends.contains(&name);
            states.iter().filter(is_there).cloned().collect()
        };
        self.clusters.iter().map(of).collect()
    }

    /// It is too early: somebody else has work to do first, perhaps a human. `None` = it is not.
    pub(super) async fn is_busy(&self, journal: &dyn Journal) -> Result<Option<Outcome>, JournalError> {
        for other in &self.others {
            let case = journal.show(other).await?.filter(|case| !is_quiet(Some(case)));
            let why = || format!("{} has to agree on it first: it has records of its own", other.cluster);
            match case.map(|case| case.standing) {
                None => {}
                Some(Standing::Open) => return Ok(Some(Outcome::Again { pause: OTHERS, why: why() })),
                Some(Standing::Parked | Standing::Dead) => return Ok(Some(Outcome::Failed { why: why() })),
            }
        }
        Ok(None)
    }
}

/// Open as long as nobody writes to the object, by whatever cluster.
pub(super) struct Quiet<'a> {
    pub home: Undisturbed<'a>,
    pub others: &'a [Object],
}

#[async_trait]
impl Gate for Quiet<'_> {
    async fn may_go_on(&self) -> bool {
        for other in self.others {
            if !matches!(self.home.journal.show(other).await, Ok(case) if is_quiet(case.as_ref())) {
                return false;
            }
        }
        // Last: the journal may have taken its time.
        self.home.may_go_on().await
    }
}

/// Whether nothing has to be done with an object before it can be moved.
fn is_quiet(case: Option<&Case>) -> bool {
    case.is_none_or(|case| {
        case.under_way == 0 && case.records.iter().all(|record| found_on(record).is_some())
    })
}

/// The cluster on which a read found it, if that is what a record says.
pub fn found_on(record: &Record) -> Option<&String> {
    match &record.intent.what {
        What::Misplaced(cluster) => Some(cluster),
        _ => None,
    }
}

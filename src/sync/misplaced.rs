//! An object that a read found on another cluster than its home: `akubra sync --misplaced` moves it there.
//!
//! All clusters are asked on which a region would look for it. First the home's backends agree, as in any repair. If none
//! of them has the object it is copied to all of them, from clusters whose backends agree on it. Then it is deleted
//! elsewhere, backend by backend, if what is there is what home holds, or is known to be older. After each change
//! everything is asked again; what no rule decides is parked.
//!
//! Clusters may share backends, so it is backends that are compared: nothing is deleted on a backend of the home, nor on
//! one where a region would look for the object and not on any of the home's. Nothing is changed once a write to the
//! object is in the journal that was not when it was leased, be it on the home or on another cluster that has one of
//! these backends. A copy that a DELETE overtook is taken back, also one of which nobody knows whether it arrived: that
//! is waited for until it cannot any more.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::sleep;

use self::step::States;
pub use self::step::{Step, step};
use super::{
    Gate, Held, State, StoreError,
    decide::{Known, content},
    limits::Limited,
    places::Places,
    repair::{Outcome, Repair, Undisturbed, new_in, waits},
};
use crate::journal::{Case, JournalError, Lease, Object, Record, Resolution, What, WriteId};

mod step;

/// Each begins with asking everybody.
const ROUNDS: usize = 6;
/// Before an object is looked at again of which somebody else has work to do first.
const OTHERS: Duration = Duration::from_secs(10);
/// For a DELETE that is under way behind a copy.
const UNDER_WAY: (u32, Duration) = (120, Duration::from_millis(500));

/// One object on its way home.
pub struct Move<'a> {
    pub repair: &'a Repair<'a>,
    pub places: &'a Places,
    pub stores: &'a Limited,
}

/// What a round came to.
enum Round {
    Done,
    Next,
}

/// Where the object may be beside its home.
struct Elsewhere<'a> {
    /// By cluster, without the home's backends.
    clusters: Vec<(&'a str, Vec<&'a String>)>,
    /// Backends where it stays.
    stays: HashSet<String>,
    /// The object as other clusters have it that share a backend with any of these, or with the home.
    others: Vec<Object>,
}

impl Elsewhere<'_> {
    /// Backends with their clusters; more than once, if they are of several.
    fn all(&self) -> impl Iterator<Item = (&str, &String)> {
        self.clusters
            .iter()
            .flat_map(|(name, backends)| backends.iter().map(move |backend| (*name, *backend)))
    }
}

/// What one attempt has found out and done.
#[derive(Default)]
struct Progress {
    digests: Vec<(String, String, super::Md5)>,
    changed: usize,
}

/// A copy that was sent to a backend of the home, which had nothing.
struct Sent<'a> {
    backend: &'a str,
    source: &'a Held,
    /// `None` = nobody knows whether it arrived.
    copied: Option<super::Copied>,
}

impl Sent<'_> {
    /// Whether what a backend holds is this.
    fn is(&self, held: &Held) -> bool {
        match &self.copied {
            Some(copied) => held.etag == copied.etag && held.version == copied.version,
            None => content(held, self.source) != Some(false),
        }
    }
}

/// Open as long as nobody writes to the object, by whatever cluster.
struct Quiet<'a> {
    home: Undisturbed<'a>,
    others: &'a [Object],
}

#[async_trait]
impl Gate for Quiet<'_> {
    async fn may_go_on(&self) -> bool {
        if !self.home.may_go_on().await {
            return false;
        }
        for other in self.others {
            if !matches!(self.home.journal.show(other).await, Ok(case) if is_quiet(case.as_ref())) {
                return false;
            }
        }
        true
    }
}

/// Whether nothing has to be done with an object before it can be moved.
fn is_quiet(case: Option<&Case>) -> bool {
    case.is_none_or(|case| {
        case.under_way == 0 && case.records.iter().all(|record| found_on(record).is_some())
    })
}

impl Move<'_> {
    /// As [`Repair::run`].
    pub async fn run(&self, lease: &Lease, case: &Case) -> Result<Outcome, JournalError> {
        if case.under_way > 0 {
            return Ok(Outcome::Again { pause: OTHERS, why: "a write is under way".into() });
        }
        let seen: Vec<WriteId> = case.records.iter().map(Record::id).collect();
        let elsewhere = self.elsewhere(&lease.object, case);
        let changed = match self.fetch(&elsewhere, &lease.object, &seen).await? {
            Ok(changed) => changed,
            Err(outcome) => return Ok(outcome),
        };
        Ok(match self.repair.journal.resolve(lease, &seen).await? {
            Resolution::Resolved => Outcome::Resolved { changed },
            Resolution::Changed => again("it was written to meanwhile"),
            Resolution::Lost => Outcome::Lost,
        })
    }

    fn elsewhere(&self, object: &Object, case: &Case) -> Elsewhere<'_> {
        let mut names = self.places.looked_on(object);
        for record in &case.records {
            // A cluster that is not there any more has nothing to move.
            names.extend(found_on(record).and_then(|name| self.places.named(name)));
        }
        let mut clusters: Vec<(&str, Vec<&String>)> = Vec::new();
        for name in names.into_iter().filter(|name| *name != object.cluster) {
            let Some(place) =
                self.places.get(name).filter(|_| !clusters.iter().any(|(known, _)| *known == name))
            else {
                continue;
            };
            let is_other = |backend: &&String| !self.repair.backends.contains(backend);
            clusters.push((name, place.backends.iter().filter(is_other).collect()));
        }
        let backends: Vec<&String> =
            clusters.iter().flat_map(|(_, backends)| backends.iter().copied()).collect();
        let mut stays = HashSet::new();
        for backend in &backends {
            if let Some(why) = self.places.is_needed(backend, object) {
                log::debug!("{object} stays on {backend} too: {why}");
                stays.insert((*backend).clone());
            }
        }
        let all = backends.into_iter().chain(self.repair.backends);
        let others = self.places.sharing(all).into_iter().filter(|name| *name != object.cluster);
        let others = others.map(|name| Object { cluster: name.to_owned(), ..object.clone() }).collect();
        Elsewhere { clusters, stays, others }
    }

    /// Moves it home; how many backends were changed.
    async fn fetch(
        &self,
        elsewhere: &Elsewhere<'_>,
        object: &Object,
        seen: &[WriteId],
    ) -> Result<Result<usize, Outcome>, JournalError> {
        for place in elsewhere.clusters.iter().filter_map(|(name, _)| self.places.get(name)) {
            if let Some(backend) = place.closed.first() {
                let why = format!("{backend}: there are no credentials for it");
                return Ok(Err(Outcome::Failed { why }));
            }
            if let Some(backend) = self.places.maintained(place) {
                let why = format!("{backend} is under maintenance");
                return Ok(Err(Outcome::Again { pause: OTHERS, why }));
            }
        }
        for other in &elsewhere.others {
            if !is_quiet(self.repair.journal.show(other).await?.as_ref()) {
                let why = format!("{} has to agree on it first: it has records of its own", other.cluster);
                return Ok(Err(Outcome::Again { pause: OTHERS, why }));
            }
        }
        let names: Vec<String> = elsewhere.all().map(|(_, backend)| backend.clone()).collect();
        let _pass = match self.stores.admit(&names) {
            Ok(pass) => pass,
            Err((pause, why)) => return Ok(Err(Outcome::Again { pause, why })),
        };
        let Repair { journal, gate, .. } = *self.repair;
        let home = Undisturbed { journal, gate, object, seen };
        let gate = Quiet { home, others: &elsewhere.others };
        let mut progress = Progress::default();
        for _ in 0..ROUNDS {
            match self.round(object, elsewhere, seen, &gate, &mut progress).await? {
                Ok(Round::Done) => return Ok(Ok(progress.changed)),
                Ok(Round::Next) => {}
                Err(outcome) => return Ok(Err(outcome)),
            }
        }
        Ok(Err(Outcome::Again { pause: OTHERS, why: "it changed again and again".into() }))
    }

    async fn round(
        &self,
        object: &Object,
        elsewhere: &Elsewhere<'_>,
        seen: &[WriteId],
        gate: &Quiet<'_>,
        progress: &mut Progress,
    ) -> Result<Result<Round, Outcome>, JournalError> {
        let at_home = Repair { gate, ..*self.repair };
        let agreed = match at_home.agree(object, Known::default()).await {
            Ok(agreed) => agreed,
            Err(outcome) => return Ok(Err(outcome)),
        };
        progress.changed += agreed.changed;
        let mut there = self.ask(object, elsewhere).await;
        let mut home = agreed.states;
        for (name, state) in there.iter_mut().flatten().chain(&mut home) {
            if let State::Present(held) = state {
                let known =
                    progress.digests.iter().find(|(backend, etag, _)| backend == name && *etag == held.etag);
                held.md5 = held.md5.or(known.map(|(_, _, md5)| *md5));
            }
        }
        let next = step(&home, &there, &elsewhere.stays);
        let there = there.concat();
        let done = match next {
            Step::Done => return Ok(Ok(Round::Done)),
            Step::Wait(why) => return Ok(Err(waits(&there, why))),
            Step::Park(why) => return Ok(Err(Outcome::Parked { why })),
            Step::Digest(names) => self.read(object, &[there, home].concat(), &names, progress).await,
            Step::Copy { source } => {
                let (copied, sent) = self.copy(object, (&source, &there), &home, gate, progress).await;
                if let Err(outcome) = self.overtaken(object, seen, &sent).await? {
                    return Ok(Err(outcome));
                }
                copied
            }
            Step::Delete { targets } => self.delete(object, &targets, &there, gate, progress).await,
        };
        Ok(done.map(|()| Round::Next).map_err(|error| self.ends(error)))
    }
    /// What the other clusters' backends hold; each is asked once.
    async fn ask(&self, object: &Object, elsewhere: &Elsewhere<'_>) -> Vec<Vec<(String, State)>> {
        let mut wanted: Vec<(&str, &String)> = Vec::new();
        for (cluster, backend) in elsewhere.all() {
            if !wanted.iter().any(|(_, known)| *known == backend) {
                wanted.push((cluster, backend));
            }
        }
        let ask = wanted.iter().map(|(cluster, backend)| {
            let there = Object { cluster: (*cluster).to_owned(), ..object.clone() };
            async move { self.repair.stores.state(backend, &there).await }
        });
        let states = join_all(ask).await;
        let state_of = |backend: &&String| {
            let at = wanted.iter().position(|(_, known)| known == backend);
            at.map(|at| ((*backend).clone(), states[at].clone()))
        };
        elsewhere
            .clusters
            .iter()
            .map(|(_, backends)| backends.iter().filter_map(state_of).collect())
            .collect()
    }

    async fn read(
        &self,
        object: &Object,
        states: &States,
        names: &[String],
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        for (name, state) in states.iter().filter(|(name, _)| names.contains(name)) {
            let State::Present(held) = state else { continue };
            let md5 = self.repair.stores.md5(name, object, held).await?;
            progress.digests.push((name.clone(), held.etag.clone(), md5));
        }
        Ok(())
    }

    /// Copies it to all backends of the home; and what was sent, whatever came of it. What may have arrived is waited
    /// for until it cannot any more.
    async fn copy<'b>(
        &self,
        object: &Object,
        from: (&str, &'b States),
        home: &'b States,
        gate: &dyn Gate,
        progress: &mut Progress,
    ) -> (Result<(), StoreError>, Vec<Sent<'b>>) {
        let mut sent = Vec::new();
        let Some((_, State::Present(source))) = from.1.iter().find(|(name, _)| name == from.0) else {
            return (Ok(()), sent);
        };
        for (target, over) in home {
            match self.repair.stores.copy(object, (from.0, source), (target, over), gate).await {
                Ok(copied) => {
                    progress.changed += 1;
                    sent.push(Sent { backend: target, source, copied: Some(copied) });
                }
                Err(StoreError::Unknown(why)) => {
                    sent.push(Sent { backend: target, source, copied: None });
                    sleep(self.repair.rules.settle).await;
                    return (Err(StoreError::Failed(why)), sent);
                }
                Err(error) => return (Err(error), sent),
            }
        }
        (Ok(()), sent)
    }

    /// Takes copies back if the object was deleted while they were made.
    async fn overtaken(
        &self,
        object: &Object,
        seen: &[WriteId],
        sent: &[Sent<'_>],
    ) -> Result<Result<(), Outcome>, JournalError> {
        let Some(case) = self.calm(object).await? else { return Ok(Ok(())) };
        let new: Vec<&What> = new_in(&case, seen).map(|record| &record.intent.what).collect();
        let deleted = new.contains(&&What::Delete) && !new.contains(&&What::Put);
        for one in sent.iter().filter(|_| deleted) {
            let State::Present(held) = self.repair.stores.state(one.backend, object).await else { continue };
            if one.is(&held) {
                let undone = self.repair.stores.delete(object, (one.backend, &held), self.repair.gate).await;
                if let Err(error) = undone {
                    return Ok(Err(self.ends(error)));
                }
            }
        }
        Ok(if new.is_empty() { Ok(()) } else { Err(again("it was written to meanwhile")) })
    }

    /// The object's records once no write is under way, or a long time has passed.
    async fn calm(&self, object: &Object) -> Result<Option<Case>, JournalError> {
        let mut case = self.repair.journal.show(object).await?;
        for _ in 0..UNDER_WAY.0 {
            if case.as_ref().is_none_or(|case| case.under_way == 0) {
                break;
            }
            sleep(UNDER_WAY.1).await;
            case = self.repair.journal.show(object).await?;
        }
        Ok(case)
    }

    async fn delete(
        &self,
        object: &Object,
        targets: &[String],
        there: &States,
        gate: &dyn Gate,
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        let mut done: Vec<&String> = Vec::new();
        for (name, state) in there.iter().filter(|(name, _)| targets.contains(name)) {
            let State::Present(held) = state else { continue };
            if done.contains(&name) {
                continue;
            }
            self.repair.stores.delete(object, (name, held), gate).await?;
            done.push(name);
            progress.changed += 1;
        }
        Ok(())
    }

    fn ends(&self, error: StoreError) -> Outcome {
        self.repair.problem(error).unwrap_or_else(|| again("it changed while it was moved"))
    }
}

fn found_on(record: &Record) -> Option<&String> {
    match &record.intent.what {
        What::Misplaced(cluster) => Some(cluster),
        _ => None,
    }
}

fn again(why: &str) -> Outcome {
    Outcome::Again { pause: Duration::ZERO, why: why.to_owned() }
}

#[cfg(test)]
mod tests;

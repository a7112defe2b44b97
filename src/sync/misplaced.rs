//! An object that a read found on another cluster than its home: `akubra sync --misplaced` moves it there.
//!
//! First the home's backends agree, as in any repair. If none of them has the object it is copied to all of them, from a
//! cluster whose backends agree on it. Then it is deleted where it was found, backend by backend, if what is there is what
//! home holds, or is known to be older. After each change everything is asked again; what no rule decides is parked.
//!
//! Nothing is deleted that a region of the configuration would look for there and not in the home. Nothing is changed
//! once a write to the object is in the journal that was not when it was leased; a copy that a DELETE overtook is taken
//! back.

use std::{collections::HashSet, time::Duration};

use tokio::time::sleep;

use super::{
    Gate, Held, State, StoreError,
    decide::content,
    limits::Limited,
    places::Places,
    repair::{Outcome, Repair, Undisturbed, new_in},
};
use crate::journal::{Case, JournalError, Lease, Object, Record, Resolution, What, WriteId};

/// Each begins with asking everybody.
const ROUNDS: usize = 6;
/// Before an object is looked at again of which somebody else has work to do first.
const OTHERS: Duration = Duration::from_secs(10);
/// For a DELETE that is under way behind a copy.
const UNDER_WAY: (u32, Duration) = (120, Duration::from_millis(500));

/// What is to be done with an object of which the home's backends agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is nowhere but at home, or must stay where it is.
    Done,
    /// To all backends of the home.
    Copy {
        source: String,
    },
    Delete {
        targets: Vec<String>,
    },
    /// The bytes of these have to be read first.
    Digest(Vec<String>),
    Wait(String),
    Park(String),
}

/// Decides. `home` and `there` are what the backends of either cluster hold; backends of both are in `home` alone.
pub fn step(home: &[(String, State)], there: &[(String, State)], stays: bool) -> Step {
    let unknown = there.iter().find_map(|(_, state)| match state {
        State::Unknown(why) | State::Refused(why) => Some(why.clone()),
        _ => None,
    });
    if let Some(why) = unknown {
        return Step::Wait(why);
    }
    let (at_home, found) = (holders(home), holders(there));
    match at_home.first() {
        None => from(&found, there.len()),
        Some(_) if stays => Step::Done,
        Some(_) => away(&at_home, &found),
    }
}

fn holders(states: &[(String, State)]) -> Vec<(&String, &Held)> {
    let present = states.iter().filter_map(|(name, state)| match state {
        State::Present(held) => Some((name, held)),
        _ => None,
    });
    present.collect()
}

/// Home has nothing: what to bring there.
fn from(found: &[(&String, &Held)], backends: usize) -> Step {
    let Some((source, first)) = found.first() else { return Step::Done };
    if found.len() < backends {
        return Step::Wait(format!("{source} has it, and not all other backends of that cluster do"));
    }
    let unread = unread(found.iter().copied().map(|one| (one, *first)));
    if !unread.is_empty() {
        return Step::Digest(unread);
    }
    match found.iter().find(|(_, held)| !same(held, first)) {
        Some((other, _)) => Step::Wait(format!("{source} and {other} hold different contents")),
        None => Step::Copy { source: (*source).clone() },
    }
}

/// Home has it: what to delete elsewhere.
fn away(home: &[(&String, &Held)], found: &[(&String, &Held)]) -> Step {
    let Some((_, ours)) = home.first() else { return Step::Done };
    let is_older = |held: &Held| match (held.object_version, ours.object_version) {
        (Some(theirs), Some(ours)) => theirs < ours,
        // The time of what is at home may be that of a copy.
        _ => false,
    };
    let open: Vec<_> = found.iter().copied().filter(|(_, held)| !is_older(held)).collect();
    let mut unread = unread(open.iter().copied().map(|one| (one, *ours)));
    if !unread.is_empty() {
        // Both sides of the comparison.
        unread.extend(home.first().filter(|(_, held)| held.md5.is_none()).map(|(name, _)| (*name).clone()));
        return Step::Digest(unread);
    }
    match open.iter().find(|(_, held)| !same(held, ours)) {
        Some((backend, held)) => Step::Park(format!(
            "{backend} holds {}, {} bytes, home holds {}, {} bytes, and nothing tells which is newer",
            held.etag, held.length, ours.etag, ours.length
        )),
        None if found.is_empty() => Step::Done,
        None => Step::Delete { targets: found.iter().map(|(name, _)| (*name).clone()).collect() },
    }
}

fn same(one: &Held, other: &Held) -> bool {
    content(one, other) == Some(true) && one.metadata == other.metadata
}

/// Those whose bytes nobody knows, and would have to.
fn unread<'a>(pairs: impl Iterator<Item = ((&'a String, &'a Held), &'a Held)>) -> Vec<String> {
    let unsure = pairs.filter(|((_, held), other)| content(held, other).is_none());
    unsure.filter(|((_, held), _)| held.md5.is_none()).map(|((name, _), _)| name.clone()).collect()
}

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

impl Move<'_> {
    /// As [`Repair::run`].
    pub async fn run(&self, lease: &Lease, case: &Case) -> Result<Outcome, JournalError> {
        if case.under_way > 0 {
            return Ok(Outcome::Again { pause: OTHERS, why: "a write is under way".into() });
        }
        let seen: Vec<WriteId> = case.records.iter().map(Record::id).collect();
        let clusters: HashSet<&String> = case.records.iter().filter_map(found_on).collect();
        if clusters.len() > 1 {
            let why = "it was found on several clusters, and which has the newest is not asked".to_owned();
            return Ok(Outcome::Parked { why });
        }
        let mut changed = 0;
        for cluster in clusters {
            match self.fetch(cluster, lease, &seen).await? {
                Ok(more) => changed += more,
                Err(outcome) => return Ok(outcome),
            }
        }
        Ok(match self.repair.journal.resolve(lease, &seen).await? {
            Resolution::Resolved => Outcome::Resolved { changed },
            Resolution::Changed => again("it was written to meanwhile"),
            Resolution::Lost => Outcome::Lost,
        })
    }

    /// Moves it home from one cluster; how many backends were changed.
    async fn fetch(
        &self,
        cluster: &str,
        lease: &Lease,
        seen: &[WriteId],
    ) -> Result<Result<usize, Outcome>, JournalError> {
        let object = &lease.object;
        // A cluster that is not there any more has nothing to move.
        let Some(place) = self.places.get(cluster).filter(|_| cluster != object.cluster) else {
            return Ok(Ok(0));
        };
        if let Some(backend) = place.closed.first() {
            return Ok(Err(Outcome::Failed { why: format!("{backend}: there are no credentials for it") }));
        }
        if let Some(backend) = self.places.maintained(place) {
            return Ok(Err(Outcome::Again { pause: OTHERS, why: format!("{backend} is under maintenance") }));
        }
        let there = Object { cluster: cluster.to_owned(), ..object.clone() };
        if self.repair.journal.show(&there).await?.is_some() {
            let why = format!("{cluster} has to agree on it first: it has records of its own");
            return Ok(Err(Outcome::Again { pause: OTHERS, why }));
        }
        let pass = match self.stores.admit(&place.backends) {
            Ok(pass) => pass,
            Err((pause, why)) => return Ok(Err(Outcome::Again { pause, why })),
        };
        let is_other = |backend: &&String| !self.repair.backends.contains(backend);
        let backends: Vec<&String> = place.backends.iter().filter(is_other).collect();
        let stays = self.places.is_needed(cluster, object);
        let mut changed = 0;
        let mut digests = Vec::new();
        for _ in 0..ROUNDS {
            match self.round(object, &backends, stays.is_some(), seen, &mut digests, &mut changed).await? {
                Ok(Round::Done) => {
                    if let Some(why) = &stays {
                        log::info!("{object} stays on {cluster} too: {why}");
                    }
                    drop(pass);
                    return Ok(Ok(changed));
                }
                Ok(Round::Next) => {}
                Err(outcome) => return Ok(Err(outcome)),
            }
        }
        Ok(Err(Outcome::Again { pause: OTHERS, why: "it changed again and again".into() }))
    }

    async fn round(
        &self,
        object: &Object,
        backends: &[&String],
        stays: bool,
        seen: &[WriteId],
        digests: &mut Vec<(String, String, super::Md5)>,
        changed: &mut usize,
    ) -> Result<Result<Round, Outcome>, JournalError> {
        let agreed = match self.repair.agree(object, &[]).await {
            Ok(agreed) => agreed,
            Err(outcome) => return Ok(Err(outcome)),
        };
        *changed += agreed.changed;
        let ask = backends.iter().map(|backend| async move {
            ((*backend).clone(), self.repair.stores.state(backend, object).await)
        });
        let mut there = futures_util::future::join_all(ask).await;
        let mut home = agreed.states;
        for (name, state) in there.iter_mut().chain(&mut home) {
            if let State::Present(held) = state {
                let known = digests.iter().find(|(backend, etag, _)| backend == name && *etag == held.etag);
                held.md5 = held.md5.or(known.map(|(_, _, md5)| *md5));
            }
        }
        let gate = Undisturbed { journal: self.repair.journal, gate: self.repair.gate, object, seen };
        let done = match step(&home, &there, stays) {
            Step::Done => return Ok(Ok(Round::Done)),
            Step::Wait(why) => return Ok(Err(Outcome::Failed { why })),
            Step::Park(why) => return Ok(Err(Outcome::Parked { why })),
            Step::Digest(names) => self.read(object, &there, &home, &names, digests).await,
            Step::Copy { source } => {
                let copied = self.copy(object, (&source, &there), &home, &gate, changed).await;
                if let Err(outcome) = self.overtaken(object, seen, &copied.1).await? {
                    return Ok(Err(outcome));
                }
                copied.0
            }
            Step::Delete { targets } => self.delete(object, &targets, &there, &gate, changed).await,
        };
        Ok(done.map(|()| Round::Next).map_err(|error| self.ends(error)))
    }

    async fn read(
        &self,
        object: &Object,
        there: &[(String, State)],
        home: &[(String, State)],
        names: &[String],
        digests: &mut Vec<(String, String, super::Md5)>,
    ) -> Result<(), StoreError> {
        for (name, state) in there.iter().chain(home).filter(|(name, _)| names.contains(name)) {
            let State::Present(held) = state else { continue };
            let md5 = self.repair.stores.md5(name, object, held).await?;
            digests.push((name.clone(), held.etag.clone(), md5));
        }
        Ok(())
    }

    /// Copies it to all backends of the home; and what was copied, whatever came of the rest.
    async fn copy<'b>(
        &self,
        object: &Object,
        from: (&str, &[(String, State)]),
        home: &'b [(String, State)],
        gate: &dyn Gate,
        changed: &mut usize,
    ) -> (Result<(), StoreError>, Vec<(&'b str, super::Copied)>) {
        let mut copies = Vec::new();
        let Some((_, State::Present(held))) = from.1.iter().find(|(name, _)| name == from.0) else {
            return (Ok(()), copies);
        };
        for (target, over) in home {
            match self.repair.stores.copy(object, (from.0, held), (target, over), gate).await {
                Ok(copied) => {
                    *changed += 1;
                    copies.push((target.as_str(), copied));
                }
                Err(error) => return (Err(error), copies),
            }
        }
        (Ok(()), copies)
    }

    /// Takes copies back if the object was deleted while they were made.
    async fn overtaken(
        &self,
        object: &Object,
        seen: &[WriteId],
        copies: &[(&str, super::Copied)],
    ) -> Result<Result<(), Outcome>, JournalError> {
        let Some(case) = self.calm(object).await? else { return Ok(Ok(())) };
        let new: Vec<&What> = new_in(&case, seen).map(|record| &record.intent.what).collect();
        let deleted = new.contains(&&What::Delete) && !new.contains(&&What::Put);
        for (backend, copied) in copies.iter().filter(|_| deleted) {
            let State::Present(held) = self.repair.stores.state(backend, object).await else { continue };
            if held.etag == copied.etag && held.version == copied.version {
                let undone = self.repair.stores.delete(object, (backend, &held), self.repair.gate).await;
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
        there: &[(String, State)],
        gate: &dyn Gate,
        changed: &mut usize,
    ) -> Result<(), StoreError> {
        for (name, state) in there.iter().filter(|(name, _)| targets.contains(name)) {
            let State::Present(held) = state else { continue };
            self.repair.stores.delete(object, (name, held), gate).await?;
            *changed += 1;
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

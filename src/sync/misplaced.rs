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
//! is waited for until it cannot any more, by whoever has the object ([`Moved::Sent`]).
//!
//! | file | |
//! |---|---|
//! | `belongings.rs` | what would be lost with what is elsewhere |
//! | `elsewhere.rs` | where it may be beside its home, and whether that is quiet |
//! | `step.rs` | what is next, by what backends hold |
//! | `sent.rs` | copies of which nobody knows yet whether they may stay |

use std::time::Duration;

use tokio::time::Instant;

use self::{
    elsewhere::Quiet,
    sent::{Arrival, Copy},
    step::States,
};
pub use self::{
    elsewhere::{Elsewhere, found_on},
    sent::Sent,
    step::{Step, step},
};
use super::{
    Gate, Held, Md5, State, StoreError,
    decide::Known,
    repair::{Outcome, Repair, Undisturbed, new_in, waits},
};
use crate::journal::{Case, JournalError, Lease, Object, Resolution, WriteId};

mod belongings;
mod elsewhere;
mod sent;
mod step;

/// Each begins with asking everybody.
const ROUNDS: usize = 6;
/// Before an object is looked at again of which somebody else has work to do first.
const OTHERS: Duration = Duration::from_secs(10);

/// One object on its way home.
pub struct Move<'a> {
    pub repair: &'a Repair<'a>,
    pub elsewhere: &'a Elsewhere<'a>,
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Moved {
    Ended(Outcome),
    /// It has to be waited for, until nothing of this can arrive, and nobody writes; then it is looked back at.
    Sent(Sent),
}

impl From<Outcome> for Moved {
    fn from(outcome: Outcome) -> Moved {
        Moved::Ended(outcome)
    }
}

/// What a round came to.
enum Round {
    Done,
    Next,
}

/// What one attempt has found out.
#[derive(Default)]
struct Progress {
    digests: Vec<(String, String, Md5)>,
}

impl Move<'_> {
    /// As [`Repair::run`].
    pub async fn run(&self, lease: &Lease, case: &Case) -> Result<Moved, JournalError> {
        if case.under_way > 0 {
            return Ok(Outcome::Again { pause: OTHERS, why: "a write is under way".into() }.into());
        }
        if let Some(busy) = self.elsewhere.is_busy(self.repair.journal).await? {
            return Ok(busy.into());
        }
        let seen = case.ids();
        if let Err(moved) = self.fetch(&lease.object, &seen).await? {
            return Ok(moved);
        }
        let outcome = match self.repair.journal.resolve(lease, &seen, &[]).await? {
            Resolution::Resolved => Outcome::Resolved,
            Resolution::Changed => again("it was written to meanwhile"),
            Resolution::Lost => Outcome::Lost,
        };
        Ok(outcome.into())
    }

    /// Moves it home.
    async fn fetch(&self, object: &Object, seen: &[WriteId]) -> Result<Result<(), Moved>, JournalError> {
        let Repair { journal, gate, .. } = *self.repair;
        let home = Undisturbed { journal, gate, object, seen };
        let gate = Quiet { home, others: &self.elsewhere.others };
        let mut progress = Progress::default();
        for _ in 0..ROUNDS {
            match self.round(object, &gate, &mut progress).await? {
                Ok(Round::Done) => return Ok(Ok(())),
                Ok(Round::Next) => {}
                Err(moved) => return Ok(Err(moved)),
            }
        }
        let why = "it changed again and again".into();
        Ok(Err(Outcome::Failed { why }.into()))
    }

    async fn round(
        &self,
        object: &Object,
        gate: &Quiet<'_>,
        progress: &mut Progress,
    ) -> Result<Result<Round, Moved>, JournalError> {
        let seen = Instant::now();
        let at_home = Repair { gate, ..*self.repair };
        let mut home = match at_home.agree(object, Known::default()).await {
            Ok(states) => states,
            Err(outcome) => return Ok(Err(outcome.into())),
        };
        let mut there = self.elsewhere.ask(self.repair.stores, object).await;
        there.iter_mut().flatten().chain(&mut home).for_each(|state| progress.remind(state));
        let next = step(&home, &there, &self.elsewhere.stays);
        let there = there.concat();
        let done = match next {
            Step::Done => return Ok(Ok(Round::Done)),
            Step::Wait(why) => return Ok(Err(waits(&there, why).into())),
            Step::Park(why) => return Ok(Err(Outcome::Parked { why }.into())),
            Step::Digest(names) => self.read(object, &[there, home].concat(), &names, progress).await,
            Step::Copy { source } => {
                let sent = self.copy(object, (&source, &there), (&home, seen), gate).await;
                // Whatever the journal says, or does not.
                if sent.may_arrive() {
                    return Ok(Err(Moved::Sent(sent)));
                }
                let case = self.repair.journal.show(object).await?;
                if case.is_some_and(|case| is_written_to(&case, gate.home.seen)) {
                    return Ok(Err(Moved::Sent(sent)));
                }
                sent.ended
            }
            Step::Delete { targets } => match self.left_behind(object, &targets, &there, &home).await {
                Ok(None) => self.delete(object, &targets, &there, gate).await,
                Ok(Some(why)) => return Ok(Err(Outcome::Parked { why }.into())),
                Err(error) => Err(error),
            },
        };
        Ok(done.map(|()| Round::Next).map_err(|error| ends(self.repair, error).into()))
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

    /// Copies it to all backends of the home, up to the first that cannot be done.
    async fn copy(
        &self,
        object: &Object,
        from: (&str, &States),
        (home, seen): (&States, Instant),
        gate: &dyn Gate,
    ) -> Sent {
        let mut sent = Sent { copies: Vec::new(), ended: Ok(()) };
        let Some((_, State::Present(source))) = from.1.iter().find(|(name, _)| name == from.0) else {
            return sent;
        };
        let mut md5 = source.md5;
        for (target, over) in home {
            let copied = self.repair.stores.copy(object, (from.0, source), (target, over, seen), gate).await;
            self.repair.attempt.note(&copied);
            if let Some(arrival) = Arrival::of(&copied) {
                let source = Held { md5, ..source.clone() };
                sent.copies.push(Copy { backend: target.clone(), source, arrival });
            }
            match copied {
                // It stops with the first that is not sure.
                Ok(copied) => md5 = Some(copied.md5),
                Err(error) => {
                    sent.ended = Err(error);
                    break;
                }
            }
        }
        sent
    }

    async fn delete(
        &self,
        object: &Object,
        targets: &[String],
        there: &States,
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        let mut done: Vec<&String> = Vec::new();
        for (name, state) in there.iter().filter(|(name, _)| targets.contains(name)) {
            let State::Present(held) = state else { continue };
            if done.contains(&name) {
                continue;
            }
            let deleted = self.repair.stores.delete(object, (name, held), gate).await;
            self.repair.attempt.note(&deleted);
            deleted?;
            done.push(name);
        }
        Ok(())
    }
}

impl Progress {
    /// The digest of what a backend holds, if that was read.
    fn remind(&self, (name, state): &mut (String, State)) {
        if let State::Present(held) = state {
            let mut known =
                self.digests.iter().filter(|(backend, etag, _)| backend == name && *etag == held.etag);
            held.md5 = held.md5.or_else(|| known.next().map(|(_, _, md5)| *md5));
        }
    }
}

/// How an object ends that could not be worked with.
fn ends(repair: &Repair<'_>, error: StoreError) -> Outcome {
    repair.problem(error).unwrap_or_else(|| Outcome::Failed { why: "it changed while it was moved".into() })
}

/// Whether somebody writes to an object, or has since these records.
fn is_written_to(case: &Case, seen: &[WriteId]) -> bool {
    case.under_way > 0 || new_in(case, seen).next().is_some()
}

fn again(why: &str) -> Outcome {
    Outcome::Again { pause: Duration::ZERO, why: why.to_owned() }
}

#[cfg(test)]
mod tests;

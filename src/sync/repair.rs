//! One object, from a lease to its resolution: ask, decide, change, ask again.
//!
//! Only what is seen after the last change counts: a record is forgotten when a round of questions found all backends
//! in agreement. What is copied goes under conditions (the source as it was seen, the target as it was seen), and behind
//! a [`Gate`] that closes when the lease is lost or another write to the object is in the journal. What was sent on the way
//! is noted ([`Attempt`]), however it ends: who did not see all agree behind it has to tell the journal.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use self::attributes::LastWord;

use super::{
    Gate, Md5, State, StoreError, Stores,
    copies::Copies,
    decide::{ACL, Bounds, Decision, Known, TAGGING, decide},
};
use crate::journal::{Case, Journal, JournalError, Later, Lease, Object, Record, Resolution, What, WriteId};

mod attributes;

/// Rounds of one repair: each begins with asking all backends. A client that keeps writing is not chased for ever.
const ROUNDS: usize = 8;
/// Before a write that is under way is looked after again.
const WRITING: Duration = Duration::from_secs(2);

/// What the rules of a repair leave to the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How far the clocks of gateways and backends may be apart.
    pub clock_bound: Duration,
    /// After which a request whose outcome is unknown does not happen any more.
    pub settle: Duration,
    /// Whether a copy brings its source's ACL along.
    pub copy_acl: bool,
}

impl Rules {
    /// Sub-resources that go along with a copy.
    pub(super) fn along(&self) -> &'static [&'static str] {
        if self.copy_acl { &[TAGGING, ACL] } else { &[TAGGING] }
    }

    fn bounds(&self) -> Bounds {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Bounds { clocks: millis(self.clock_bound), settle: millis(self.settle) }
    }
}

/// How a repair ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All backends agree, and the journal has forgotten the object.
    Resolved,
    /// Nothing is wrong, but it is too early: a write is under way, or may still arrive.
    Again { pause: Duration, why: String },
    /// It could not be done now.
    Failed { why: String },
    /// The same, and nobody knows whether it was done: it may happen yet, until `settle` has passed.
    Unsettled { why: String },
    /// No rule decides, or a backend refuses.
    Parked { why: String },
    /// Another worker has the object by now.
    Lost,
}

/// What a repair needs.
pub struct Repair<'a> {
    pub journal: &'a dyn Journal,
    pub stores: &'a dyn Stores,
    /// Of the object's cluster, by endpoint.
    pub backends: &'a [String],
    /// See [`Known::hidden`].
    pub hidden: bool,
    pub rules: &'a Rules,
    pub gate: &'a dyn Gate,
    pub attempt: &'a Attempt,
}

/// What has been sent on the way, however that ends.
#[derive(Debug, Default)]
pub struct Attempt {
    changed: AtomicUsize,
    /// Something of it may still happen.
    is_open: AtomicBool,
}

impl Attempt {
    /// Backends that were written to, or may have been.
    pub fn changed(&self) -> usize {
        self.changed.load(Relaxed)
    }

    /// What a change has come to.
    pub(super) fn note<T>(&self, outcome: &Result<T, StoreError>) {
        if outcome.as_ref().err().is_none_or(StoreError::may_be_done) {
            self.changed.fetch_add(1, Relaxed);
        }
        if outcome.as_ref().err().is_some_and(StoreError::may_happen_yet) {
            self.is_open.store(true, Relaxed);
        }
    }

    /// When the object is to be looked at again. Who has changed something and did not see all backends agree then says
    /// so: what was written meanwhile may be under it, and what a backend holds may be of it. What may still happen is
    /// waited for, whatever came after it.
    pub fn postponed(&self, later: Later, settle: Duration) -> Later {
        let later = Later { unseen: later.unseen || self.changed() > 0, ..later };
        match self.is_open.load(Relaxed) {
            true => Later { pause: later.pause.max(settle), calm: true, ..later },
            false => later,
        }
    }

    /// The same of an object that is set aside: how long something may still happen, `None` = nothing was changed.
    pub fn set_aside(&self, unsettled: Option<Duration>, settle: Duration) -> Option<Duration> {
        match self.is_open.load(Relaxed) {
            true => Some(settle),
            false => unsettled.or((self.changed() > 0).then_some(Duration::ZERO)),
        }
    }
}

/// Digests that were read or copied, by backend and ETag.
type Digests = HashMap<(String, String), Md5>;

/// What has been done to an object.
#[derive(Default)]
struct Done {
    digests: Digests,
    copies: Copies,
}

/// What one round came to.
enum Round {
    /// Ask again.
    Next,
    End(Outcome),
}

/// Open as long as no write to the object has come since it was leased.
pub(super) struct Undisturbed<'a> {
    pub journal: &'a dyn Journal,
    pub gate: &'a dyn Gate,
    pub object: &'a Object,
    pub seen: &'a [WriteId],
}

#[async_trait]
impl Gate for Undisturbed<'_> {
    async fn may_go_on(&self) -> bool {
        let case = self.journal.show(self.object).await;
        let is_undisturbed = matches!(case, Ok(Some(case)) if case.under_way == 0 && new_in(&case, self.seen).next().is_none());
        // Last: the journal may have taken its time.
        is_undisturbed && self.gate.may_go_on().await
    }
}

pub(super) fn new_in<'a>(case: &'a Case, seen: &'a [WriteId]) -> impl Iterator<Item = &'a Record> {
    case.records.iter().filter(|record| !seen.contains(&record.id()))
}

impl Repair<'_> {
    /// Repairs one object. The caller gives the lease back as the outcome says; after `Resolved` it is gone.
    pub async fn run(&self, lease: &Lease, case: &Case) -> Result<Outcome, JournalError> {
        if case.under_way > 0 {
            return Ok(Outcome::Again { pause: WRITING, why: "a write is under way".into() });
        }
        let seen = case.ids();
        let undisturbed =
            Undisturbed { journal: self.journal, gate: self.gate, object: &lease.object, seen: &seen };
        let repair = Repair { gate: &undisturbed, ..*self };
        match repair.agree(&lease.object, Known { hidden: self.hidden, ..Known::of(case) }).await {
            Ok(_) => self.resolve(lease, case).await,
            Err(outcome) => Ok(outcome),
        }
    }

    /// Makes all backends agree, on what is returned; whatever else it comes to is how the repair ends. Each change goes through the gate, and
    /// so does what leads to one after the first: what was decided by holds no more when another write has come. That
    /// all agree needs no gate, since who forgets the records compares them.
    pub async fn agree(&self, object: &Object, known: Known<'_>) -> Result<Vec<(String, State)>, Outcome> {
        let mut done = Done::default();
        for round in 0..ROUNDS {
            let known = Known { changed: self.attempt.changed() > 0, ..known };
            let seen = Instant::now();
            let states = self.ask(object, &done.digests).await;
            if let Some(why) = done.copies.lost(&states) {
                return Err(Outcome::Parked { why });
            }
            let decision = decide(known, &states, self.rules.bounds());
            let goes_on = round == 0 || matches!(decision, Decision::Agreed { .. });
            if !goes_on && !self.gate.may_go_on().await {
                let why = "it is written to, or the lease is lost".into();
                return Err(Outcome::Again { pause: WRITING, why });
            }
            let round = match decision {
                Decision::Agreed { attributes } => {
                    let mut written = self.attributes(object, &attributes).await?;
                    if !done.copies.reach_all(self.backends) {
                        written += self.along(object, known, &states, &attributes).await?;
                    }
                    if written == 0 {
                        return Ok(states);
                    }
                    Round::Next
                }
                Decision::Copy { source, targets, attributes } => {
                    if let Some(why) = done.copies.is_in_vain(&states, &source, &targets) {
                        return Err(Outcome::Parked { why });
                    }
                    let words = self.last_words(object, attributes).await?;
                    self.bring(object, (&states, seen), &source, targets, &words, &mut done).await?
                }
                Decision::Delete { targets } => self.delete(object, &states, &targets).await,
                Decision::Digest(backends) => self.read(object, &states, &backends, &mut done.digests).await,
                Decision::Wait(why) => Round::End(waits(&states, why)),
                Decision::Park(why) => Round::End(Outcome::Parked { why }),
            };
            if let Round::End(outcome) = round {
                return Err(outcome);
            }
        }
        let why = format!("it changed {ROUNDS} times while it was looked at");
        Err(Outcome::Failed { why })
    }

    async fn resolve(&self, lease: &Lease, case: &Case) -> Result<Outcome, JournalError> {
        let seen = case.ids();
        // That it is elsewhere, too, stays to be said.
        let sightings = case.records.iter().filter(|record| matches!(record.intent.what, What::Misplaced(_)));
        let sightings: Vec<WriteId> = sightings.map(Record::id).collect();
        Ok(match self.journal.resolve(lease, &seen, &sightings).await? {
            Resolution::Resolved => Outcome::Resolved,
            Resolution::Changed => {
                Outcome::Again { pause: Duration::ZERO, why: "it was written to meanwhile".into() }
            }
            Resolution::Lost => Outcome::Lost,
        })
    }

    /// What all backends hold.
    async fn ask(&self, object: &Object, digests: &Digests) -> Vec<(String, State)> {
        let states = self.backends.iter().map(|backend| async move {
            let mut state = self.stores.state(backend, object).await;
            if let State::Present(held) = &mut state
                && held.md5.is_none()
            {
                held.md5 = digests.get(&(backend.clone(), held.etag.clone())).copied();
            }
            (backend.clone(), state)
        });
        futures_util::future::join_all(states).await
    }

    /// Copies to those first that have no last word about a sub-resource: what comes to nothing there does not cost it. Before
    /// the others are copied over the source gets what they have.
    async fn bring(
        &self,
        object: &Object,
        seen: (&[(String, State)], Instant),
        source: &str,
        targets: Vec<String>,
        words: &[LastWord],
        done: &mut Done,
    ) -> Result<Round, Outcome> {
        let has_one = |target: &String| words.iter().any(|word| word.holder == *target);
        let (last, first): (Vec<String>, Vec<String>) = targets.into_iter().partition(has_one);
        let copied = self.copy(object, seen, source, &first, words, done).await;
        if last.is_empty() || matches!(copied, Round::End(_)) {
            return Ok(copied);
        }
        self.give_back(object, words, source).await?;
        Ok(self.copy(object, seen, source, &last, words, done).await)
    }

    /// To each of the targets, which gets back at once what a copy has none of. What may still arrive of it is looked at
    /// again.
    async fn copy(
        &self,
        object: &Object,
        (states, seen): (&[(String, State)], Instant),
        source: &str,
        targets: &[String],
        words: &[LastWord],
        done: &mut Done,
    ) -> Round {
        let Some(State::Present(held)) = state_of(states, source) else { return Round::Next };
        let mut problem = None;
        for target in targets {
            let Some(over) = state_of(states, target) else { continue };
            let copied = self.stores.copy(object, (source, held), (target, over, seen), self.gate).await;
            self.attempt.note(&copied);
            match copied {
                Ok(copied) => {
                    done.digests.insert((source.to_owned(), held.etag.clone()), copied.md5);
                    done.digests.insert((target.clone(), copied.etag.clone()), copied.md5);
                    done.copies.note(target, &copied.etag, held);
                    problem = worst(problem, self.give_back(object, words, target).await.err());
                }
                Err(error) => problem = worst(problem, self.problem(error)),
            }
        }
        problem.map_or(Round::Next, Round::End)
    }

    async fn delete(&self, object: &Object, states: &[(String, State)], targets: &[String]) -> Round {
        let mut problem = None;
        for target in targets {
            let Some(State::Present(held)) = state_of(states, target) else { continue };
            let deleted = self.stores.delete(object, (target, held), self.gate).await;
            self.attempt.note(&deleted);
            if let Err(error) = deleted {
                problem = worst(problem, self.problem(error));
            }
        }
        problem.map_or(Round::Next, Round::End)
    }

    async fn read(
        &self,
        object: &Object,
        states: &[(String, State)],
        backends: &[String],
        digests: &mut Digests,
    ) -> Round {
        for backend in backends {
            let Some(State::Present(held)) = state_of(states, backend) else { continue };
            match self.stores.md5(backend, object, held).await {
                Ok(md5) => _ = digests.insert((backend.clone(), held.etag.clone()), md5),
                Err(error) => {
                    if let Some(outcome) = self.problem(error) {
                        return Round::End(outcome);
                    }
                }
            }
        }
        Round::Next
    }

    /// What a failure means for the repair; `None` = ask again.
    pub(super) fn problem(&self, error: StoreError) -> Option<Outcome> {
        match error {
            StoreError::Changed(_) => None,
            StoreError::Failed(why) => Some(Outcome::Failed { why }),
            StoreError::Unknown(why) => Some(Outcome::Unsettled { why }),
            StoreError::Refused(why) | StoreError::Denied { why, .. } => Some(Outcome::Parked { why }),
            StoreError::Unfinished { why, .. } => self.problem(*why),
        }
    }
}

/// What has to be waited for; not for what is refused, if that is all.
pub(super) fn waits(states: &[(String, State)], why: String) -> Outcome {
    let is_refused = states.iter().any(|(_, state)| matches!(state, State::Refused(_) | State::Denied(_)));
    let is_unknown = states.iter().any(|(_, state)| matches!(state, State::Unknown(_)));
    if is_refused && !is_unknown { Outcome::Parked { why } } else { Outcome::Failed { why } }
}

fn state_of<'a>(states: &'a [(String, State)], backend: &str) -> Option<&'a State> {
    states.iter().find(|(name, _)| name == backend).map(|(_, state)| state)
}

/// What may still happen must be waited for, whatever else there is; then what may get better by itself.
fn worst(known: Option<Outcome>, more: Option<Outcome>) -> Option<Outcome> {
    let weight = |outcome: &Option<Outcome>| match outcome {
        Some(Outcome::Unsettled { .. }) => 3,
        Some(Outcome::Failed { .. }) => 2,
        Some(_) => 1,
        None => 0,
    };
    if weight(&more) > weight(&known) { more } else { known }
}

#[cfg(test)]
pub(super) mod tests;

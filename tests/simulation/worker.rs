//! Workers: the real repair, on simulated backends and leases of the real journal in memory.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use akubra::{
    journal::{Case, Journal, Later, Lease, Object, Record, Standing, Wanted},
    sync::{
        Copied, Gate, Held, Md5, State, StoreError, Stores,
        misplaced::{Elsewhere, Move, Moved, Sent, found_on},
        repair::{Attempt, Outcome, Repair, Rules},
    },
};
use async_trait::async_trait;
use futures_util::future::{Either, select};
use tokio::time::Instant;

use crate::{
    exec::{Actor, Sim, lock},
    mutation::{Mutation, misread},
    wire::Answer,
    world::{BOUND, Effect, SPOILT, World, digest},
};

/// Less than what is sent before may take to arrive.
const HOLD: i64 = 600;

pub struct Hold {
    sim: Sim,
    until: AtomicI64,
    is_ignored: bool,
}

#[async_trait]
impl Gate for Hold {
    async fn may_go_on(&self) -> bool {
        self.is_ignored || self.until.load(Relaxed) > self.sim.now()
    }
}

pub struct Backends(pub Arc<World>, pub Actor);

impl Backends {
    /// Sends before this returns.
    fn ask<T: Send + 'static>(
        &self,
        backend: &str,
        effect: impl FnOnce(&World) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        let answer = self.0.exchange(self.0.at(backend), effect);
        async move { answered(answer.await) }
    }

    async fn held(&self, backend: &str, object: &Object) -> Result<Option<Held>, StoreError> {
        let (at, key) = (self.0.at(backend), object.key.clone());
        let held = self.ask(backend, move |world| world.held(at, &key)).await;
        held.map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// Stores or deletes, over what was there.
    async fn change(
        &self,
        object: &Object,
        backend: &str,
        over: Option<&Held>,
        effect: Effect,
        gate: &dyn Gate,
    ) -> Result<String, StoreError> {
        let (at, key) = (self.0.at(backend), object.key.clone());
        let is_blind = matches!(self.0.mutation, Mutation::Unchecked | Mutation::LeaseIgnored);
        let is_conditional = self.0.is_conditional(at) && !is_blind;
        if !is_conditional && !is_blind {
            let now = self.held(backend, object).await?;
            if now.as_ref().map(etag_of) != over.map(etag_of) {
                return Err(changed());
            }
        }
        if self.0.stalls() {
            self.0.sim.note(|| format!("worker {} stalls ahead of its change", self.1));
            self.0.sim.stall(self.1, self.0.sim.range(HOLD, 4_000));
            self.0.sim.sleep(1).await;
        }
        if self.0.mutation != Mutation::Unchecked && !gate.may_go_on().await {
            return Err(StoreError::Failed("called off".into()));
        }
        let over = over.map(|held| held.etag.clone());
        let change = move |world: &World| {
            let now = world.held(at, &key).map(|held| held.etag);
            (!is_conditional || now == over).then(|| world.store(at, &key, &effect))?
        };
        self.send(backend, change).await?.ok_or_else(changed)
    }

    /// What is not as it was sent.
    async fn take_away(&self, object: &Object, backend: &str, etag: &str, gate: &dyn Gate) -> StoreError {
        let failed = || StoreError::Failed("it is wrong".into());
        if self.0.is_faulty(300) {
            return failed();
        }
        let now = match self.held(backend, object).await {
            Ok(Some(now)) if now.etag == etag => now,
            _ => return failed(),
        };
        match self.change(object, backend, Some(&now), Effect::Delete, gate).await {
            Err(error @ StoreError::Unknown(_)) => error,
            Ok(_) | Err(_) => failed(),
        }
    }

    /// A change, after which the worker may stand still for longer than it has a lease.
    async fn send<T: Send + 'static>(
        &self,
        backend: &str,
        change: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.0.drags() {
            return answered(self.0.exchange_dragging(self.1, self.0.at(backend), change).await);
        }
        if !self.0.stalls() {
            return self.ask(backend, change).await;
        }
        let answer = self.0.exchange_stalling(self.0.at(backend), change);
        self.0.sim.note(|| format!("worker {} stalls behind its change", self.1));
        self.0.sim.stall(self.1, self.0.sim.range(HOLD, 4_000));
        answered(answer.await)
    }
}

fn answered<T>(answer: Answer<T>) -> Result<T, StoreError> {
    match answer {
        Answer::Done(answer) => Ok(answer),
        Answer::Away => Err(StoreError::Failed("away".into())),
        Answer::Broken | Answer::Lost => Err(StoreError::Unknown("lost".into())),
    }
}

fn etag_of(held: &Held) -> &str {
    &held.etag
}

fn changed() -> StoreError {
    StoreError::Changed("it changed".into())
}

#[async_trait]
impl Stores for Backends {
    async fn state(&self, backend: &str, object: &Object) -> State {
        let is_unseen =
            self.0.mutation == Mutation::HomeUnseen && self.0.at_home().contains(&self.0.at(backend));
        if let Some(held) =
            self.0.elsewhere().find_map(|at| self.0.held(at, &object.key)).filter(|_| is_unseen)
        {
            return State::Present(held);
        }
        match self.held(backend, object).await {
            Ok(held) => held.map_or(State::Absent, State::Present),
            Err(error) => State::Unknown(error.to_string()),
        }
    }

    async fn md5(&self, backend: &str, object: &Object, held: &Held) -> Result<Md5, StoreError> {
        let (at, key, etag) = (self.0.at(backend), object.key.clone(), held.etag.clone());
        let read = move |world: &World| {
            let same = world.held(at, &key).is_some_and(|held| held.etag == etag);
            world.text(at, &key).filter(|_| same).map(|text| digest(&text))
        };
        let read = self.ask(backend, read).await.map_err(|error| StoreError::Failed(error.to_string()))?;
        read.ok_or_else(changed)
    }

    async fn copy(
        &self,
        object: &Object,
        from: (&str, &Held),
        to: (&str, &State, Instant),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError> {
        let (at, key, etag) = (self.0.at(from.0), object.key.clone(), from.1.etag.clone());
        let read = move |world: &World| {
            let same = world.held(at, &key).is_some_and(|held| held.etag == etag);
            world.copied(at, &key).filter(|_| same)
        };
        let read = self.ask(from.0, read).await.map_err(|error| StoreError::Failed(error.to_string()))?;
        let mut content = read.ok_or_else(changed)?;
        let Effect::Put { text, .. } = &mut content else { return Err(changed()) };
        let md5 = digest(text);
        let is_spoilt = self.0.spoils();
        if is_spoilt {
            *text = SPOILT.into();
        }
        let over = match to.1 {
            State::Present(held) => Some(held),
            _ => None,
        };
        let etag = self.change(object, to.0, over, content, gate).await?;
        let why = match is_spoilt {
            true => self.take_away(object, to.0, &etag, gate).await,
            false if self.0.spoils() => StoreError::Failed("it cannot be verified".into()),
            false => return Ok(Copied { etag, version: None, md5 }),
        };
        Err(StoreError::Unfinished { etag: Some(etag), why: Box::new(why) })
    }

    async fn delete(
        &self,
        object: &Object,
        backend: (&str, &Held),
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        self.change(object, backend.0, Some(backend.1), Effect::Delete, gate).await.map(|_| ())
    }

    async fn attribute(
        &self,
        backend: &str,
        object: &Object,
        _: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (at, key) = (self.0.at(backend), object.key.clone());
        let tags = self.ask(backend, move |world| world.tags(at, &key)).await;
        let tags = tags.map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(tags.map(String::into_bytes))
    }

    async fn set_attribute(
        &self,
        backend: &str,
        object: &Object,
        _: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let (at, key) = (self.0.at(backend), object.key.clone());
        let tags = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        let set = self.send(backend, move |world| world.store(at, &key, &Effect::Tag(tags))).await?;
        set.map(|_| ()).ok_or_else(changed)
    }
}

/// Leases and repairs for ever.
pub async fn work(world: Arc<World>, actor: Actor) {
    let name = format!("worker {actor}");
    let ignored = world.mutation == Mutation::LeaseIgnored;
    let wanted = if world.is_moving() { Wanted::Misplaced } else { Wanted::Diverged };
    let lease_settle = if ignored { Duration::ZERO } else { world.settle };
    loop {
        world.sim.pause(10, world.rest).await;
        let asked = world.sim.now();
        let hold = Duration::from_millis(HOLD as u64);
        let leases = world.journal.lease(&name, wanted, 1, hold, lease_settle).await.unwrap();
        for (lease, case) in leases {
            world.sim.note(|| format!("{name} leases {}, {:?}", lease.object, case.unseen));
            let until = AtomicI64::new(asked + HOLD);
            let hold = Hold { sim: world.sim.clone(), until, is_ignored: ignored };
            let attempt = Attempt::default();
            let outcome = match select(
                pin!(repair(&world, actor, &lease, &case, &hold, &attempt)),
                pin!(keep(&world, &lease, &hold)),
            )
            .await
            {
                Either::Left((outcome, _)) => outcome,
                Either::Right(((), _)) => Outcome::Lost,
            };
            world.sim.note(|| format!("{name}: {outcome:?}"));
            let is_untold = world.mutation == Mutation::ChangesUntold;
            let told = if is_untold { Attempt::default() } else { attempt };
            hand_over(&world, &lease, &case, outcome, &told).await;
        }
    }
}

async fn repair(
    world: &Arc<World>,
    actor: Actor,
    lease: &Lease,
    case: &Case,
    gate: &Hold,
    attempt: &Attempt,
) -> Outcome {
    let bound = if world.mutation == Mutation::ClocksTrusted { 0 } else { BOUND };
    let clock_bound = Duration::from_millis(bound as u64);
    let known = misread(world.mutation, case);
    let rules = Rules { clock_bound, settle: world.settle, copy_acl: false };
    let stores = Backends(world.clone(), actor);
    let place = world.places.get(&lease.object.cluster).unwrap();
    let journal = &*world.journal;
    let hidden = world.places.is_hidden(&lease.object);
    let backends = &place.backends;
    let repair = Repair { journal, stores: &stores, backends, hidden, rules: &rules, gate, attempt };
    let sightings: Vec<&Record> = case.records.iter().filter(|record| found_on(record).is_some()).collect();
    if !sightings.is_empty() {
        lock(&world.sighted).insert(lease.object.key.clone());
    }
    if world.is_moving() && sightings.len() == case.records.len() {
        return bring_home(world, lease, case, &repair).await;
    }
    let outcome = repair.run(lease, &known).await.unwrap();
    let is_guessed = matches!(&outcome, Outcome::Parked { why } if why.starts_with("nothing tells which"));
    if is_guessed && world.mutation == Mutation::Guessed {
        journal.drop_object(&lease.object, "").await.unwrap();
    }
    if outcome == Outcome::Resolved && world.mutation == Mutation::SightingsForgotten {
        journal.drop_object(&lease.object, "").await.unwrap();
    }
    outcome
}

async fn bring_home(world: &Arc<World>, lease: &Lease, case: &Case, repair: &Repair<'_>) -> Outcome {
    let home = world.places.get(&lease.object.cluster).unwrap();
    let elsewhere = Elsewhere::of(&world.places, home, &lease.object, case);
    let moved = Move { repair, elsewhere: &elsewhere }.run(lease, case).await.unwrap();
    let sent = match moved {
        Moved::Ended(outcome) => return outcome,
        Moved::Sent(sent) => sent,
    };
    let begins_anew = || Outcome::Again { pause: Duration::ZERO, why: "it begins anew".into() };
    if world.mutation == Mutation::CopiesUnawaited {
        return begins_anew();
    }
    if world.mutation == Mutation::CopiesForgotten {
        calm(world, lease, &sent).await;
        return begins_anew();
    }
    for _ in 0..20 {
        let now = calm(world, lease, &sent).await;
        match sent.look_back(repair, &lease.object, &case.ids(), now.as_ref()).await {
            Ok(outcome) => return outcome,
            Err(error) => world.sim.note(|| format!("a copy is not taken back yet: {error}")),
        }
    }
    Outcome::Unsettled { why: "it could not be taken back".into() }
}

/// Waits until no copy can arrive any more and no write is under way.
async fn calm(world: &World, lease: &Lease, sent: &Sent) -> Option<Case> {
    let show = || async { world.journal.show(&lease.object).await.unwrap() };
    if sent.may_arrive() {
        world.sim.sleep(world.settle.as_millis() as i64).await;
    }
    let mut now = show().await;
    for _ in 0..20 {
        if now.as_ref().is_none_or(|case| case.under_way == 0) {
            break;
        }
        world.sim.sleep(500).await;
        now = show().await;
    }
    now
}

async fn keep(world: &World, lease: &Lease, hold: &Hold) {
    loop {
        world.sim.sleep(HOLD / 3).await;
        let asked = world.sim.now();
        let length = Duration::from_millis(HOLD as u64);
        let held = hold.until.load(Relaxed) > asked
            && world.journal.renew(lease, length, world.settle).await.unwrap();
        if held {
            hold.until.store(asked + HOLD, Relaxed);
        } else if !hold.is_ignored {
            return;
        }
    }
}

async fn hand_over(world: &World, lease: &Lease, case: &Case, outcome: Outcome, attempt: &Attempt) {
    let journal = &world.journal;
    let after = |later: Later| attempt.postponed(later, world.settle);
    let seen: Vec<_> = case.records.iter().map(|record| record.id()).collect();
    let told = match outcome {
        Outcome::Resolved | Outcome::Lost => Ok(()),
        Outcome::Again { pause, why } => journal.postpone(lease, after(Later::again(pause)), &why).await,
        Outcome::Failed { why } => {
            journal.postpone(lease, after(Later::failed(Duration::from_secs(1))), &why).await
        }
        Outcome::Unsettled { why } if world.is_faulty(100) => {
            journal.set_aside(lease, Standing::Dead, Some(world.settle), &seen, &why).await
        }
        Outcome::Unsettled { why } => journal.postpone(lease, Later::unsettled(world.settle), &why).await,
        Outcome::Parked { why } => {
            let unsettled = attempt.set_aside(None, world.settle);
            journal.set_aside(lease, Standing::Parked, unsettled, &seen, &why).await
        }
    };
    told.unwrap();
}

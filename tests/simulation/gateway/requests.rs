//! What a gateway does for its clients, with the real intents, verdicts and outcomes.

use std::{
    ops::Range,
    slice::from_ref,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use akubra::{
    config::Consistency,
    gateway::journaling::outcome::{outcome, whole},
    journal::{Ended, Intent, Outcome, Record, Said, What, WriteId},
    mirror::{
        Kind, Reply,
        verdict::{Decision, Event, Rule, Seen, Verdict, divergences},
    },
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::StatusCode;

use super::Gateway;
use crate::{
    exec::{Latch, Receiver, Sender, channel, lock},
    mutation::Mutation,
    wire::Answer,
    world::{Effect, World, object, object_on},
};

/// A write that has begun; dropped, nobody knows what became of it.
struct Begun {
    gateway: Arc<Gateway>,
    /// One for each cluster, with whether its object had records.
    intents: Vec<(Arc<Intent>, bool)>,
}

impl Gateway {
    /// A client's request; `at` is its place among all writes.
    pub async fn write(self: Arc<Self>, at: usize, key: Vec<u8>, effect: Effect, client: Sender<bool>) {
        self.under_way.fetch_add(1, Relaxed);
        let is_answered = self.clone().try_write(at, key, &effect, client).await;
        self.under_way.fetch_sub(1, Relaxed);
        let world = &self.world;
        lock(&world.writes)[at].closed = world.event();
        if let Err(client) = is_answered {
            client.send(false);
        }
    }

    /// `Err` = it came to nothing.
    async fn try_write(
        self: Arc<Self>,
        at: usize,
        key: Vec<u8>,
        effect: &Effect,
        client: Sender<bool>,
    ) -> Result<(), Sender<bool>> {
        let world = self.world.clone();
        let Some(begun) = self.begin(self.intents(&key, effect)).await else { return Err(client) };
        world.sim.pause(0, if world.sim.chance(100) { 2_000 } else { 20 }).await;
        if world.is_faulty(30) {
            begun.nothing_was_sent();
            return Err(client);
        }
        let commit = self.commits.fetch_add(1, Relaxed) + 1;
        let rule = if *effect == Effect::Delete { Rule::EveryCluster } else { Rule::FirstGood };
        let mut verdict =
            Verdict::new(rule, reached(&world, effect).map(|at| cluster(&world, effect, at)).collect());
        verdict.on(Event::BodyEnded);
        let mut client = Some(client);
        let mut subs: FuturesUnordered<_> = self.sends(&key, effect).into_iter().collect();
        let mut replies = Vec::new();
        while let Some((sub, reply)) = subs.next().await {
            let decided = verdict.on(Event::Reply(sub, seen(&reply)));
            replies.push((sub, reply));
            if let (Some(decision), Some(client)) = (decided, client.take_if(|_| decided.is_some())) {
                let is_good = |sub| replies.iter().any(|(at, reply)| *at == sub && reply.kind == Kind::Good);
                client.send(matches!(decision, Decision::Answer(sub) if is_good(sub)));
            }
        }
        let replies: Vec<Reply> = replies.into_iter().map(|(_, reply)| reply).collect();
        lock(&world.writes)[at].whole = replies.iter().all(|reply| reply.kind == Kind::Good);
        begun.end(&replies, commit);
        Ok(())
    }

    /// `None` = the journal cannot be told.
    async fn begin(self: &Arc<Self>, intents: Vec<Arc<Intent>>) -> Option<Begun> {
        if self.world.mutation == Mutation::MemoryLost {
            let remembered = &self.overview.remembered;
            remembered.learn_all(Vec::new(), true, remembered.asking(u64::MAX));
        }
        let with_contested =
            |intent: &Arc<Intent>| (intent.clone(), self.overview.may_have_records(&intent.object));
        let contested = intents.iter().map(with_contested).collect();
        let consistency = self.world.consistency;
        let is_strong = consistency == Consistency::Strong;
        if is_strong && !self.are_on_disk(&intents).await {
            return None;
        }
        intents.iter().for_each(|intent| self.overview.begin(intent, is_strong, &**self));
        let begun = Begun { gateway: self.clone(), intents: contested };
        if !is_strong {
            self.tell_what_must_be(intents).await;
        }
        Some(begun)
    }

    async fn tell_what_must_be(&self, intents: Vec<Arc<Intent>>) {
        let is_weak = self.world.consistency == Consistency::Weak;
        let (known, others): (Vec<_>, Vec<_>) =
            intents.into_iter().partition(|intent| self.overview.may_have_records(&intent.object));
        let mut known = self.unclaimed(known);
        let mut others = if is_weak { self.unclaimed(others) } else { Vec::new() };
        if self.world.mutation == Mutation::KnownUnseen {
            let unseen = std::mem::take(&mut known);
            others.extend(unseen.into_iter().filter(|_| is_weak));
        }
        let on_disk = self.begins_now(&known);
        known.iter().for_each(|intent| self.overview.unclaim(intent, on_disk.is_some()));
        others.iter().for_each(|intent| self.overview.unclaim(intent, self.begins_soon(intent)));
        if let Some(on_disk) = on_disk {
            self.is_heard(on_disk).await;
        }
    }

    fn unclaimed(&self, intents: Vec<Arc<Intent>>) -> Vec<Arc<Intent>> {
        intents.into_iter().filter(|intent| !self.overview.claim(intent)).collect()
    }

    pub(super) fn begins_soon(&self, intent: &Arc<Intent>) -> bool {
        !self.is_unavailable.load(Relaxed) && self.put(|waiting, now| waiting.begin(from_ref(intent), now))
    }

    /// `None` = there are none, or the journal cannot be told.
    fn begins_now(&self, intents: &[Arc<Intent>]) -> Option<Receiver<()>> {
        if intents.is_empty() || self.is_unavailable.load(Relaxed) {
            return None;
        }
        let (token, told) = channel();
        self.put(|waiting, now| waiting.begin_now(intents, token, now)).map_err(drop).unwrap();
        Some(told)
    }

    async fn is_heard(&self, told: Receiver<()>) -> bool {
        self.world.mutation == Mutation::NobodyWaits || told.recv().await.is_some()
    }

    async fn are_on_disk(&self, intents: &[Arc<Intent>]) -> bool {
        match self.begins_now(intents) {
            Some(told) => self.is_heard(told).await,
            None => false,
        }
    }

    /// A DELETE goes to every cluster.
    fn intents(&self, key: &[u8], effect: &Effect) -> Vec<Arc<Intent>> {
        let mut intents = vec![Arc::new(self.intent(key, effect))];
        if *effect == Effect::Delete && self.world.is_moving() {
            // In the order of the configuration.
            let there = Intent { object: object_on("old", key), ..self.intent(key, effect) };
            intents.insert(0, Arc::new(there));
        }
        intents
    }

    fn intent(&self, key: &[u8], effect: &Effect) -> Intent {
        let (what, length) = match effect {
            Effect::Put { text, .. } => (What::Put, Some(text.len() as u64)),
            Effect::Delete => (What::Delete, Some(0)),
            Effect::Tag(_) => (What::Attribute(self.world.sub_resource().into()), None),
        };
        let number = self.numbers.fetch_add(1, Relaxed) + 1;
        Intent {
            id: WriteId { gateway: self.id, number },
            object: object(key),
            what,
            region: "r".into(),
            req_id: format!("{}-{number}", self.id),
            length,
            begun: self.now(),
            strong: self.world.consistency == Consistency::Strong,
            turn: None,
        }
    }

    /// On each backend a write follows those before it.
    fn sends(
        self: &Arc<Self>,
        key: &[u8],
        effect: &Effect,
    ) -> Vec<impl Future<Output = (usize, Reply)> + Send + use<>> {
        let send = |at: usize| {
            let (world, key, effect) = (self.world.clone(), key.to_vec(), effect.clone());
            let cluster = cluster(&world, &effect, at);
            let own = Arc::new(Latch::default());
            let before = lock(&self.turns).insert((key.clone(), at), own.clone());
            async move {
                if let Some(before) = before {
                    before.wait().await;
                }
                let store = move |world: &World| world.store(at, &key, &effect);
                let sent_twice = world.is_late && world.is_faulty(20);
                if sent_twice {
                    // Its connection dies without an answer; nobody takes it back.
                    drop(world.exchange(at, store.clone()));
                }
                let answer = world.exchange(at, store).await;
                own.set();
                (at, Reply { sent_twice, cluster, ..reply(&world, at, answer) })
            }
        };
        reached(&self.world, effect).map(send).collect()
    }

    /// A client's GET. What it finds amiss the journal hears.
    pub async fn read(self: Arc<Self>, key: Vec<u8>, _client: Sender<()>) {
        let world = &self.world;
        let known = self.overview.remembered.of(&object(&key));
        let mut order: Vec<usize> = world.at_home().collect();
        let first = world.sim.range(0, order.len() as i64 - 1) as usize;
        order.rotate_left(first);
        order.sort_by_key(|at| known.as_ref().is_some_and(|known| known.lags(&world.names[*at])));
        order.extend(world.elsewhere());
        let mut absent = Vec::new();
        for at in order {
            let wanted = key.clone();
            let answer = world.exchange(at, move |world| world.text(at, &wanted)).await;
            match answer {
                Answer::Done(Some(_)) if world.elsewhere().contains(&at) => {
                    return self.found(&key, What::Misplaced("old".into()), absent);
                }
                Answer::Done(Some(_)) => {
                    if !absent.is_empty() && !self.is_being_written(&key) {
                        absent.push((world.names[at].clone(), Said::Good { etag: None, version: None }));
                        self.found(&key, What::Seen, absent);
                    }
                    return;
                }
                Answer::Done(None) if world.at_home().contains(&at) => {
                    absent.push((world.names[at].clone(), Said::NotApplied));
                }
                Answer::Done(None) | Answer::Away | Answer::Broken | Answer::Lost => {}
            }
        }
    }

    fn is_being_written(&self, key: &[u8]) -> bool {
        lock(&self.turns).iter().any(|((name, _), turn)| name == key && !turn.is_set())
    }

    fn found(&self, key: &[u8], what: What, replies: Vec<(String, Said)>) {
        let known = self.overview.remembered.of(&object(key));
        if known.is_some_and(|known| known.says(&what)) {
            return;
        }
        let intent = Intent { what, strong: false, ..self.intent(key, &Effect::Delete) };
        self.world.sim.note(|| format!("{} has seen {:?} {replies:?}", intent.req_id, intent.what));
        let record = Record { ended: intent.begun, intent, commit: None, turn: None, replies };
        self.overview.note(&record, false, self);
    }
}

impl Begun {
    fn nothing_was_sent(mut self) {
        self.ends_as(Outcome::Void);
    }

    fn end(mut self, replies: &[Reply], commit: i64) {
        let seen: Vec<_> = replies.iter().map(|reply| (reply.kind, reply.etag.as_deref())).collect();
        let parts = whole(replies, &divergences(&seen, true));
        for (at, (intent, contested)) in std::mem::take(&mut self.intents).into_iter().enumerate() {
            let (outcome, replies) = outcome(at, &parts, &[]);
            let (intent, commit) = (Arc::unwrap_or_clone(intent), Some(commit));
            let record = Record { intent, commit, ended: self.gateway.now(), turn: None, replies };
            let trace = || format!("{} ends: {outcome:?} {:?}", record.intent.req_id, record.replies);
            self.gateway.world.sim.note(trace);
            self.tell(record, outcome, contested);
        }
    }

    fn ends_as(&mut self, outcome: Outcome) {
        for (intent, contested) in std::mem::take(&mut self.intents) {
            let intent = Arc::unwrap_or_clone(intent);
            self.tell(Record::orphaned(intent, self.gateway.now()), outcome, contested);
        }
    }

    fn tell(&self, record: Record, outcome: Outcome, contested: bool) {
        let gateway = &self.gateway;
        let was_dead = record.id().number <= gateway.orphaned.load(Relaxed);
        let orphaned = was_dead || gateway.is_unavailable.load(Relaxed);
        gateway.overview.end(Ended { record, outcome, orphaned, contested }, &**gateway);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.ends_as(Outcome::Diverged);
    }
}

/// The backends that a write goes to.
fn reached(world: &World, effect: &Effect) -> Range<usize> {
    if *effect == Effect::Delete { 0..world.backends.len() } else { world.at_home() }
}

/// Of the clusters that a write goes to.
fn cluster(world: &World, effect: &Effect, at: usize) -> usize {
    usize::from(*effect == Effect::Delete && world.is_moving() && world.at_home().contains(&at))
}

fn reply(world: &World, at: usize, answer: Answer<Option<String>>) -> Reply {
    let (kind, status, etag) = match answer {
        Answer::Done(Some(etag)) => (Kind::Good, Some(StatusCode::OK), Some(etag)),
        Answer::Done(None) => (Kind::NotApplied, Some(StatusCode::NOT_FOUND), None),
        Answer::Away => (Kind::NotApplied, None, None),
        Answer::Broken => (Kind::NotApplied, Some(StatusCode::INTERNAL_SERVER_ERROR), None),
        Answer::Lost => (Kind::Unknown, None, None),
    };
    Reply {
        backend: world.backends[at].clone(),
        cluster: 0,
        kind,
        status,
        etag: etag.filter(|etag| !etag.is_empty()),
        comparable: true,
        version: None,
        result: None,
        sent_twice: false,
        error: String::new(),
    }
}

fn seen(reply: &Reply) -> Seen {
    Seen {
        kind: reply.kind,
        answered: reply.status.is_some(),
        absent: false,
        broken: false,
        refused: reply.status.is_some_and(|status| status.is_client_error()),
    }
}

//! A gateway as the journal sees it: the real intents, verdicts, queue and memory, with a process around them that
//! crashes, stalls, is taken for dead, and finds the journal away.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use akubra::{
    config::Consistency,
    gateway::journaling::outcome::{outcome, whole},
    journal::{
        Change, Changes, Ended, Intent, Journal, Life, Mark, News, Outcome, Overview, Record, Said, Waiting,
        What, WriteId,
    },
    mirror::{
        Kind, Reply,
        verdict::{Decision, Event, Rule, Seen, Verdict, divergences},
    },
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::StatusCode;

use crate::{
    exec::{Actor, Latch, START, Sender, channel, lock},
    world::{Answer, Effect, Mutation, SILENT, World, object},
};

/// Of the clock that the queue is given.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// An object on a backend.
type Turn = (Vec<u8>, usize);

/// One process.
pub struct Gateway {
    pub world: Arc<World>,
    pub actor: Actor,
    /// Its number in the journal.
    pub id: i64,
    /// Up to which of its writes have become records, because it was taken for dead.
    orphaned: AtomicI64,
    skew: i64,
    numbers: AtomicI64,
    commits: AtomicI64,
    /// Writes that have not ended.
    under_way: AtomicI64,
    waiting: Mutex<Waiting<Sender<()>>>,
    /// Set when something waits.
    wake: Mutex<Arc<Latch>>,
    is_unavailable: AtomicBool,
    overview: Overview,
    /// The last write of an object on a backend, until it has ended there.
    turns: Mutex<BTreeMap<Turn, Arc<Latch>>>,
}

/// A write that has begun; dropped, nobody knows what became of it.
struct Begun {
    gateway: Arc<Gateway>,
    intent: Option<Arc<Intent>>,
    contested: bool,
}

impl Gateway {
    /// `predecessor` died on the same host.
    pub async fn start(world: Arc<World>, skew: i64, predecessor: Option<i64>) -> Arc<Gateway> {
        let is_early = world.mutation == Mutation::HeirsTooEarly;
        if let Some(dead) = predecessor.filter(|_| !is_early) {
            inherit(&world, dead).await;
        }
        let gateway = Arc::new(Gateway {
            actor: world.sim.actor(),
            id: enrol(&world).await,
            orphaned: AtomicI64::new(0),
            skew,
            numbers: AtomicI64::new(0),
            commits: AtomicI64::new(0),
            under_way: AtomicI64::new(0),
            waiting: Mutex::default(),
            wake: Mutex::default(),
            is_unavailable: AtomicBool::new(false),
            overview: Overview::new(1000),
            turns: Mutex::default(),
            world,
        });
        gateway.world.sim.note(|| format!("gateway {} is there", gateway.id));
        let all = gateway.world.journal.unresolved(1000).await.unwrap();
        gateway.overview.remembered.learn_all(&all.objects, all.whole, 0);
        let sim = &gateway.world.sim;
        sim.spawn(gateway.actor, gateway.clone().write_journal());
        sim.spawn(gateway.actor, gateway.clone().follow(all.mark));
        sim.spawn(gateway.actor, gateway.clone().keep());
        if let Some(dead) = predecessor.filter(|_| is_early) {
            let world = gateway.world.clone();
            sim.spawn(gateway.actor, async move {
                world.sim.sleep(1_000).await;
                inherit(&world, dead).await;
            });
        }
        gateway
    }

    fn now(&self) -> i64 {
        self.world.sim.now() + self.skew
    }

    fn instant(&self) -> Instant {
        *BEGINNING + Duration::from_millis((self.world.sim.now() - START) as u64)
    }

    async fn write_journal(self: Arc<Self>) {
        let world = &self.world;
        loop {
            if self.has_told_all() {
                self.is_unavailable.store(false, Relaxed);
                let wake = Arc::<Latch>::default();
                lock(&self.wake).clone_from(&wake);
                wake.wait().await;
            }
            world.sim.pause(1, 10).await;
            let batch = {
                let mut waiting = lock(&self.waiting);
                if waiting.due().is_none_or(|due| due > self.instant()) {
                    continue;
                }
                waiting.take()
            };
            let changes: Vec<_> = batch.changes().cloned().collect();
            let told = world.tell_journal(world.journal.apply(changes, world.settle)).await;
            // It is on disk, and nobody has heard of it yet.
            world.sim.pause(0, 5).await;
            if told.is_ok() || world.mutation == Mutation::BatchesLost {
                let waited = lock(&self.waiting).done(batch);
                waited.into_iter().for_each(|waits| waits.send(()));
                continue;
            }
            world.sim.note(|| format!("gateway {}: the journal failed", self.id));
            self.is_unavailable.store(true, Relaxed);
            let waited = lock(&self.waiting).give_back(batch);
            drop(waited);
            world.sim.pause(20, 300).await;
        }
    }

    async fn follow(self: Arc<Self>, mut mark: Mark) {
        loop {
            self.world.sim.pause(50, 500).await;
            let taken = lock(&self.waiting).taken_up_to();
            let news = self.world.journal.news(mark, Duration::ZERO).await.unwrap();
            let News::Changed(changed, now) = news else { continue };
            mark = now;
            for (object, records) in changed {
                self.overview.remembered.learn(&object, &records, taken);
            }
        }
    }

    async fn keep(self: Arc<Self>) {
        let world = &self.world;
        loop {
            world.sim.pause(500, 1_000).await;
            if let Ok(Life::TakenForDead) = world.tell_journal(world.journal.alive(self.id)).await {
                world.sim.note(|| format!("gateway {} was taken for dead", self.id));
                self.orphaned.store(self.numbers.load(Relaxed), Relaxed);
            }
            let silent = Duration::from_millis(SILENT as u64);
            world.tell_journal(world.journal.adopt(silent, world.settle)).await.unwrap_or_default();
        }
    }

    /// Whether it has nothing to tell the journal, and will not have.
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Relaxed) == 0 && self.has_told_all()
    }

    fn has_told_all(&self) -> bool {
        lock(&self.waiting).is_empty()
    }

    /// A client's request; `at` is its place among all writes.
    pub async fn write(self: Arc<Self>, at: usize, key: Vec<u8>, effect: Effect, client: Sender<bool>) {
        self.under_way.fetch_add(1, Relaxed);
        let is_answered = self.clone().try_write(key, &effect, client).await;
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
        key: Vec<u8>,
        effect: &Effect,
        client: Sender<bool>,
    ) -> Result<(), Sender<bool>> {
        let world = self.world.clone();
        let Some(begun) = self.begin(Arc::new(self.intent(&key, effect))).await else { return Err(client) };
        world.sim.pause(0, if world.sim.chance(100) { 2_000 } else { 20 }).await;
        if world.is_faulty(30) {
            begun.nothing_was_sent();
            return Err(client);
        }
        let commit = self.commits.fetch_add(1, Relaxed) + 1;
        let rule = if *effect == Effect::Delete { Rule::EveryCluster } else { Rule::FirstGood };
        let mut verdict = Verdict::new(rule, vec![0; world.names.len()]);
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
        begun.end(&replies, commit);
        Ok(())
    }

    /// `None` = the journal cannot be told.
    async fn begin(self: &Arc<Self>, intent: Arc<Intent>) -> Option<Begun> {
        if self.world.mutation == Mutation::MemoryLost {
            self.overview.remembered.learn_all(&[], true, u64::MAX);
        }
        let contested = self.overview.may_have_records(&intent.object);
        let consistency = self.world.consistency;
        let is_strong = consistency == Consistency::Strong;
        if is_strong && !self.is_on_disk(&intent).await {
            return None;
        }
        self.overview.begin(&intent, is_strong);
        let begun = Begun { gateway: self.clone(), intent: Some(intent.clone()), contested };
        let is_known = self.overview.may_have_records(&intent.object);
        if !is_strong && (is_known || consistency == Consistency::Weak) && !self.overview.claim(&intent) {
            let is_told = match is_known && self.world.mutation != Mutation::KnownUnseen {
                true => self.is_on_disk(&intent).await,
                false => consistency == Consistency::Weak && self.begins_soon(&intent),
            };
            if is_told {
                self.overview.told(&intent);
            }
        }
        Some(begun)
    }

    fn begins_soon(&self, intent: &Intent) -> bool {
        let change = vec![Change::Begin(intent.clone())];
        !self.is_unavailable.load(Relaxed) && self.put(|waiting, now| waiting.begin(change, now))
    }

    async fn is_on_disk(&self, intent: &Intent) -> bool {
        let (token, told) = channel();
        let change = vec![Change::Begin(intent.clone())];
        if self.is_unavailable.load(Relaxed) {
            return false;
        }
        self.put(|waiting, now| waiting.begin_now(change, token, now)).map_err(drop).unwrap();
        self.world.mutation == Mutation::NobodyWaits || told.recv().await.is_some()
    }

    fn put<R>(&self, put: impl FnOnce(&mut Waiting<Sender<()>>, Instant) -> R) -> R {
        let put = put(&mut lock(&self.waiting), self.instant());
        lock(&self.wake).set();
        put
    }

    fn intent(&self, key: &[u8], effect: &Effect) -> Intent {
        let (what, length) = match effect {
            Effect::Put { text, .. } => (What::Put, Some(text.len() as u64)),
            Effect::Delete => (What::Delete, Some(0)),
            Effect::Tag(_) => (What::Attribute("tagging".into()), None),
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
                (at, Reply { sent_twice, ..reply(&world, at, answer) })
            }
        };
        (0..self.world.names.len()).map(send).collect()
    }

    /// A client's GET. What it finds amiss the journal hears.
    pub async fn read(self: Arc<Self>, key: Vec<u8>, _client: Sender<()>) {
        let world = &self.world;
        let known = self.overview.remembered.of(&object(&key));
        let mut order: Vec<usize> = (0..world.names.len()).collect();
        let first = world.sim.range(0, order.len() as i64 - 1) as usize;
        order.rotate_left(first);
        order.sort_by_key(|at| known.as_ref().is_some_and(|known| known.lags(&world.names[*at])));
        let mut replies = Vec::new();
        for at in order {
            let wanted = key.clone();
            let answer = world.exchange(at, move |world| world.text(at, &wanted)).await;
            match answer {
                Answer::Done(Some(_)) => {
                    if !replies.is_empty() && !self.is_being_written(&key) {
                        replies.push((world.names[at].clone(), Said::Good { etag: None, version: None }));
                        self.found(&key, replies);
                    }
                    return;
                }
                Answer::Done(None) => replies.push((world.names[at].clone(), Said::NotApplied)),
                Answer::Away | Answer::Broken | Answer::Lost => {}
            }
        }
    }

    fn is_being_written(&self, key: &[u8]) -> bool {
        lock(&self.turns).iter().any(|((name, _), turn)| name == key && !turn.is_set())
    }

    fn found(&self, key: &[u8], replies: Vec<(String, Said)>) {
        let known = self.overview.remembered.of(&object(key));
        if known.is_some_and(|known| known.says(&What::Seen)) {
            return;
        }
        let intent = Intent { what: What::Seen, strong: false, ..self.intent(key, &Effect::Delete) };
        self.world.sim.note(|| format!("{} has seen {replies:?}", intent.req_id));
        let record = Record { ended: intent.begun, intent, commit: None, turn: None, replies };
        self.overview.note(&record, false, self);
    }
}

impl Changes for Gateway {
    fn begin(&self, intent: &Arc<Intent>) -> bool {
        self.world.mutation == Mutation::OthersUntold || self.begins_soon(intent)
    }

    fn end(&self, change: Change, begun: bool, needed: bool) -> u64 {
        let is_forgotten = match (self.world.mutation, &change) {
            (Mutation::SettledForgotten, Change::Settled(_)) => true,
            (Mutation::DeletesForgotten, Change::Diverged(record)) => record.intent.what == What::Delete,
            _ => false,
        };
        let change = match &change {
            Change::Settled(record) | Change::Diverged(record) if is_forgotten => Change::Void(record.id()),
            _ => change,
        };
        self.put(|waiting, now| waiting.end(change, begun, needed && !is_forgotten, now)).unwrap()
    }
}

impl Begun {
    fn nothing_was_sent(mut self) {
        let Some(intent) = self.intent.take() else { return };
        self.tell(Record::orphaned(Arc::unwrap_or_clone(intent), self.gateway.now()), Outcome::Void);
    }

    fn end(mut self, replies: &[Reply], commit: i64) {
        let Some(intent) = self.intent.take() else { return };
        let seen: Vec<_> = replies.iter().map(|reply| (reply.kind, reply.etag.as_deref())).collect();
        let intent = Arc::unwrap_or_clone(intent);
        let (outcome, replies) = outcome(0, &whole(replies, &divergences(&seen, true)), &[]);
        let commit = Some(commit);
        let record = Record { intent, commit, ended: self.gateway.now(), turn: None, replies };
        let trace = || format!("{} ends: {outcome:?} {:?}", record.intent.req_id, record.replies);
        self.gateway.world.sim.note(trace);
        self.tell(record, outcome);
    }

    fn tell(&self, record: Record, outcome: Outcome) {
        let Begun { gateway, contested, .. } = self;
        let was_dead = record.id().number <= gateway.orphaned.load(Relaxed);
        let orphaned = was_dead || gateway.is_unavailable.load(Relaxed);
        let ended = Ended { record, outcome, orphaned, contested: *contested };
        gateway.overview.end(ended, &**gateway);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(intent) = self.intent.take() {
            self.tell(Record::orphaned(Arc::unwrap_or_clone(intent), self.gateway.now()), Outcome::Diverged);
        }
    }
}

async fn enrol(world: &World) -> i64 {
    loop {
        match world.tell_journal(world.journal.enrol("host")).await {
            Ok(id) => return id,
            Err(_) => world.sim.pause(50, 500).await,
        }
    }
}

/// What a dead gateway has left becomes records.
async fn inherit(world: &World, dead: i64) {
    while world.tell_journal(world.journal.leave(dead, world.settle)).await.is_err() {
        world.sim.pause(50, 500).await;
    }
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

//! A gateway as the journal sees it: intents, ends of writes, its memory of what is unresolved, its crash and successor.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use akubra::{
    config::Consistency,
    journal::{Change, Intent, Journal, Mark, News, Record, Said, What, WriteId},
    mirror::{Kind, verdict::divergences},
};
use futures_util::future::join_all;

use crate::{
    exec::{Actor, Latch, Sender, lock},
    world::{Answer, Mutation, World, object},
};

/// An object on a backend.
type Turn = (Vec<u8>, usize);

/// One process.
pub struct Gateway {
    pub world: Arc<World>,
    pub actor: Actor,
    pub id: i64,
    skew: i64,
    numbers: AtomicI64,
    commits: AtomicI64,
    queue: Mutex<Queue>,
    /// The last write of an object on a backend, until it has ended there.
    turns: Mutex<BTreeMap<Turn, Arc<Latch>>>,
    known: Mutex<BTreeSet<Vec<u8>>>,
    own: Mutex<BTreeSet<Vec<u8>>>,
}

#[derive(Default)]
struct Queue {
    changes: Vec<Change>,
    waiting: Vec<Arc<Latch>>,
    busy: bool,
}

impl Gateway {
    /// `predecessor` died on the same host.
    pub async fn start(world: Arc<World>, skew: i64, predecessor: Option<i64>) -> Arc<Gateway> {
        if let Some(dead) = predecessor {
            world.journal.leave(dead, world.settle).await.unwrap();
        }
        let id = world.journal.enrol("host").await.unwrap();
        let unresolved = world.journal.unresolved(1000).await.unwrap();
        let known = unresolved.objects.iter().map(|(object, _)| object.key.clone()).collect();
        let gateway = Arc::new(Gateway {
            actor: world.sim.actor(),
            id,
            skew,
            numbers: AtomicI64::new(0),
            commits: AtomicI64::new(0),
            queue: Mutex::default(),
            turns: Mutex::default(),
            known: Mutex::new(known),
            own: Mutex::default(),
            world,
        });
        gateway.world.sim.note(|| format!("gateway {id} is there"));
        gateway.world.sim.spawn(gateway.actor, gateway.clone().write_journal());
        gateway.world.sim.spawn(gateway.actor, gateway.clone().follow(unresolved.mark));
        gateway
    }

    fn now(&self) -> i64 {
        self.world.sim.now() + self.skew
    }

    async fn write_journal(self: Arc<Self>) {
        loop {
            self.world.sim.pause(1, 20).await;
            let (changes, waiting) = {
                let mut queue = lock(&self.queue);
                queue.busy = true;
                (std::mem::take(&mut queue.changes), std::mem::take(&mut queue.waiting))
            };
            self.world.sim.pause(0, 5).await;
            if !changes.is_empty() {
                self.world.journal.apply(changes, self.world.settle).await.unwrap();
            }
            // It is on disk, and nobody has heard of it yet.
            self.world.sim.pause(0, 5).await;
            waiting.iter().for_each(|latch| latch.set());
            lock(&self.queue).busy = false;
        }
    }

    async fn follow(self: Arc<Self>, mut mark: Mark) {
        loop {
            self.world.sim.pause(50, 500).await;
            let is_told = {
                let queue = lock(&self.queue);
                queue.changes.is_empty() && !queue.busy
            };
            let news = self.world.journal.news(mark, Duration::ZERO).await.unwrap();
            let News::Changed(changed, now) = news else { continue };
            mark = now;
            let mut known = lock(&self.known);
            for (object, records) in changed {
                match records.is_empty() {
                    true => known.remove(&object.key),
                    false => known.insert(object.key),
                };
            }
            if is_told {
                lock(&self.own).clear();
            }
        }
    }

    fn knows(&self, key: &[u8]) -> bool {
        lock(&self.known).contains(key) || lock(&self.own).contains(key)
    }

    /// A client's request; `at` is its place among all writes.
    pub async fn write(self: Arc<Self>, at: usize, key: Vec<u8>, text: Option<String>, client: Sender<bool>) {
        let world = self.world.clone();
        let contested = self.knows(&key);
        let intent = self.intent(&key, text.as_deref());
        match world.consistency {
            Consistency::None => {}
            Consistency::Weak => lock(&self.queue).changes.push(Change::Begin(intent.clone())),
            Consistency::Strong => {
                let latch = Arc::new(Latch::default());
                self.begin(intent.clone(), latch.clone());
                latch.wait().await;
            }
        }
        let commit = self.commits.fetch_add(1, Relaxed) + 1;
        let client = Mutex::new(Some(client));
        let is_put = text.is_some();
        let subs = self.sends(&key, text.as_deref()).into_iter().map(|sub| async {
            let reply = sub.await;
            if is_put && reply.0 == Kind::Good {
                lock(&client).take().into_iter().for_each(|client| client.send(true));
            }
            reply
        });
        let replies = join_all(subs).await;
        let good = replies.iter().any(|(kind, _)| *kind == Kind::Good);
        self.end(intent, commit, &replies, contested);
        lock(&world.writes)[at].closed = world.event();
        lock(&client).take().into_iter().for_each(|client| client.send(good));
    }

    fn begin(&self, intent: Intent, latch: Arc<Latch>) {
        let mut queue = lock(&self.queue);
        queue.changes.push(Change::Begin(intent));
        queue.waiting.push(latch);
    }

    fn intent(&self, key: &[u8], text: Option<&str>) -> Intent {
        let number = self.numbers.fetch_add(1, Relaxed) + 1;
        Intent {
            id: WriteId { gateway: self.id, number },
            object: object(key),
            what: if text.is_some() { What::Put } else { What::Delete },
            region: "r".into(),
            req_id: format!("{}-{number}", self.id),
            length: text.map(|text| text.len() as u64),
            begun: self.now(),
            strong: self.world.consistency == Consistency::Strong,
            turn: None,
        }
    }

    /// On each backend a write follows those before it.
    fn sends(
        self: &Arc<Self>,
        key: &[u8],
        text: Option<&str>,
    ) -> Vec<impl Future<Output = (Kind, Option<String>)> + Send + use<>> {
        let send = |at: usize| {
            let (world, key, text) = (self.world.clone(), key.to_vec(), text.map(str::to_owned));
            let own = Arc::new(Latch::default());
            let before = lock(&self.turns).insert((key.clone(), at), own.clone());
            async move {
                if let Some(before) = before {
                    before.wait().await;
                }
                let put = move |world: &World| world.store(at, &key, text.as_deref());
                let answer = world.exchange(at, put).await;
                own.set();
                match answer {
                    Answer::Done(etag) => (Kind::Good, Some(etag).filter(|etag| !etag.is_empty())),
                    Answer::Away => (Kind::NotApplied, None),
                    Answer::Lost => (Kind::Unknown, None),
                }
            }
        };
        (0..self.world.names.len()).map(send).collect()
    }

    fn end(&self, intent: Intent, commit: i64, replies: &[(Kind, Option<String>)], contested: bool) {
        let world = &self.world;
        let (id, key) = (intent.id, intent.object.key.clone());
        let seen: Vec<_> = replies.iter().map(|(kind, etag)| (*kind, etag.as_deref())).collect();
        let diverges = divergences(&seen, true).contains(&true);
        let said = |(kind, etag): &(Kind, Option<String>)| match kind {
            Kind::Good => Said::Good { etag: etag.clone(), version: None },
            Kind::NotApplied => Said::NotApplied,
            Kind::Unknown => Said::Unknown,
        };
        let replies: Vec<_> = world.names.iter().cloned().zip(replies.iter().map(said)).collect();
        let is_void = replies.iter().all(|(_, said)| *said == Said::NotApplied);
        let is_delete = intent.what == What::Delete;
        let record = Record { intent, commit: Some(commit), ended: self.now(), turn: None, replies };
        world.sim.note(|| format!("{}-{} ends: {:?}", id.gateway, id.number, record.replies));
        let is_told = world.consistency != Consistency::None;
        let needed = contested || self.knows(&key);
        let mut queue = lock(&self.queue);
        let begins = |change: &Change| matches!(change, Change::Begin(intent) if intent.id == id);
        let forgotten = match world.mutation {
            Mutation::SettledForgotten => !diverges,
            Mutation::DeletesForgotten => is_delete,
            _ => false,
        };
        if is_void || forgotten {
            queue.changes.push(Change::Void(id));
        } else if diverges {
            queue.changes.push(Change::Diverged(record));
            lock(&self.own).insert(key);
        } else if !needed && queue.changes.iter().any(begins) {
            queue.changes.retain(|change| !begins(change));
        } else if needed || is_told {
            queue.changes.push(Change::Settled(record));
        }
    }
}

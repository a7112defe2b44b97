//! A gateway as the journal sees it: the real intents, verdicts, queue and memory, with a process around them that
//! crashes, stalls, is taken for dead, and finds the journal away.

mod requests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use akubra::journal::{
    Batch, Change, Changes, Enrolled, Intent, Journal, JournalError, Mark, News, Overview, Waiting, What,
    WriteId, unresolved,
};

use crate::{
    exec::{Actor, Latch, START, Sender, lock},
    mutation::Mutation,
    world::{SILENT, World},
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
    /// How often it was taken for dead, as far as it knows, and up to which of its writes have become records then.
    deaths: AtomicI64,
    orphaned: AtomicI64,
    /// Until when it does not reach the journal.
    cut_off: AtomicI64,
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
            deaths: AtomicI64::new(0),
            orphaned: AtomicI64::new(0),
            cut_off: AtomicI64::new(0),
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
        let remembered = &gateway.overview.remembered;
        let mut asking = remembered.asking(0);
        let learn = |objects| remembered.learn_some(objects, &mut asking);
        let (whole, mark) = unresolved(&*gateway.world.journal, 1000, learn).await.unwrap();
        remembered.learnt(whole, asking);
        let sim = &gateway.world.sim;
        sim.spawn(gateway.actor, gateway.clone().write_journal());
        sim.spawn(gateway.actor, gateway.clone().follow(mark));
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
            let mut told = self.apply(&batch).await;
            if let Err(JournalError::TakenForDead(_)) = told {
                told = match self.is_alive().await {
                    Ok(()) => self.apply(&batch).await,
                    Err(error) => Err(error),
                };
            }
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

    async fn apply(&self, batch: &Batch<Sender<()>>) -> Result<(), JournalError> {
        let world = &self.world;
        let said = |change: &Change| match change {
            Change::Settled(record) if self.has_lost(record.id()) => Change::Diverged(record.clone()),
            change => change.clone(),
        };
        let changes = batch.changes().map(said).collect();
        let itself = Enrolled { deaths: self.deaths.load(Relaxed), ..enrolled(self.id) };
        self.reach(world.journal.apply(&itself, changes, world.settle)).await
    }

    async fn is_alive(&self) -> Result<(), JournalError> {
        let deaths = self.reach(self.world.journal.alive(&enrolled(self.id))).await?.unwrap();
        if self.deaths.swap(deaths, Relaxed) != deaths && self.world.mutation != Mutation::DeathsUnheard {
            self.world.sim.note(|| format!("gateway {} was taken for dead", self.id));
            self.orphaned.store(self.numbers.load(Relaxed), Relaxed);
            self.overview.live.repeat(|intent| self.still(intent));
        }
        Ok(())
    }

    /// A call to the journal, which the gateway may be cut off from for a while.
    async fn reach<T>(&self, call: impl Future<Output = Result<T, JournalError>>) -> Result<T, JournalError> {
        match self.world.sim.now() < self.cut_off.load(Relaxed) {
            true => Err(JournalError::Unavailable("it is cut off".into())),
            false => self.world.tell_journal(call).await,
        }
    }

    async fn follow(self: Arc<Self>, mut mark: Mark) {
        loop {
            self.world.sim.pause(50, 500).await;
            let taken = lock(&self.waiting).taken_up_to();
            let news = self.world.journal.news(mark, Duration::ZERO).await.unwrap();
            let News::Changed(changed, now) = news else { continue };
            mark = now;
            for (object, known) in changed {
                self.overview.remembered.learn(&object, known, taken);
            }
            let taken = lock(&self.waiting).taken_up_to();
            for object in self.overview.remembered.unanswered(taken, usize::MAX) {
                let known = self.world.journal.known(&object).await.unwrap();
                self.overview.remembered.learn(&object, known, taken);
            }
        }
    }

    async fn keep(self: Arc<Self>) {
        let world = &self.world;
        loop {
            world.sim.pause(500, 1_000).await;
            if world.journal_fails && world.is_faulty(20) {
                let duration = world.sim.range(100, 8_000);
                world.sim.note(|| format!("gateway {} is cut off for {duration}", self.id));
                self.cut_off.store(world.sim.now() + duration, Relaxed);
            }
            self.is_alive().await.unwrap_or_default();
            let silent = Duration::from_millis(SILENT as u64);
            self.reach(world.journal.adopt(silent, world.settle)).await.unwrap_or_default();
        }
    }

    /// Whether it has nothing to tell the journal, and will not have.
    pub fn is_idle(&self) -> bool {
        self.under_way.load(Relaxed) == 0 && self.has_told_all()
    }

    fn has_told_all(&self) -> bool {
        lock(&self.waiting).is_empty()
    }

    fn put<R>(&self, put: impl FnOnce(&mut Waiting<Sender<()>>, Instant) -> R) -> R {
        let put = put(&mut lock(&self.waiting), self.instant());
        lock(&self.wake).set();
        put
    }
}

impl Changes for Gateway {
    fn begin(&self, intent: &Arc<Intent>) -> bool {
        self.world.mutation == Mutation::OthersUntold || self.begins_soon(intent)
    }

    fn has_lost(&self, id: WriteId) -> bool {
        id.number <= self.orphaned.load(Relaxed)
    }

    fn still(&self, intent: &Arc<Intent>) {
        self.put(|waiting, now| waiting.still(intent, now));
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

fn enrolled(number: i64) -> Enrolled {
    Enrolled { number, name: "host".to_owned(), deaths: 0 }
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
    while world.tell_journal(world.journal.leave(&enrolled(dead), world.settle)).await.is_err() {
        world.sim.pause(50, 500).await;
    }
}

//! What tests of the loop stand on: backends in memory that fail on command, a journal whose clock is tokio's, and a
//! shop over both.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

pub use self::fake::{Fake, Unheard};
use super::{
    backoff::Backoff,
    job::{Shop, Told},
    limits::Limited,
    places::Places,
    repair::Rules,
    worker::{Ended, Trouble, Wishes, Worker},
};
use crate::{
    config::{ClusterConfig, RegionConfig},
    journal::{Change, Enrolled, Intent, Journal, Memory, Object, Record, Said, Wanted, What, WriteId},
    telemetry::metrics::SyncMetrics,
    topology::{Topology, fixture},
};

mod fake;

pub const SETTLE: Duration = Duration::from_secs(120);
/// When the tests begin, in milliseconds since 1970.
pub const EPOCH: i64 = 1_700_000_000_000;

/// A journal, backends and what a worker needs besides.
pub struct World {
    pub stores: Arc<Fake>,
    pub journal: Arc<Memory>,
    /// By how much the journal's clock is ahead, in milliseconds.
    pub ahead: Arc<AtomicI64>,
    pub topology: Topology,
    pub wanted: Wanted,
    /// Whether records are of a region that is.
    pub strong: bool,
    pub copy_acl: bool,
    pub max_attempts: Option<u32>,
    pub concurrency: usize,
    pub per_backend: usize,
    pub hold: Duration,
    pub told: Arc<Mutex<Vec<Told>>>,
    pub stop: watch::Sender<bool>,
    pub paused: watch::Sender<bool>,
    without_credentials: Option<u16>,
    writes: AtomicI64,
}

impl World {
    /// The cluster "main" of http://a:80 and http://b:80, and "old" of http://c:80, in one region.
    pub fn new() -> World {
        World::over(
            vec![fixture::cluster("old", &["c"]), fixture::cluster("main", &["a", "b"])],
            vec![fixture::region("r", &[("old", 0.0), ("main", 1.0)], &[])],
        )
    }

    pub fn over(clusters: Vec<ClusterConfig>, regions: Vec<RegionConfig>) -> World {
        let begun = Instant::now();
        let ahead = Arc::<AtomicI64>::default();
        let offset = ahead.clone();
        let clock = move || EPOCH + begun.elapsed().as_millis() as i64 + offset.load(Relaxed);
        World {
            stores: Arc::default(),
            journal: Arc::new(Memory::new(Arc::new(clock))),
            ahead,
            topology: Topology::new(&fixture::config(clusters, regions)),
            wanted: Wanted::Diverged,
            strong: true,
            copy_acl: false,
            max_attempts: None,
            concurrency: 4,
            per_backend: 3,
            hold: Duration::from_secs(60),
            told: Arc::default(),
            stop: watch::Sender::new(false),
            paused: watch::Sender::new(false),
            without_credentials: None,
            writes: AtomicI64::new(0),
        }
    }

    pub fn without_credentials(mut self, port: u16) -> World {
        self.without_credentials = Some(port);
        self
    }

    /// A record of a write to an object of "main".
    pub async fn record(&self, key: &str, what: What, replies: &[(&str, Said)]) -> WriteId {
        let id = WriteId { gateway: 1, number: self.writes.fetch_add(1, Relaxed) };
        let object = Object { cluster: "main".into(), bucket: b"bucket".into(), key: key.into() };
        let intent = Intent {
            id,
            object,
            what,
            region: "r".into(),
            req_id: "q".into(),
            length: None,
            begun: EPOCH - 1000,
            strong: self.strong,
            turn: None,
        };
        let replies = replies.iter().map(|(name, said)| ((*name).to_owned(), said.clone())).collect();
        let record = Record { intent, commit: Some(id.number), ended: EPOCH, turn: None, replies };
        self.tell(record).await;
        id
    }

    pub async fn tell(&self, record: Record) {
        let number = self.journal.enrol("host").await.unwrap();
        let gateway = Enrolled { number, name: "host".into(), deaths: 0 };
        let begun = record.intent.strong.then(|| Change::Begin(Arc::new(record.intent.clone())));
        let changes = begun.into_iter().chain([Change::Diverged(record)]).collect();
        self.journal.apply(&gateway, changes, SETTLE).await.unwrap();
    }

    /// A write that "a" took and "b" did not.
    pub async fn missed_by_b(&self, key: &str) {
        self.missed(key, A, B).await;
    }

    /// A write that `holder` took and `other` did not.
    pub async fn missed(&self, key: &str, holder: &str, other: &str) {
        self.stores.put(holder, key, key, EPOCH);
        let etag = self.stores.holds(holder, key).map(|held| held.etag);
        let replies = [(holder, Said::Good { etag, version: None }), (other, Said::NotApplied)];
        self.record(key, What::Put, &replies).await;
    }

    pub fn worker(&self, once: bool) -> Worker {
        let told = self.told.clone();
        let metrics = SyncMetrics::of_process();
        let closed = self.without_credentials;
        let places = Places::new(&self.topology, |backend| Some(backend.port) != closed);
        let names: Vec<String> = self.topology.backends.iter().map(|backend| backend.endpoint()).collect();
        let names = names.iter().map(String::as_str);
        let shop = Shop {
            name: "worker".into(),
            journal: self.journal.clone(),
            stores: Limited::new(self.stores.clone(), names, self.per_backend, &metrics),
            places,
            rules: Rules { clock_bound: Duration::from_secs(5), settle: SETTLE, copy_acl: self.copy_acl },
            wanted: self.wanted,
            hold: self.hold,
            backoff: Backoff { min: Duration::from_secs(5), max: Duration::from_secs(900) },
            max_attempts: self.max_attempts,
            metrics,
            tell: Box::new(move |one| told.lock().unwrap().push(one.clone())),
            given_up: watch::Sender::new(false),
            trouble: Trouble::default(),
        };
        let wishes = Wishes { stop: self.stop.subscribe(), paused: self.paused.subscribe() };
        Worker { shop: Arc::new(shop), wishes, concurrency: self.concurrency, once }
    }

    pub async fn once(&self) -> Ended {
        self.worker(true).run().await.unwrap()
    }

    /// How each object ended, in order.
    pub fn outcomes(&self) -> Vec<&'static str> {
        self.told.lock().unwrap().iter().map(|told| told.outcome).collect()
    }

    pub fn last(&self) -> Told {
        self.told.lock().unwrap().last().unwrap().clone()
    }
}

pub const A: &str = "http://a:80";
pub const B: &str = "http://b:80";
pub const C: &str = "http://c:80";

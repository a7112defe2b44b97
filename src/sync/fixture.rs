//! What tests of the loop stand on: backends in memory that fail on command, a journal whose clock is tokio's, and a
//! shop over both.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use md5::{Digest, Md5 as Hasher};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Copied, Gate, Held, Md5, State, StoreError, Stores,
    backoff::Backoff,
    decide::TAGGING,
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

pub const SETTLE: Duration = Duration::from_secs(120);
/// When the tests begin, in milliseconds since 1970.
pub const EPOCH: i64 = 1_700_000_000_000;

/// Backends in memory, by endpoint.
#[derive(Default)]
pub struct Fake {
    objects: Mutex<HashMap<(String, Vec<u8>), Held>>,
    away: Mutex<HashSet<String>>,
    /// Sub-resources of whatever object, by endpoint and name.
    attributes: Mutex<HashMap<(String, String), Vec<u8>>>,
    /// Backends that keep sub-resources in words of their own.
    pub careless: Mutex<HashSet<String>>,
    /// How long an answer takes, in milliseconds.
    pub slow: AtomicI64,
    pub asked: Mutex<HashMap<String, usize>>,
    at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
    /// What may not be asked about, and what may not be worked with: backend and key, which is empty for all.
    pub refused: Mutex<HashSet<(&'static str, &'static str)>>,
    pub denied: Mutex<HashSet<(&'static str, &'static str)>>,
    /// Backends whose sub-resources the account may not see.
    pub shy: Mutex<HashSet<&'static str>>,
    /// What changes of a backend come to that nobody hears of.
    pub unheard: Mutex<HashMap<&'static str, Unheard>>,
    /// Targets keep no metadata.
    pub keeps_no_metadata: AtomicBool,
}

/// A change of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    Done,
    NotDone,
}

impl Fake {
    pub fn put(&self, backend: &str, key: &str, text: &str, modified: i64) {
        let md5: Md5 = Hasher::digest(text).into();
        let held = Held {
            etag: md5.iter().map(|byte| format!("{byte:02x}")).collect(),
            version: None,
            modified,
            length: text.len() as u64,
            object_version: None,
            md5: Some(md5),
            metadata: Vec::new(),
        };
        self.keep(backend, key, held);
    }

    pub fn keep(&self, backend: &str, key: &str, held: Held) {
        self.objects.lock().unwrap().insert((backend.to_owned(), key.as_bytes().to_vec()), held);
    }

    pub fn holds(&self, backend: &str, key: &str) -> Option<Held> {
        self.objects.lock().unwrap().get(&(backend.to_owned(), key.as_bytes().to_vec())).cloned()
    }

    pub fn forget(&self, backend: &str, key: &str) {
        self.objects.lock().unwrap().remove(&(backend.to_owned(), key.as_bytes().to_vec()));
    }

    pub fn describe(&self, backend: &str, name: &str, text: &str) {
        self.attributes.lock().unwrap().insert((backend.to_owned(), name.to_owned()), text.into());
    }

    pub fn described(&self, backend: &str, name: &str) -> Option<String> {
        let value = self.attributes.lock().unwrap().get(&(backend.to_owned(), name.to_owned())).cloned();
        value.map(|value| String::from_utf8(value).unwrap())
    }

    pub fn set_away(&self, backend: &str, away: bool) {
        let mut all = self.away.lock().unwrap();
        if away {
            all.insert(backend.to_owned())
        } else {
            all.remove(backend)
        };
    }

    pub fn asked(&self, backend: &str) -> usize {
        self.asked.lock().unwrap().get(backend).copied().unwrap_or(0)
    }

    async fn answer(&self, backend: &str) -> Result<(), String> {
        *self.asked.lock().unwrap().entry(backend.to_owned()).or_default() += 1;
        let at_once = self.at_once.fetch_add(1, Relaxed) + 1;
        self.most_at_once.fetch_max(at_once, Relaxed);
        sleep(Duration::from_millis(self.slow.load(Relaxed) as u64 + 1)).await;
        self.at_once.fetch_sub(1, Relaxed);
        match self.away.lock().unwrap().contains(backend) {
            true => Err(format!("{backend}: refused")),
            false => Ok(()),
        }
    }

    fn is_in(set: &Mutex<HashSet<(&'static str, &'static str)>>, backend: &str, object: &Object) -> bool {
        let fits = |key: &str| key.is_empty() || key.as_bytes() == object.key;
        set.lock().unwrap().iter().any(|(one, key)| *one == backend && fits(key))
    }

    fn may_work(&self, backend: &str, object: &Object) -> Result<(), StoreError> {
        match Fake::is_in(&self.denied, backend, object) {
            true => Err(StoreError::Denied { by: backend.into(), why: format!("{backend}: 403 to PUT") }),
            false => Ok(()),
        }
    }

    fn get(&self, backend: &str, object: &Object) -> Option<Held> {
        self.objects.lock().unwrap().get(&(backend.to_owned(), object.key.clone())).cloned()
    }
}

#[async_trait]
impl Stores for Fake {
    async fn state(&self, backend: &str, object: &Object) -> State {
        match self.answer(backend).await {
            Err(why) => State::Unknown(why),
            Ok(()) if Fake::is_in(&self.refused, backend, object) => {
                State::Denied(format!("{backend}: 403 to HEAD"))
            }
            Ok(()) => self.get(backend, object).map_or(State::Absent, State::Present),
        }
    }

    async fn md5(&self, _: &str, _: &Object, held: &Held) -> Result<Md5, StoreError> {
        held.md5.ok_or_else(|| StoreError::Failed("no bytes".into()))
    }

    async fn copy(
        &self,
        object: &Object,
        from: (&str, &Held),
        to: (&str, &State, Instant),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError> {
        self.answer(from.0).await.map_err(StoreError::Failed)?;
        let over = self.get(to.0, object).map_or(State::Absent, State::Present);
        if over != *to.1 || self.get(from.0, object).as_ref() != Some(from.1) {
            return Err(StoreError::Changed("it changed".into()));
        }
        if !gate.may_go_on().await {
            return Err(StoreError::Failed("called off".into()));
        }
        self.may_work(to.0, object)?;
        let mut held = Held { modified: from.1.modified + 60_000, ..from.1.clone() };
        if self.keeps_no_metadata.load(Relaxed) {
            held.metadata.clear();
        }
        let copied = Copied { etag: held.etag.clone(), version: None, md5: held.md5.unwrap() };
        let unheard = self.unheard.lock().unwrap().remove(to.0);
        if unheard != Some(Unheard::NotDone) {
            self.objects.lock().unwrap().insert((to.0.to_owned(), object.key.clone()), held);
            // A copy has none of what is no tag.
            self.attributes.lock().unwrap().retain(|(at, name), _| at != to.0 || name == TAGGING);
        }
        match unheard {
            Some(_) => Err(StoreError::Unknown(format!("{}: no answer", to.0))),
            None => Ok(copied),
        }
    }

    async fn delete(
        &self,
        object: &Object,
        backend: (&str, &Held),
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        self.answer(backend.0).await.map_err(StoreError::Failed)?;
        if self.get(backend.0, object).as_ref() != Some(backend.1) {
            return Err(StoreError::Changed("it changed".into()));
        }
        if !gate.may_go_on().await {
            return Err(StoreError::Failed("called off".into()));
        }
        self.may_work(backend.0, object)?;
        let unheard = self.unheard.lock().unwrap().remove(backend.0);
        if unheard != Some(Unheard::NotDone) {
            self.objects.lock().unwrap().remove(&(backend.0.to_owned(), object.key.clone()));
        }
        unheard.map_or(Ok(()), |_| Err(StoreError::Unknown(format!("{}: no answer", backend.0))))
    }

    async fn attribute(&self, backend: &str, _: &Object, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.shy.lock().unwrap().contains(backend) {
            true => Err(StoreError::Denied { by: backend.into(), why: format!("{backend}: 403 to GET") }),
            false => Ok(self.described(backend, name).map(String::into_bytes)),
        }
    }

    async fn set_attribute(
        &self,
        backend: &str,
        _: &Object,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.answer(backend).await.map_err(StoreError::Failed)?;
        let Some(value) = value else {
            self.attributes.lock().unwrap().remove(&(backend.to_owned(), name.to_owned()));
            return Ok(());
        };
        let mut text = String::from_utf8(value.to_vec()).unwrap();
        if self.careless.lock().unwrap().contains(backend) {
            text.make_ascii_uppercase();
        }
        self.describe(backend, name, &text);
        Ok(())
    }
}

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

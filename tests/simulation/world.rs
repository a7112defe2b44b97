//! Backends, and what clients wanted: all that no crash takes away.
//!
//! A backend is one linear store with a clock of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use akubra::{
    config::{Config, Consistency},
    journal::{JournalError, Memory, Object},
    sync::{Held, Md5, places::Places},
    topology::{Backend, Topology},
};
use md5::Digest;

use crate::{
    exec::{Sim, lock},
    mutation::Mutation,
    wire::Pace,
};

pub const SETTLE: i64 = 2_000;
/// Who gave no sign of life for so long is taken for dead.
pub const SILENT: i64 = 3_000;
pub const BOUND: i64 = 1_000;
const SKEW: i64 = 450;
/// What is not late has arrived by then.
pub const LANDED: i64 = 50;

/// What a backend stores that stores something else than it was sent.
pub const SPOILT: &str = "spoilt";

/// What is asked of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// With the object's version in its metadata, if it has one there, and its tags.
    Put {
        text: String,
        version: Option<u64>,
        tags: Option<String>,
    },
    Delete,
    /// Writes tags, or deletes them.
    Tag(Option<String>),
}

#[derive(Debug, Clone)]
struct Content {
    text: String,
    version: Option<u64>,
    tags: Option<String>,
    etag: String,
    modified: i64,
}

pub struct Store {
    skew: i64,
    /// Its ETags are not the MD5 of the content.
    opaque: bool,
    conditional: bool,
    pub down_until: i64,
    contents: BTreeMap<Vec<u8>, Content>,
    stored: u64,
}

/// What a client wanted, and how that ended.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: Vec<u8>,
    pub effect: Effect,
    pub began: i64,
    /// Every backend took it.
    pub whole: bool,
    /// Nothing comes of it any more but what is late.
    pub closed: i64,
    pub acknowledged: bool,
}

pub struct World {
    pub sim: Sim,
    pub journal: Arc<Memory>,
    /// Of the home cluster.
    pub names: Vec<String>,
    /// Of the home cluster, then of the older one, if there is one.
    pub backends: Vec<Arc<Backend>>,
    pub places: Arc<Places>,
    pub consistency: Consistency,
    pub mutation: Mutation,
    pub settle: Duration,
    /// Whether objects have versions in their metadata.
    pub is_versioned: bool,
    pub journal_fails: bool,
    /// Whether what was sent may arrive after what was sent later.
    pub is_late: bool,
    /// How often it does, of 1000 times.
    pub lateness: i64,
    /// Whether what is not late takes its time, too.
    pub pace: Pace,
    /// How often a worker stands still around a change, of 1000 times.
    stalls: i64,
    /// For how long workers rest between looks at the journal, at most.
    pub rest: i64,
    /// Whether what clients write beside objects is no part of a copy.
    pub is_apart: bool,
    /// How often a backend stores something else than it was sent, or is not all that belongs to it, of 1000 copies.
    spoils: i64,
    pub stores: Mutex<Vec<Store>>,
    pub faults: AtomicBool,
    pub writes: Mutex<Vec<Write>>,
    /// Keys of objects that a worker knew to be misplaced.
    pub sighted: Mutex<BTreeSet<Vec<u8>>>,
    events: AtomicI64,
}

impl World {
    /// `is_moving` = objects may be on an older cluster, beside their home.
    pub fn new(sim: Sim, mutation: Mutation, is_moving: bool) -> Arc<World> {
        let at_home = sim.range(2, 3) as usize;
        let count = at_home + if is_moving { sim.range(1, 2) as usize } else { 0 };
        let clock = sim.clone();
        let store = |_| Store {
            skew: sim.range(-SKEW, SKEW),
            opaque: sim.chance(250),
            conditional: sim.chance(600),
            down_until: 0,
            contents: BTreeMap::new(),
            stored: 0,
        };
        let stores = (0..count).map(store).collect();
        let backends: Vec<_> = (0..count).map(backend).collect();
        let settle = if mutation == Mutation::NoSettle { 0 } else { SETTLE as u64 };
        let consistency =
            sim.pick(&[Consistency::Strong, Consistency::Strong, Consistency::Weak, Consistency::None]);
        Arc::new(World {
            journal: Arc::new(Memory::new(Arc::new(move || clock.now()))),
            names: backends[..at_home].iter().map(|backend| backend.endpoint()).collect(),
            places: places(at_home, count),
            backends,
            consistency,
            mutation,
            settle: Duration::from_millis(settle),
            is_versioned: sim.chance(200),
            journal_fails: sim.chance(300),
            is_late: sim.chance(500),
            lateness: sim.pick(&[50, 50, 250]),
            pace: sim.pick(&[Pace::Quick, Pace::Quick, Pace::Slow, Pace::Uneven]),
            stalls: sim.pick(&[30, 30, 200]),
            rest: sim.pick(&[500, 500, 20]),
            is_apart: sim.chance(300),
            spoils: sim.pick(&[0, 0, 100]),
            stores: Mutex::new(stores),
            faults: AtomicBool::new(true),
            writes: Mutex::default(),
            sighted: Mutex::default(),
            events: AtomicI64::new(0),
            sim,
        })
    }

    /// Another number for every event, in their order.
    pub fn event(&self) -> i64 {
        self.events.fetch_add(1, Relaxed) + 1
    }

    pub fn is_faulty(&self, per_mille: i64) -> bool {
        self.faults.load(Relaxed) && self.sim.chance(per_mille)
    }

    /// Whether a worker stands still now, for longer than it has a lease.
    pub fn stalls(&self) -> bool {
        self.is_faulty(self.stalls)
    }

    /// Whether a change takes longer than anything that was sent may take once nobody waits for it.
    pub fn drags(&self) -> bool {
        self.is_late && self.pace == Pace::Uneven && self.is_faulty(100)
    }

    /// Whether something goes wrong with a copy that was taken.
    pub fn spoils(&self) -> bool {
        self.is_faulty(self.spoils)
    }

    /// What clients write beside objects: tags, which a copy has too, or an ACL.
    pub fn sub_resource(&self) -> &'static str {
        if self.is_apart { "acl" } else { "tagging" }
    }

    pub fn skew(&self) -> i64 {
        self.sim.range(-SKEW, SKEW)
    }

    /// By their places among the backends.
    pub fn at_home(&self) -> Range<usize> {
        0..self.names.len()
    }

    pub fn elsewhere(&self) -> Range<usize> {
        self.names.len()..self.backends.len()
    }

    pub fn is_moving(&self) -> bool {
        !self.elsewhere().is_empty()
    }

    pub fn at(&self, name: &str) -> usize {
        self.backends.iter().position(|known| known.endpoint() == name).unwrap_or(0)
    }

    pub fn take_down(&self, at: usize, duration: i64) {
        let until = self.sim.now() + duration;
        self.sim.note(|| format!("b{at} is down for {duration}"));
        lock(&self.stores)[at].down_until = until;
    }

    pub fn is_conditional(&self, at: usize) -> bool {
        lock(&self.stores)[at].conditional
    }

    /// A call to the journal that changes it: it may not be done, or be done without an answer.
    pub async fn tell_journal<T>(
        &self,
        call: impl Future<Output = Result<T, JournalError>>,
    ) -> Result<T, JournalError> {
        let is_faulty = |per_mille| self.journal_fails && self.is_faulty(per_mille);
        if is_faulty(100) {
            return Err(JournalError::Unavailable("it is away".into()));
        }
        let done = call.await;
        if is_faulty(100) {
            return Err(JournalError::Unavailable("no answer".into()));
        }
        done
    }

    pub fn held(&self, at: usize, key: &[u8]) -> Option<Held> {
        let stores = lock(&self.stores);
        let content = stores[at].contents.get(key)?;
        Some(Held {
            etag: content.etag.clone(),
            version: None,
            modified: content.modified,
            length: content.text.len() as u64,
            object_version: content.version,
            md5: (!stores[at].opaque).then(|| digest(&content.text)),
            metadata: Vec::new(),
        })
    }

    /// What a copy of it has.
    pub fn copied(&self, at: usize, key: &[u8]) -> Option<Effect> {
        match self.content(at, key)? {
            Effect::Put { text, version, .. } if self.is_apart => {
                Some(Effect::Put { text, version, tags: None })
            }
            content => Some(content),
        }
    }

    /// What a backend has.
    pub fn content(&self, at: usize, key: &[u8]) -> Option<Effect> {
        let content = lock(&self.stores)[at].contents.get(key)?.clone();
        Some(Effect::Put { text: content.text, version: content.version, tags: content.tags })
    }

    pub fn text(&self, at: usize, key: &[u8]) -> Option<String> {
        lock(&self.stores)[at].contents.get(key).map(|content| content.text.clone())
    }

    pub fn tags(&self, at: usize, key: &[u8]) -> Option<String> {
        lock(&self.stores)[at].contents.get(key).and_then(|content| content.tags.clone())
    }

    /// Takes effect at once; returns the ETag of what was put. `None` = there is no such object.
    pub fn store(&self, at: usize, key: &[u8], effect: &Effect) -> Option<String> {
        let now = self.sim.now();
        self.sim.note(|| format!("b{at} {} = {effect:?}", key.escape_ascii()));
        let mut stores = lock(&self.stores);
        let store = &mut stores[at];
        match effect {
            Effect::Delete => {
                store.contents.remove(key);
                Some(String::new())
            }
            Effect::Tag(tags) => {
                store.contents.get_mut(key)?.tags.clone_from(tags);
                Some(String::new())
            }
            Effect::Put { text, version, tags } => {
                store.stored += 1;
                let mut etag: String = digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
                if store.opaque {
                    etag = format!("{etag}-{}", store.stored);
                }
                let modified = (now + store.skew).div_euclid(1000) * 1000;
                let (text, version, tags) = (text.clone(), *version, tags.clone());
                let content = Content { text, version, tags, etag: etag.clone(), modified };
                store.contents.insert(key.to_vec(), content);
                Some(etag)
            }
        }
    }
}

fn backend(id: usize) -> Arc<Backend> {
    let (url, host) = (format!("http://b{id}"), format!("b{id}"));
    Arc::new(Backend { id, url, host, port: 80, maintained: false })
}

pub fn digest(text: &str) -> Md5 {
    md5::Md5::digest(text).into()
}

pub fn object(key: &[u8]) -> Object {
    object_on("main", key)
}

pub fn object_on(cluster: &str, key: &[u8]) -> Object {
    Object { cluster: cluster.into(), bucket: b"b".into(), key: key.to_vec() }
}

/// A home cluster of so many backends, and an older one of the others, if there are any.
fn places(at_home: usize, count: usize) -> Arc<Places> {
    static KNOWN: Mutex<BTreeMap<(usize, usize), Arc<Places>>> = Mutex::new(BTreeMap::new());
    let new = || {
        let urls = |from: Range<usize>| from.map(|id| format!("http://b{id}")).collect::<Vec<_>>();
        let (main, old) = (urls(0..at_home), urls(at_home..count));
        let (cluster, before) = match old.is_empty() {
            true => (String::new(), ""),
            false => (format!(", old: {{Backends: {old:?}}}"), "{Cluster: old, Weight: 0}, "),
        };
        let yaml = format!(
            "Listen: '127.0.0.1:80'\nClusters: {{main: {{Backends: {main:?}}}{cluster}}}\n\
             Regions: {{r: {{Default: true, Clusters: [{before}{{Cluster: main, Weight: 1}}]}}}}\n"
        );
        let config = Config::parse(&yaml, &|_| None).unwrap_or_else(|errors| panic!("{errors:?}"));
        Arc::new(Places::new(&Topology::new(&config), |_| true))
    };
    lock(&KNOWN).entry((at_home, count)).or_insert_with(new).clone()
}

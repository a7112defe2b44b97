//! Changes without a restart: `SIGHUP` reads the configuration again, and operators change who is under maintenance.
//!
//! One task makes all changes, one after the other: nothing else replaces the snapshot that requests are served by.
//! Names of new backends are looked up before, so that no request finds them unknown; the state of backends that are
//! none any more is kept until no request has a snapshot that names them.
//!
//! A file with errors changes nothing. What cannot change in a running process (listeners, destinations of logs,
//! threads) stays as it is and is named in the main log: a takeover brings it into force.

use std::{
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chrono::{SecondsFormat, Utc};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{interval, timeout},
};

use super::{
    FIRST_LOOKUP,
    differences::{changed, keep_what_needs_a_takeover},
    runtime::{Changes, Maintenance, SharedStore, Store, StoreError, Trouble},
};
use crate::{
    config::Config,
    gateway::{
        connection::Room,
        snapshot::{Current, Snapshot},
    },
    mirror::Mirror,
    technical::maintenance::{Change, Maintained, Switch, SwitchError},
    telemetry::{Logs, export::tell_limits, metrics::METRICS},
    topology::{Backend, Identities, Topology},
    upstream::{Upstream, resolve::Resolver},
};

/// Between two looks at the file of changes, and at who still needs old backends.
const LOOK: Duration = Duration::from_secs(1);
/// For a change to be made; it waits for lookups of names and a disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes that wait.
const QUEUE: usize = 16;

/// What a change of the backends concerns.
pub struct Parts {
    pub current: Arc<Current>,
    pub resolver: Arc<Resolver>,
    pub upstream: Arc<Upstream>,
    pub mirror: Arc<Mirror>,
    pub room: Arc<Room>,
    pub logs: Logs,
}

/// The task that makes changes.
pub struct Reloader {
    /// The configuration's file; the demo has none.
    file: Option<PathBuf>,
    parts: Parts,
    identities: Identities,
    store: SharedStore,
    changes: Arc<ArcSwap<Changes>>,
    /// With the file of changes.
    trouble: Trouble,
    /// Snapshots that requests may still have, and their backends.
    former: Vec<(Weak<Snapshot>, Vec<Arc<Backend>>)>,
    orders: mpsc::Receiver<Order>,
    calls: Arc<Calls>,
    /// This process decides what the file forgets: not before it serves, since a predecessor that goes on has another
    /// configuration.
    serves: bool,
}

/// What the task is told of the life of the process.
#[derive(Debug, Default)]
pub struct Calls {
    /// It got SIGHUP.
    pub hangup: Notify,
    /// It serves: a takeover, if there was one, has succeeded.
    pub serving: Notify,
    /// Another process serves in its place.
    pub handed_over: AtomicBool,
}

struct Order {
    change: Change,
    made: oneshot::Sender<Result<Maintained, SwitchError>>,
}

/// What the technical endpoint has of the task.
pub struct Orders {
    current: Arc<Current>,
    changes: Arc<ArcSwap<Changes>>,
    queue: mpsc::Sender<Order>,
}

/// What was there before the first snapshot.
pub struct Beginning {
    pub file: Option<PathBuf>,
    pub identities: Identities,
    pub store: Store,
    pub changes: Changes,
}

impl Beginning {
    /// The first topology, with what was changed at run time before.
    pub fn new(config: &Config, file: Option<PathBuf>) -> Result<(Beginning, Topology), StoreError> {
        let mut store = Store::at(&config.state_directory);
        let mut changes = store.read()?;
        drop_what_is_configured(&mut changes, config);
        let mut identities = Identities::default();
        let topology = topology(config, &mut identities, &changes);
        Ok((Beginning { file, identities, store, changes }, topology))
    }
}

fn topology(config: &Config, identities: &mut Identities, changes: &Changes) -> Topology {
    Topology::next(config, identities, &|endpoint| Some(changes.maintenance.get(endpoint)?.on))
}

impl Reloader {
    pub fn new(beginning: Beginning, parts: Parts, calls: Arc<Calls>) -> (Reloader, Arc<Orders>) {
        let Beginning { file, identities, store, changes } = beginning;
        let changes = Arc::new(ArcSwap::from_pointee(changes));
        let store = SharedStore::new(store);
        let (queue, orders) = mpsc::channel(QUEUE);
        let handle = Arc::new(Orders { current: parts.current.clone(), changes: changes.clone(), queue });
        METRICS.reloads.in_force_since.set(Utc::now().timestamp());
        let reloader = Reloader {
            file,
            parts,
            identities,
            store,
            changes,
            trouble: Trouble::new(),
            former: Vec::new(),
            orders,
            calls,
            serves: false,
        };
        (reloader, handle)
    }

    /// Makes changes for as long as it is polled.
    pub async fn run(mut self) {
        let calls = self.calls.clone();
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = calls.hangup.notified() => self.reload().await,
                () = calls.serving.notified() => {
                    self.serves = true;
                    self.forget_what_is_configured().await;
                }
                Some(order) = self.orders.recv() => {
                    let outcome = self.make(order.change).await;
                    // Whoever asked may have gone.
                    order.made.send(outcome).unwrap_or_default();
                }
                _ = look.tick() => {
                    self.follow_the_file().await;
                    self.let_go();
                }
            }
        }
    }

    async fn reload(&mut self) {
        let Some(file) = self.file.clone() else {
            log::error!("SIGHUP: there is no file to read again; the gateway goes on as it is");
            return;
        };
        let path = file.clone();
        let loading = move || Config::load(&path, &|name| std::env::var(name).ok());
        let loaded = tokio::task::spawn_blocking(loading).await;
        let mut config = match loaded {
            Ok(Ok(config)) => config,
            Ok(Err(errors)) => {
                METRICS.reloads.refused.inc();
                log::error!("SIGHUP: nothing has changed, the configuration has errors: {errors}");
                return;
            }
            Err(error) => {
                METRICS.reloads.refused.inc();
                log::error!("SIGHUP: nothing has changed, the configuration could not be read: {error}");
                return;
            }
        };
        let running = self.parts.current.pin().config.clone();
        let postponed = keep_what_needs_a_takeover(&running, &mut config);
        let changed = changed(&running, &config);
        for warning in &config.warnings {
            log::warn!("{warning}");
        }
        if let Some(level) = config.logging.mainlog.level {
            self.parts.logs.set_main_level(level);
        }
        let changes = Changes::clone(&self.changes.load());
        self.put(Arc::new(config), changes, postponed.clone()).await;
        METRICS.reloads.made.inc();
        let what = if changed.is_empty() { "nothing is different".to_owned() } else { changed.join(", ") };
        log::info!("SIGHUP: {} was read again: {what}", file.display());
        if !postponed.is_empty() {
            log::warn!("SIGHUP: not in force before a takeover or restart: {}", postponed.join(", "));
        }
    }

    /// Puts a configuration in place, with what is changed at run time: both at one moment, so that nobody is told of a
    /// change that is not in force yet.
    async fn put(&mut self, config: Arc<Config>, changes: Changes, postponed: Vec<&'static str>) {
        let mut different = changes.clone();
        drop_what_is_configured(&mut different, &config);
        let topology = topology(&config, &mut self.identities, &different);
        self.hold(&config, &topology).await;
        let snapshot = Snapshot { postponed, ..Snapshot::new(config.clone(), Arc::new(topology)) };
        let before = self.parts.current.replace(snapshot);
        self.changes.store(Arc::new(changes));
        self.former.push((Arc::downgrade(&before), before.topology.backends.clone()));
        METRICS.reloads.in_force_since.set(Utc::now().timestamp());
        tell_limits(&config);
        self.parts.room.tell_limit();
        self.forget_what_is_configured().await;
    }

    /// Makes the state of these backends be there, and that of those which a request may still ask for.
    async fn hold(&self, config: &Config, topology: &Topology) {
        let mut all = topology.backends.clone();
        let now = self.parts.current.pin().topology.clone();
        for backend in now.backends.iter().chain(self.former.iter().flat_map(|(_, backends)| backends)) {
            if all.iter().all(|known| known.id != backend.id) {
                all.push(backend.clone());
            }
        }
        let Parts { resolver, upstream, mirror, .. } = &self.parts;
        resolver.hold(&all);
        resolver.start();
        if timeout(FIRST_LOOKUP, resolver.looked_up_once()).await.is_err() {
            log::warn!("going on although not all backends' names are resolved after {FIRST_LOOKUP:?}");
        }
        upstream.apply(config, topology, &all);
        upstream.run_health();
        mirror.hold(&all);
    }

    /// Lets go of the state of backends that no request can ask for any more.
    fn let_go(&mut self) {
        let before = self.former.len();
        self.former.retain(|(snapshot, _)| snapshot.strong_count() > 0);
        if self.former.len() == before || !self.former.is_empty() {
            return;
        }
        let now = self.parts.current.pin();
        let Parts { resolver, upstream, mirror, .. } = &self.parts;
        resolver.hold(&now.topology.backends);
        upstream.apply(&now.config, &now.topology, &now.topology.backends);
        mirror.hold(&now.topology.backends);
    }

    /// A change is in force when it is kept.
    async fn make(&mut self, change: Change) -> Result<Maintained, SwitchError> {
        let Change { backend: asked, maintenance, reason } = change;
        let snapshot = self.parts.current.pin();
        let Some(backend) = snapshot.topology.backend(&asked).cloned() else {
            let known = snapshot.topology.backends.iter().map(|backend| backend.url.clone()).collect();
            return Err(SwitchError::Unknown { asked, known });
        };
        let endpoint = backend.endpoint();
        let since = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        let change = Maintenance { on: maintenance, since, reason: reason.clone() };
        let is_none = snapshot.config.maintains(&backend.url) == maintenance;
        let kept = self.store.update(move |changes| {
            match is_none {
                true => changes.maintenance.remove(&endpoint),
                false => changes.maintenance.insert(endpoint, change),
            };
        });
        let kept = kept.await.map_err(|error| SwitchError::NotKept(error.to_string()))?;
        self.put(snapshot.config.clone(), kept, snapshot.postponed.clone()).await;
        let state = if maintenance { "under maintenance" } else { "not under maintenance any more" };
        log::warn!("{}: {state}, as was asked of this process: {reason:?}", backend.url);
        Ok(maintained(&backend, maintenance, &snapshot.config, &self.changes.load()))
    }

    /// Another process of this gateway may have changed it.
    async fn follow_the_file(&mut self) {
        let read = self.store.read_if_new().await;
        let Some(mut changes) = self.trouble.tell(read) else { return };
        if self.calls.handed_over.load(Relaxed) {
            // What the successor's configuration has taken over is no news for this one's.
            let mut all = Changes::clone(&self.changes.load());
            all.maintenance.extend(changes.maintenance);
            changes = all;
        }
        drop_what_is_configured(&mut changes, &self.parts.current.pin().config);
        if changes == **self.changes.load() {
            return;
        }
        let snapshot = self.parts.current.pin();
        self.put(snapshot.config.clone(), changes, snapshot.postponed.clone()).await;
        log::info!("changes at run time that another process made are in force");
    }

    /// Lets the file forget what the configuration says too.
    async fn forget_what_is_configured(&mut self) {
        if !self.serves || self.calls.handed_over.load(Relaxed) {
            return;
        }
        let config = self.parts.current.pin().config.clone();
        let mut changes = Changes::clone(&self.changes.load());
        drop_what_is_configured(&mut changes, &config);
        self.changes.store(Arc::new(changes));
        if !self.store.is_there().await {
            return;
        }
        let drop = move |changes: &mut Changes| drop_what_is_configured(changes, &config);
        if let Err(error) = self.store.update(drop).await {
            // They are forgotten at the next occasion.
            log::warn!("changes at run time that the configuration has taken over are still kept: {error}");
        }
    }
}

/// Drops changes that are none. What the configuration does not name may be another one's.
fn drop_what_is_configured(changes: &mut Changes, config: &Config) {
    changes
        .maintenance
        .retain(|endpoint, entry| !config.names(endpoint) || config.maintains(endpoint) != entry.on);
}

fn maintained(backend: &Backend, now: bool, config: &Config, changes: &Changes) -> Maintained {
    let change = changes.maintenance.get(&backend.endpoint());
    Maintained {
        backend: backend.url.clone(),
        maintenance: now,
        configured: config.maintains(&backend.url),
        changed: change.map(|change| change.since.clone()),
        reason: change.map(|change| change.reason.clone()),
    }
}

impl Orders {
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.pin()
    }

    /// What was changed of a backend while the process, or one before it, ran.
    pub fn changed_at_run_time(&self, backend: &Backend) -> Option<Maintenance> {
        self.changes.load().maintenance.get(&backend.endpoint()).cloned()
    }
}

#[async_trait]
impl Switch for Orders {
    fn backends(&self) -> Vec<Maintained> {
        let (snapshot, changes) = (self.current.pin(), self.changes.load());
        let all = snapshot.topology.backends.iter();
        all.map(|backend| maintained(backend, backend.maintained, &snapshot.config, &changes)).collect()
    }

    async fn set(&self, change: Change) -> Result<Maintained, SwitchError> {
        let (made, answer) = oneshot::channel();
        let asking = async {
            self.queue.send(Order { change, made }).await.ok()?;
            answer.await.ok()
        };
        match timeout(PATIENCE, asking).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(SwitchError::Unavailable("this process is about to end")),
            Err(_) => {
                Err(SwitchError::Unavailable("it takes too long; it may yet be made: ask for the list"))
            }
        }
    }
}

//! What is known of one backend beyond its configuration: connections in use and idle, and its health.
//!
//! A pool of ours rather than Pingora's: it counts, caps connections per backend, ages idle ones, and asks the
//! kernel about a connection before lending it out, without a task per idle connection.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    failure::{Cause, Failure, Phase},
    health::{Health, SharedPolicy},
    observer::Observed,
    wire::Wire,
};
use crate::{
    config::Transport,
    telemetry::metrics::{BackendMetrics, ReplyCounters},
    topology::Backend,
};

/// One backend as the transport sees it.
pub struct Peer {
    pub backend: Arc<Backend>,
    in_flight: AtomicUsize,
    /// `MaxConnsPerBackend`, when there is a limit.
    slots: ArcSwapOption<Slots>,
    /// By the snapshot in force.
    maintained: AtomicBool,
    /// Not in the topology any more: nothing is kept.
    retired: AtomicBool,
    /// Most recently used last: lending from the end lets the rest age and close.
    idle: Mutex<Vec<Idle>>,
    idle_in_all: Arc<AtomicUsize>,
    pub(super) metrics: Arc<BackendMetrics>,
    pub(super) replies: ReplyCounters,
    pub(super) health: Arc<Health>,
    /// Which of its addresses worked last.
    pub(super) address: AtomicUsize,
}

/// The connections that a backend may have, one permit each.
struct Slots {
    limit: usize,
    free: Arc<Semaphore>,
}

struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

/// The right to use one connection; counts as in flight until dropped.
pub(super) struct Lease {
    pub peer: Arc<Peer>,
    since: Instant,
    /// For a health check: beside all limits and counts.
    is_check: bool,
    _slot: Option<OwnedSemaphorePermit>,
    /// Who wants to hear of the exchange, if anybody does.
    pub observed: Option<Observed>,
}

impl Lease {
    /// Whether the connection may go to the pool afterwards.
    pub fn is_for_requests(&self) -> bool {
        !self.is_check
    }

    /// The head of an answer is here, after `wait` if the whole request had been sent.
    pub fn answered_with(&self, status: StatusCode, wait: Option<Duration>) {
        if self.is_check {
            return;
        }
        self.observed.iter().for_each(|observed| observed.answered(status));
        if let Some(wait) = wait {
            self.peer.metrics.answer_wait.observe(wait.as_secs_f64());
        }
        self.peer.health.answered_with(self.since, status);
    }

    /// The exchange has come to the end of an answer with this status.
    pub fn answered(&self, status: Option<StatusCode>, wait: Duration) {
        if !self.is_check {
            self.peer.health.answered(self.since, status, wait);
        }
    }

    /// The exchange failed: counts it and hands it on.
    pub fn failed(&self, failure: Failure) -> Failure {
        self.observed.iter().for_each(|observed| observed.failed(&failure));
        if self.is_check { failure } else { self.peer.failed(failure, self.since) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_check {
            return;
        }
        self.peer.in_flight.fetch_sub(1, Relaxed);
        self.peer.metrics.busy_connections.dec();
        self.peer.metrics.exchange_duration.observe(self.since.elapsed().as_secs_f64());
    }
}

impl Slots {
    fn new(limit: usize) -> Option<Arc<Slots>> {
        (limit > 0).then(|| Arc::new(Slots { limit, free: Arc::new(Semaphore::new(limit)) }))
    }
}

impl Peer {
    pub(super) fn new(
        backend: Arc<Backend>,
        limit: usize,
        idle_in_all: Arc<AtomicUsize>,
        policy: SharedPolicy,
    ) -> Arc<Self> {
        Arc::new(Peer {
            health: Arc::new(Health::new(&backend.url, policy)),
            metrics: BackendMetrics::of(&backend.url),
            replies: ReplyCounters::of(&backend.url),
            address: AtomicUsize::new(0),
            maintained: AtomicBool::new(backend.maintained),
            backend,
            in_flight: AtomicUsize::new(0),
            slots: ArcSwapOption::new(Slots::new(limit)),
            retired: AtomicBool::new(false),
            idle: Mutex::default(),
            idle_in_all,
        })
    }

    /// Sets `MaxConnsPerBackend`. Connections that are in use at that moment do not count towards a new limit.
    pub(super) fn set_limit(&self, limit: usize) {
        if self.limit() != limit {
            self.slots.store(Slots::new(limit));
        }
    }

    fn limit(&self) -> usize {
        self.slots.load().as_ref().map_or(0, |slots| slots.limit)
    }

    /// The backend is not in the topology any more.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
        let idle = std::mem::take(&mut *self.idle());
        self.count_idle(-(idle.len() as isize));
        self.metrics.retire();
        self.health.retire();
    }

    /// Whether the snapshot in force has it under maintenance.
    pub(super) fn is_maintained(&self) -> bool {
        self.maintained.load(Relaxed)
    }

    pub(super) fn set_maintained(&self, maintained: bool) {
        self.maintained.store(maintained, Relaxed);
        self.metrics.maintenance.set(maintained.into());
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether no slot is free under `MaxConnsPerBackend`.
    pub fn is_full(&self) -> bool {
        self.slots.load().as_ref().is_some_and(|slots| slots.free.available_permits() == 0)
    }

    /// Waits for a free slot under `MaxConnsPerBackend`, at most `patience`.
    pub(super) async fn lease(self: &Arc<Self>, patience: Duration) -> Result<Lease, Failure> {
        let slot = match self.slots.load_full() {
            None => None,
            Some(slots) => Some(self.slot(&slots, patience).await?),
        };
        self.in_flight.fetch_add(1, Relaxed);
        self.metrics.busy_connections.inc();
        Ok(Lease { peer: self.clone(), since: Instant::now(), is_check: false, _slot: slot, observed: None })
    }

    /// For a health check, which must reach a backend whose connections are all in use.
    pub(super) fn lease_for_check(self: &Arc<Self>) -> Lease {
        Lease { peer: self.clone(), since: Instant::now(), is_check: true, _slot: None, observed: None }
    }

    /// Counts a failed exchange that began then, and hands the failure on.
    pub(super) fn failed(&self, failure: Failure, begun: Instant) -> Failure {
        self.health.failed(&failure, begun);
        failure.counted(&self.metrics)
    }

    async fn slot(&self, slots: &Slots, patience: Duration) -> Result<OwnedSemaphorePermit, Failure> {
        let started = Instant::now();
        if let Ok(slot) = slots.free.clone().try_acquire_owned() {
            return Ok(slot);
        }
        match tokio::time::timeout(patience, slots.free.clone().acquire_owned()).await {
            Ok(Ok(slot)) => {
                self.metrics.waits_served.inc();
                Ok(slot)
            }
            _ => {
                self.metrics.waits_in_vain.inc();
                Err(Failure::new(&self.backend, Phase::Limit, Cause::Limit(slots.limit), started.elapsed()))
            }
        }
    }

    /// The most recently used idle connection that is still sound.
    pub(super) fn take_idle(&self, limits: &Transport) -> Option<Box<Wire>> {
        loop {
            let mut idle = self.idle().pop()?;
            self.count_idle(-1);
            if self.is_sound(&mut idle, limits, Wire::wake) {
                return Some(idle.wire);
            }
        }
    }

    /// Makes room under `MaxConnsPerBackend` for a connection that has to be new.
    pub(super) fn close_one_idle(&self) {
        let limit = self.limit();
        let mut idle = self.idle();
        if limit > 0 && !idle.is_empty() && self.in_flight() + idle.len() > limit {
            idle.remove(0);
            self.count_idle(-1);
            self.metrics.closed_for_fresh.inc();
        }
    }

    /// Keeps a connection for later, within the limits.
    pub(super) fn keep(&self, mut wire: Box<Wire>, limits: &Transport) {
        let room_in_all =
            limits.max_idle_conns == 0 || self.idle_in_all.load(Relaxed) < limits.max_idle_conns;
        if limits.disable_keep_alives || self.retired.load(Relaxed) || !wire.rest() {
            return;
        }
        let mut idle = self.idle();
        if room_in_all && idle.len() < limits.max_idle_conns_per_host {
            self.count_idle(1);
            idle.push(Idle { wire, since: Instant::now() });
        } else {
            self.metrics.closed_full.inc();
        }
    }

    /// Closes idle connections that have aged out or that the backend has closed.
    pub(super) fn sweep(&self, limits: &Transport) {
        let mut idle = self.idle();
        let before = idle.len();
        idle.retain_mut(|idle| self.is_sound(idle, limits, |wire| wire.is_idle()));
        let gone = before - idle.len();
        self.count_idle(-(gone as isize));
    }

    /// Whether an idle connection can be used, `as_asked`; counts why not.
    fn is_sound(&self, idle: &mut Idle, limits: &Transport, as_asked: impl Fn(&mut Wire) -> bool) -> bool {
        if limits.idle_conn_timeout.is_some_and(|age| idle.since.elapsed() >= age) {
            self.metrics.closed_aged.inc();
            return false;
        }
        let sound = as_asked(&mut idle.wire);
        if !sound {
            self.metrics.closed_dead.inc();
        }
        sound
    }

    fn count_idle(&self, change: isize) {
        // Two's complement: adding a negative number is subtracting.
        self.idle_in_all.fetch_add(change as usize, Relaxed);
        self.metrics.idle_connections.add(change as i64);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

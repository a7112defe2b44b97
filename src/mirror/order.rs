//! The order of writes to one object, and who missed the last one.
//!
//! Two writes to one object must take effect in the same order on every backend; above all a PUT that still runs
//! on a slow backend must not overtake the DELETE that followed it. A write takes its place in line when its
//! body has ended (the commit), on all its backends at once; on each backend the bytes that complete it are sent
//! only when the write before it there has ended. An upload whose client is still sending is in nobody's way.
//! A write that does not end within the patience of its successor is aborted.
//!
//! Invariants: for two writes A and B to one object, either A is before B on every backend that both go to, or
//! B before A; a line only ever waits for writes that entered it earlier, so there are no cycles; an entry
//! leaves the table when its ticket is dropped, however its sub-request ended.
//!
//! That a backend missed a write may be found out only when a later one is through there: whether one that was left out
//! or refused has missed anything, the others' replies tell. So as long as a write is undecided ([`Commit`]) its line
//! knows what backends have taken since.
//!
//! The table of unfinished writes is bounded by the requests in flight; that of missed writes by [`MISSED_MOST`],
//! oldest out first.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::latch::Latch;
use crate::{telemetry::metrics::METRICS, topology::BackendId};

/// An object's name, `/<bucket>/<key>`, decoded.
pub type Object = Arc<[u8]>;

/// Objects of which a backend missed the last write, at most.
pub const MISSED_MOST: usize = 64 * 1024;
const SHARDS: usize = 64;

/// The table. Cheap to share.
#[derive(Debug)]
pub struct Order {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    /// Entries in all: while there are none, reads need not look.
    entries: AtomicUsize,
    /// Of the last commit.
    commits: AtomicI64,
}

#[derive(Debug, Default)]
struct Shard {
    lines: HashMap<Object, Line>,
    /// Per object, the backends that missed writes, with the number of the last one.
    missed: HashMap<Object, Vec<(BackendId, i64)>>,
    missed_in_order: VecDeque<Object>,
}

/// The unfinished writes of an object.
#[derive(Debug, Default)]
struct Line {
    /// The last one in line on each backend.
    places: Vec<(BackendId, Arc<Place>)>,
    /// Writes of which it may yet be said that a backend missed them.
    undecided: usize,
    /// The last write that each backend has taken since the line began.
    taken: Vec<(BackendId, i64)>,
}

/// A place in line.
#[derive(Debug, Default)]
struct Place {
    ended: Latch,
    /// Set by a later write that has lost patience with this one; shared with its sub-request.
    aborted: Arc<Latch>,
    /// The write to wait for instead, if this one left before its turn came.
    inherited: OnceLock<Arc<Place>>,
}

/// A write that has its places in line. Dropped, all is said of who missed it.
#[derive(Debug)]
pub struct Commit {
    order: Arc<Order>,
    object: Object,
    number: i64,
}

/// A sub-request's place in line; dropping it lets the next one go.
#[derive(Debug)]
pub struct Ticket {
    order: Arc<Order>,
    object: Object,
    place: Arc<Place>,
    before: Option<Arc<Place>>,
}

impl Order {
    pub fn new() -> Arc<Self> {
        METRICS.limit("missed_writes", MISSED_MOST as u64);
        Arc::new(Order {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            entries: AtomicUsize::new(0),
            commits: AtomicI64::new(0),
        })
    }

    /// Takes a place in line on each backend, at once, and a number: of two writes to an object the one with the smaller
    /// number is before the other. The latches are set when a later write loses patience.
    pub fn enter(
        self: &Arc<Self>,
        object: &Object,
        backends: Vec<(BackendId, Arc<Latch>)>,
    ) -> (Commit, Vec<Ticket>) {
        let mut shard = self.shard(object);
        // Under the lock, so that numbers and places agree.
        let number = 1 + self.commits.fetch_add(1, Relaxed);
        let line = shard.lines.entry(object.clone()).or_default();
        line.undecided += 1;
        let mut own: Vec<(BackendId, Option<Arc<Place>>)> = Vec::with_capacity(backends.len());
        let tickets = backends
            .into_iter()
            .map(|(backend, aborted)| {
                let place = Arc::new(Place { aborted, ..Place::default() });
                // A backend that is in two clusters of the region is not behind itself.
                let sibling = own.iter().find(|(id, _)| *id == backend).map(|(_, before)| before.clone());
                let last = match line.places.iter_mut().find(|(id, _)| *id == backend) {
                    Some((_, last)) => Some(std::mem::replace(last, place.clone())),
                    None => {
                        line.places.push((backend, place.clone()));
                        self.entries.fetch_add(1, Relaxed);
                        METRICS.unfinished_writes.inc();
                        None
                    }
                };
                let before = sibling.unwrap_or(last);
                own.push((backend, before.clone()));
                Ticket { order: self.clone(), object: object.clone(), place, before }
            })
            .collect();
        (Commit { order: self.clone(), object: object.clone(), number }, tickets)
    }

    /// The last committed write to the object that is under way on the backend: a write that follows it does not
    /// even begin before it has ended.
    pub fn under_way(&self, object: &Object, backend: BackendId) -> Option<Earlier> {
        if self.entries.load(Relaxed) == 0 {
            return None;
        }
        let shard = self.shard(object);
        let line = shard.lines.get(object)?;
        line.places.iter().find(|(id, _)| *id == backend).map(|(_, place)| Earlier(place.clone()))
    }

    /// A backend has taken the write with this number: what it missed before that does not matter any more, what it
    /// missed since does. A write may end late, after later ones.
    pub fn took(&self, object: &Object, backend: BackendId, number: i64) {
        if self.entries.load(Relaxed) == 0 {
            return;
        }
        let mut shard = self.shard(object);
        if let Some(line) = shard.lines.get_mut(object) {
            line.took(backend, number);
        }
        self.forget(&mut shard, object, backend, number);
    }

    /// A backend has got by other means what it missed up to the write with this number.
    pub fn made_up(&self, object: &[u8], backend: BackendId, number: i64) {
        self.forget(&mut self.shard(object), object, backend, number);
    }

    fn forget(&self, shard: &mut Shard, object: &[u8], backend: BackendId, number: i64) {
        let Some(missed) = shard.missed.get_mut(object) else { return };
        missed.retain(|(id, last)| *id != backend || *last > number);
        if missed.is_empty() {
            shard.missed.remove(object);
            shard.missed_in_order.retain(|other| &**other != object);
            self.entries.fetch_sub(1, Relaxed);
            METRICS.missed_writes.dec();
        }
    }

    /// A backend has missed the write with this number, which is undecided; unless it has taken a later one by now.
    pub fn missed(&self, object: &Object, backend: BackendId, number: i64) {
        let mut guard = self.shard(object);
        let shard = &mut *guard;
        if shard.lines.get(object).is_some_and(|line| line.has_taken(backend, number)) {
            return;
        }
        let missed = shard.missed.entry(object.clone()).or_default();
        if missed.is_empty() {
            shard.missed_in_order.push_back(object.clone());
            self.entries.fetch_add(1, Relaxed);
            METRICS.missed_writes.inc();
        }
        match missed.iter_mut().find(|(id, _)| *id == backend) {
            Some((_, last)) => *last = number.max(*last),
            None => missed.push((backend, number)),
        }
        if shard.missed_in_order.len() > MISSED_MOST / SHARDS
            && let Some(oldest) = shard.missed_in_order.pop_front()
        {
            shard.missed.remove(&oldest);
            self.entries.fetch_sub(1, Relaxed);
            METRICS.missed_writes.dec();
            METRICS.missed_writes_forgotten.inc();
        }
    }

    /// Backends that do not hold the object's last write, or not yet: to be asked last.
    pub fn lagging(&self, object: &[u8]) -> Lagging {
        if self.entries.load(Relaxed) == 0 {
            return Lagging::default();
        }
        let shard = self.shard(object);
        let places = shard.lines.get(object).into_iter().flat_map(|line| &line.places);
        let missed = shard.missed.get(object).cloned().unwrap_or_default();
        Lagging { unfinished: places.map(|(id, _)| *id).collect(), missed }
    }

    fn shard(&self, object: &[u8]) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(object) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn took(&mut self, backend: BackendId, number: i64) {
        match self.taken.iter_mut().find(|(id, _)| *id == backend) {
            Some((_, last)) => *last = number.max(*last),
            None => self.taken.push((backend, number)),
        }
    }

    /// Whether a backend has taken a later write than this.
    fn has_taken(&self, backend: BackendId, number: i64) -> bool {
        self.taken.iter().any(|(id, last)| *id == backend && *last > number)
    }

    fn is_over(&self) -> bool {
        self.places.is_empty() && self.undecided == 0
    }
}

impl Shard {
    fn leave(&mut self, object: &Object) {
        if self.lines.get(object).is_some_and(Line::is_over) {
            self.lines.remove(object);
        }
    }
}

impl Commit {
    /// Of two writes to an object the one with the smaller number is before the other.
    pub fn number(&self) -> i64 {
        self.number
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        let mut shard = self.order.shard(&self.object);
        if let Some(line) = shard.lines.get_mut(&self.object) {
            line.undecided -= 1;
        }
        shard.leave(&self.object);
    }
}

/// Backends that do not hold an object's last write, as far as the gateway has written it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lagging {
    /// It is under way there.
    pub unfinished: Vec<BackendId>,
    /// With the number of the last write that they missed.
    pub missed: Vec<(BackendId, i64)>,
}

impl Lagging {
    pub fn is_empty(&self) -> bool {
        self.unfinished.is_empty() && self.missed.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = BackendId> + '_ {
        self.unfinished.iter().chain(self.missed.iter().map(|(id, _)| id)).copied()
    }
}

/// A write that was under way when a later one came.
#[derive(Debug)]
pub struct Earlier(Arc<Place>);

impl Earlier {
    /// Waits for its end, at most `patience`: then the later write goes on, and aborts it at its own commit.
    pub async fn ended(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.0.ended.wait()).await.is_err() {
            log::debug!("an earlier write to the same object is still under way after {patience:?}");
        }
    }
}

impl Ticket {
    /// Waits for the write before this one, at most `patience`; then that one, and whatever it waits for itself,
    /// is aborted. One that was `waited_for` already is not waited for again.
    pub async fn turn(&mut self, patience: Duration, waited_for: Option<&Earlier>) {
        /// An aborted sub-request ends as soon as it is polled.
        const ABORTING: Duration = Duration::from_secs(1);
        let mut patience = patience;
        while let Some(before) = self.before.clone() {
            if waited_for.is_some_and(|earlier| Arc::ptr_eq(&earlier.0, &before)) {
                patience = Duration::ZERO;
            }
            if tokio::time::timeout(patience, before.ended.wait()).await.is_err() {
                self.abort(&before);
                if tokio::time::timeout(ABORTING, before.ended.wait()).await.is_err() {
                    log::warn!("an aborted write did not end within {ABORTING:?}; the next one goes on");
                }
                patience = Duration::ZERO;
            }
            self.before = before.inherited.get().cloned();
        }
    }
}

impl Ticket {
    /// Aborts the write in an earlier place, unless it has left it: places are left under the same lock, so that a
    /// write which has taken effect is never told to give way.
    fn abort(&self, before: &Place) {
        let _shard = self.order.shard(&self.object);
        if !before.ended.is_set() {
            before.aborted.set();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A ticket whose turn never came passes its predecessor on: the next in line must still wait for it.
        // All under the lock, so that no place that has ended is put back into the line.
        let mut shard = self.order.shard(&self.object);
        let mut before = self.before.take();
        // A place that has ended tells whom it waited for itself, if its turn had not come either.
        while let Some(place) = before.as_ref().filter(|place| place.ended.is_set()) {
            before = place.inherited.get().cloned();
        }
        if let Some(before) = &before {
            self.place.inherited.get_or_init(|| before.clone());
        }
        if let Some(line) = shard.lines.get_mut(&self.object)
            && let Some(at) = line.places.iter().position(|(_, place)| Arc::ptr_eq(place, &self.place))
        {
            match before {
                Some(before) => line.places[at].1 = before,
                None => {
                    line.places.swap_remove(at);
                    self.order.entries.fetch_sub(1, Relaxed);
                    METRICS.unfinished_writes.dec();
                }
            }
            shard.leave(&self.object);
        }
        self.place.ended.set();
        drop(shard);
    }
}

#[cfg(test)]
mod tests;

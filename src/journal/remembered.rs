//! What a gateway knows of the objects in its journal: who has the newest write, and that there is one at all.
//!
//! As the journal has no news that is not here after a moment, most requests learn of nothing by one look at a
//! counter. What the gateway itself found is here at once, and stays until the journal knows it, too. There is room for
//! a number of objects; if there are more, the memory is not whole, and says so.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use serde::{Deserialize, Serialize};

use super::{Object, Record, Said, What, WriteId};
use crate::telemetry::metrics::{JournalMetrics, METRICS};

const SHARDS: usize = 64;

pub struct Remembered {
    shards: Vec<Mutex<HashMap<Object, Entry>>>,
    hasher: RandomState,
    count: AtomicUsize,
    most: usize,
    /// Twice how often it was doubted, as where there was no room for an object, and one more if what is here is all. It
    /// only grows: what it is before and after a look it was meanwhile.
    whole: AtomicU64,
    /// How often the journal was asked for all that it has.
    asked: AtomicU64,
    metrics: JournalMetrics,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    known: Known,
    /// The last time that the journal was asked for all and had it.
    asked: u64,
    /// What this gateway had to say last, until the journal is known to have it.
    own: Option<(u64, Known)>,
}

/// As things were when the journal was asked for all that it has.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// How often it was doubted, twice.
    lacked: u64,
    /// Up to where the journal surely had this gateway's own.
    taken: u64,
    /// How often it was asked.
    times: u64,
    /// There was room for all that has come.
    fits: bool,
}

/// What the records of one object say. Journals keep it beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<Newest>,
    /// By reads: endpoints of backends that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Vec<String>>,
    /// It was found on another cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    misplaced: bool,
}

/// The newest write of the whole object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    id: WriteId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<i64>,
    ended: i64,
    /// Endpoints of backends that took it.
    has: Vec<String>,
}

impl Newest {
    fn is_newer_than(&self, other: &Newest) -> bool {
        match (self.commit, other.commit) {
            (Some(own), Some(others)) if self.id.gateway == other.id.gateway => own >= others,
            _ => self.ended >= other.ended,
        }
    }
}

impl Known {
    pub fn of(records: &[Record]) -> Known {
        let mut known = Known::default();
        records.iter().for_each(|record| known.add(record));
        known
    }

    pub(super) fn add(&mut self, record: &Record) {
        let good = record.replies.iter().filter(|(_, said)| matches!(said, Said::Good { .. }));
        let good = move || good.map(|(endpoint, _)| endpoint.clone()).collect();
        let newest = match record.intent.what {
            What::Put | What::Delete => {
                let has: Vec<String> = good();
                // Of one that nobody is known to have taken no client was told: an earlier one is the newest still.
                if has.is_empty() {
                    return;
                }
                Newest { id: record.id(), commit: record.commit, ended: record.ended, has }
            }
            What::Seen => return self.seen = Some(good()),
            What::Misplaced(_) => return self.misplaced = true,
            What::Attribute(_) | What::Version(_) | What::Bucket(_) => return,
        };
        self.take(newest);
    }

    fn take(&mut self, newest: Newest) {
        if self.newest.as_ref().is_none_or(|known| known.id == newest.id || newest.is_newer_than(known)) {
            self.newest = Some(newest);
        }
    }

    fn join(&mut self, other: &Known) {
        if let Some(newest) = &other.newest {
            self.take(newest.clone());
        }
        self.seen = self.seen.take().or_else(|| other.seen.clone());
        self.misplaced |= other.misplaced;
    }

    /// Whether a backend does not have what is newest, as far as is known.
    pub fn lags(&self, endpoint: &str) -> bool {
        let has = self.newest.as_ref().map(|newest| &newest.has).or(self.seen.as_ref());
        has.is_some_and(|has| has.iter().all(|known| known != endpoint))
    }

    /// Whether there is a record of this already, where it is what a read found.
    pub fn says(&self, what: &What) -> bool {
        match what {
            What::Seen => self.seen.is_some(),
            What::Misplaced(_) => self.misplaced,
            _ => false,
        }
    }
}

impl Remembered {
    /// Nothing is known at first, and that is not all.
    pub fn new(most: usize) -> Remembered {
        METRICS.limit("RememberedObjects", most as u64);
        Remembered {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            most,
            whole: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            metrics: JournalMetrics::of_process(),
        }
    }

    /// Whether what is not here is not in the journal, now. Of what was looked up before, see
    /// [`surely_lacks`](Self::surely_lacks).
    pub fn is_whole(&self) -> bool {
        !self.whole.load(Acquire).is_multiple_of(2)
    }

    /// Whether no object is here. What the journal has only goes after a doubt, so whoever sees it gone sees that, too.
    pub fn is_empty(&self) -> bool {
        self.count.load(Acquire) == 0
    }

    /// Whether an object is not here, while what is not here is not in the journal.
    pub fn surely_lacks(&self, object: &Object) -> bool {
        let before = self.whole.load(Acquire);
        !before.is_multiple_of(2) && !self.knows(object) && self.whole.load(Acquire) == before
    }

    pub fn of(&self, object: &Object) -> Option<Known> {
        if self.is_empty() {
            return None;
        }
        self.shard(object).get(object).map(|entry| entry.known.clone())
    }

    pub fn knows(&self, object: &Object) -> bool {
        !self.is_empty() && self.shard(object).contains_key(object)
    }

    /// Takes what this gateway has to say itself. `until` = what the journal must have taken to know it.
    pub fn note(&self, record: &Record, until: u64) {
        self.change(&record.intent.object, |entry| {
            entry.known.add(record);
            let (known_until, own) = entry.own.get_or_insert_default();
            own.add(record);
            *known_until = until.max(*known_until);
        });
    }

    /// Takes what the journal has of an object, `None` = nothing. `taken` = up to where it surely had this gateway's own by
    /// then. False = there is no room for it.
    pub fn learn(&self, object: &Object, known: Option<Known>, taken: u64) -> bool {
        if let Some(known) = known {
            return self.change(object, |entry| entry.learn(known, taken));
        }
        let mut shard = self.shard(object);
        let Some(entry) = shard.get_mut(object) else { return true };
        entry.learn(Known::default(), taken);
        if entry.own.is_none() {
            shard.remove(object);
            self.count.fetch_sub(1, Release);
            self.metrics.remembered.dec();
        }
        true
    }

    /// The journal is about to be asked for all. `taken` = up to where it surely has this gateway's own.
    pub fn asking(&self, taken: u64) -> Asking {
        let times = 1 + self.asked.fetch_add(1, Relaxed);
        Asking { lacked: self.whole.load(Relaxed) & !1, taken, times, fits: true }
    }

    /// Takes a part of all that the journal has.
    pub fn learn_some(&self, objects: Vec<(Object, Known)>, asked: &mut Asking) {
        let Asking { taken, times, .. } = *asked;
        for (object, known) in objects {
            asked.fits &= self.change(&object, |entry| {
                entry.learn(known, taken);
                entry.asked = times;
            });
        }
    }

    /// That was all, or as much of it as there is to be: what is here and was not in it goes, and not before, so that
    /// nothing that the journal has is missing meanwhile. It is not all if there was a doubt since it was asked. What goes
    /// has its room again only now: where there was none for what came, there may be the next time.
    pub fn learnt(&self, whole: bool, asked: Asking) {
        let Asking { lacked, taken, times, fits } = asked;
        if !whole || !fits {
            self.doubt();
        }
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|_, entry| {
                if entry.asked != times {
                    entry.learn(Known::default(), taken);
                }
                entry.asked == times || entry.own.is_some()
            });
            self.count.fetch_sub(before - shard.len(), Release);
            self.metrics.remembered.sub((before - shard.len()) as i64);
        }
        // Unless there was no room for what the gateway itself found meanwhile.
        self.whole.compare_exchange(lacked, lacked + 1, Relaxed, Relaxed).unwrap_or_default();
        self.metrics.whole.set(i64::from(self.is_whole()));
    }

    /// Takes all that the journal has, or as much of it as it gave.
    pub fn learn_all(&self, objects: Vec<(Object, Known)>, whole: bool, mut asked: Asking) {
        self.learn_some(objects, &mut asked);
        self.learnt(whole, asked);
    }

    /// From now on what is not here may be in the journal, until it has been asked for all.
    pub fn doubt(&self) {
        self.whole.update(Relaxed, Relaxed, |whole| (whole | 1) + 1);
        self.metrics.whole.set(0);
    }

    /// False = there is no room for it.
    fn change(&self, object: &Object, change: impl FnOnce(&mut Entry)) -> bool {
        let mut shard = self.shard(object);
        if let Some(entry) = shard.get_mut(object) {
            change(entry);
            return true;
        }
        if self.count.fetch_add(1, Relaxed) >= self.most {
            self.count.fetch_sub(1, Relaxed);
            self.doubt();
            return false;
        }
        change(shard.entry(object.clone()).or_default());
        // Not set to the count: of two threads the one that looked first may be the last to tell.
        self.metrics.remembered.inc();
        true
    }

    fn shard(&self, object: &Object) -> MutexGuard<'_, HashMap<Object, Entry>> {
        let at = self.hasher.hash_one(object) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn learn(&mut self, known: Known, taken: u64) {
        self.own = self.own.take().filter(|(until, _)| *until > taken);
        self.known = known;
        if let Some((_, own)) = &self.own {
            self.known.join(own);
        }
    }
}

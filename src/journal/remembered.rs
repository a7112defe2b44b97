//! What a gateway knows of the objects in its journal: who has the newest write, and that there is one at all.
//!
//! As the journal has no news that is not here after a moment, most requests learn of nothing by one look at a
//! counter. What the gateway itself found is here at once, and stays until the journal knows it, too. There is room for
//! a number of objects; if there are more, the memory is not whole, and says so.
//!
//! What is here goes with the news that the journal has it no more. That may be older than what the gateway has told since,
//! and the last that is heard of the object: then the journal is to be asked once more ([`Remembered::unanswered`]).

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
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
    /// Objects of which the journal had nothing, when it may not have had this gateway's own yet.
    unanswered: Mutex<HashSet<Object>>,
    metrics: JournalMetrics,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    known: Known,
    /// The last time that the journal was asked for all and had it.
    asked: u64,
    own: Option<Own>,
}

/// What this gateway had to say last, until the journal is known to have it.
#[derive(Debug, Clone, Default)]
struct Own {
    known: Known,
    /// What the journal must have taken to have all of it.
    until: u64,
    /// What it must have taken to have what is a record by itself.
    recorded: u64,
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
            unanswered: Mutex::default(),
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

    /// Takes what this gateway has to say itself, which will be a record. `until` = what the journal must have taken to
    /// know it.
    pub fn note(&self, record: &Record, until: u64) {
        self.change(&record.intent.object, |entry| {
            let own = entry.note(record, until);
            own.recorded = until.max(own.recorded);
        });
    }

    /// Takes what this gateway has to say of an object that is here. The journal keeps it beside other records, or not at
    /// all: it is no reason to remember the object.
    pub fn note_beside(&self, record: &Record, until: u64) {
        if let Some(entry) = self.shard(&record.intent.object).get_mut(&record.intent.object) {
            entry.note(record, until);
        }
    }

    /// Takes what the journal has of an object, `None` = nothing. `taken` = up to where it surely had this gateway's own by
    /// then. False = there is no room for it.
    pub fn learn(&self, object: &Object, known: Option<Known>, taken: u64) -> bool {
        let (fits, is_answered) = match known {
            Some(known) => (self.change(object, |entry| entry.learn(known, taken)), true),
            None => (true, self.forget(object, taken)),
        };
        let mut unanswered = self.unanswered_ones();
        if is_answered {
            unanswered.remove(object);
        } else {
            unanswered.insert(object.clone());
        }
        fits
    }

    /// The journal has nothing of it; false = it is here all the same.
    fn forget(&self, object: &Object, taken: u64) -> bool {
        let mut shard = self.shard(object);
        let Some(entry) = shard.get_mut(object) else { return true };
        if !entry.forget(taken) {
            return false;
        }
        shard.remove(object);
        self.count.fetch_sub(1, Release);
        self.metrics.remembered.dec();
        true
    }

    /// Up to `most` objects of which nothing more need be heard, and the journal is to be asked. `taken` = up to where it
    /// has this gateway's own by now.
    pub fn unanswered(&self, taken: u64, most: usize) -> Vec<Object> {
        let mut found = Vec::new();
        self.unanswered_ones().retain(|object| {
            let recorded =
                self.shard(object).get(object).and_then(|entry| Some(entry.own.as_ref()?.recorded));
            if found.len() < most && recorded.is_some_and(|recorded| recorded <= taken) {
                found.push(object.clone());
            }
            recorded.is_some()
        });
        found
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

    /// Takes what has changed while all was read, `None` = it is not there any more.
    pub fn learn_changes(&self, changed: Vec<(Object, Option<Known>)>, asked: &mut Asking) {
        for (object, known) in changed {
            match known {
                Some(known) => self.learn_some(vec![(object, known)], asked),
                None => _ = self.learn(&object, None, asked.taken),
            }
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
        let mut unanswered = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|object, entry| {
                if entry.asked == times {
                    return true;
                }
                let stays = !entry.forget(taken);
                unanswered.extend(stays.then(|| object.clone()));
                stays
            });
            self.count.fetch_sub(before - shard.len(), Release);
            self.metrics.remembered.sub((before - shard.len()) as i64);
        }
        self.unanswered_ones().extend(unanswered);
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

    fn unanswered_ones(&self) -> MutexGuard<'_, HashSet<Object>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, object: &Object) -> MutexGuard<'_, HashMap<Object, Entry>> {
        let at = self.hasher.hash_one(object) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn note(&mut self, record: &Record, until: u64) -> &mut Own {
        self.known.add(record);
        let own = self.own.get_or_insert_default();
        own.known.add(record);
        own.until = until.max(own.until);
        own
    }

    fn learn(&mut self, known: Known, taken: u64) {
        self.own = self.own.take().filter(|own| own.until > taken);
        self.known = known;
        if let Some(own) = &self.own {
            self.known.join(&own.known);
        }
    }

    /// The journal has nothing of it; false = it may have, or have had, since. That is not by what settles, which is kept
    /// beside records only.
    fn forget(&mut self, taken: u64) -> bool {
        self.own = self.own.take().filter(|own| own.recorded > taken);
        self.known = self.own.as_ref().map(|own| own.known.clone()).unwrap_or_default();
        self.own.is_none()
    }
}

//! What a gateway has for its journal and has not put there yet: a queue that is taken in batches.
//!
//! The order is kept: a write's beginning is there before its end. A beginning that still waits when the write ends well
//! goes without a trace, so that a short write costs nothing where nobody waits for its intent. It stays where backends may
//! not agree: the journal keeps what settles meanwhile beside it. It knows no clock but what it is given, and nothing of
//! how batches travel.
//!
//! What it refuses when it is full: beginnings first, at half of its bound, so that there is room for ends; then ends of
//! which the journal has no beginning. An end whose beginning the journal may have is never refused, else its intent
//! stayed there for ever: there are no more of those than writes under way.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Change, Intent, WriteId};

/// How long an intent that nobody waits for may wait itself: most writes are shorter.
pub const LINGER: Duration = Duration::from_millis(20);
/// Changes in one transaction, and in the queue. After one that failed the next has half as many, because it may have taken
/// too long; not fewer than these, which take long nowhere. After each that is done there are a few more.
const BATCH_MOST: usize = 4096;
const BATCH_LEAST: usize = 64;
pub const WAITING_MOST: usize = 64 * 1024;
const BEGINNINGS_MOST: usize = WAITING_MOST / 2;

/// The queue. `T` is given back with the batch that has what it was put with.
#[derive(Debug)]
pub struct Waiting<T> {
    /// In the order of their numbers.
    entries: VecDeque<Entry<T>>,
    /// Number of the next entry, of all that there ever are.
    next: u64,
    /// The batch that is on its way: its first number, and how many changes it has.
    flying: Option<(u64, usize)>,
    /// Beginnings in the queue, and what is still under way.
    begun: HashMap<WriteId, u64>,
    /// Entries that should not linger.
    urgent: usize,
    /// Changes in the next batch.
    batch_most: usize,
}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    /// `None` = it came to nothing while it waited.
    change: Option<Change>,
    token: Option<T>,
    since: Instant,
    urgent: bool,
    /// It goes with the next one.
    joined: bool,
    /// It may be in the journal: a batch with it has failed, and nobody knows how far it came.
    tried: bool,
}

impl<T> Entry<T> {
    fn is_nothing(&self) -> bool {
        self.change.is_none() && self.token.is_none()
    }
}

/// A part of the queue, on its way.
#[derive(Debug)]
pub struct Batch<T> {
    entries: Vec<Entry<T>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting {
            entries: VecDeque::new(),
            next: 0,
            flying: None,
            begun: HashMap::new(),
            urgent: 0,
            batch_most: BATCH_MOST,
        }
    }
}

impl<T> Waiting<T> {
    /// Changes that wait, those on their way included.
    pub fn len(&self) -> usize {
        self.entries.len() + self.flying.map_or(0, |(_, count)| count)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds beginnings that nobody waits for; false = there is no room.
    pub fn begin(&mut self, intents: &[Arc<Intent>], now: Instant) -> bool {
        if self.len() + intents.len() > BEGINNINGS_MOST {
            return false;
        }
        intents.iter().for_each(|intent| self.push(Change::Begin(intent.clone()), now, false));
        true
    }

    /// Adds beginnings that `token` waits for, in one batch; it comes back if there is no room. Strong writes are refused if
    /// that fails.
    pub fn begin_now(&mut self, intents: &[Arc<Intent>], token: T, now: Instant) -> Result<(), T> {
        if self.len() + intents.len() > BEGINNINGS_MOST {
            return Err(token);
        }
        intents.iter().for_each(|intent| self.push(Change::Begin(intent.clone()), now, true));
        for (back, entry) in self.entries.iter_mut().rev().take(intents.len()).enumerate() {
            entry.joined = back > 0;
        }
        if let Some(last) = self.entries.back_mut() {
            last.token = Some(token);
        }
        Ok(())
    }

    /// Adds that a write is still under way, unless that or its beginning waits already. It is never refused: there are no
    /// more of those than writes under way.
    pub fn still(&mut self, intent: &Arc<Intent>, now: Instant) {
        if !self.begun.contains_key(&intent.id) {
            self.push(Change::Still(intent.clone()), now, true);
        }
    }

    /// Adds the end of a write, and says how far the queue must be taken for it to be in the journal; `None` = there is
    /// no room, and it is lost. `begun` = its beginning was added. `needed` = the journal must hear of it whether it has
    /// heard of the beginning or not.
    pub fn end(&mut self, change: Change, begun: bool, needed: bool, now: Instant) -> Option<u64> {
        let is_divergence = matches!(change, Change::Diverged(_));
        let number = self.begun.remove(&change.id());
        let is_withdrawn = !is_divergence && number.is_some_and(|number| self.withdraw(number));
        let heard = begun && !is_withdrawn;
        if !is_divergence && !needed && !heard {
            return Some(0);
        }
        if !heard && self.len() >= WAITING_MOST {
            return None;
        }
        self.push(change, now, is_divergence);
        Some(self.next)
    }

    /// Takes a beginning out of the queue; false = it is not there, or may be in the journal already.
    fn withdraw(&mut self, number: u64) -> bool {
        let at = self.entries.binary_search_by_key(&number, |entry| entry.number);
        let found = at.ok().and_then(|at| self.entries.get_mut(at));
        let Some(entry) = found.filter(|entry| !entry.tried) else { return false };
        entry.change = None;
        self.urgent -= usize::from(std::mem::take(&mut entry.urgent));
        while self.entries.pop_front_if(|entry| entry.is_nothing()).is_some() {}
        true
    }

    fn push(&mut self, change: Change, now: Instant, urgent: bool) {
        if let Change::Begin(intent) | Change::Still(intent) = &change {
            self.begun.insert(intent.id, self.next);
        }
        self.urgent += usize::from(urgent);
        self.entries.push_back(Entry {
            number: self.next,
            change: Some(change),
            token: None,
            since: now,
            urgent,
            joined: false,
            tried: false,
        });
        self.next += 1;
    }

    /// When a batch should leave.
    pub fn due(&self) -> Option<Instant> {
        let oldest = self.entries.front()?.since;
        Some(if self.urgent > 0 { oldest } else { oldest + LINGER })
    }

    /// Takes what has waited longest. One batch at a time: it is to be [`done`](Self::done) or given
    /// [`back`](Self::give_back).
    pub fn take(&mut self) -> Batch<T> {
        let first = self.entries.front().map_or(self.next, |entry| entry.number);
        let mut entries = Vec::with_capacity(self.entries.len().min(self.batch_most));
        while let Some(entry) = self.entries.pop_front() {
            self.urgent -= usize::from(entry.urgent);
            let joined = entry.joined;
            if let Some(Change::Begin(intent) | Change::Still(intent)) = &entry.change {
                self.begun.remove(&intent.id);
            }
            if !entry.is_nothing() {
                entries.push(entry);
            }
            if entries.len() >= self.batch_most && !joined {
                break;
            }
        }
        // Of one without changes nobody says what came of it.
        self.flying = (!entries.is_empty()).then_some((first, entries.len()));
        Batch { entries }
    }

    /// The batch is in the journal; gives who waited for it.
    pub fn done(&mut self, batch: Batch<T>) -> Vec<T> {
        self.flying = None;
        self.batch_most = BATCH_MOST.min(self.batch_most + self.batch_most / 4);
        batch.entries.into_iter().filter_map(|entry| entry.token).collect()
    }

    /// The batch may be in the journal or not: it is to be tried again. Beginnings of strong writes, which are refused now,
    /// are given up, and are to be withdrawn where they got through. Gives who waited.
    pub fn give_back(&mut self, batch: Batch<T>) -> Vec<T> {
        self.flying = None;
        self.batch_most = BATCH_LEAST.max(self.batch_most.min(batch.entries.len()) / 2);
        let mut tokens = Vec::new();
        for mut entry in batch.entries.into_iter().rev() {
            tokens.extend(entry.token.take());
            match &entry.change {
                Some(Change::Begin(intent)) if intent.strong => entry.change = Some(Change::Void(intent.id)),
                Some(Change::Begin(intent) | Change::Still(intent)) => {
                    self.begun.insert(intent.id, entry.number);
                }
                _ => {}
            }
            self.urgent += usize::from(entry.urgent);
            self.entries.push_front(Entry { tried: true, joined: false, ..entry });
        }
        tokens
    }

    /// Up to where it has to be taken for good for all that is in it to be in the journal.
    pub fn told_up_to(&self) -> u64 {
        self.next
    }

    /// Up to where the queue has been taken for good.
    pub fn taken_up_to(&self) -> u64 {
        let waits = self.entries.front().map_or(self.next, |entry| entry.number);
        self.flying.map_or(waits, |(first, _)| first)
    }
}

impl<T> Batch<T> {
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.entries.iter().filter_map(|entry| entry.change.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

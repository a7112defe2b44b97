//! What a gateway has for its journal and has not put there yet: a queue that is taken in batches.
//!
//! The order is kept: a write's beginning is there before its end. A beginning that still waits when the write ends well
//! goes without a trace, so that a short write costs nothing where nobody waits for its intent. It knows no clock but
//! what it is given, and nothing of how batches travel.
//!
//! What it refuses when it is full: beginnings first, at half of its bound, so that there is room for ends; then ends of
//! which the journal has no beginning. An end whose beginning the journal may have is never refused, else its intent
//! stayed there for ever: there are no more of those than writes under way.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Change, Intent, WriteId};

/// How long an intent that nobody waits for may wait itself: most writes are shorter.
pub const LINGER: Duration = Duration::from_millis(20);
/// Changes in one transaction, and in the queue.
const BATCH_MOST: usize = 4096;
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
        Waiting { entries: VecDeque::new(), next: 0, flying: None, begun: HashMap::new(), urgent: 0 }
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

    /// Adds beginnings that `token` waits for, in one batch; it comes back if there is no room.
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
        let known = self.withdraw(change.id());
        let heard = begun && known != Beginning::Withdrawn;
        let is_divergence = matches!(change, Change::Diverged(_));
        if !is_divergence && !needed && !heard {
            return Some(0);
        }
        if !heard && self.len() >= WAITING_MOST {
            return None;
        }
        self.push(change, now, is_divergence);
        Some(self.next)
    }

    /// Takes a beginning out of the queue, unless it may be in the journal already.
    fn withdraw(&mut self, id: WriteId) -> Beginning {
        let found = self.begun.remove(&id).and_then(|number| {
            let at = self.entries.binary_search_by_key(&number, |entry| entry.number);
            self.entries.get_mut(at.ok()?)
        });
        let Some(entry) = found.filter(|entry| !entry.tried) else { return Beginning::Gone };
        entry.change = None;
        self.urgent -= usize::from(std::mem::take(&mut entry.urgent));
        while self.entries.pop_front_if(|entry| entry.is_nothing()).is_some() {}
        Beginning::Withdrawn
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
        let mut entries = Vec::with_capacity(self.entries.len().min(BATCH_MOST));
        while let Some(entry) = self.entries.pop_front() {
            self.urgent -= usize::from(entry.urgent);
            let joined = entry.joined;
            if let Some(Change::Begin(intent) | Change::Still(intent)) = &entry.change {
                self.begun.remove(&intent.id);
            }
            if !entry.is_nothing() {
                entries.push(entry);
            }
            if entries.len() >= BATCH_MOST && !joined {
                break;
            }
        }
        self.flying = Some((first, entries.len()));
        Batch { entries }
    }

    /// The batch is in the journal; gives who waited for it.
    pub fn done(&mut self, batch: Batch<T>) -> Vec<T> {
        self.flying = None;
        batch.entries.into_iter().filter_map(|entry| entry.token).collect()
    }

    /// The batch may be in the journal or not: it is to be tried again. Beginnings that somebody waited for are given
    /// up, and are to be withdrawn where they got through. Gives who waited.
    pub fn give_back(&mut self, batch: Batch<T>) -> Vec<T> {
        self.flying = None;
        let mut tokens = Vec::new();
        for mut entry in batch.entries.into_iter().rev() {
            let waited_for = entry.urgent;
            if let (true, Some(Change::Begin(intent))) = (waited_for, &entry.change) {
                entry.change = Some(Change::Void(intent.id));
            }
            tokens.extend(entry.token.take());
            if let Some(Change::Begin(intent) | Change::Still(intent)) = &entry.change {
                self.begun.insert(intent.id, entry.number);
            }
            self.urgent += usize::from(entry.urgent);
            self.entries.push_front(Entry { tried: true, joined: false, ..entry });
        }
        tokens
    }

    /// Up to where the queue has been taken for good.
    pub fn taken_up_to(&self) -> u64 {
        let waits = self.entries.front().map_or(self.next, |entry| entry.number);
        self.flying.map_or(waits, |(first, _)| first)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    Withdrawn,
    /// It is not in the queue, or may be in the journal too.
    Gone,
}

impl<T> Batch<T> {
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.entries.iter().filter_map(|entry| entry.change.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Record, fixture};

    fn intent(number: i64) -> Intent {
        fixture::intent("k", number)
    }

    fn begin<const N: usize>(numbers: [i64; N]) -> [Arc<Intent>; N] {
        numbers.map(|number| Arc::new(intent(number)))
    }

    fn record(number: i64) -> Record {
        Record::orphaned(intent(number), 0)
    }

    fn numbers<T>(batch: &Batch<T>) -> Vec<(char, i64)> {
        let kind = |change: &Change| match change {
            Change::Begin(_) => 'b',
            Change::Still(_) => 'u',
            Change::Settled(_) => 's',
            Change::Diverged(_) => 'd',
            Change::Void(_) => 'v',
        };
        batch.changes().map(|change| (kind(change), change.id().number)).collect()
    }

    #[test]
    fn a_short_write_that_nobody_waited_for_leaves_no_trace() {
        let now = Instant::now();
        let mut waiting = Waiting::<()>::default();
        assert!(waiting.begin(&begin([1]), now) && waiting.begin(&begin([2]), now));
        assert_eq!(waiting.due(), Some(now + LINGER));
        assert_eq!(waiting.end(Change::Settled(record(1)), true, false, now), Some(0));
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting.end(Change::Void(intent(2).id), true, false, now), Some(0));
        assert!(waiting.is_empty() && waiting.due().is_none());
        // Of an object with records each write is kept.
        waiting.begin(&begin([3]), now);
        assert_eq!(waiting.end(Change::Settled(record(3)), true, true, now), Some(4));
        waiting.begin(&begin([4]), now);
        waiting.end(Change::Diverged(record(4)), true, false, now);
        assert_eq!(waiting.due().map(|due| due <= now), Some(true), "a divergence does not linger");
        assert_eq!(numbers(&waiting.take()), [('s', 3), ('d', 4)]);
    }

    #[test]
    fn what_is_on_its_way_is_ended_by_what_follows() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.begin_now(&begin([1, 2]), "both", now).unwrap();
        assert_eq!(waiting.due(), Some(now));
        let batch = waiting.take();
        assert_eq!((numbers(&batch), waiting.len()), (vec![('b', 1), ('b', 2)], 2));
        let until = waiting.end(Change::Settled(record(1)), true, false, now).unwrap();
        assert!(waiting.taken_up_to() < until);
        assert_eq!(waiting.done(batch), ["both"]);
        let batch = waiting.take();
        assert_eq!(numbers(&batch), [('s', 1)]);
        assert!(waiting.taken_up_to() < until);
        assert!(waiting.done(batch).is_empty() && waiting.taken_up_to() >= until);
    }

    #[test]
    fn a_failed_batch_is_tried_again_but_for_what_somebody_waited_for() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.begin(&begin([1]), now);
        waiting.begin_now(&begin([2]), "waits", now).unwrap();
        waiting.end(Change::Diverged(record(3)), false, false, now);
        let batch = waiting.take();
        waiting.end(Change::Settled(record(1)), true, false, now);
        assert_eq!(waiting.give_back(batch), ["waits"]);
        // Whether its beginning is there is not known: so its end must be.
        waiting.begin(&begin([4]), now);
        waiting.end(Change::Void(intent(4).id), true, false, now);
        assert_eq!(numbers(&waiting.take()), [('b', 1), ('v', 2), ('d', 3), ('s', 1)]);
    }

    #[test]
    fn what_is_still_under_way_is_told_once_and_not_refused() {
        let now = Instant::now();
        let mut waiting = Waiting::<()>::default();
        while waiting.begin(&begin([waiting.len() as i64]), now) {}
        let full = waiting.len();
        let [waits, lost, ended] = begin([1, -1, -2]);
        for intent in [&waits, &lost, &ended, &lost] {
            waiting.still(intent, now);
        }
        assert_eq!(waiting.len(), full + 2, "the beginning of one waits already");
        waiting.end(Change::Diverged(record(-2)), true, true, now);
        let mut told = Vec::new();
        while !waiting.is_empty() {
            let batch = waiting.take();
            told.extend(numbers(&batch));
            waiting.done(batch);
        }
        assert_eq!(told[full..], [('u', -1), ('d', -2)]);
    }

    #[test]
    fn beginnings_that_one_write_waits_for_stay_together_and_the_queue_is_bounded() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for number in 0..BATCH_MOST as i64 - 1 {
            waiting.begin(&begin([number]), now);
        }
        waiting.begin_now(&begin([-1, -2, -3]), 7, now).unwrap();
        waiting.begin(&begin([-4]), now);
        let batch = waiting.take();
        assert_eq!(numbers(&batch).last(), Some(&('b', -3)));
        assert_eq!((waiting.done(batch), waiting.len()), (vec![7], 1));
    }

    #[test]
    fn a_full_queue_refuses_beginnings_first_and_never_the_end_of_what_the_journal_knows() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.begin(&begin([-1]), now);
        let batch = waiting.take();
        while waiting.begin(&begin([waiting.len() as i64]), now) {}
        assert_eq!(waiting.begin_now(&begin([-9]), 1, now), Err(1));
        while waiting.len() < WAITING_MOST {
            assert!(waiting.end(Change::Settled(record(-9)), false, true, now).is_some());
        }
        for change in [Change::Diverged(record(-9)), Change::Settled(record(-9))] {
            assert_eq!(waiting.end(change, false, true, now), None);
        }
        assert!(waiting.end(Change::Void(intent(-1).id), true, false, now).is_some());
        assert!(waiting.done(batch).is_empty());
    }

    #[test]
    fn what_came_to_nothing_does_not_count_as_taken() {
        let now = Instant::now();
        let mut waiting = Waiting::<()>::default();
        let first = waiting.end(Change::Diverged(record(1)), false, false, now).unwrap();
        waiting.begin(&begin([2]), now);
        let last = waiting.end(Change::Diverged(record(3)), false, false, now).unwrap();
        waiting.end(Change::Void(intent(2).id), true, false, now);
        let batch = waiting.take();
        assert_eq!(numbers(&batch), [('d', 1), ('d', 3)]);
        assert!(waiting.taken_up_to() < first, "it is on its way");
        waiting.give_back(batch);
        assert!(waiting.taken_up_to() < first, "it waits again");
        waiting.begin(&begin([4]), now);
        waiting.end(Change::Void(intent(4).id), true, false, now);
        let batch = waiting.take();
        waiting.done(batch);
        assert!(waiting.taken_up_to() >= last);
    }

    #[test]
    fn a_write_that_gave_up_waiting_leaves_no_trace_either() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.begin_now(&begin([1]), "gone", now).unwrap();
        assert_eq!(waiting.end(Change::Void(intent(1).id), true, false, now), Some(0));
        let batch = waiting.take();
        assert!(numbers(&batch).is_empty());
        assert_eq!(waiting.done(batch), ["gone"]);
        assert!(waiting.is_empty());
    }
}

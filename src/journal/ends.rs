//! How the journal hears of the end of a write, and when it need not.
//!
//! A write that ended well is no news, unless its object has records, or may have, or another write to it is under way:
//! should that one fail, nobody could tell which of the two was later. A journal that has the other's intent keeps the
//! end beside it until that has ended, too. So where there is something to tell of an object, the intents of all that is
//! under way go before it; where one cannot, the end becomes a record of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{
    Change, Intent, Object, Record, WriteId,
    live::{Beside, Live},
    remembered::Remembered,
};

/// How a write ended on the backends of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No backend of any cluster took it.
    Void,
    /// All took it, and agree.
    Settled,
    Diverged,
}

/// A write that has ended.
#[derive(Debug)]
pub struct Ended {
    pub record: Record,
    pub outcome: Outcome,
    /// If the journal was told of its intent, it has made a record of it since, or may have: it took the gateway for dead.
    pub orphaned: bool,
    /// The object had records when the write began, or may have had.
    pub contested: bool,
}

/// What takes changes to the journal, in their order ([`Writer`](super::Writer)).
pub trait Changes {
    /// A write has begun of which the journal has not heard; false = it will not.
    fn begin(&self, intent: &Arc<Intent>) -> bool;

    /// Whether the journal may lack the intent of a write under way of which it was told: it is another one since, or has
    /// taken the gateway for dead.
    fn has_lost(&self, id: WriteId) -> bool;

    /// A write of which the journal may have lost the intent is under way.
    fn still(&self, intent: &Arc<Intent>);

    /// The end of a write whose intent was `begun` or not. `needed` = the journal must hear of it in any case. Returns
    /// what [`Writer::taken_up_to`](super::Writer::taken_up_to) must reach for it to be there; 0 = it will not be.
    fn end(&self, change: Change, begun: bool, needed: bool) -> u64;
}

/// What a gateway process has in mind of its objects: those that are unresolved, and its own writes under way.
pub struct Overview {
    pub remembered: Arc<Remembered>,
    pub live: Arc<Live>,
    /// Of something that this gateway found no record tells: there was no room for it on the way to the journal, or the
    /// journal is another one since, or may have been put back to an earlier state.
    pub untold: Arc<AtomicBool>,
}

impl Overview {
    /// Room for so many unresolved objects.
    pub fn new(remembered_most: usize) -> Overview {
        Overview {
            remembered: Arc::new(Remembered::new(remembered_most)),
            live: Arc::default(),
            untold: Arc::default(),
        }
    }

    pub fn may_have_records(&self, object: &Object) -> bool {
        !self.remembered.surely_lacks(object)
    }

    /// A write is about to be sent; the journal was `told` of it, or not. It is over with [`end`](Self::end), once.
    pub fn begin(&self, intent: &Arc<Intent>, told: bool, changes: &impl Changes) {
        self.live.enter(intent, told);
        // Since it was told, and before it was here to be told again.
        if told && changes.has_lost(intent.id) {
            changes.still(intent);
        }
    }

    /// Whether others have told the journal of the write; if not, they will not.
    pub fn claim(&self, intent: &Intent) -> bool {
        self.live.claim(&intent.object, intent.id).told
    }

    /// The journal was told of a write that was claimed, or could not be: others may, then, when it can.
    pub fn unclaim(&self, intent: &Arc<Intent>, told: bool) {
        self.live.unclaim(intent, told);
    }

    /// Tells what there is to tell. Only then the write is over for those beside it.
    pub fn end(&self, ended: Ended, changes: &impl Changes) {
        let (object, id) = (ended.record.intent.object.clone(), ended.record.id());
        self.tell(ended, changes);
        self.live.leave(&object, id);
    }

    fn tell(&self, ended: Ended, changes: &impl Changes) {
        let Ended { record, outcome, orphaned, contested } = ended;
        let (object, id) = (&record.intent.object, record.id());
        let Beside { told, others } = self.live.claim(object, id);
        let orphaned = orphaned && told;
        match outcome {
            Outcome::Void if !orphaned => {
                changes.end(Change::Void(id), told, false);
            }
            Outcome::Settled if !orphaned && (!others || self.introduce(object, id, changes)) => {
                // After the look at others: one that has failed meanwhile is here.
                let known = self.remembered.knows(object);
                let needed = contested || known || others || !self.remembered.surely_lacks(object);
                let noted = known.then(|| record.clone());
                let until = changes.end(Change::Settled(record), told, needed);
                if let Some(record) = noted {
                    self.remembered.note_beside(&record, until);
                }
            }
            _ => self.note(&record, told, changes),
        }
    }

    /// Tells of backends that may not agree.
    pub fn note(&self, record: &Record, told: bool, changes: &impl Changes) {
        self.introduce(&record.intent.object, record.id(), changes);
        match changes.end(Change::Diverged(record.clone()), told, true) {
            0 => {
                self.untold.store(true, Relaxed);
                self.remembered.note_beside(record, 0);
            }
            until => self.remembered.note(record, until),
        }
        // Those that came in between, and have not seen that the object has a record.
        self.introduce(&record.intent.object, record.id(), changes);
    }

    fn introduce(&self, object: &Object, but: WriteId, changes: &impl Changes) -> bool {
        self.live.introduce(object, but, |intent| changes.begin(intent), |id| changes.has_lost(id))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::journal::{Said, fixture};

    /// What the journal is told.
    #[derive(Default)]
    struct Told {
        changes: RefCell<Vec<(Change, bool)>>,
        is_full: Cell<bool>,
        has_lost: Cell<bool>,
    }

    impl Changes for Told {
        fn begin(&self, intent: &Arc<Intent>) -> bool {
            if !self.is_full.get() {
                self.changes.borrow_mut().push((Change::Begin(intent.clone()), false));
            }
            !self.is_full.get()
        }
        fn has_lost(&self, _: WriteId) -> bool {
            self.has_lost.get()
        }
        fn still(&self, intent: &Arc<Intent>) {
            self.changes.borrow_mut().push((Change::Still(intent.clone()), false));
        }
        fn end(&self, change: Change, _: bool, needed: bool) -> u64 {
            self.changes.borrow_mut().push((change, needed));
            self.changes.borrow().len() as u64
        }
    }

    impl Told {
        fn take(&self) -> Vec<(Change, bool)> {
            self.changes.take()
        }
    }

    fn intent(number: i64) -> Arc<Intent> {
        Arc::new(fixture::intent("k", number))
    }

    fn record(number: i64) -> Record {
        let replies = vec![("http://a:80".to_owned(), Said::Good { etag: None, version: None })];
        let intent = Arc::unwrap_or_clone(intent(number));
        Record { intent, commit: Some(number), ended: 1, turn: None, replies }
    }

    fn overview() -> Overview {
        let overview = Overview::new(10);
        overview.remembered.learn_all(Vec::new(), true, overview.remembered.asking(0));
        overview
    }

    fn end(overview: &Overview, number: i64, outcome: Outcome, told: &Told) -> Vec<(Change, bool)> {
        let ended = Ended { record: record(number), outcome, orphaned: false, contested: false };
        overview.end(ended, told);
        told.take()
    }

    #[test]
    fn a_write_that_all_took_is_told_while_another_to_its_object_is_under_way() {
        for (own_told, other_told, is_full) in
            [(true, true, false), (false, true, true), (true, false, false), (false, false, true)]
        {
            let (overview, told) = (overview(), Told::default());
            told.is_full.set(is_full);
            overview.begin(&intent(1), other_told, &told);
            overview.begin(&intent(2), own_told, &told);
            let heard = end(&overview, 2, Outcome::Settled, &told);
            let kept_beside = (Change::Settled(record(2)), true);
            let introduced = (Change::Begin(intent(1)), false);
            let expected = match (other_told, is_full) {
                (true, _) => vec![kept_beside],
                (false, false) => vec![introduced, kept_beside],
                // Nothing in the journal would keep it.
                (false, true) => vec![(Change::Diverged(record(2)), true)],
            };
            assert_eq!(heard, expected);
        }
    }

    #[test]
    fn what_settles_beside_a_write_that_only_a_lost_journal_was_told_of_is_a_record() {
        let (overview, told) = (overview(), Told::default());
        overview.begin(&intent(1), true, &told);
        overview.begin(&intent(2), true, &told);
        told.has_lost.set(true);
        assert_eq!(end(&overview, 2, Outcome::Settled, &told), [(Change::Diverged(record(2)), true)]);
        assert!(overview.claim(&intent(1)), "its own end is still that of a write that was told of");
    }

    #[test]
    fn a_write_whose_intent_was_lost_before_it_is_sent_is_told_again() {
        for (lost, begun_as_told) in [(true, true), (true, false), (false, true)] {
            let (overview, told) = (overview(), Told::default());
            told.has_lost.set(lost);
            overview.begin(&intent(1), begun_as_told, &told);
            let expected = (lost && begun_as_told).then_some((Change::Still(intent(1)), false));
            assert_eq!(told.take(), Vec::from_iter(expected));
        }
    }

    #[test]
    fn a_record_comes_after_the_intents_of_what_is_under_way() {
        let (overview, told) = (overview(), Told::default());
        overview.begin(&intent(1), false, &told);
        overview.note(&record(3), false, &told);
        let heard = told.take();
        assert!(
            matches!(heard.as_slice(), [(Change::Begin(_), _), (Change::Diverged(_), true)]),
            "{heard:?}"
        );
        // It is told by now.
        assert!(overview.claim(&intent(1)));
    }

    #[test]
    fn a_write_that_all_took_is_no_news_when_it_is_alone() {
        let (overview, told) = (overview(), Told::default());
        for number in 1..3 {
            overview.begin(&intent(number), false, &told);
            assert_eq!(
                end(&overview, number, Outcome::Settled, &told),
                [(Change::Settled(record(number)), false)]
            );
        }
        assert!(overview.remembered.is_empty());
    }

    #[test]
    fn a_write_that_all_took_is_told_after_one_that_failed() {
        let (overview, told) = (overview(), Told::default());
        overview.begin(&intent(1), true, &told);
        overview.begin(&intent(2), false, &told);
        end(&overview, 1, Outcome::Diverged, &told);
        assert_eq!(end(&overview, 2, Outcome::Settled, &told), [(Change::Settled(record(2)), true)]);
    }

    #[test]
    fn an_intent_that_was_taken_for_a_dead_ones_is_ended_with_a_record() {
        for outcome in [Outcome::Void, Outcome::Settled] {
            let (overview, told) = (overview(), Told::default());
            overview.begin(&intent(1), true, &told);
            let ended = Ended { record: record(1), outcome, orphaned: true, contested: false };
            overview.end(ended, &told);
            assert_eq!(told.take(), [(Change::Diverged(record(1)), true)]);
        }
    }
}

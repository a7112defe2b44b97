//! How the journal hears of the end of a write, and when it need not.
//!
//! A write that ended well is no news, unless its object has records, or may have, or another write to it is under way:
//! should that one fail, nobody could tell which of the two was later. A journal that has the other's intent keeps the
//! end beside it until that has ended, too; where it has not, the end becomes a record of its own.

use super::{
    Change, Object, Record,
    live::{Live, Others},
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
    /// The journal was told of its intent.
    pub told: bool,
    /// The journal has made a record of the intent, because it took the gateway for dead.
    pub orphaned: bool,
    /// The object had records when the write began, or may have had.
    pub contested: bool,
}

/// What takes changes to the journal, in their order ([`Writer`](super::Writer)).
pub trait Ends {
    /// The end of a write whose intent was `begun` or not. `needed` = the journal must hear of it in any case. Returns
    /// what [`Writer::taken_up_to`](super::Writer::taken_up_to) must reach for it to be there.
    fn end(&self, change: Change, begun: bool, needed: bool) -> u64;
}

/// What a gateway process has in mind of its objects: those that are unresolved, and its own writes under way.
pub struct Overview {
    pub remembered: Remembered,
    live: Live,
}

impl Overview {
    /// Room for so many unresolved objects.
    pub fn new(remembered_most: usize) -> Overview {
        Overview { remembered: Remembered::new(remembered_most), live: Live::default() }
    }

    pub fn may_have_records(&self, object: &Object) -> bool {
        !self.remembered.is_whole() || self.remembered.knows(object)
    }

    /// A write is about to be sent. It is over with [`end`](Self::end), once.
    pub fn begin(&self, object: &Object, told: bool) {
        self.live.enter(object, told);
    }

    /// Tells what there is to tell. Only then the write is over for those beside it.
    pub fn end(&self, ended: Ended, ends: &impl Ends) {
        let (object, told) = (ended.record.intent.object.clone(), ended.told);
        self.tell(ended, ends);
        self.live.leave(&object, told);
    }

    fn tell(&self, ended: Ended, ends: &impl Ends) {
        let Ended { record, outcome, told, orphaned, contested } = ended;
        let object = &record.intent.object;
        // Before a look at what is remembered: one that has just failed is here or there.
        let others = self.live.others(object, told);
        match outcome {
            Outcome::Void if !orphaned => {
                ends.end(Change::Void(record.id()), told, false);
            }
            Outcome::Settled if !orphaned && others != Others::Untold => {
                let known = self.remembered.knows(object);
                let needed = contested || known || others == Others::Told || !self.remembered.is_whole();
                let noted = known.then(|| record.clone());
                let until = ends.end(Change::Settled(record), told, needed);
                if let Some(record) = noted {
                    self.remembered.note(&record, until);
                }
            }
            _ => self.note(&record, told, ends),
        }
    }

    /// Tells of backends that may not agree.
    pub fn note(&self, record: &Record, told: bool, ends: &impl Ends) {
        let until = ends.end(Change::Diverged(record.clone()), told, true);
        self.remembered.note(record, until);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::journal::{Intent, Said, What, WriteId};

    #[derive(Default)]
    struct Told(RefCell<Vec<(Change, bool)>>);

    impl Ends for Told {
        fn end(&self, change: Change, _: bool, needed: bool) -> u64 {
            self.0.borrow_mut().push((change, needed));
            self.0.borrow().len() as u64
        }
    }

    fn ended(number: i64, outcome: Outcome, told: bool) -> Ended {
        let intent = Intent {
            id: WriteId { gateway: 1, number },
            object: Object { cluster: "c".into(), bucket: b"b".into(), key: b"k".into() },
            what: What::Put,
            region: "r".into(),
            req_id: String::new(),
            length: None,
            begun: 0,
            strong: false,
            turn: None,
        };
        let said = Said::Good { etag: None, version: None };
        let replies = vec![("http://a:80".to_owned(), said)];
        let record = Record { intent, commit: Some(number), ended: 1, turn: None, replies };
        Ended { record, outcome, told, orphaned: false, contested: false }
    }

    fn overview() -> Overview {
        let overview = Overview::new(10);
        overview.remembered.learn_all(&[], true, 0);
        overview
    }

    fn begin(overview: &Overview, ended: Ended) -> Ended {
        overview.begin(&ended.record.intent.object, ended.told);
        ended
    }

    /// What the journal hears of a write that all took, while another is under way and ends before or after it.
    fn heard(told: bool, other_told: bool, other: Outcome, other_is_first: bool) -> Vec<(Change, bool)> {
        let (overview, heard) = (overview(), Told::default());
        let other = begin(&overview, ended(1, other, other_told));
        let own = begin(&overview, ended(2, Outcome::Settled, told));
        match other_is_first {
            true => overview.end(other, &heard),
            false => overview.end(own, &heard),
        }
        heard.0.into_inner()
    }

    #[test]
    fn a_write_that_all_took_is_told_while_another_to_its_object_is_under_way() {
        for told in [true, false] {
            let record = ended(2, Outcome::Settled, told).record;
            let kept_beside = [(Change::Settled(record.clone()), true)];
            assert_eq!(heard(told, true, Outcome::Diverged, false), kept_beside);
            // Nothing in the journal would keep it.
            assert_eq!(heard(told, false, Outcome::Diverged, false), [(Change::Diverged(record), true)]);
        }
    }

    #[test]
    fn a_write_that_all_took_is_no_news_when_it_is_alone() {
        let (overview, heard) = (overview(), Told::default());
        for number in 1..3 {
            let ended = begin(&overview, ended(number, Outcome::Settled, false));
            overview.end(ended, &heard);
        }
        assert!(
            heard.0.borrow().iter().all(|(change, needed)| matches!(change, Change::Settled(_)) && !needed)
        );
        assert!(overview.remembered.is_empty());
    }

    #[test]
    fn a_write_that_all_took_is_told_after_one_that_failed() {
        let (overview, heard) = (overview(), Told::default());
        let failed = begin(&overview, ended(1, Outcome::Diverged, true));
        let own = begin(&overview, ended(2, Outcome::Settled, false));
        overview.end(failed, &heard);
        overview.end(own, &heard);
        let told = heard.0.into_inner();
        assert!(
            matches!(told.as_slice(), [(Change::Diverged(_), _), (Change::Settled(_), true)]),
            "{told:?}"
        );
    }

    #[test]
    fn an_intent_that_was_taken_for_a_dead_ones_is_ended_with_a_record() {
        for outcome in [Outcome::Void, Outcome::Settled] {
            let (overview, heard) = (overview(), Told::default());
            let ended = begin(&overview, Ended { orphaned: true, ..ended(1, outcome, true) });
            overview.end(ended, &heard);
            assert!(matches!(heard.0.into_inner().as_slice(), [(Change::Diverged(_), true)]));
        }
    }
}

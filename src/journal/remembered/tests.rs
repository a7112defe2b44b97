use super::*;
use crate::journal::{Intent, fixture};

fn object(key: &str) -> Object {
    Object { cluster: "c".into(), bucket: b"b".into(), key: key.into() }
}

fn record(number: i64, what: What, commit: Option<i64>, good: &[&str]) -> Record {
    let said = |endpoint: &&str| ((*endpoint).to_owned(), Said::Good { etag: None, version: None });
    let mut replies: Vec<_> = good.iter().map(said).collect();
    replies.push(("http://failed:80".to_owned(), Said::NotApplied));
    let intent = Intent { what, ..fixture::intent("k", number) };
    Record { intent, commit, ended: number, turn: None, replies }
}

#[test]
fn who_lags_is_told_by_the_write_that_was_committed_last() {
    let first = record(9, What::Put, Some(1), &["http://a:80"]);
    let last = record(2, What::Delete, Some(2), &["http://b:80"]);
    let others = [
        record(10, What::Attribute("acl".into()), Some(3), &["http://c:80"]),
        record(11, What::Seen, None, &[]),
    ];
    for records in [[first.clone(), last.clone()], [last, first]] {
        let known = Known::of(&[&records[..], &others].concat());
        let lags = |endpoint| known.lags(endpoint);
        assert_eq!([lags("http://a:80"), lags("http://b:80"), lags("http://c:80")], [true, false, true]);
        assert!(known.says(&What::Seen) && !known.misplaced);
    }
    let seen = Known::of(&[record(1, What::Seen, None, &["http://a:80"])]);
    assert!(!seen.lags("http://a:80") && seen.lags("http://b:80"));
    let misplaced = Known::of(&[record(1, What::Misplaced("old".into()), None, &[])]);
    assert!(misplaced.misplaced && !misplaced.lags("http://a:80"));
}

#[test]
fn what_the_gateway_found_itself_stays_until_the_journal_has_it() {
    let memory = Remembered::new(10);
    let own = record(1, What::Put, Some(1), &["http://a:80"]);
    memory.note(&own, 5);
    memory.learn(&object("k"), None, 4);
    assert!(memory.knows(&object("k")) && memory.of(&object("k")).unwrap().lags("http://b:80"));
    memory.learn_all(Vec::new(), true, memory.asking(4));
    assert!(memory.knows(&object("k")) && memory.is_whole());
    memory.learn(&object("k"), Some(Known::of(&[own])), 4);
    memory.learn(&object("k"), None, 5);
    assert!(memory.is_empty() && memory.of(&object("k")).is_none());
    memory.note(&record(1, What::Put, Some(1), &[]), 6);
    let other = Known::of(&[record(2, What::Put, None, &[])]);
    memory.learn_all(vec![(object("other"), other)], true, memory.asking(6));
    assert!(!memory.knows(&object("k")) && memory.knows(&object("other")));
}

#[test]
fn what_may_be_heard_of_no_more_is_to_be_asked_for() {
    let memory = Remembered::new(10);
    let own = record(1, What::Put, Some(1), &["http://a:80"]);
    memory.note(&own, 5);
    assert_eq!(memory.unanswered(5, 9), [], "the journal tells of it yet");
    memory.learn(&object("k"), None, 4);
    assert_eq!((memory.unanswered(4, 9), memory.unanswered(5, 0)), (vec![], vec![]));
    assert_eq!(memory.unanswered(5, 9), [object("k")]);
    memory.learn(&object("k"), Some(Known::of(std::slice::from_ref(&own))), 4);
    assert_eq!(memory.unanswered(5, 9), []);
    memory.learn(&object("k"), None, 4);
    memory.learn(&object("k"), None, 5);
    assert!(memory.unanswered(5, 9).is_empty() && memory.is_empty());
    // Where all was asked for, too.
    memory.note(&own, 6);
    memory.learn_all(Vec::new(), true, memory.asking(5));
    assert_eq!(memory.unanswered(6, 9), [object("k")]);
    memory.learn_all(Vec::new(), true, memory.asking(6));
    assert!(memory.unanswered(6, 9).is_empty() && memory.is_empty());
}

#[test]
fn what_the_journal_may_not_keep_does_not_make_an_object_stay() {
    let memory = Remembered::new(10);
    let [first, last] = [1, 2].map(|number| record(number, What::Put, Some(number), &["http://a:80"]));
    memory.note_beside(&first, 5);
    assert!(memory.is_empty());
    memory.note(&record(1, What::Put, Some(1), &[]), 5);
    memory.note_beside(&last, 6);
    memory.learn(&object("k"), Some(Known::default()), 5);
    assert!(memory.of(&object("k")).unwrap().lags("http://b:80"), "the journal does not have it yet");
    memory.learn(&object("k"), None, 5);
    assert!(memory.is_empty() && memory.unanswered(6, 9).is_empty());
}

#[test]
fn what_changes_while_all_is_read_counts() {
    let memory = Remembered::new(10);
    let known = || Known::of(&[record(1, What::Put, None, &[])]);
    let mut asking = memory.asking(0);
    memory.learn_some(vec![(object("gone"), known()), (object("stays"), known())], &mut asking);
    memory.learn_changes(vec![(object("gone"), None), (object("new"), Some(known()))], &mut asking);
    memory.learnt(true, asking);
    let are_here = ["gone", "stays", "new"].map(|key| memory.knows(&object(key)));
    assert!(are_here == [false, true, true] && memory.is_whole());
}

#[test]
fn more_than_there_is_room_for_is_not_whole() {
    let memory = Remembered::new(2);
    assert!(!memory.is_whole());
    memory.learn_all(Vec::new(), true, memory.asking(0));
    let other = || Some(Known::of(&[record(1, What::Put, None, &[])]));
    for key in ["1", "2"] {
        memory.learn(&object(key), other(), 0);
    }
    assert!(memory.is_whole());
    memory.learn(&object("3"), other(), 0);
    memory.note(&record(1, What::Put, None, &[]), 1);
    assert!(!memory.is_whole() && memory.knows(&object("2")) && !memory.knows(&object("k")));
    memory.learn(&object("2"), None, 0);
    assert!(!memory.is_whole() && !memory.knows(&object("2")));
    memory.learn_all(Vec::new(), true, memory.asking(1));
    assert!(memory.is_whole());
    memory.learn_all(Vec::new(), false, memory.asking(1));
    assert!(!memory.is_whole());
}

#[test]
fn what_is_known_is_here_while_it_is_learnt_again() {
    let memory = Remembered::new(10);
    let known = |key| vec![(object(key), Known::of(&[record(1, What::Put, None, &[])]))];
    memory.learn_all([known("1"), known("2"), known("gone")].concat(), true, memory.asking(0));
    let mut asking = memory.asking(0);
    let are_here = || ["1", "2"].map(|key| memory.knows(&object(key)));
    memory.learn_some(known("2"), &mut asking);
    assert!(are_here() == [true, true] && memory.is_whole());
    memory.note(&record(1, What::Put, Some(1), &[]), 1);
    memory.learn_some(known("1"), &mut asking);
    assert!(memory.knows(&object("gone")));
    memory.learnt(true, asking);
    assert!(are_here() == [true, true] && memory.is_whole() && memory.knows(&object("k")));
    assert!(!memory.knows(&object("gone")));
    // Less than all.
    let mut asking = memory.asking(1);
    memory.learn_some(known("1"), &mut asking);
    memory.learnt(false, asking);
    assert!(are_here() == [true, false] && !memory.is_whole() && !memory.knows(&object("k")));
}

#[test]
fn what_the_journal_has_is_never_surely_lacking_while_all_is_learnt_again() {
    let memory = Remembered::new(2);
    let known = |key| (object(key), Known::of(&[record(1, What::Put, None, &[])]));
    memory.learn_all(vec![known("k")], true, memory.asking(0));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2_000 {
                // As much as there is room for, and all: where it goes, it is doubted before.
                let objects = if round % 4 == 3 { vec![known("1"), known("2")] } else { vec![known("k")] };
                memory.learn_all(objects, round % 4 < 2, memory.asking(0));
            }
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            assert!(!memory.surely_lacks(&object("k")));
        }
    });
    memory.learn_all(vec![known("1")], true, memory.asking(0));
    assert!(memory.surely_lacks(&object("k")) && !memory.surely_lacks(&object("1")));
    memory.doubt();
    assert!(!memory.surely_lacks(&object("k")));
}

#[test]
fn what_was_asked_before_a_doubt_is_not_all() {
    let memory = Remembered::new(2);
    let asking = memory.asking(0);
    memory.doubt();
    memory.learn_all(Vec::new(), true, asking);
    assert!(!memory.is_whole());
    memory.learn_all(Vec::new(), true, memory.asking(0));
    assert!(memory.is_whole());
}

#[test]
fn what_nobody_is_known_to_have_taken_is_not_the_newest() {
    let taken = record(1, What::Put, Some(1), &["http://a:80"]);
    for unknown in [record(2, What::Put, Some(2), &[]), record(2, What::Delete, None, &[])] {
        let known = Known::of(&[taken.clone(), unknown.clone()]);
        assert!(!known.lags("http://a:80") && known.lags("http://b:80"));
        assert!(!Known::of(&[unknown]).lags("http://a:80"));
    }
}

use super::*;
use crate::journal::{Record, fixture};

fn intent(number: i64) -> Intent {
    fixture::intent("k", number)
}

/// Their writes are refused if these do not get through.
fn strong<const N: usize>(numbers: [i64; N]) -> [Arc<Intent>; N] {
    numbers.map(|number| Arc::new(Intent { strong: true, ..intent(number) }))
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
    assert_eq!(numbers(&waiting.take()), [('s', 3), ('b', 4), ('d', 4)]);
}

/// Where the batch ends between them, the journal would keep what settled beside nothing.
#[test]
fn what_settled_beside_a_write_has_its_beginning_before_it_although_that_failed() {
    let now = Instant::now();
    let mut waiting = Waiting::<()> { batch_most: BATCH_LEAST, ..Waiting::default() };
    for number in 3..=BATCH_LEAST as i64 {
        waiting.end(Change::Diverged(record(number)), false, true, now);
    }
    waiting.begin(&begin([1]), now);
    waiting.end(Change::Settled(record(2)), false, true, now);
    waiting.end(Change::Diverged(record(1)), true, true, now);
    let batch = waiting.take();
    assert_eq!(numbers(&batch)[BATCH_LEAST - 2..], [('b', 1), ('s', 2)]);
    waiting.done(batch);
    assert_eq!(numbers(&waiting.take()), [('d', 1)]);
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
fn a_failed_batch_is_tried_again_but_for_what_is_refused_then() {
    let now = Instant::now();
    let mut waiting = Waiting::default();
    waiting.begin(&begin([1]), now);
    waiting.begin_now(&strong([2]), "waits", now).unwrap();
    waiting.begin_now(&begin([5]), "goes on", now).unwrap();
    waiting.end(Change::Diverged(record(3)), false, false, now);
    let batch = waiting.take();
    waiting.end(Change::Settled(record(1)), true, false, now);
    assert_eq!(waiting.give_back(batch), ["goes on", "waits"]);
    // Whether its beginning is there is not known: so its end must be.
    waiting.begin(&begin([4]), now);
    waiting.end(Change::Void(intent(4).id), true, false, now);
    assert_eq!(numbers(&waiting.take()), [('b', 1), ('v', 2), ('b', 5), ('d', 3), ('s', 1)]);
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
    assert_eq!(told[full..], [('u', -1), ('u', -2), ('d', -2)]);
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
fn who_waits_for_what_came_to_nothing_is_not_waited_for() {
    let now = Instant::now();
    let mut waiting = Waiting::default();
    waiting.begin_now(&strong([1]), "waits", now).unwrap();
    waiting.end(Change::Void(intent(1).id), true, false, now);
    let batch = waiting.take();
    assert_eq!(waiting.give_back(batch), ["waits"]);
    assert!(waiting.take().is_empty() && waiting.taken_up_to() >= waiting.told_up_to());
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

#[test]
fn a_batch_that_was_not_full_is_tried_again_in_parts_too() {
    let now = Instant::now();
    let mut waiting = Waiting::<()>::default();
    (0..300).for_each(|number| _ = waiting.end(Change::Diverged(record(number)), false, true, now));
    for expected in [300, 150, 75, 64] {
        let batch = waiting.take();
        assert_eq!(batch.changes().count(), expected);
        waiting.give_back(batch);
    }
}

#[test]
fn what_took_too_long_is_tried_again_in_parts() {
    let now = Instant::now();
    let mut waiting = Waiting::<()>::default();
    let taken = |waiting: &mut Waiting<()>, well: bool| {
        while waiting.len() < 2 * BATCH_MOST {
            waiting.end(Change::Diverged(record(waiting.len() as i64)), false, true, now);
        }
        let batch = waiting.take();
        let len = batch.changes().count();
        match well {
            true => waiting.done(batch),
            false => waiting.give_back(batch),
        };
        len
    };
    let failed: Vec<usize> = (0..8).map(|_| taken(&mut waiting, false)).collect();
    assert_eq!(failed, [4096, 2048, 1024, 512, 256, 128, 64, 64]);
    let done: Vec<usize> = (0..20).map(|_| taken(&mut waiting, true)).collect();
    assert!(done.is_sorted() && done[..2] == [64, 80] && done[19] == BATCH_MOST, "{done:?}");
}

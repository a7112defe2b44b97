//! What becomes of writes: intents, records, gateways that end or die.

use std::time::Duration;

use akubra::journal::{Change, Enrolled, JournalError, Later, Object, Record, Said, Standing, What};

use super::bench::*;

pub async fn all(engine: &Engine) {
    an_intent_goes_with_its_write(&engine.empty().await).await;
    a_settled_write_is_kept_beside_others(&engine.empty().await).await;
    a_settled_write_is_kept_beside_another_one(&engine.empty().await).await;
    a_record_opens_what_was_set_aside(&engine.empty().await).await;
    an_unknown_outcome_is_waited_for(&engine.empty().await).await;
    a_known_write_is_replaced(&engine.empty().await).await;
    intents_of_the_dead_become_records(&engine.empty().await).await;
    who_dies_once_more_is_waited_for_once_more(&engine.empty().await).await;
    who_was_taken_for_dead_tells_nothing_before_it_knows(&engine.empty().await).await;
    what_is_under_way_still_is_told_again(&engine.empty().await).await;
    a_gateway_that_begins_writes_lives(&engine.empty().await).await;
    a_gateway_leaves_its_intents(&engine.empty().await).await;
    a_stranger_tells_nothing(&engine.empty().await).await;
    names_are_any_bytes(&engine.empty().await).await;
    records_that_say_nothing_go(&engine.empty().await).await;
    turns_order_writes(&engine.empty().await).await;
}

async fn an_intent_goes_with_its_write(bench: &Bench<'_>) {
    let gateway = bench.journal.enrol("host").await.unwrap();
    let [a, b, c] = ["a", "b", "c"].map(object);
    bench.apply(vec![begin(id(gateway, 1), &a), begin(id(gateway, 2), &b), begin(id(gateway, 3), &c)]).await;
    assert_eq!(bench.journal.counts().await.unwrap().intents, 3);
    let ends = vec![settled(id(gateway, 1), &a), Change::Void(id(gateway, 2)), diverged(id(gateway, 3), &c)];
    bench.apply(ends.clone()).await;
    // Whoever got no answer asks again.
    bench.apply(ends).await;
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.intents, counts.open), (0, 1));
    assert_eq!(bench.case(&a).await, None);
    assert_eq!(bench.case(&b).await, None);
    let case = bench.case(&c).await.unwrap();
    assert_eq!(case.records, [record(id(gateway, 3), &c, Said::NotApplied)]);
    assert_eq!((case.standing, case.under_way, case.attempts), (Standing::Open, 0, 0));
    assert!(case.due >= case.since && case.reason.is_empty());
    assert_eq!(counts.oldest, Some(case.since));
}

async fn a_settled_write_is_kept_beside_others(bench: &Bench<'_>) {
    let a = object("a");
    // In one call, too, whatever comes first in it.
    bench.apply(vec![settled(id(1, 2), &a), diverged(id(1, 1), &a)]).await;
    bench.apply(vec![settled(id(1, 3), &a)]).await;
    assert_eq!(bench.recorded(&a).await, [1, 2, 3]);
    assert_eq!(bench.recorded(&object("b")).await, [0; 0]);
}

async fn a_settled_write_is_kept_beside_another_one(bench: &Bench<'_>) {
    let (a, b) = (object("a"), object("b"));
    bench.apply(vec![begin(id(1, 1), &a), begin(id(2, 3), &b)]).await;
    bench.apply(vec![settled(id(1, 1), &a)]).await;
    assert_eq!(bench.case(&a).await, None);
    // Whichever gateway the other one goes through, and whichever began first.
    bench.apply(vec![begin(id(1, 2), &a), begin(id(1, 3), &a), begin(id(2, 1), &a)]).await;
    bench.apply(vec![settled(id(1, 2), &a)]).await;
    let case = bench.case(&a).await.unwrap();
    assert_eq!((case.records.len(), case.under_way), (1, 2));
    bench.apply(vec![settled(id(2, 1), &a)]).await;
    bench.apply(vec![settled(id(1, 3), &a)]).await;
    assert_eq!(bench.case(&a).await.unwrap().records.len(), 3);
    // Those that end in the same call count as well.
    bench.apply(vec![begin(id(1, 4), &b)]).await;
    bench.apply(vec![settled(id(1, 4), &b), settled(id(2, 3), &b)]).await;
    assert_eq!(bench.recorded(&b).await, [4, 3]);
}

async fn a_record_opens_what_was_set_aside(bench: &Bench<'_>) {
    for (key, standing) in [("a", Standing::Parked), ("b", Standing::Dead)] {
        let a = object(key);
        bench.apply(vec![diverged(id(1, 1), &a)]).await;
        let (lease, _) = bench.lease_one().await;
        bench.journal.set_aside(&lease, standing, None, &[id(1, 1)], "no rule").await.unwrap();
        let case = bench.case(&a).await.unwrap();
        assert_eq!((case.standing, case.reason.as_str()), (standing, "no rule"));
        assert_eq!(bench.lease().await, []);
        bench.apply(vec![settled(id(1, 2), &a)]).await;
        assert_eq!(bench.case(&a).await.unwrap().standing, Standing::Open);
        let (lease, case) = bench.lease_one().await;
        assert_eq!(case.records.len(), 2);
        // With a record that was not seen it is not set aside, and due again.
        bench.journal.set_aside(&lease, standing, None, &[id(1, 1)], "no rule").await.unwrap();
        let (lease, _) = bench.lease_one().await;
        bench.journal.postpone(&lease, Later::again(1000 * HOLD), "").await.unwrap();
    }
}

async fn an_unknown_outcome_is_waited_for(bench: &Bench<'_>) {
    let a = object("a");
    bench.apply(vec![uncertain(id(1, 1), &a)]).await;
    bench.pass(SETTLE / 2).await;
    assert_eq!(bench.lease().await, []);
    // Not even by one that is certain, or a human.
    bench.apply(vec![diverged(id(1, 2), &a)]).await;
    assert!(bench.journal.retry(&a).await.unwrap());
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE / 2).await;
    let (lease, _) = bench.lease_one().await;
    bench.apply(vec![uncertain(id(1, 3), &a)]).await;
    bench.journal.postpone(&lease, Later::again(Duration::ZERO), "").await.unwrap();
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    // One that is certain makes it due at once, whatever the pause after a failure.
    bench.journal.postpone(&lease, Later::failed(100 * HOLD), "").await.unwrap();
    assert_eq!(bench.lease().await, []);
    bench.apply(vec![diverged(id(1, 4), &a)]).await;
    let (lease, _) = bench.lease_one().await;
    // But not while something that a worker sent may still arrive, whatever it came to.
    bench.journal.postpone(&lease, Later::again(SETTLE), "").await.unwrap();
    bench.apply(vec![diverged(id(1, 5), &a)]).await;
    bench.journal.retry(&a).await.unwrap();
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    bench.journal.postpone(&lease, Later::unsettled(SETTLE), "").await.unwrap();
    assert_eq!(bench.case(&a).await.unwrap().attempts, 1);
    bench.journal.retry(&a).await.unwrap();
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    // Where nothing was tried, a human need not wait.
    bench.journal.postpone(&lease, Later::waits(SETTLE), "").await.unwrap();
    assert_eq!(bench.lease().await, []);
    bench.journal.retry(&a).await.unwrap();
    bench.lease_one().await;
}

async fn a_known_write_is_replaced(bench: &Bench<'_>) {
    let a = object("a");
    bench.apply(vec![uncertain(id(1, 1), &a), diverged(id(1, 2), &a)]).await;
    bench.apply(vec![settled(id(1, 1), &a)]).await;
    let case = bench.case(&a).await.unwrap();
    assert_eq!(case.records, [record(id(1, 1), &a, good()), record(id(1, 2), &a, Said::NotApplied)]);
    // Of two of one write in one call, the last.
    bench.apply(vec![settled(id(1, 2), &a), diverged(id(1, 2), &a)]).await;
    assert_eq!(bench.case(&a).await.unwrap(), case);
}

async fn intents_of_the_dead_become_records(bench: &Bench<'_>) {
    let (dead, living) =
        (bench.journal.enrol("host").await.unwrap(), bench.journal.enrol("host").await.unwrap());
    assert_ne!(dead, living);
    let (a, b) = (object("a"), object("b"));
    bench.apply(vec![begin(id(dead, 1), &a), begin(id(living, 1), &b)]).await;
    bench.pass(2 * HOLD).await;
    assert_eq!(bench.journal.alive(&host(living)).await.unwrap(), Some(0));
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 1);
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 0);
    let case = bench.case(&a).await.unwrap();
    let orphan = Record::orphaned(intent(id(dead, 1), &a), case.since);
    assert_eq!((case.records, case.under_way), (vec![orphan], 0));
    assert_eq!(bench.case(&b).await, None);
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    // The gateway lives after all: what it has to say is not lost.
    for _ in 0..2 {
        assert_eq!(bench.journal.alive(&host(dead)).await.unwrap(), Some(1), "its answer may be lost");
    }
    assert_eq!(bench.journal.alive(&host(living)).await.unwrap(), Some(0));
    bench.apply(vec![settled(id(dead, 1), &a), begin(id(dead, 2), &a)]).await;
    assert_eq!(bench.case(&a).await.unwrap().records, [record(id(dead, 1), &a, good())]);
    let resolution = bench.journal.resolve(&lease, &[id(dead, 1)], &[]).await.unwrap();
    assert_eq!(resolution, akubra::journal::Resolution::Changed);
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 0);
    bench.pass(2 * HOLD).await;
    assert_eq!(bench.journal.alive(&host(living)).await.unwrap(), Some(0));
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 1);
    assert_eq!(bench.recorded(&a).await, [1, 2]);
    assert_eq!(bench.journal.alive(&host(77)).await.unwrap(), None);
}

/// What it had under way when it was taken for dead may have been sent until it really died.
async fn who_dies_once_more_is_waited_for_once_more(bench: &Bench<'_>) {
    let gateway = host(bench.journal.enrol("host").await.unwrap());
    let (a, write) = (object("a"), id(gateway.number, 1));
    bench.journal.apply(&gateway, vec![begin(write, &a)], SETTLE).await.unwrap();
    bench.pass(HOLD).await;
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 1);
    let shown = async || bench.journal.show(&a).await.unwrap().unwrap().records.remove(0);
    let first = shown().await;
    let deaths = bench.journal.alive(&gateway).await.unwrap().unwrap();
    let gateway = Enrolled { deaths, ..gateway };
    bench.journal.apply(&gateway, vec![still(write, &a)], SETTLE).await.unwrap();
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    bench.journal.leave(&gateway, SETTLE).await.unwrap();
    let second = shown().await;
    assert!(second.ended > first.ended && second.turn > first.turn, "{first:?} {second:?}");
    assert!(second.intent.turn.is_some() && second.intent == first.intent);
    // Whoever works at it has not seen that.
    let resolution = bench.journal.resolve(&lease, &[write], &[]).await.unwrap();
    assert_eq!(resolution, akubra::journal::Resolution::Changed);
    bench.journal.postpone(&lease, Later::waits(Duration::ZERO), "").await.unwrap();
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    assert_eq!(bench.lease_one().await.1.under_way, 0);
}

fn strong_record(write: akubra::journal::WriteId, object: &Object) -> Record {
    Record { intent: intent(write, object), ..record(write, object, Said::NotApplied) }
}

async fn who_was_taken_for_dead_tells_nothing_before_it_knows(bench: &Bench<'_>) {
    let gateway = host(bench.journal.enrol("host").await.unwrap());
    let apply = async |gateway: &Enrolled, changes| bench.journal.apply(gateway, changes, SETTLE).await;
    let (a, b) = (object("a"), object("b"));
    let write = id(gateway.number, 1);
    apply(&gateway, vec![begin(write, &a)]).await.unwrap();
    bench.pass(HOLD).await;
    assert_eq!(bench.journal.adopt(HOLD, Duration::ZERO).await.unwrap(), 1);
    let (lease, _) = bench.lease_one().await;
    let resolution = bench.journal.resolve(&lease, &[write], &[]).await.unwrap();
    assert_eq!(resolution, akubra::journal::Resolution::Resolved);
    // Nothing is beside it any more, that would be kept with it.
    let refused = Err(JournalError::TakenForDead(gateway.number));
    let ends =
        || vec![settled(write, &a), begin(id(gateway.number, 2), &b), diverged(id(gateway.number, 3), &b)];
    assert_eq!(apply(&gateway, ends()).await, refused);
    // Its sign of life may come before what it tells, and the answer be lost.
    assert_eq!(bench.journal.alive(&gateway).await.unwrap(), Some(1));
    assert_eq!(apply(&gateway, ends()).await, refused);
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.open, counts.intents), (0, 0));
    let knows = Enrolled { deaths: 1, ..gateway.clone() };
    apply(&knows, vec![diverged(write, &a)]).await.unwrap();
    assert_eq!(bench.recorded(&a).await, [1]);
    // Once for each silence, with intents or without.
    for _ in 0..2 {
        bench.pass(HOLD).await;
        assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 0);
    }
    assert_eq!(apply(&knows, ends()).await, refused);
    assert_eq!(bench.journal.alive(&gateway).await.unwrap(), Some(2));
    apply(&Enrolled { deaths: 2, ..gateway }, ends()).await.unwrap();
}

async fn what_is_under_way_still_is_told_again(bench: &Bench<'_>) {
    let gateway = bench.journal.enrol("host").await.unwrap();
    let [a, b] = ["a", "b"].map(object);
    let (lost, there) = (id(gateway, 1), id(gateway, 2));
    bench.apply(vec![still(lost, &a), begin(there, &b)]).await;
    bench.apply(vec![still(lost, &a), still(there, &b)]).await;
    assert_eq!(bench.journal.counts().await.unwrap().intents, 2);
    // It is kept beside that.
    bench.apply(vec![settled(id(gateway, 3), &a)]).await;
    assert_eq!(bench.case(&a).await.unwrap().under_way, 1);
    // A gateway that tells so lives.
    bench.pass(HOLD).await;
    bench.apply(vec![still(lost, &a)]).await;
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 0);
    // When it began is known only of the one whose intent was never gone.
    let ends =
        [(lost, &a), (there, &b)].map(|(write, object)| Change::Diverged(strong_record(write, object)));
    bench.apply(ends.to_vec()).await;
    let begun = async |object: &Object, write| {
        let case = bench.journal.show(object).await.unwrap().unwrap();
        let records = case.records.into_iter();
        records.filter(|record| record.id() == write).map(|record| record.intent.turn).next().unwrap()
    };
    assert_eq!(begun(&a, lost).await, None);
    assert!(begun(&b, there).await.is_some());
    // And what the backends said of the other is what they said before others wrote, who knows when.
    for (object, write, replies, strong) in [(&a, lost, 0, false), (&b, there, 2, true)] {
        let known = |record: &Record| (record.replies.len(), record.commit.is_some(), record.intent.strong);
        for _ in 0..2 {
            bench.apply(vec![Change::Diverged(strong_record(write, object))]).await;
            let case = bench.case(object).await.unwrap();
            let record = case.records.iter().find(|record| record.id() == write).unwrap();
            assert_eq!(known(record), (replies, strong, strong));
        }
    }
    assert_eq!(bench.journal.counts().await.unwrap().intents, 0);
}

async fn a_gateway_that_begins_writes_lives(bench: &Bench<'_>) {
    let gateway = bench.journal.enrol("host").await.unwrap();
    let a = object("a");
    for number in [1, 2] {
        bench.pass(HOLD).await;
        bench.apply(vec![begin(id(gateway, number), &a)]).await;
        assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 0);
    }
    bench.pass(HOLD).await;
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 2);
}

async fn a_gateway_leaves_its_intents(bench: &Bench<'_>) {
    let gateway = bench.journal.enrol("host").await.unwrap();
    let a = object("a");
    bench.apply(vec![begin(id(gateway, 1), &a)]).await;
    // Its end is known already, as far as it is.
    bench.apply(vec![diverged(id(gateway, 2), &a), begin(id(gateway, 2), &a)]).await;
    bench.journal.leave(&host(gateway), SETTLE).await.unwrap();
    assert_eq!(bench.journal.alive(&host(gateway)).await.unwrap(), Some(1));
    let case = bench.case(&a).await.unwrap();
    assert_eq!(case.under_way, 0);
    assert_eq!(case.records.len(), 2);
    assert_eq!(*case.records[0].said("http://a:80"), good());
    assert!(case.records[1].is_uncertain());
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    bench.lease_one().await;
}

/// A gateway of another journal, whose number is not given here yet, or was given to another.
async fn a_stranger_tells_nothing(bench: &Bench<'_>) {
    let gateway = bench.journal.enrol("host").await.unwrap();
    let (a, b) = (object("a"), object("b"));
    bench.apply(vec![begin(id(gateway, 1), &a)]).await;
    for stranger in [Enrolled { name: "other".to_owned(), ..host(gateway) }, host(gateway + 1)] {
        let changes = vec![
            begin(id(stranger.number, 2), &b),
            diverged(id(stranger.number, 3), &a),
            Change::Void(id(stranger.number, 1)),
        ];
        let refused = bench.journal.apply(&stranger, changes, SETTLE).await;
        assert_eq!(refused, Err(JournalError::Stranger(stranger.number)));
        assert_eq!(bench.journal.alive(&stranger).await.unwrap(), None);
        bench.journal.leave(&stranger, SETTLE).await.unwrap();
        let counts = bench.journal.counts().await.unwrap();
        assert_eq!((counts.intents, counts.open), (1, 0));
    }
    // Whose number it is has not become a dead one's, nor a living one's by another's sign of life.
    assert_eq!(bench.journal.alive(&host(gateway)).await.unwrap(), Some(0));
    bench.pass(HOLD).await;
    let other = Enrolled { name: "other".to_owned(), ..host(gateway) };
    assert_eq!(bench.journal.alive(&other).await.unwrap(), None);
    assert_eq!(bench.journal.adopt(HOLD, SETTLE).await.unwrap(), 1);
}

async fn names_are_any_bytes(bench: &Bench<'_>) {
    let mut keys =
        vec![Vec::new(), b"\0".to_vec(), b"'; DROP TABLE objects; --\"".to_vec(), vec![0xff; 1024]];
    keys.push((0..=255).cycle().take(4000).collect());
    for (number, key) in (1..).zip(&keys) {
        let object = Object { cluster: "ma'in".to_owned(), bucket: b"b\0\xff".to_vec(), key: key.clone() };
        let mut record = record(id(1, number), &object, Said::NotApplied);
        record.intent.req_id = "\0'\"\u{1f4a5}".to_owned();
        record.intent.what = What::Attribute("\0".to_owned());
        record
            .replies
            .push(("http://c:80".to_owned(), Said::Good { etag: Some("\0'".into()), version: None }));
        bench.apply(vec![Change::Begin(record.intent.clone().into())]).await;
        bench.apply(vec![Change::Diverged(record.clone())]).await;
        let (lease, case) = bench.lease_one().await;
        assert_eq!((case.object, case.records), (object.clone(), vec![record.clone()]));
        bench.journal.postpone(&lease, Later::failed(100 * HOLD), "a\0b'").await.unwrap();
    }
    assert_eq!(bench.unresolved(100).await.0.len(), keys.len());
}

async fn records_that_say_nothing_go(bench: &Bench<'_>) {
    let (a, b) = (object("a"), object("b"));
    for number in 1..=200 {
        bench.apply(vec![diverged(id(1, number), &a), uncertain(id(1, number), &b)]).await;
    }
    let numbers = bench.recorded(&a).await;
    assert!(numbers.len() < 64 && numbers.last() == Some(&200), "{numbers:?}");
    assert_eq!(bench.recorded(&b).await, (1..=200).collect::<Vec<i64>>());
}

/// What ended before another write was begun has the smaller turn, also where its gateway died; a weak write has no
/// turn of its beginning, because it may have begun before it was told.
async fn turns_order_writes(bench: &Bench<'_>) {
    let dead = bench.journal.enrol("host").await.unwrap();
    let next = bench.journal.enrol("host").await.unwrap();
    let a = object("a");
    let mut weak = intent(id(next, 1), &a);
    weak.strong = false;
    bench.apply(vec![begin(id(dead, 1), &a), Change::Begin(weak.into())]).await;
    bench.journal.leave(&host(dead), SETTLE).await.unwrap();
    bench.apply(vec![begin(id(next, 2), &a)]).await;
    bench.apply(vec![diverged(id(next, 1), &a), diverged(id(next, 2), &a)]).await;
    let turns = async || {
        let case = bench.journal.show(&a).await.unwrap().unwrap();
        let turns = |record: &Record| (record.intent.turn, record.turn.unwrap());
        case.records.iter().map(turns).collect::<Vec<_>>()
    };
    let before = turns().await;
    let [(Some(first), orphaned), (None, weak), (Some(second), ended)] = before[..] else {
        panic!("{before:?}");
    };
    assert!(first < orphaned && orphaned < second && second < ended && weak == ended, "{before:?}");
    bench.apply(vec![diverged(id(next, 2), &a)]).await;
    assert_eq!(turns().await, before, "told twice");
    bench.apply(vec![uncertain(id(dead, 1), &a)]).await;
    let after = turns().await;
    assert!(after[0].0 == Some(first) && after[0].1 > ended, "it had more to say: {after:?}");
}

//! Who may repair what, and what comes of it.

use std::time::Duration;

use akubra::journal::{Later, Lease, News, Object, Resolution, Standing, Wanted, WriteId};

use super::bench::*;

pub async fn all(engine: &Engine) {
    a_lease_is_for_one(&engine.empty().await).await;
    a_lease_that_ran_out_is_worth_nothing(&engine.empty().await).await;
    what_is_due_longest_is_first(&engine.empty().await).await;
    the_misplaced_are_for_who_wants_them(&engine.empty().await).await;
    it_is_known_what_nobody_has_seen_the_end_of(&engine.empty().await).await;
    only_what_was_seen_is_resolved(&engine.empty().await).await;
    what_is_elsewhere_too_stays_to_be_said(&engine.empty().await).await;
    tries_are_counted(&engine.empty().await).await;
    a_human_sees_what_waits(&engine.empty().await).await;
    a_human_retries(&engine.empty().await).await;
    a_human_drops(&engine.empty().await).await;
}

async fn a_lease_is_for_one(bench: &Bench<'_>) {
    let a = object("a");
    bench.apply(vec![diverged(id(1, 1), &a)]).await;
    let (lease, _) = bench.lease_one().await;
    assert_eq!((&lease.object, lease.worker.as_str()), (&a, "worker"));
    assert_eq!(bench.journal.counts().await.unwrap().leased, 1);
    bench.pass(HOLD / 2).await;
    assert!(bench.journal.renew(&lease, HOLD, SETTLE).await.unwrap());
    bench.pass(HOLD / 2 + Duration::from_secs(1)).await;
    // A new record does not make it due while it is leased.
    bench.apply(vec![diverged(id(1, 2), &a)]).await;
    assert_eq!(bench.lease().await, []);
    for wrong in
        [Lease { token: lease.token + 1, ..lease.clone() }, Lease { worker: "w".into(), ..lease.clone() }]
    {
        assert!(!bench.journal.renew(&wrong, HOLD, SETTLE).await.unwrap());
        assert_eq!(bench.journal.resolve(&wrong, &[], &[]).await.unwrap(), Resolution::Lost);
        bench.journal.postpone(&wrong, Later::failed(Duration::ZERO), "").await.unwrap();
        bench.journal.set_aside(&wrong, Standing::Dead, None, &[id(1, 1), id(1, 2)], "").await.unwrap();
    }
    assert_eq!(bench.lease().await, []);
    bench.journal.postpone(&lease, Later::again(Duration::ZERO), "").await.unwrap();
    assert!(!bench.journal.renew(&lease, HOLD, SETTLE).await.unwrap());
    assert_eq!(bench.journal.counts().await.unwrap().leased, 0);
    let (other, case) = bench.lease_one().await;
    assert_ne!(other.token, lease.token);
    assert_eq!(case.attempts, 0);
}

async fn a_lease_that_ran_out_is_worth_nothing(bench: &Bench<'_>) {
    let a = object("a");
    bench.apply(vec![diverged(id(1, 1), &a)]).await;
    let (lease, _) = bench.lease_one().await;
    bench.pass(HOLD).await;
    assert!(!bench.journal.renew(&lease, HOLD, SETTLE).await.unwrap());
    assert_eq!(bench.journal.resolve(&lease, &[id(1, 1)], &[]).await.unwrap(), Resolution::Lost);
    bench.journal.postpone(&lease, Later::again(Duration::ZERO), "").await.unwrap();
    bench.journal.set_aside(&lease, Standing::Parked, None, &[id(1, 1)], "").await.unwrap();
    assert_eq!(bench.journal.counts().await.unwrap().leased, 0);
    // What its worker sent may be on its way, whatever comes.
    bench.apply(vec![diverged(id(1, 2), &a)]).await;
    assert!(bench.journal.retry(&a).await.unwrap());
    assert!(!bench.journal.drop_object(&a, "why").await.unwrap());
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    let (other, _) = bench.lease_one().await;
    assert_ne!(other.token, lease.token);
    assert_eq!(bench.journal.resolve(&lease, &[id(1, 1), id(1, 2)], &[]).await.unwrap(), Resolution::Lost);
    assert_eq!(
        bench.journal.resolve(&other, &[id(1, 1), id(1, 2)], &[]).await.unwrap(),
        Resolution::Resolved
    );
    // A lease of an object that was resolved and came again is another.
    bench.apply(vec![diverged(id(1, 3), &a)]).await;
    let (third, _) = bench.lease_one().await;
    assert_eq!(bench.journal.resolve(&other, &[id(1, 3)], &[]).await.unwrap(), Resolution::Lost);
    assert_eq!(bench.journal.resolve(&third, &[id(1, 3)], &[]).await.unwrap(), Resolution::Resolved);
}

/// Writes of the object over which a worker's change may have come that nobody has seen the end of.
async fn overtaken(bench: &Bench<'_>, object: &Object) -> Vec<i64> {
    let case = bench.journal.show(object).await.unwrap().unwrap();
    let records = case.records.iter();
    let overtaken = records.filter(|record| case.unseen.is_some_and(|unseen| unseen.may_be_over(record)));
    overtaken.map(|record| record.id().number).collect()
}

async fn it_is_known_what_nobody_has_seen_the_end_of(bench: &Bench<'_>) {
    let a = object("a");
    let written = async |number| {
        bench.apply(vec![begin(id(1, number), &a)]).await;
        bench.apply(vec![diverged(id(1, number), &a)]).await;
    };
    written(1).await;
    let (lease, _) = bench.lease_one().await;
    written(2).await;
    bench.journal.postpone(&lease, Later::failed(SETTLE), "").await.unwrap();
    assert_eq!(overtaken(bench, &a).await, [0; 0]);
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    written(3).await;
    bench.journal.postpone(&lease, Later::unsettled(SETTLE), "").await.unwrap();
    written(4).await;
    assert_eq!(overtaken(bench, &a).await, [3, 4]);
    // The next lease comes when all that was sent has come.
    bench.pass(SETTLE).await;
    let (lease, case) = bench.lease_one().await;
    assert!(case.unseen.is_some());
    written(5).await;
    bench.journal.postpone(&lease, Later::failed(SETTLE), "").await.unwrap();
    written(6).await;
    assert_eq!(overtaken(bench, &a).await, [3, 4]);
    // A lease that ran out may have been worked under to the last.
    bench.pass(SETTLE).await;
    let (_, _) = bench.lease_one().await;
    written(7).await;
    bench.pass(HOLD + SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    written(8).await;
    assert_eq!(overtaken(bench, &a).await, [3, 4, 5, 6, 7]);
    bench.journal.postpone(&lease, Later::waits(HOLD), "").await.unwrap();
    bench.pass(HOLD).await;
    bench.lease_one().await;
    bench.pass(HOLD + SETTLE).await;
    assert!(bench.journal.retry(&a).await.unwrap());
    written(9).await;
    assert_eq!(overtaken(bench, &a).await, [3, 4, 5, 6, 7, 8, 9]);
    // Whatever opens it again, it is not looked at while what was sent before it was given up may come.
    let (lease, case) = bench.lease_one().await;
    let seen: Vec<_> = case.records.iter().map(akubra::journal::Record::id).collect();
    bench.journal.set_aside(&lease, Standing::Dead, Some(SETTLE), &seen, "").await.unwrap();
    written(10).await;
    assert_eq!(overtaken(bench, &a).await, [3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(bench.lease().await, []);
    bench.pass(SETTLE).await;
    bench.lease_one().await;
}

async fn what_is_due_longest_is_first(bench: &Bench<'_>) {
    for (number, key) in (1..).zip(["c", "a", "b", "d"]) {
        bench.apply(vec![diverged(id(1, number), &object(key))]).await;
        bench.pass(Duration::from_secs(1)).await;
    }
    let keys =
        |leases: Vec<(Lease, _)>| leases.into_iter().map(|(lease, _)| lease.object).collect::<Vec<_>>();
    assert_eq!(keys(bench.lease_some(Wanted::Diverged, 2).await), [object("c"), object("a")]);
    assert_eq!(keys(bench.lease_some(Wanted::Misplaced, 5).await), [object("b"), object("d")]);
    assert_eq!(keys(bench.lease().await), []);
    assert_eq!(bench.journal.counts().await.unwrap().leased, 4);
}

async fn the_misplaced_are_for_who_wants_them(bench: &Bench<'_>) {
    let [a, b, c] = ["a", "b", "c"].map(object);
    bench.apply(vec![misplaced(id(1, 1), &a), misplaced(id(1, 2), &b)]).await;
    bench.pass(Duration::from_secs(1)).await;
    bench.apply(vec![diverged(id(1, 3), &c)]).await;
    bench.apply(vec![diverged(id(1, 4), &b)]).await;
    let leases = bench.lease().await;
    let mut objects: Vec<_> = leases.iter().map(|(lease, _)| lease.object.clone()).collect();
    objects.sort();
    assert_eq!(objects, [b, c]);
    for (lease, _) in leases {
        bench.journal.postpone(&lease, Later::again(Duration::ZERO), "").await.unwrap();
    }
    let leases = bench.lease_some(Wanted::Misplaced, 100).await;
    assert_eq!((leases.len(), &leases[0].0.object), (3, &a));
}

async fn only_what_was_seen_is_resolved(bench: &Bench<'_>) {
    let a = object("a");
    let gateway = bench.journal.enrol("host").await.unwrap();
    let (first, second, third) = (id(gateway, 1), id(gateway, 2), id(gateway, 3));
    bench.apply(vec![uncertain(first, &a)]).await;
    bench.pass(SETTLE).await;
    let (lease, _) = bench.lease_one().await;
    // A write that is under way, one that has ended, and another form of one that is known.
    bench.apply(vec![begin(second, &a)]).await;
    assert_eq!(bench.case(&a).await.unwrap().under_way, 1);
    assert_eq!(bench.journal.resolve(&lease, &[first], &[]).await.unwrap(), Resolution::Changed);
    bench.apply(vec![settled(second, &a)]).await;
    assert_eq!(bench.journal.resolve(&lease, &[first], &[]).await.unwrap(), Resolution::Changed);
    bench.apply(vec![settled(first, &a)]).await;
    assert_eq!(bench.journal.resolve(&lease, &[first, second], &[]).await.unwrap(), Resolution::Changed);
    assert_eq!(bench.recorded(&a).await, [1, 2]);
    bench.journal.postpone(&lease, Later::again(Duration::ZERO), "").await.unwrap();
    let (lease, case) = bench.lease_one().await;
    assert_eq!(case.records[0], record(first, &a, good()));
    // One that is told again is no other; one that never was is no harm.
    bench.apply(vec![settled(second, &a)]).await;
    assert_eq!(
        bench.journal.resolve(&lease, &[first, second, third], &[]).await.unwrap(),
        Resolution::Resolved
    );
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.resolved, counts.open, counts.leased, counts.oldest), (1, 0, 0, None));
    assert_eq!(bench.case(&a).await, None);
}

async fn what_is_elsewhere_too_stays_to_be_said(bench: &Bench<'_>) {
    let a = object("a");
    let (sighting, write) = (id(1, 1), id(1, 2));
    bench.apply(vec![misplaced(sighting, &a), diverged(write, &a)]).await;
    let (lease, _) = bench.lease_one().await;
    bench.journal.postpone(&lease, Later::failed(Duration::ZERO), "why").await.unwrap();
    let (lease, _) = bench.lease_one().await;
    let mark = bench.mark().await;
    let resolve = async |lease: &Lease, seen: &[WriteId]| {
        bench.journal.resolve(lease, seen, &[sighting]).await.unwrap()
    };
    assert_eq!(resolve(&lease, &[sighting]).await, Resolution::Changed);
    assert_eq!(bench.recorded(&a).await, [1, 2]);
    bench.pass(Duration::from_secs(1)).await;
    assert_eq!(resolve(&lease, &[sighting, write]).await, Resolution::Resolved);
    assert_eq!(bench.recorded(&a).await, [1]);
    let News::Changed(changed, _) = bench.journal.news(mark, Duration::ZERO).await.unwrap() else {
        panic!("all is asked for");
    };
    assert_eq!(changed.len(), 1);
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.resolved, counts.open, counts.leased), (1, 1, 0));
    assert!(!bench.journal.renew(&lease, HOLD, SETTLE).await.unwrap());

    // It is as one that has just come: for who moves objects, and nobody else.
    assert_eq!(bench.lease().await, []);
    let (lease, case) = bench.lease_some(Wanted::Misplaced, 9).await.remove(0);
    assert_eq!((case.attempts, case.reason.as_str(), counts.oldest), (0, "", Some(case.since)));
    assert_eq!(bench.journal.resolve(&lease, &[sighting], &[]).await.unwrap(), Resolution::Resolved);
    assert_eq!(bench.case(&a).await, None);

    // None of the object's: it goes.
    bench.apply(vec![diverged(write, &a)]).await;
    let (lease, _) = bench.lease_one().await;
    assert_eq!(resolve(&lease, &[write]).await, Resolution::Resolved);
    assert_eq!(bench.case(&a).await, None);
}

async fn tries_are_counted(bench: &Bench<'_>) {
    let a = object("a");
    bench.apply(vec![diverged(id(1, 1), &a)]).await;
    for tries in 0..3 {
        let (lease, case) = bench.lease_one().await;
        assert_eq!(case.attempts, tries);
        bench.journal.postpone(&lease, Later::failed(HOLD), "b is away").await.unwrap();
        assert_eq!(bench.lease().await, []);
        bench.pass(HOLD).await;
    }
    let (lease, case) = bench.lease_one().await;
    assert_eq!((case.attempts, case.reason.as_str()), (3, "b is away"));
    bench.journal.set_aside(&lease, Standing::Dead, None, &[id(1, 1)], "too often").await.unwrap();
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.open, counts.parked, counts.dead, counts.oldest), (0, 0, 1, None));
    bench.apply(vec![diverged(id(1, 2), &a)]).await;
    assert_eq!(bench.lease_one().await.1.attempts, 0);
}

async fn a_human_sees_what_waits(bench: &Bench<'_>) {
    assert_eq!(bench.journal.aside(10).await.unwrap(), []);
    let objects = ["a", "b", "c", "d"].map(object);
    for (number, object) in (1..).zip(&objects) {
        bench.apply(vec![diverged(id(1, number), object)]).await;
        let (lease, _) = bench.lease_one().await;
        let standing = [Standing::Dead, Standing::Parked][number as usize % 2];
        bench.journal.set_aside(&lease, standing, None, &[id(1, number)], "why").await.unwrap();
    }
    bench.apply(vec![diverged(id(1, 9), &objects[1]), begin(id(1, 10), &objects[2])]).await;
    let aside = bench.journal.aside(10).await.unwrap();
    let seen: Vec<_> = aside.iter().map(|case| (&case.object, case.standing)).collect();
    let (parked, dead) = (Standing::Parked, Standing::Dead);
    assert_eq!(seen, [(&objects[3], dead), (&objects[2], parked), (&objects[0], parked)]);
    assert_eq!((aside[1].reason.as_str(), aside[1].records.len(), aside[1].under_way), ("why", 1, 1));
    assert_eq!(bench.journal.aside(2).await.unwrap(), aside[..2]);
}

async fn a_human_retries(bench: &Bench<'_>) {
    let a = object("a");
    assert!(!bench.journal.retry(&a).await.unwrap());
    bench.apply(vec![diverged(id(1, 1), &a)]).await;
    let (lease, _) = bench.lease_one().await;
    bench.journal.set_aside(&lease, Standing::Parked, None, &[id(1, 1)], "no rule").await.unwrap();
    assert_eq!(bench.journal.counts().await.unwrap().parked, 1);
    assert!(bench.journal.retry(&a).await.unwrap());
    let (lease, case) = bench.lease_one().await;
    assert_eq!((case.attempts, case.reason.as_str()), (0, ""));
    // Whoever has it keeps it.
    assert!(bench.journal.retry(&a).await.unwrap());
    assert_eq!(bench.lease().await, []);
    assert!(bench.journal.renew(&lease, HOLD, SETTLE).await.unwrap());
}

async fn a_human_drops(bench: &Bench<'_>) {
    let a = object("a");
    assert!(!bench.journal.drop_object(&a, "why").await.unwrap());
    bench.apply(vec![begin(id(1, 1), &a), diverged(id(1, 2), &a)]).await;
    assert!(!bench.journal.drop_object(&a, "why").await.unwrap());
    bench.apply(vec![diverged(id(1, 1), &a)]).await;
    let (lease, _) = bench.lease_one().await;
    assert!(!bench.journal.drop_object(&a, "why").await.unwrap());
    bench.journal.postpone(&lease, Later::again(HOLD), "").await.unwrap();
    assert_eq!(bench.journal.dropped(None, 10).await.unwrap(), []);
    let records = bench.journal.show(&a).await.unwrap().unwrap().records;
    assert!(bench.journal.drop_object(&a, "why\0").await.unwrap());
    assert_eq!(bench.case(&a).await, None);
    let b = object("b");
    bench.apply(vec![diverged(id(1, 3), &b)]).await;
    assert!(bench.journal.drop_object(&b, "later").await.unwrap());
    let dropped = bench.journal.dropped(None, 10).await.unwrap();
    let reasons: Vec<&str> = dropped.iter().map(|dropped| dropped.reason.as_str()).collect();
    // PostgreSQL's texts take no NUL.
    assert!(reasons[0] == "later" && reasons[1].starts_with("why") && reasons.len() == 2, "{reasons:?}");
    assert_eq!((&dropped[1].object, &dropped[1].records), (&a, &Some(records)));
    assert!(dropped[0].at >= dropped[1].at && dropped[1].at > 0);
    assert_eq!(bench.journal.dropped(None, 1).await.unwrap(), dropped[..1]);
    assert_eq!(bench.journal.dropped(Some(dropped[0].number), 10).await.unwrap(), dropped[1..]);
    let counts = bench.journal.counts().await.unwrap();
    assert_eq!((counts.open, counts.resolved), (0, 0));
}

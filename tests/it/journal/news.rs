//! What is told of it: lists, counts, and what has changed.

use std::{collections::BTreeSet, time::Duration};

use akubra::journal::{Change, Filter, Known, Mark, News, Object, RECORDS_MOST, Resolution, Said, Standing};

use super::bench::*;

const PATIENCE: Duration = Duration::from_secs(10);

pub async fn all(engine: &Engine) {
    lists_go_on_where_they_ended(&engine.empty().await).await;
    lists_are_filtered(&engine.empty().await).await;
    many_are_read_in_parts(&engine.empty().await).await;
    changes_are_told_once(&engine.empty().await).await;
    what_is_known_follows_the_records(&engine.empty().await).await;
    of_many_records_a_part_is_read(&engine.empty().await).await;
    who_is_far_behind_begins_anew(&engine.empty().await).await;
}

async fn lists_go_on_where_they_ended(bench: &Bench<'_>) {
    let objects: Vec<Object> = (0..600).map(|number| object(&format!("key-{number}"))).collect();
    let changes = (1..).zip(&objects).map(|(number, object)| diverged(id(1, number), object));
    bench.apply(changes.collect()).await;
    let mut listed = Vec::new();
    loop {
        let page = bench.journal.list(&Filter::default(), listed.last(), 70).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() == 70 || listed.len() + page.len() == 600);
        // What has gone is still a place to go on from.
        assert!(bench.journal.drop_object(&page[page.len() - 1].object, "why").await.unwrap());
        listed.extend(page.into_iter().map(|case| case.object));
    }
    let mut sorted = listed.clone();
    sorted.sort_by_key(Object::digest);
    assert_eq!(listed, sorted);
    assert_eq!(listed.len(), 600);
    let rest = bench.journal.list(&Filter::default(), None, 10_000).await.unwrap();
    assert_eq!(rest.len(), 600 - 600_usize.div_ceil(70));
}

async fn lists_are_filtered(bench: &Bench<'_>) {
    let (a, b) = (object("a/1"), object("b/1"));
    let c = Object { cluster: "other".into(), bucket: b"\xff".to_vec(), key: b"a/2".to_vec() };
    bench.apply(vec![diverged(id(1, 1), &a)]).await;
    let (lease, _) = bench.lease_one().await;
    bench.journal.set_aside(&lease, Standing::Parked, None, &[id(1, 1)], "").await.unwrap();
    bench.apply(vec![diverged(id(1, 2), &b), misplaced(id(1, 3), &c)]).await;
    let all = Filter::default();
    let behind = |backend: &str| Filter { backend: Some(backend.to_owned()), ..Filter::default() };
    for (filter, expected) in [
        (all.clone(), vec![&a, &b, &c]),
        (Filter { standing: Some(Standing::Parked), ..all.clone() }, vec![&a]),
        (Filter { standing: Some(Standing::Dead), ..all.clone() }, vec![]),
        (Filter { clusters: Some(vec!["main".to_owned()]), ..all.clone() }, vec![&a, &b]),
        (Filter { bucket: Some(b"\xff".to_vec()), ..all.clone() }, vec![&c]),
        (Filter { prefix: Some(b"a/".to_vec()), ..all.clone() }, vec![&a, &c]),
        (behind("http://a:80"), vec![]),
        (behind("http://b:80"), vec![&a, &b]),
        (Filter { prefix: Some(b"b".to_vec()), ..behind("http://b:80") }, vec![&b]),
    ] {
        let listed = bench.journal.list(&filter, None, 10).await.unwrap();
        let mut listed: Vec<&Object> = listed.iter().map(|case| &case.object).collect();
        listed.sort_by_key(|object| (object.cluster.as_str(), object.key.clone()));
        assert_eq!(listed, expected, "{filter:?}");
    }
}

/// Sorted, with the mark after them.
async fn news(bench: &Bench<'_>, mark: Mark) -> (Vec<(Object, Option<Known>)>, Mark) {
    match bench.journal.news(mark, PATIENCE).await.unwrap() {
        News::Changed(mut changed, mark) => {
            changed.sort_by(|a, b| a.0.cmp(&b.0));
            (changed, mark)
        }
        News::Reload => panic!("all is asked for"),
    }
}

async fn many_are_read_in_parts(bench: &Bench<'_>) {
    const ALL: i64 = 2500;
    let records = (0..ALL).map(|number| diverged(id(1, number), &object(&number.to_string())));
    bench.apply(records.collect()).await;
    for (most, whole) in [(0, false), (2048, false), (2499, false), (2500, true), (usize::MAX, true)] {
        let (objects, is_whole, _) = bench.unresolved(most).await;
        assert_eq!((objects.len(), is_whole), (most.min(ALL as usize), whole));
        assert!(objects.iter().all(|(_, known)| known.lags("http://b:80")));
        let names: BTreeSet<&Object> = objects.iter().map(|(object, _)| object).collect();
        assert_eq!(names.len(), objects.len());
    }
}

async fn changes_are_told_once(bench: &Bench<'_>) {
    let (a, b) = (object("a"), object("b"));
    let first = record(id(1, 1), &a, Said::NotApplied);
    bench.apply(vec![begin(id(1, 1), &a), diverged(id(1, 1), &a)]).await;
    let (objects, whole, mark) = bench.unresolved(10).await;
    assert_eq!((objects, whole), (vec![(a.clone(), Known::of(&[first]))], true));
    let nothing = bench.journal.news(mark, Duration::ZERO).await.unwrap();
    assert_eq!(nothing, News::Changed(Vec::new(), mark));
    // Intents, leases and the like are no news.
    bench.apply(vec![begin(id(2, 1), &b), settled(id(2, 1), &b)]).await;
    let (lease, _) = bench.lease_one().await;
    assert_eq!(bench.journal.news(mark, Duration::ZERO).await.unwrap(), News::Changed(Vec::new(), mark));
    let second = record(id(1, 2), &b, Said::NotApplied);
    let third = record(id(1, 3), &b, good());
    bench.apply(vec![diverged(id(1, 2), &b)]).await;
    bench.apply(vec![settled(id(1, 3), &b)]).await;
    bench.journal.resolve(&lease, &[id(1, 1)], &[]).await.unwrap();
    let (changed, next) = news(bench, mark).await;
    assert_eq!(changed, [(a.clone(), None), (b.clone(), Some(Known::of(&[second, third])))]);
    assert_eq!(bench.journal.news(next, Duration::ZERO).await.unwrap(), News::Changed(Vec::new(), next));
    bench.journal.drop_object(&b, "why").await.unwrap();
    assert_eq!(news(bench, next).await.0, [(b.clone(), None)]);
    let gateway = bench.journal.enrol("host").await.unwrap();
    bench.apply(vec![begin(id(gateway, 1), &a), diverged(id(1, 4), &b)]).await;
    let mark = bench.mark().await;
    bench.journal.leave(&host(gateway), SETTLE).await.unwrap();
    assert_eq!(news(bench, mark).await.0.len(), 1);
    let (some, whole, _) = bench.unresolved(1).await;
    assert_eq!((some.len(), whole), (1, false));
    assert!(bench.unresolved(2).await.1);
}

/// Also where one takes another form, or all but some go.
async fn what_is_known_follows_the_records(bench: &Bench<'_>) {
    let a = object("a");
    let is_known = async || {
        let records = bench.journal.show(&a).await.unwrap().map(|case| case.records);
        let known = records.map(|records| Known::of(&records));
        assert_eq!(bench.journal.known(&a).await.unwrap(), known);
        known
    };
    assert_eq!(is_known().await, None);
    let gateway = bench.journal.enrol("host").await.unwrap();
    bench.apply(vec![begin(id(gateway, 1), &a), diverged(id(1, 2), &a), misplaced(id(1, 3), &a)]).await;
    assert!(is_known().await.unwrap().lags("http://b:80"));
    bench.journal.leave(&host(gateway), Duration::ZERO).await.unwrap();
    let known = is_known().await.unwrap();
    assert!(!known.lags("http://a:80"), "of what nobody is known to have taken no client was told");
    // It was the earlier one.
    let mut earlier = record(id(gateway, 1), &a, good());
    earlier.ended = 1;
    bench.apply(vec![Change::Diverged(earlier)]).await;
    let known = is_known().await.unwrap();
    assert!(known.lags("http://b:80") && !known.lags("http://a:80"));
    let (lease, case) = bench.lease_one().await;
    let resolution = bench.journal.resolve(&lease, &case.ids(), &[id(1, 3)]).await.unwrap();
    assert_eq!(resolution, Resolution::Resolved);
    assert!(!is_known().await.unwrap().lags("http://b:80"));
}

async fn of_many_records_a_part_is_read(bench: &Bench<'_>) {
    let (a, all) = (object("a"), RECORDS_MOST as i64 + 500);
    let mark = bench.mark().await;
    // None of them ever goes.
    for first in (1..=all).step_by(500) {
        let some = (first..first + 500).map(|number| uncertain(id(1, number), &a));
        bench.apply(some.take((all - first + 1).min(500) as usize).collect()).await;
    }
    let last = record(id(1, all + 1), &a, Said::NotApplied);
    bench.apply(vec![diverged(id(1, all + 1), &a)]).await;
    let is_part = |case: &akubra::journal::Case| {
        (case.records.len(), case.more) == (RECORDS_MOST + 1, all as u64 - RECORDS_MOST as u64)
    };
    assert!(is_part(&bench.case(&a).await.unwrap()));
    assert!(is_part(&bench.journal.list(&Filter::default(), None, 9).await.unwrap()[0]));
    // What gateways need is not in that part.
    let known = Known::of(&[last]);
    assert_eq!(news(bench, mark).await.0, [(a.clone(), Some(known.clone()))]);
    assert_eq!(bench.journal.known(&a).await.unwrap().as_ref(), Some(&known));
    assert_eq!(bench.unresolved(9).await.0, [(a.clone(), known)]);

    bench.pass(SETTLE).await;
    let (lease, case) = bench.lease_one().await;
    assert!(is_part(&case));
    let resolution = bench.journal.resolve(&lease, &case.ids(), &[]).await.unwrap();
    assert_eq!(resolution, Resolution::Changed);
    // It does not come again because of what was not read.
    bench.journal.set_aside(&lease, Standing::Parked, None, &case.ids(), "too many").await.unwrap();
    assert_eq!(bench.case(&a).await.unwrap().standing, Standing::Parked);
    assert_eq!(bench.journal.aside(1).await.unwrap().len(), 1);
    bench.apply(vec![diverged(id(1, all + 2), &a)]).await;
    assert_eq!(bench.lease().await.len(), 1, "a later write opens it");
    bench.pass(HOLD + SETTLE).await;
    assert!(bench.journal.drop_object(&a, "why").await.unwrap());
    assert_eq!(bench.journal.known(&a).await.unwrap(), None);
}

async fn who_is_far_behind_begins_anew(bench: &Bench<'_>) {
    let mark = bench.mark().await;
    let ahead = bench.journal.news(Mark(mark.0 + 1), PATIENCE).await.unwrap();
    assert_eq!(ahead, News::Reload);
    let some: Vec<_> =
        (1..=1100).map(|number| diverged(id(1, number), &object(&number.to_string()))).collect();
    for _ in 0..10 {
        bench.apply(some.clone()).await;
    }
    assert_eq!(bench.journal.news(mark, PATIENCE).await.unwrap(), News::Reload);
    let mark = bench.mark().await;
    bench.apply(some).await;
    assert_eq!(news(bench, mark).await.0.len(), 1100);
}

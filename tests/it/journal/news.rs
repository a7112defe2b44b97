//! What is told of it: lists, counts, and what has changed.

use std::{collections::BTreeSet, time::Duration};

use akubra::journal::{Filter, Mark, News, Object, Record, Said, Standing};

use super::bench::*;

const PATIENCE: Duration = Duration::from_secs(10);

pub async fn all(engine: &Engine) {
    lists_go_on_where_they_ended(&engine.empty().await).await;
    lists_are_filtered(&engine.empty().await).await;
    many_are_read_in_parts(&engine.empty().await).await;
    changes_are_told_once(&engine.empty().await).await;
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
async fn news(bench: &Bench<'_>, mark: Mark) -> (Vec<(Object, Vec<Record>)>, Mark) {
    match bench.journal.news(mark, PATIENCE).await.unwrap() {
        News::Changed(mut changed, mark) => {
            changed.sort_by(|a, b| a.0.cmp(&b.0));
            changed.iter_mut().for_each(|(_, records)| clear_turns(records));
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
        let unresolved = bench.journal.unresolved(most).await.unwrap();
        assert_eq!((unresolved.objects.len(), unresolved.whole), (most.min(ALL as usize), whole));
        assert!(unresolved.objects.iter().all(|(_, records)| records.len() == 1));
        let names: BTreeSet<&Object> = unresolved.objects.iter().map(|(object, _)| object).collect();
        assert_eq!(names.len(), unresolved.objects.len());
    }
}

async fn changes_are_told_once(bench: &Bench<'_>) {
    let (a, b) = (object("a"), object("b"));
    let first = record(id(1, 1), &a, Said::NotApplied);
    bench.apply(vec![begin(id(1, 1), &a), diverged(id(1, 1), &a)]).await;
    let mut unresolved = bench.journal.unresolved(10).await.unwrap();
    unresolved.objects.iter_mut().for_each(|(_, records)| clear_turns(records));
    assert_eq!((&unresolved.objects, unresolved.whole), (&vec![(a.clone(), vec![first.clone()])], true));
    let mark = unresolved.mark;
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
    assert_eq!(changed, [(a.clone(), vec![]), (b.clone(), vec![second.clone(), third.clone()])]);
    assert_eq!(bench.journal.news(next, Duration::ZERO).await.unwrap(), News::Changed(Vec::new(), next));
    bench.journal.drop_object(&b, "why").await.unwrap();
    assert_eq!(news(bench, next).await.0, [(b.clone(), vec![])]);
    let gateway = bench.journal.enrol("host").await.unwrap();
    bench.apply(vec![begin(id(gateway, 1), &a), diverged(id(1, 4), &b)]).await;
    let mark = bench.journal.unresolved(10).await.unwrap().mark;
    bench.journal.leave(&host(gateway), SETTLE).await.unwrap();
    assert_eq!(news(bench, mark).await.0.len(), 1);
    let some = bench.journal.unresolved(1).await.unwrap();
    assert_eq!((some.objects.len(), some.whole), (1, false));
    assert!(bench.journal.unresolved(2).await.unwrap().whole);
}

async fn who_is_far_behind_begins_anew(bench: &Bench<'_>) {
    let mark = bench.journal.unresolved(1).await.unwrap().mark;
    let ahead = bench.journal.news(Mark(mark.0 + 1), PATIENCE).await.unwrap();
    assert_eq!(ahead, News::Reload);
    let some: Vec<_> =
        (1..=1100).map(|number| diverged(id(1, number), &object(&number.to_string()))).collect();
    for _ in 0..10 {
        bench.apply(some.clone()).await;
    }
    assert_eq!(bench.journal.news(mark, PATIENCE).await.unwrap(), News::Reload);
    let mark = bench.journal.unresolved(1).await.unwrap().mark;
    bench.apply(some).await;
    assert_eq!(news(bench, mark).await.0.len(), 1100);
}

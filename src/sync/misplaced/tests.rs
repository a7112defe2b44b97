//! Which step is next, by tables; and whole moves over backends in memory.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    super::{
        fixture::{A, B, C, EPOCH, SETTLE, World},
        worker::Ended,
    },
    *,
};
use crate::{
    journal::{Change, Journal, Said, Wanted},
    topology::fixture,
};

fn held(text: &str, modified: i64) -> Held {
    Held {
        etag: text.into(),
        version: None,
        modified,
        length: 1,
        object_version: None,
        md5: Some([text.as_bytes()[0]; 16]),
        metadata: Vec::new(),
    }
}

fn states(all: &[(&str, Option<Held>)]) -> Vec<(String, State)> {
    let state = |held: &Option<Held>| held.clone().map_or(State::Absent, State::Present);
    all.iter().map(|(name, held)| ((*name).to_owned(), state(held))).collect()
}

#[test]
fn what_home_lacks_comes_from_a_cluster_that_agrees_on_it() {
    let home = states(&[("a", None), ("b", None)]);
    let next = |there: &[(&str, Option<Held>)]| step(&home, &states(there), false);
    let x = || Some(held("x", 0));
    assert_eq!(next(&[("c", x()), ("d", x())]), Step::Copy { source: "c".into() });
    assert_eq!(next(&[("c", None), ("d", None)]), Step::Done);
    assert!(matches!(next(&[("c", x()), ("d", None)]), Step::Wait(_)));
    assert!(matches!(next(&[("c", x()), ("d", Some(held("y", 0)))]), Step::Wait(_)));
    let mut unread = held("z", 0);
    unread.md5 = None;
    assert_eq!(next(&[("c", x()), ("d", Some(unread))]), Step::Digest(vec!["d".into()]));
    let mut there = states(&[("c", x())]);
    there.push(("d".into(), State::Unknown("refused".into())));
    assert_eq!(step(&home, &there, false), Step::Wait("refused".into()));
}

#[test]
fn only_what_home_has_or_had_before_is_deleted_elsewhere() {
    let home =
        |held: Held| states(&[("a", Some(held.clone())), ("b", Some(Held { modified: 900_000, ..held }))]);
    let next = |ours: Held, theirs: Held| step(&home(ours), &states(&[("c", Some(theirs))]), false);
    let gone = Step::Delete { targets: vec!["c".into()] };
    assert_eq!(next(held("x", 0), held("x", 100_000)), gone);
    // What is at home may be a copy, and then it is later than what it is a copy of.
    assert!(matches!(next(held("x", 100_000), held("y", 0)), Step::Park(_)));
    assert!(matches!(next(held("x", 100_000), held("y", 200_000)), Step::Park(_)));
    // Its version tells, whatever the clocks do.
    let version = |held: Held, version| Held { object_version: Some(version), ..held };
    assert_eq!(next(version(held("x", 0), 7), version(held("y", 100_000), 6)), gone);
    assert!(matches!(next(version(held("x", 100_000), 7), version(held("y", 0), 8)), Step::Park(_)));
    let other = Held { metadata: vec![("content-type".into(), "text/plain".into())], ..held("x", 100_000) };
    assert!(matches!(next(held("x", 0), other), Step::Park(_)));
    assert_eq!(step(&home(held("x", 0)), &states(&[("c", Some(held("y", 0)))]), true), Step::Done);
    assert_eq!(step(&home(held("x", 0)), &states(&[("c", None)]), false), Step::Done);
    let unread = |text| Held { md5: None, ..held(text, 0) };
    assert_eq!(next(unread("x"), unread("y")), Step::Digest(vec!["c".into(), "a".into()]));
}

/// With a sighting of "key" on "old".
async fn world() -> World {
    sighted(World::new()).await
}

async fn sighted(mut world: World) -> World {
    world.wanted = Wanted::Misplaced;
    world.record("key", What::Misplaced("old".into()), &[]).await;
    world.ahead.store(SETTLE.as_millis() as i64, Relaxed);
    world
}

fn there_are(world: &World) -> [bool; 3] {
    [A, B, C].map(|backend| world.stores.holds(backend, "key").is_some())
}

#[tokio::test(start_paused = true)]
async fn an_object_moves_to_all_backends_of_its_home() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((world.outcomes(), world.last().changed), (vec!["resolved"], 3));
    assert_eq!(there_are(&world), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn what_home_has_already_is_only_deleted_elsewhere() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.put(A, "key", "text", EPOCH + 50_000);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn another_content_that_is_not_older_is_parked_and_stays() {
    let world = world().await;
    world.stores.put(C, "key", "other", EPOCH);
    world.stores.put(A, "key", "text", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["parked"]);
    assert_eq!(there_are(&world), [true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn what_a_region_looks_for_there_stays_there_too() {
    let regions = vec![
        fixture::region("r", &[("old", 0.0), ("main", 1.0)], &[]),
        fixture::region("s", &[("old", 1.0)], &["d"]),
    ];
    let clusters = vec![fixture::cluster("old", &["c"]), fixture::cluster("main", &["a", "b"])];
    let world = sighted(World::over(clusters, regions)).await;
    world.stores.put(C, "key", "text", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn what_has_records_of_its_own_where_it_was_found_waits_for_them() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    let sighting =
        world.journal.list(&Default::default(), None, 1).await.unwrap().remove(0).records.remove(0);
    let mut of_old = sighting;
    of_old.intent.object.cluster = "old".into();
    of_old.intent.what = What::Delete;
    of_old.intent.id.number = 99;
    // Home took it.
    let good = Said::Good { etag: None, version: None };
    of_old.replies = vec![(C.into(), Said::NotApplied), (A.into(), good)];
    world.journal.apply(vec![Change::Diverged(of_old)], SETTLE).await.unwrap();
    world.once().await;
    // The DELETE comes first, whoever is looked at first.
    tokio::time::sleep(OTHERS * 2).await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_comes_meanwhile_keeps_the_object_from_coming_back() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.slow.store(1_000, Relaxed);
    let running = tokio::spawn(world.worker(true).run());
    sleep(Duration::from_millis(2_500)).await;
    // It went everywhere, and is recorded since the object has a record.
    world.stores.forget(C, "key");
    let replies = [A, B].map(|backend| (backend, Said::Good { etag: None, version: None }));
    world.record("key", What::Delete, &replies).await;
    running.await.unwrap().unwrap();
    world.ahead.store(10 * SETTLE.as_millis() as i64, Relaxed);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [false, false, false]);
}

//! Which step is next, by tables; and whole moves over backends in memory.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    super::{
        fixture::{A, B, C, EPOCH, SETTLE, Unheard, World},
        job::Told,
        worker::Ended,
    },
    *,
};
use crate::{
    journal::{Change, Journal, Said, Wanted},
    topology::fixture,
};

const D: &str = "http://d:80";

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
    let next = |there: &[(&str, Option<Held>)]| step(&home, &[states(there)], &HashSet::new());
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
    assert_eq!(step(&home, &[there], &HashSet::new()), Step::Wait("refused".into()));
    // Several clusters.
    let several = |there: &[&[(&str, Option<Held>)]]| {
        let there: Vec<_> = there.iter().map(|one| states(one)).collect();
        step(&home, &there, &HashSet::new())
    };
    assert_eq!(
        several(&[&[("c", None)], &[("d", x()), ("c", None)], &[("e", x())]]),
        Step::Wait("d has it, and not all other backends of that cluster do".into())
    );
    assert_eq!(several(&[&[("c", None)], &[("d", x())], &[("e", x())]]), Step::Copy { source: "d".into() });
    assert!(matches!(several(&[&[("d", x())], &[("e", Some(held("y", 0)))]]), Step::Park(_)));
}

#[test]
fn only_what_home_has_or_had_before_is_deleted_elsewhere() {
    let home =
        |held: Held| states(&[("a", Some(held.clone())), ("b", Some(Held { modified: 900_000, ..held }))]);
    let none = HashSet::new();
    let next = |ours: Held, theirs: Held| step(&home(ours), &[states(&[("c", Some(theirs))])], &none);
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
    let stays = HashSet::from(["c".to_owned()]);
    let both = |text| {
        vec![
            states(&[("c", Some(held("y", 0)))]),
            states(&[("d", Some(held(text, 0))), ("c", Some(held("y", 0)))]),
        ]
    };
    assert_eq!(step(&home(held("x", 0)), &both("x"), &stays), Step::Delete { targets: vec!["d".into()] });
    assert!(matches!(step(&home(held("x", 0)), &both("z"), &stays), Step::Park(_)));
    assert_eq!(step(&home(held("x", 0)), &both("x")[..1], &stays), Step::Done);
    assert_eq!(step(&home(held("x", 0)), &[states(&[("c", None)])], &none), Step::Done);
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

#[tokio::test(start_paused = true)]
async fn a_backend_of_the_home_is_left_alone_whatever_else_it_belongs_to() {
    // "old" shares "b" with the home.
    let clusters = vec![fixture::cluster("old", &["b", "c"]), fixture::cluster("main", &["a", "b"])];
    let regions = vec![fixture::region("r", &[("old", 0.0), ("main", 1.0)], &[])];
    let world = sighted(World::over(clusters, regions)).await;
    world.stores.put(B, "key", "text", EPOCH);
    world.stores.put(C, "key", "text", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_backend_stays_that_is_the_home_under_another_name() {
    let clusters = vec![
        fixture::cluster("old", &["c"]),
        fixture::cluster("other", &["c"]),
        fixture::cluster("main", &["a", "b"]),
    ];
    let regions = vec![
        fixture::region("r", &[("old", 0.0), ("main", 1.0)], &[]),
        fixture::region("s", &[("other", 1.0)], &["d"]),
    ];
    let world = sighted(World::over(clusters, regions)).await;
    world.stores.put(C, "key", "text", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_write_by_another_cluster_of_the_same_backend_comes_first() {
    let clusters = vec![
        fixture::cluster("old", &["c"]),
        fixture::cluster("other", &["c", "d"]),
        fixture::cluster("main", &["a", "b"]),
    ];
    let regions = vec![
        fixture::region("r", &[("old", 0.0), ("main", 1.0)], &[]),
        fixture::region("s", &[("other", 0.0), ("main", 1.0)], &["d"]),
    ];
    let world = sighted(World::over(clusters, regions)).await;
    world.stores.put(C, "key", "text", EPOCH);
    let sighting =
        world.journal.list(&Default::default(), None, 1).await.unwrap().remove(0).records.remove(0);
    let mut of_other = sighting;
    of_other.intent.object.cluster = "other".into();
    of_other.intent.what = What::Put;
    of_other.intent.id.number = 99;
    let etag = world.stores.holds(C, "key").map(|held| held.etag);
    of_other.replies = vec![(C.into(), Said::Good { etag, version: None }), (D.into(), Said::NotApplied)];
    world.journal.apply(vec![Change::Diverged(of_other)], SETTLE).await.unwrap();
    world.once().await;
    let told = world.told.lock().unwrap().clone();
    let waited = |told: &Told| told.outcome == "again" && told.why.contains("other has to agree on it first");
    assert!(told.iter().any(waited), "{told:#?}");
    assert!(world.stores.holds(C, "key").is_some());
    tokio::time::sleep(OTHERS * 2).await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((there_are(&world), world.stores.holds(D, "key")), ([true, true, false], None));
}

#[tokio::test(start_paused = true)]
async fn all_clusters_are_asked_that_a_region_looks_on() {
    let clusters = || {
        vec![
            fixture::cluster("older", &["d"]),
            fixture::cluster("old", &["c"]),
            fixture::cluster("main", &["a", "b"]),
        ]
    };
    let regions = || vec![fixture::region("r", &[("older", 0.0), ("old", 0.0), ("main", 1.0)], &[])];
    let world = sighted(World::over(clusters(), regions())).await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.put(D, "key", "text", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((there_are(&world), world.stores.holds(D, "key")), ([true, true, false], None));

    let world = sighted(World::over(clusters(), regions())).await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.put(D, "key", "other", EPOCH);
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!((world.last().outcome, there_are(&world)), ("parked", [false, false, true]));
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_unknown_outcome_is_waited_for_and_taken_back_after_a_delete() {
    for deleted in [false, true] {
        let world = world().await;
        world.stores.put(C, "key", "text", EPOCH);
        world.stores.unheard.lock().unwrap().insert(A, Unheard::Done);
        let running = tokio::spawn(world.worker(true).run());
        // Nothing is deleted while it may still happen.
        sleep(SETTLE / 2).await;
        assert_eq!(there_are(&world), [true, false, true]);
        if deleted {
            world.stores.forget(C, "key");
            let replies = [B, C].map(|backend| (backend, Said::Good { etag: None, version: None }));
            world.record("key", What::Delete, &replies).await;
        }
        running.await.unwrap().unwrap();
        world.ahead.fetch_add(10 * SETTLE.as_millis() as i64, Relaxed);
        assert_eq!(world.once().await, Ended::Done { left: false });
        assert_eq!(there_are(&world), if deleted { [false; 3] } else { [true, true, false] });
    }
}

//! Whole moves over backends in memory.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::time::sleep;

use super::{
    super::{
        fixture::{A, B, C, EPOCH, SETTLE, Unheard, World},
        job::Told,
        repair::tests::{After, counted},
        worker::Ended,
    },
    *,
};
use crate::{
    journal::{Counts, Journal, Said, Wanted, What},
    topology::fixture,
};

mod belongings;

const D: &str = "http://d:80";

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
    world.tell(of_old).await;
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
    world.tell(of_other).await;
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

/// A DELETE that overtakes a copy while its end is waited for.
async fn overtake(world: &World) {
    sleep(SETTLE / 2).await;
    world.stores.forget(C, "key");
    let replies = [B, C].map(|backend| (backend, Said::Good { etag: None, version: None }));
    world.record("key", What::Delete, &replies).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_taken_back_from_a_backend_that_answers_again() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.unheard.lock().unwrap().insert(A, Unheard::Done);
    let running = tokio::spawn(world.worker(true).run());
    overtake(&world).await;
    world.stores.set_away(A, true);
    sleep(SETTLE / 2 + Duration::from_secs(10)).await;
    assert_eq!(there_are(&world), [true, false, false]);
    world.stores.set_away(A, false);
    running.await.unwrap().unwrap();
    assert_eq!(there_are(&world), [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_taken_back_once_the_journal_answers_again() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.unheard.lock().unwrap().insert(A, Unheard::Done);
    let journal = Arc::new(counted(&world));
    let mut worker = world.worker(true);
    Arc::get_mut(&mut worker.shop).unwrap().journal = journal.clone();
    let running = tokio::spawn(worker.run());
    overtake(&world).await;
    journal.away.store(true, Relaxed);
    sleep(SETTLE / 2 + Duration::from_secs(10)).await;
    assert_eq!(there_are(&world), [true, false, false]);
    journal.away.store(false, Relaxed);
    running.await.unwrap().unwrap();
    assert_eq!(there_are(&world), [false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_unknown_outcome_is_waited_for_though_what_it_was_for_is_gone() {
    for (unheard, least) in [(None, Duration::ZERO), (Some(Unheard::Done), SETTLE)] {
        let world = world().await;
        world.stores.put(C, "key", "text", EPOCH);
        world.stores.slow.store(1_000, Relaxed);
        let running = tokio::spawn(world.worker(false).run());
        // A copy has arrived, and is taken back.
        while world.stores.holds(A, "key").is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        world.stores.forget(C, "key");
        let replies = [A, B].map(|backend| (backend, Said::Good { etag: None, version: None }));
        world.record("key", What::Delete, &replies).await;
        world.stores.unheard.lock().unwrap().extend(unheard.map(|unheard| (A, unheard)));
        while world.outcomes().is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        world.stop.send_replace(true);
        running.await.unwrap().unwrap();
        let told = world.told.lock().unwrap()[0].clone();
        assert_eq!((told.outcome, there_are(&world)[0]), ("again", false), "{told:?}");
        assert!(told.pause.unwrap() >= least, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bytes_tell_whether_what_is_there_is_the_copy_of_unknown_outcome() {
    let world = world().await;
    let text = |etag: &str| Held { etag: etag.into(), md5: None, ..world.stores.holds(C, "key").unwrap() };
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.unheard.lock().unwrap().insert(A, Unheard::NotDone);
    let running = tokio::spawn(world.worker(true).run());
    sleep(SETTLE / 2).await;
    let other = text("other");
    world.stores.forget(C, "key");
    world.stores.keep(A, "key", other);
    world.stores.bytes.lock().unwrap().insert("other", [7; 16]);
    let replies = [B, C].map(|backend| (backend, Said::Good { etag: None, version: None }));
    world.record("key", What::Delete, &replies).await;
    running.await.unwrap().unwrap();
    assert!(world.stores.holds(A, "key").is_some(), "{:?}", world.last());
}

#[tokio::test(start_paused = true)]
async fn home_and_lease_are_looked_at_behind_all_others() {
    let world = world().await;
    let case = world.journal.list(&Default::default(), None, 1).await.unwrap().remove(0);
    let journal = counted(&world);
    let (lease, seen) = (After(&journal, 2), case.ids());
    let home = Undisturbed { journal: &journal, gate: &lease, object: &case.object, seen: &seen };
    let others = [Object { cluster: "old".into(), ..case.object.clone() }];
    assert!(Quiet { home, others: &others }.may_go_on().await);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_copy_of_unknown_outcome_keeps_nobody_from_moving() {
    let mut world = world().await;
    world.concurrency = 1;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.unheard.lock().unwrap().insert(A, Unheard::NotDone);
    let running = tokio::spawn(world.worker(true).run());
    sleep(SETTLE / 4).await;
    assert_eq!(world.stores.holds(A, "key"), None);
    // More than are leased ahead of those that are repaired.
    for number in 0..10 {
        let key = format!("other{number}");
        world.stores.put(C, &key, "text", EPOCH);
        let absent = [A, B].map(|backend| (backend, Said::NotApplied));
        world.record(&key, What::Misplaced("old".into()), &absent).await;
    }
    sleep(SETTLE / 4).await;
    assert_eq!(world.outcomes(), ["resolved"; 10]);
    let counts = world.journal.counts().await.unwrap();
    assert_eq!((counts.leased, counts.open), (1, 1), "it is still waited for");
    assert_eq!(there_are(&world), [false, false, true]);
    assert_eq!(running.await.unwrap(), Ok(Ended::Done { left: true }));
    assert_eq!(world.last().outcome, "failed");
    sleep(SETTLE).await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [true, true, false]);
    assert_eq!(world.journal.counts().await.unwrap(), Counts { resolved: 11, ..Counts::default() });
}

#[tokio::test(start_paused = true)]
async fn what_was_written_since_is_not_taken_back_with_a_copy() {
    let world = world().await;
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.unheard.lock().unwrap().insert(A, Unheard::Done);
    let running = tokio::spawn(world.worker(true).run());
    sleep(SETTLE / 2).await;
    world.stores.forget(C, "key");
    world.stores.forget(A, "key");
    let good = |backend| (backend, Said::Good { etag: None, version: None });
    world.record("key", What::Delete, &[A, B, C].map(good)).await;
    // Answers take long enough for a client to write the same while the copy is looked for.
    world.stores.slow.store(10_000, Relaxed);
    sleep(SETTLE / 2 + Duration::from_secs(5)).await;
    world.stores.put(A, "key", "text", EPOCH + 150_000);
    world.record("key", What::Put, &[good(A), (B, Said::NotApplied)]).await;
    world.stores.slow.store(0, Relaxed);
    running.await.unwrap().unwrap();
    assert!(world.stores.holds(A, "key").is_some(), "{:#?}", world.told);
}

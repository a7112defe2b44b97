//! The loop over a journal and backends in memory, with time that passes when nobody works.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::sleep;

use super::{
    super::fixture::{A, B, EPOCH, SETTLE, Unheard, World},
    *,
};
use crate::journal::{Counts, Journal, Object, Said, fixture::Behind};

fn object(key: &str) -> Object {
    Object { cluster: "main".into(), bucket: b"bucket".into(), key: key.into() }
}

/// Three times as many as are repaired at once.
async fn with_slow_objects() -> World {
    let world = World::new();
    world.stores.slow.store(2_000, Relaxed);
    for number in 0..12 {
        world.missed_by_b(&format!("key{number}")).await;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn all_that_is_due_is_repaired_and_not_too_much_at_once() {
    let world = World::new();
    for number in 0..50 {
        world.missed_by_b(&format!("key{number}")).await;
    }
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(world.outcomes(), ["resolved"; 50]);
    assert_eq!(world.last().changed, 1);
    assert_eq!(world.journal.counts().await.unwrap(), Counts { resolved: 50, ..Counts::default() });
    for number in 0..50 {
        assert!(world.stores.holds(B, &format!("key{number}")).is_some());
    }
    // Three to each of the two backends, a copy counts once.
    let most = world.stores.most_at_once.load(Relaxed);
    assert!((2..=6).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_is_left_alone_and_its_objects_wait_for_it() {
    let world = World::new();
    world.stores.set_away(B, true);
    for number in 0..200 {
        world.missed_by_b(&format!("key{number}")).await;
    }
    let worker = world.worker(false);
    let running = tokio::spawn(worker.run());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.journal.counts().await.unwrap().open, 200);
    // Without being left alone it would have been asked for each of them, again and again.
    let asked = world.stores.asked(B);
    assert!((5..40).contains(&asked), "{asked}");
    assert!(world.outcomes().contains(&"postponed"));

    world.stores.set_away(B, false);
    while world.journal.counts().await.unwrap().open > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    world.stop.send_replace(true);
    assert_eq!(running.await.unwrap(), Ok(Ended::Stopped));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_later_and_later_and_dead_after_so_many_times() {
    let mut world = World::new();
    world.max_attempts = Some(3);
    world.stores.set_away(B, true);
    world.missed_by_b("key").await;
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!((world.last().outcome, world.last().attempts), ("failed", 1));
    let pause = world.last().pause.unwrap();
    assert!(Duration::from_secs(5) <= pause && pause <= Duration::from_secs(10), "{pause:?}");
    let running = tokio::spawn(world.worker(false).run());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.outcomes(), ["failed", "failed", "dead"]);
    let case = world.journal.show(&object("key")).await.unwrap().unwrap();
    assert_eq!(case.standing, Standing::Dead);
    assert!(case.reason.contains("3 tries failed, the last: http://b:80: refused"), "{}", case.reason);
    world.stop.send_replace(true);
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_no_rule_decides_is_parked() {
    let world = World::new();
    world.record("key", What::Version("DELETE".into()), &[(A, Said::Unknown)]).await;
    world.ahead.store(SETTLE.as_millis() as i64, Relaxed);
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["parked"]);
    assert_eq!(world.journal.counts().await.unwrap().parked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_repair_keeps_its_lease() {
    let mut world = World::new();
    world.hold = Duration::from_secs(3);
    world.stores.slow.store(20_000, Relaxed);
    world.missed_by_b("key").await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(world.outcomes(), ["resolved"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_repair_before_it_changes_anything() {
    let world = World::new();
    world.stores.slow.store(30_000, Relaxed);
    world.missed_by_b("key").await;
    let running = tokio::spawn(world.worker(false).run());
    sleep(Duration::from_secs(10)).await;
    // The journal's clock says that it ran out long ago.
    world.ahead.store(3_600_000, Relaxed);
    while world.outcomes().is_empty() {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.outcomes(), ["lost"]);
    assert_eq!(world.stores.holds(B, "key"), None);
    world.stop.send_replace(true);
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_lets_repairs_end_and_gives_the_rest_back() {
    let world = with_slow_objects().await;
    let running = tokio::spawn(world.worker(false).run());
    sleep(Duration::from_secs(1)).await;
    world.stop.send_replace(true);
    assert_eq!(running.await.unwrap(), Ok(Ended::Stopped));
    let counts = world.journal.counts().await.unwrap();
    assert_eq!((counts.resolved, counts.open, counts.leased), (4, 8, 0));
    // At once, for the next worker.
    world.stores.slow.store(0, Relaxed);
    world.stop.send_replace(false);
    assert_eq!(world.once().await, Ended::Done { left: false });
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_given_up_and_rests_until_nothing_of_it_can_happen() {
    let world = World::new();
    world.stores.slow.store(1_000_000, Relaxed);
    world.missed_by_b("key").await;
    let running = tokio::spawn(world.worker(false).run());
    sleep(Duration::from_secs(1)).await;
    world.stop.send_replace(true);
    assert_eq!(running.await.unwrap(), Ok(Ended::Stopped));
    let case = world.journal.show(&object("key")).await.unwrap().unwrap();
    let since = EPOCH + (Duration::from_secs(1) + GRACE + SETTLE).as_millis() as i64;
    assert!((since..since + 1000).contains(&case.due), "{} {since}", case.due);
    assert_eq!(case.attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_does_not_answer_holds_the_end_up_for_so_long_and_no_longer() {
    let world = World::new();
    let journal = Arc::<Behind>::default();
    journal.held.send_replace(true);
    let mut worker = world.worker(false);
    Arc::get_mut(&mut worker.shop).unwrap().journal = journal;
    let running = tokio::spawn(worker.run());
    sleep(Duration::from_secs(1)).await;
    world.stop.send_replace(true);
    let told = Instant::now();
    assert_eq!(running.await.unwrap(), Ok(Ended::Stopped));
    assert!(told.elapsed() <= ENDING, "{:?}", told.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_paused_worker_takes_nothing_and_goes_on_when_resumed() {
    let world = World::new();
    world.paused.send_replace(true);
    world.missed_by_b("key").await;
    assert_eq!(world.once().await, Ended::Paused);
    let running = tokio::spawn(world.worker(false).run());
    sleep(Duration::from_secs(30)).await;
    assert!(world.outcomes().is_empty());
    world.paused.send_replace(false);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.outcomes(), ["resolved"]);
    world.stop.send_replace(true);
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_lets_end_what_runs_and_gives_back_what_was_only_leased() {
    let world = with_slow_objects().await;
    let running = tokio::spawn(world.worker(false).run());
    sleep(Duration::from_secs(1)).await;
    assert!(world.journal.counts().await.unwrap().leased > 4, "more are leased than are repaired at once");
    world.paused.send_replace(true);
    sleep(Duration::from_secs(60)).await;
    let counts = world.journal.counts().await.unwrap();
    assert_eq!((counts.resolved, counts.open, counts.leased), (4, 8, 0));
    // For another worker, at once.
    let case = &world.journal.list(&Filter::default(), None, 1).await.unwrap()[0];
    assert!(case.due <= EPOCH + 2_000, "{}", case.due);
    assert_eq!(case.attempts, 0);

    world.paused.send_replace(false);
    while world.journal.counts().await.unwrap().open > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    world.stop.send_replace(true);
    assert_eq!(running.await.unwrap(), Ok(Ended::Stopped));
}

#[tokio::test(start_paused = true)]
async fn clusters_without_credentials_wait_with_the_reason() {
    let world = World::new().without_credentials(80);
    world.missed_by_b("key").await;
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["postponed"]);
    assert!(world.last().why.contains("no credentials"), "{}", world.last().why);
    assert_eq!(world.stores.asked(A), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sighting_outlives_the_repair_of_its_object() {
    let mut world = World::new();
    world.missed_by_b("key").await;
    world.record("key", What::Misplaced("old".into()), &[]).await;
    world.ahead.store(SETTLE.as_millis() as i64, Relaxed);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(world.outcomes(), ["resolved"]);
    let case = world.journal.show(&object("key")).await.unwrap().unwrap();
    assert_eq!(case.records.len(), 1);
    world.wanted = Wanted::Misplaced;
    world.ahead.store(2 * SETTLE.as_millis() as i64, Relaxed);
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(world.journal.show(&object("key")).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_a_backend_refuses_is_parked_and_the_others_are_repaired() {
    let world = World::new();
    for number in 0..40 {
        world.missed_by_b(&format!("key{number}")).await;
    }
    world.stores.refused.lock().unwrap().insert((B, "key20"));
    world.stores.denied.lock().unwrap().insert((B, "key30"));
    world.once().await;
    let parked = ["key20", "key30"];
    for (key, why) in parked.iter().zip(["http://b:80: 403 to HEAD", "http://b:80: 403 to PUT"]) {
        let case = world.journal.show(&object(key)).await.unwrap().unwrap();
        assert_eq!((case.standing, case.reason.as_str()), (Standing::Parked, why));
    }
    let counts = world.journal.counts().await.unwrap();
    assert_eq!((counts.resolved, counts.parked, counts.open), (38, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_everything_is_left_alone_and_no_object_is_parked() {
    for (is_asking, said) in [(true, "403 to HEAD"), (false, "403 to PUT")] {
        let world = World::new();
        for number in 0..100 {
            world.missed_by_b(&format!("key{number}")).await;
            // That it may be read says nothing of changes.
            if number % 2 == 0 {
                world.missed(&format!("other{number}"), B, A).await;
            }
        }
        let refuses = if is_asking { &world.stores.refused } else { &world.stores.denied };
        refuses.lock().unwrap().insert((B, ""));
        let running = tokio::spawn(world.worker(false).run());
        sleep(Duration::from_secs(300)).await;
        let counts = world.journal.counts().await.unwrap();
        assert_eq!((counts.parked, counts.dead), (0, 0), "{said}");
        assert!(counts.open >= 100, "{said}: {counts:?}");
        let told = world.told.lock().unwrap().clone();
        let failed = told.iter().filter(|told| told.outcome == "failed").count();
        assert!((1..60).contains(&failed), "{said}: {failed} tries");
        let why = format!("credentials of main are refused by http://b:80: {said}");
        assert!(told.iter().any(|told| told.outcome == "postponed" && told.why.contains(&why)), "{told:#?}");

        refuses.lock().unwrap().clear();
        while world.journal.counts().await.unwrap().open > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(world.journal.counts().await.unwrap().resolved, 150, "{said}");
        world.stop.send_replace(true);
        running.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_unknown_outcome_is_a_failed_try_and_looked_for_after_settle() {
    let mut world = World::new();
    world.max_attempts = Some(3);
    world.missed_by_b("arrives").await;
    world.stores.unheard.lock().unwrap().insert(B, Unheard::Done);
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!((world.last().outcome, world.last().attempts), ("failed", 1));
    assert!(world.last().pause.unwrap() >= SETTLE);
    sleep(SETTLE * 2).await;
    // It is there, and is not copied again.
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((world.last().outcome, world.last().changed), ("resolved", 0));

    world.missed_by_b("does not").await;
    for outcome in ["failed", "failed", "dead"] {
        world.stores.unheard.lock().unwrap().insert(B, Unheard::NotDone);
        world.once().await;
        assert_eq!(world.last().outcome, outcome);
        sleep(SETTLE * 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_loses_metadata_is_for_a_human() {
    let world = World::new();
    world.missed_by_b("key").await;
    let mut held = world.stores.holds(A, "key").unwrap();
    held.metadata = vec![("x-amz-meta-foo".into(), "1".into())];
    world.stores.keep(A, "key", held);
    world.stores.keeps_no_metadata.store(true, Relaxed);
    assert_eq!(world.once().await, Ended::Done { left: true });
    let why = "http://b:80 does not keep metadata x-amz-meta-foo";
    assert_eq!((world.last().outcome, world.last().why.as_str()), ("parked", why));
}

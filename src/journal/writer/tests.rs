//! The way into the journal in memory, which is away when a test says so.

use futures_util::FutureExt;
use pingora_prometheus::prometheus::IntCounter;
use tokio::task::yield_now;

use super::*;
use crate::journal::{
    Filter, Memory, Record, Wanted,
    fixture::{self, Behind, until},
    system_clock,
};

fn gateway() -> (Arc<Writer>, Arc<Behind>, tempfile::TempDir) {
    gateway_with(Arc::default())
}

/// One that has these writes under way.
fn gateway_with(live: Arc<Live>) -> (Arc<Writer>, Arc<Behind>, tempfile::TempDir) {
    let behind = Arc::<Behind>::default();
    let folder = tempfile::tempdir().unwrap();
    let doubts = behind.doubts.clone();
    let doubting = move || _ = doubts.fetch_add(1, Relaxed);
    let mut writer = behind.writer(folder.path()).when_replaced(doubting).telling_again(live);
    // Of this one alone.
    let counter = || IntCounter::new("changes", "of a test").unwrap();
    (writer.metrics.settled, writer.metrics.diverged) = (counter(), counter());
    let writer = Arc::new(writer);
    let running = writer.clone();
    tokio::spawn(async move { running.run().await });
    (writer, behind, folder)
}

fn intent(writer: &Writer, key: &str) -> Arc<Intent> {
    Arc::new(Intent { id: writer.next_id(), strong: true, ..fixture::intent(key, 0) })
}

#[tokio::test]
async fn those_that_come_together_go_together() {
    let (writer, behind, _folder) = gateway();
    writer.known().await;
    until("the journal", async || writer.is_available()).await;
    let all = (0..100).map(|number| {
        let writer = writer.clone();
        async move { writer.begin(&[intent(&writer, &number.to_string())]).await }
    });
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(behind.counts().await.unwrap().intents, 100);
    assert!(behind.taken.load(Relaxed) < 10, "{behind}", behind = behind.taken.load(Relaxed));
    // One that nobody waits for ends before it is there.
    let short = intent(&writer, "short");
    assert!(writer.begin_soon(std::slice::from_ref(&short)));
    assert_eq!(writer.end(Change::Void(short.id), true, false), 0);
    writer.leave(Duration::from_secs(5)).await;
    assert_eq!(behind.counts().await.unwrap().intents, 0, "what was left became records");
    assert_eq!(behind.counts().await.unwrap().open, 100);
}

#[tokio::test]
async fn an_intent_is_shared_on_its_way_and_belongs_to_its_write_alone_from_then_on() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    behind.held.send_replace(true);
    let intents = [intent(&writer, "k")];
    let mut begun = std::pin::pin!(writer.begin(&intents));
    tokio::select! {
        biased;
        _ = &mut begun => panic!("it was held"),
        () = behind.until_came(1) => {}
    }
    assert!(Arc::strong_count(&intents[0]) > 1, "it was copied");
    behind.held.send_replace(false);
    begun.await.unwrap();
    assert_eq!(Arc::strong_count(&intents[0]), 1, "its record would be a copy");
}

#[tokio::test]
async fn what_comes_soon_after_a_batch_gathers() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    // Where the machine is busy, the rest may be over before the second comes.
    until("two that go together", async || {
        writer.begin(&[intent(&writer, "first")]).await.unwrap();
        let before = behind.taken.load(Relaxed);
        let (one, other) = ([intent(&writer, "one")], [intent(&writer, "other")]);
        let late = async {
            for _ in 0..10 {
                yield_now().await;
            }
            writer.begin(&other).await
        };
        let (one, other) = tokio::join!(writer.begin(&one), late);
        assert!(one.is_ok() && other.is_ok());
        behind.taken.load(Relaxed) == before + 1
    })
    .await;
}

#[tokio::test]
async fn a_rest_is_as_long_as_the_batch_took_but_not_long() {
    let rest = Rest::new();
    assert!(rest.after(Duration::ZERO).now_or_never().is_some());
    for (took, least) in [(300, 300), (60_000_000, 1000)] {
        let start = Instant::now();
        rest.after(Duration::from_micros(took)).await;
        let rested = start.elapsed();
        assert!(rested >= Duration::from_micros(least) && rested < Duration::from_secs(30), "{rested:?}");
    }
}

#[tokio::test]
async fn while_the_journal_is_away_writes_are_refused_and_records_wait() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    let under_way = intent(&writer, "under way");
    writer.begin(std::slice::from_ref(&under_way)).await.unwrap();
    behind.deaf.store(true, Relaxed);
    let refused = intent(&writer, "refused");
    assert_eq!(writer.begin(&[refused]).await, Err(Refused));
    behind.deaf.store(false, Relaxed);
    behind.away.store(true, Relaxed);
    assert_eq!(writer.begin(&[intent(&writer, "refused at once")]).await, Err(Refused));
    assert!(!writer.begin_soon(&[intent(&writer, "soon")]));
    let until_there =
        writer.end(Change::Diverged(Record::orphaned(Arc::unwrap_or_clone(under_way), 1)), true, false);
    assert!(writer.taken_up_to() < until_there);
    behind.away.store(false, Relaxed);
    until("what waited", async || writer.taken_up_to() >= until_there).await;
    assert!(writer.is_available());
    let counts = behind.counts().await.unwrap();
    assert_eq!((counts.open, counts.intents), (1, 0), "the refused one was withdrawn");
}

#[tokio::test]
async fn a_write_that_waits_no_longer_leaves_no_intent() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    for wait in 0..20 {
        let intents = [intent(&writer, "gone")];
        timeout(Duration::from_millis(wait), writer.begin(&intents)).await.map_or_else(drop, |begun| {
            begun.unwrap();
            writer.end(Change::Void(intents[0].id), true, false);
        });
    }
    until("nothing to be left", async || {
        writer.queue().waiting.is_empty() && behind.counts().await.unwrap().intents == 0
    })
    .await;
}

#[tokio::test]
async fn who_was_taken_for_dead_goes_on_and_knows_which_writes_are_records() {
    let (writer, behind, folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    let begun = intent(&writer, "k");
    writer.begin(std::slice::from_ref(&begun)).await.unwrap();
    assert!(!writer.was_taken_for_dead(begun.id));
    behind.leave(&writer.itself(writer.enrolment()), Duration::ZERO).await.unwrap();
    let engine = writer.engine().unwrap().clone();
    writer.is_alive(&engine, writer.enrolment()).await.unwrap();
    let next = writer.next_id();
    assert!(writer.was_taken_for_dead(begun.id) && !writer.was_taken_for_dead(next));
    assert_eq!(next.gateway, begun.id.gateway);
    assert_eq!(std::fs::read_dir(folder.path().join("gateways")).unwrap().count(), 1);
}

/// Others take it for dead, and a worker resolves what it has left.
async fn die(behind: &Behind) {
    let memory = behind.memory();
    memory.adopt(Duration::ZERO, Duration::ZERO).await.unwrap();
    let leases = memory.lease("worker", Wanted::Diverged, 9, INTENT, INTENT).await.unwrap();
    for (lease, case) in leases {
        memory.resolve(&lease, &case.ids(), &[]).await.unwrap();
    }
    let counts = memory.counts().await.unwrap();
    assert_eq!((counts.open, counts.intents), (0, 0));
}

/// What it tells is the first that the journal hears of it, or a sign of life was whose answer was lost.
#[tokio::test]
async fn what_settled_before_it_learnt_that_it_was_taken_for_dead_is_a_record() {
    for is_answer_lost in [false, true] {
        let (writer, behind, _folder) = gateway();
        until("the journal", async || writer.is_available()).await;
        let settled = intent(&writer, "k");
        writer.begin(std::slice::from_ref(&settled)).await.unwrap();
        die(&behind).await;
        if is_answer_lost {
            behind.memory().alive(&writer.itself(writer.enrolment())).await.unwrap();
        }
        let record = Record::orphaned(Intent::clone(&settled), 1);
        let until_there = writer.end(Change::Settled(record), true, false);
        // It need not be refused.
        writer.begin(&[intent(&writer, "next")]).await.unwrap();
        until("its end", async || writer.taken_up_to() >= until_there).await;
        assert!(writer.was_taken_for_dead(settled.id));
        let counts = behind.counts().await.unwrap();
        assert_eq!((counts.open, counts.intents), (1, 1));
        assert_eq!((writer.metrics.settled.get(), writer.metrics.diverged.get()), (0, 1));
        assert_eq!(behind.doubts.load(Relaxed), 0, "it is the same journal");
    }
}

#[tokio::test]
async fn what_is_under_way_is_told_again_when_the_journal_may_have_lost_it() {
    for is_replaced in [false, true] {
        let live = Arc::<Live>::default();
        let (writer, behind, _folder) = gateway_with(live.clone());
        until("the journal", async || writer.is_available()).await;
        let begun = intent(&writer, "k");
        writer.begin(std::slice::from_ref(&begun)).await.unwrap();
        live.enter(&begun, true);
        match is_replaced {
            true => *behind.memory.lock().unwrap() = Arc::new(Memory::new(system_clock())),
            false => die(&behind).await,
        }
        writer.is_alive(&writer.engine().unwrap().clone(), writer.enrolment()).await.unwrap();
        until("its intent", async || behind.counts().await.unwrap().intents == 1).await;
        live.claim(&begun.object, begun.id);
        let ended = Record::orphaned(Intent::clone(&begun), 1);
        writer.end(Change::Settled(ended), true, false);
        until("its end", async || behind.counts().await.unwrap().open == 1).await;
        assert_eq!(behind.counts().await.unwrap().intents, 0);
    }
}

/// A new journal in place of the old one, in which another gateway may have the process's number.
#[tokio::test]
async fn a_journal_that_was_replaced_is_told_under_a_new_number() {
    for others in [0, 1] {
        let (writer, behind, folder) = gateway();
        until("the journal", async || writer.is_available()).await;
        let under_way = intent(&writer, "under way");
        writer.begin(std::slice::from_ref(&under_way)).await.unwrap();
        let replacement = Arc::new(Memory::new(system_clock()));
        for _ in 0..others {
            assert_eq!(replacement.enrol("another").await.unwrap(), writer.gateway());
        }
        *behind.memory.lock().unwrap() = replacement.clone();

        assert_eq!(writer.begin(&[intent(&writer, "refused")]).await, Err(Refused));
        let waits = intent(&writer, "waits");
        let record = |intent: &Arc<Intent>| Record::orphaned(Intent::clone(intent), 1);
        writer.end(Change::Diverged(record(&waits)), false, true);
        until("a new number", async || writer.is_available() && writer.queue().waiting.is_empty()).await;
        assert_eq!((writer.gateway(), behind.doubts.load(Relaxed)), (others + 1, 1));
        assert!(writer.was_taken_for_dead(under_way.id), "its end is told as a record");
        let until_there = writer.end(Change::Diverged(record(&under_way)), true, true);
        writer.begin(&[intent(&writer, "next")]).await.unwrap();
        assert!(writer.taken_up_to() >= until_there);

        let known = replacement.list(&Filter::default(), None, 10).await.unwrap();
        let names = known.iter().flat_map(|case| &case.records).map(Record::id);
        let expected = |intent: &Intent| WriteId { gateway: others + 1, number: intent.id.number };
        let names: std::collections::BTreeSet<WriteId> = names.collect();
        assert_eq!(names, [expected(&waits), expected(&under_way)].into());
        assert_eq!(replacement.counts().await.unwrap().intents, 1, "the refused one was withdrawn");
        let files: Vec<_> = std::fs::read_dir(folder.path().join("gateways")).unwrap().collect();
        assert_eq!(files.len(), 1);
    }
}

/// It hears of it by its sign of life, where it has nothing to tell.
#[tokio::test]
async fn a_gateway_that_has_nothing_to_tell_enrols_in_a_replaced_journal_too() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    let replacement = Arc::new(Memory::new(system_clock()));
    replacement.enrol("another").await.unwrap();
    *behind.memory.lock().unwrap() = replacement.clone();
    let engine = writer.engine().unwrap().clone();
    let before = writer.metrics.replaced.get();
    writer.is_alive(&engine, writer.enrolment()).await.unwrap();
    assert!(writer.metrics.replaced.get() > before, "it is counted");
    until("a new number", async || writer.is_available()).await;
    assert_eq!((writer.gateway(), behind.doubts.load(Relaxed)), (2, 1));
    writer.begin(&[intent(&writer, "k")]).await.unwrap();
    assert_eq!(replacement.counts().await.unwrap().intents, 1);
}

/// The intents beside which it would be kept are gone with the old journal.
#[tokio::test]
async fn what_settled_and_waits_when_the_journal_is_replaced_becomes_a_record() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    let settled = intent(&writer, "k");
    writer.begin(std::slice::from_ref(&settled)).await.unwrap();
    *behind.memory.lock().unwrap() = Arc::new(Memory::new(system_clock()));
    writer.end(Change::Settled(Record::orphaned(Intent::clone(&settled), 1)), true, true);
    until("it is told", async || writer.is_available() && writer.queue().waiting.is_empty()).await;
    assert_eq!(behind.memory().counts().await.unwrap().open, 1);
    assert_eq!((writer.gateway(), behind.doubts.load(Relaxed)), (1, 1), "the number is the same once more");
}

#[tokio::test]
async fn a_journal_that_is_another_again_and_again_is_enrolled_in_now_and_then() {
    let (writer, behind, _folder) = gateway();
    until("the journal", async || writer.is_available()).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        *behind.memory.lock().unwrap() = Arc::new(Memory::new(system_clock()));
        // As long as it is not enrolled there it is refused.
        writer.begin(&[intent(&writer, "k")]).await.unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // After 0.1 s, 0.2 s, and so on.
    assert!((2..=8).contains(&behind.doubts.load(Relaxed)), "{:?}", behind.doubts);
}

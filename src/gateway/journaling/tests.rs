use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt;
use http::HeaderMap;

use super::{lagging::Word, *};
use crate::{
    config::RegionConfig,
    journal::{
        Change, Enrolled, Journal, Wanted,
        fixture::{self, Behind, until},
    },
    s3::request::classify,
    topology::{Topology, fixture as placed},
    upstream::Framing,
};

/// A PUT to an object in a region that asks for this.
fn put(consistency: Consistency) -> Route {
    let region = RegionConfig { consistency, ..placed::region("r", &[("c", 1.0)], &[]) };
    let config = placed::config(vec![placed::cluster("c", &["a", "b"])], vec![region]);
    let region = Topology::new(&config).regions[0].clone();
    let style = region.virtual_host_style;
    let request = classify(&Method::PUT, b"/b/k", &HeaderMap::new(), None, style).unwrap();
    Route { region, request, framing: Framing::Length(5), object_length: Some(5) }
}

/// When its request is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dropped {
    /// Its intent waits for another batch to be through.
    InTheQueue,
    OnItsWay,
}

#[tokio::test]
async fn a_write_that_is_dropped_while_it_waits_for_its_intent_leaves_nothing() {
    for consistency in [Consistency::None, Consistency::Weak, Consistency::Strong] {
        for dropped in [Dropped::InTheQueue, Dropped::OnItsWay] {
            drop_in_the_middle(consistency, dropped).await;
        }
    }
}

/// Of an earlier process: every write to its object waits, whatever its region asks for.
async fn record_before(behind: &Behind) -> Intent {
    let mut earlier = fixture::intent("k", 1);
    earlier.id.gateway = behind.memory().enrol("host").await.unwrap();
    let gateway = Enrolled { number: earlier.id.gateway, name: "host".into(), deaths: 0 };
    let record = Change::Diverged(Record::orphaned(earlier.clone(), 0));
    behind.memory().apply(&gateway, vec![record], Duration::ZERO).await.unwrap();
    earlier
}

async fn drop_in_the_middle(consistency: Consistency, dropped: Dropped) {
    let of = format!("{consistency:?}, {dropped:?}");
    let behind = Arc::<Behind>::default();
    let Intent { id, object, .. } = record_before(&behind).await;
    let folder = tempfile::tempdir().unwrap();
    let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
    journaling.clone().start().await;
    assert!(journaling.writer.is_available() && journaling.overview.may_have_records(&object));

    let route = put(consistency);
    let writing = Writing::new(&route, &Method::PUT, "id", &route.region.clusters);
    behind.held.send_replace(true);
    match dropped {
        Dropped::InTheQueue => {
            let other = Intent { id: journaling.writer.next_id(), ..fixture::intent("other", 0) };
            assert!(journaling.writer.begin_soon(&[Arc::new(other)]));
            behind.until_came(1).await;
            assert!(journaling.begin(&writing).now_or_never().is_none(), "{of}: it did not wait");
        }
        Dropped::OnItsWay => tokio::select! {
            biased;
            _ = journaling.begin(&writing) => panic!("{of}: it did not wait"),
            () = behind.until_came(1) => {}
        },
    }
    behind.held.send_replace(false);
    // An intent that is left becomes a record.
    journaling.writer.leave(Duration::from_secs(30)).await;
    let case = behind.memory().show(&object).await.unwrap().unwrap();
    let records: Vec<_> = case.records.iter().map(Record::id).collect();
    assert_eq!((records, case.under_way), (vec![id], 0), "{of}");
}

/// What the journal does while a write begins.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Away,
    /// It does not take the intent for longer than the write waits.
    Slow,
    /// It takes it, and says that it failed.
    Deaf,
}

#[tokio::test]
async fn a_record_comes_after_the_intent_of_what_began_while_the_journal_was_in_trouble() {
    for (trouble, is_known) in
        [(Trouble::Away, false), (Trouble::Away, true), (Trouble::Slow, true), (Trouble::Deaf, true)]
    {
        let of = format!("{trouble:?}, known: {is_known}");
        let behind = Arc::<Behind>::default();
        if is_known {
            record_before(&behind).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
        journaling.clone().start().await;
        let next = |key| Arc::new(Intent { id: journaling.writer.next_id(), ..fixture::intent(key, 0) });
        match trouble {
            Trouble::Away => {
                behind.away.store(true, Relaxed);
                journaling.writer.begin(&[next("other")]).await.unwrap_err();
            }
            Trouble::Slow => _ = behind.held.send_replace(true),
            Trouble::Deaf => behind.deaf.store(true, Relaxed),
        }
        let route = put(Consistency::Weak);
        let writing = Writing::new(&route, &Method::PUT, "id", &route.region.clusters);
        let begun = journaling.begin(&writing).await.unwrap();
        behind.away.store(false, Relaxed);
        behind.deaf.store(false, Relaxed);
        behind.held.send_replace(false);
        let newer = Intent::clone(&next("k"));
        let (id, object) = (newer.id, newer.object.clone());
        until("the journal", async || journaling.writer.is_available()).await;
        journaling.overview.note(&Record::orphaned(newer, 1), false, &journaling.writer);
        let case = async || behind.memory().show(&object).await.unwrap();
        let has_come = async || case().await.is_some_and(|case| case.ids().contains(&id));
        until("the record", has_come).await;
        assert_eq!(case().await.unwrap().under_way, 1, "{of}");
        drop(begun);
        until("its end", async || case().await.unwrap().under_way == 0).await;
        assert_eq!(case().await.unwrap().records.len(), 2 + usize::from(is_known), "{of}");
    }
}

/// The journal's word that it has nothing may be older than what this gateway has told it, and the last.
#[tokio::test]
async fn what_came_and_went_between_two_looks_is_not_remembered() {
    let behind = Arc::<Behind>::default();
    let folder = tempfile::tempdir().unwrap();
    let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
    journaling.clone().start().await;
    behind.silent.send_replace(true);
    behind.until_asked(1).await;
    let intent = Intent { id: journaling.writer.next_id(), ..fixture::intent("k", 0) };
    journaling.overview.note(&Record::orphaned(intent, 1), false, &journaling.writer);
    let memory = behind.memory();
    until("the record", async || memory.counts().await.unwrap().open == 1).await;
    let leases = memory.lease("worker", Wanted::Diverged, 1, SEEN, SEEN).await.unwrap();
    memory.resolve(&leases[0].0, &leases[0].1.ids(), &[]).await.unwrap();
    assert_eq!(memory.counts().await.unwrap().open, 0);
    assert!(!journaling.overview.remembered.is_empty());
    behind.silent.send_replace(false);
    until("it to be forgotten", async || journaling.overview.remembered.is_empty()).await;
}

#[tokio::test]
async fn while_all_is_read_again_anything_may_have_records() {
    let behind = Arc::<Behind>::default();
    let folder = tempfile::tempdir().unwrap();
    let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
    let object = fixture::intent("k", 0).object;
    let is_whole = || !journaling.overview.may_have_records(&object);
    behind.silent.send_replace(true);
    let starting = tokio::spawn(journaling.clone().start());
    // What changed while it was read is not here yet.
    behind.until_asked(1).await;
    assert!(!is_whole());
    behind.silent.send_replace(false);
    starting.await.unwrap();
    assert!(is_whole());
    behind.hidden.send_replace(true);
    behind.is_confused.store(true, Relaxed);
    until("a doubt", async || !is_whole()).await;
    assert!(journaling.overview.untold.load(Relaxed), "it may be in an earlier state");
    record_before(&behind).await;
    behind.hidden.send_replace(false);
    until("all of it", async || journaling.overview.remembered.is_whole()).await;
    assert!(journaling.overview.may_have_records(&object));
}

#[tokio::test]
async fn a_journal_that_was_replaced_is_read_again_though_the_number_is_the_same() {
    let behind = Arc::<Behind>::default();
    let folder = tempfile::tempdir().unwrap();
    let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
    journaling.clone().start().await;
    let number = journaling.writer.gateway();
    *behind.memory.lock().unwrap() = Arc::new(crate::journal::Memory::new(crate::journal::system_clock()));
    let intent = Intent { id: journaling.writer.next_id(), ..fixture::intent("other", 0) };
    // Refused, unless a sign of life was the first to find it out.
    journaling.writer.begin(&[Arc::new(intent)]).await.ok();
    let start = Instant::now();
    while !journaling.overview.remembered.is_whole() || !journaling.writer.is_available() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(journaling.writer.gateway(), number);
}

#[tokio::test]
async fn what_settles_beside_a_write_that_the_old_journal_was_told_of_is_kept() {
    for is_replaced in [false, true] {
        let behind = Arc::<Behind>::default();
        let folder = tempfile::tempdir().unwrap();
        let journaling = Arc::new(Journaling::with(behind.writer(folder.path()), 10));
        journaling.clone().start().await;
        let next =
            || Arc::new(Intent { id: journaling.writer.next_id(), strong: true, ..fixture::intent("k", 0) });
        let end = |intent: &Arc<Intent>, commit, outcome| {
            let record = Record { commit: Some(commit), ..Record::orphaned(Intent::clone(intent), 1) };
            let orphaned = journaling.writer.was_taken_for_dead(intent.id);
            let ended = Ended {
                record,
                outcome,
                orphaned,
                contested: journaling.overview.may_have_records(&intent.object),
            };
            journaling.overview.end(ended, &journaling.writer);
        };
        let old = next();
        journaling.writer.begin(std::slice::from_ref(&old)).await.unwrap();
        journaling.overview.begin(&old, true, &journaling.writer);
        if is_replaced {
            let replacement = Arc::new(crate::journal::Memory::new(crate::journal::system_clock()));
            replacement.enrol("another").await.unwrap();
            *behind.memory.lock().unwrap() = replacement;
            journaling.writer.begin(&[next()]).await.ok();
            let start = Instant::now();
            while !journaling.writer.is_available() || journaling.writer.gateway() != 2 {
                assert!(start.elapsed() < Duration::from_secs(10), "it does not enrol again");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let newer = next();
        journaling.writer.begin(std::slice::from_ref(&newer)).await.unwrap();
        journaling.overview.begin(&newer, true, &journaling.writer);
        end(&newer, 2, Outcome::Settled);
        tokio::time::sleep(Duration::from_millis(200)).await;
        end(&old, 1, Outcome::Diverged);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let case = behind.memory().show(&old.object).await.unwrap().unwrap();
        assert_eq!(case.records.len(), 2, "replaced: {is_replaced}");
    }
}

/// What the journal says of the object "k" on cluster "c" where a backend has missed a write to it.
async fn word_of_missed(journaling: &Journaling) -> Word {
    let target = Target::Object { bucket: b"b".to_vec(), key: b"k".to_vec() };
    journaling.word(&target, &Cluster { name: "c".into(), backends: Vec::new() }, true).await
}

/// A write that backends of "c" missed, up to where it is told; `room` = objects that are remembered.
async fn missed(behind: &Arc<Behind>, folder: &Path, room: usize) -> (Arc<Journaling>, Arc<Intent>) {
    let journaling = Arc::new(Journaling::with(behind.writer(folder), room));
    journaling.clone().start().await;
    let intent = Arc::new(Intent { id: journaling.writer.next_id(), ..fixture::intent("k", 0) });
    journaling.overview.begin(&intent, false, &journaling.writer);
    (journaling, intent)
}

fn end(journaling: &Journaling, intent: &Arc<Intent>) {
    let record = Record::orphaned(Intent::clone(intent), 1);
    let ended = Ended { record, outcome: Outcome::Diverged, orphaned: false, contested: false };
    journaling.overview.end(ended, &journaling.writer);
}

async fn resolve_all(behind: &Behind) {
    let memory = behind.memory();
    until("the record", async || memory.counts().await.unwrap().open == 1).await;
    let leases = memory.lease("worker", Wanted::Diverged, 1, SEEN, SEEN).await.unwrap();
    memory.resolve(&leases[0].0, &leases[0].1.ids(), &[]).await.unwrap();
}

#[tokio::test]
async fn what_was_missed_is_repaired_when_its_record_has_come_and_gone() {
    let behind = Arc::<Behind>::default();
    let folder = tempfile::tempdir().unwrap();
    let (journaling, intent) = missed(&behind, folder.path(), 10).await;
    // Not all of it has been said yet.
    assert_eq!(word_of_missed(&journaling).await, Word::Unheard);
    end(&journaling, &intent);
    assert!(matches!(word_of_missed(&journaling).await, Word::Says(_)));
    resolve_all(&behind).await;
    until("the news", async || word_of_missed(&journaling).await == Word::Nothing).await;
    // Something was found of which no record will tell.
    journaling.overview.untold.store(true, Relaxed);
    assert_eq!(word_of_missed(&journaling).await, Word::Unheard);
}

#[tokio::test]
async fn what_the_memory_has_no_room_for_is_repaired_when_the_journal_has_taken_it_and_has_it_no_more() {
    let behind = Arc::<Behind>::default();
    let folder = tempfile::tempdir().unwrap();
    let (journaling, intent) = missed(&behind, folder.path(), 0).await;
    behind.held.send_replace(true);
    end(&journaling, &intent);
    behind.until_came(1).await;
    // It is on its way.
    assert_eq!(word_of_missed(&journaling).await, Word::Unheard);
    behind.held.send_replace(false);
    resolve_all(&behind).await;
    // For a while nobody asks.
    until("its word", async || word_of_missed(&journaling).await == Word::Nothing).await;
}

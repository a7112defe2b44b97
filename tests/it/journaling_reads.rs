//! Reads and the journal: whom they ask because of what it says, and what they tell it of what they find.

use akubra::journal::{Case, Record, What};
use tokio::time::Instant;

use crate::{
    fixture::{sync::one_cluster, *},
    journaling::{Peek, is_good, over, with_journal},
};

#[test]
fn reads_after_a_restart_go_to_who_has_the_newest_version() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "none").with_metrics().start().await;
        assert_eq!(gateway.put("/bucket/key", b"old").await.status, 200);
        a.wait_for_object("/bucket/key").await;
        b.wait_for_object("/bucket/key").await;
        a.will(Behaviour::answers(503));
        assert_eq!(gateway.put("/bucket/key", b"new").await.status, 200);
        assert_eq!(gateway.put("/bucket/fresh", b"fresh").await.status, 200);
        gateway.wait_for_records(2).await;
        a.will(Behaviour::good());
        let logs = gateway.stop().await;
        let again = gateway.again().await;
        again.scrape_until("the memory", |s| s.value("akubra_journal_remembered_objects", &[]) == 2.0).await;
        for _ in 0..10 {
            assert_eq!(again.get("/bucket/key").await.text(), "new");
            assert_eq!(again.get("/bucket/fresh").await.text(), "fresh");
        }
        // That one lacks it is known already.
        assert_eq!(again.wait_for_records(2).await.len(), logs.records.len());
    });
}

#[test]
fn what_the_memory_has_no_room_for_is_asked_for() {
    run(async {
        let (a, b) = pair().await;
        let setup = over(&[&a, &b], "none").set_yaml("Journal", "{RememberedObjects: 1}").with_metrics();
        let mut gateway = setup.start().await;
        a.will(Behaviour::answers(503));
        for key in 0..5 {
            assert_eq!(gateway.put(&format!("/bucket/{key}"), b"new").await.status, 200);
        }
        gateway.wait_for_records(5).await;
        a.will(Behaviour::good());
        gateway.stop().await;
        let again = gateway.again().await;
        again.scrape_until("the memory", |s| s.value("akubra_journal_remembered_objects", &[]) == 1.0).await;
        for key in 0..5 {
            assert_eq!(again.get(&format!("/bucket/{key}")).await.text(), "new");
        }
        let scrape = again.scrape().await;
        assert_eq!(scrape.value("akubra_journal_remembered_objects", &[]), 1.0);
        assert_eq!(scrape.value("akubra_journal_remembered_whole", &[]), 0.0);
        let asked = |outcome| scrape.value("akubra_journal_reads_asked_total", &[("outcome", outcome)]);
        assert!(asked("answered") + asked("not answered") >= 1.0);
        // Whether they have records is for the journal to say.
        assert_eq!(again.put("/bucket/4", b"newer").await.status, 200);
        assert_eq!(again.put("/bucket/5", b"other").await.status, 200);
        let journal = Peek::of(&again);
        // Where the journal was too slow to tell, a read may have found out by itself.
        let is_write = |record: &&Record| record.intent.what == What::Put;
        let writes = |cases: &[Case]| cases.iter().flat_map(|case| &case.records).filter(is_write).count();
        let cases = journal.until("six writes", |cases, _| writes(cases) == 6).await;
        assert_eq!(cases.len(), 5);
    });
}

#[test]
fn what_reads_find_is_recorded_once() {
    run(async {
        let (old, new, other) =
            (Misbehaving::start().await, Misbehaving::start().await, Misbehaving::start().await);
        old.holds("/bucket/misplaced", "hello");
        new.holds("/bucket/seen", "hello");
        let region = Region::new("grown", &[("old", 0.0), ("new", 1.0)]).default_region();
        let setup = Setup::new().cluster("old", &[&old]).cluster("new", &[&new, &other]).region(region);
        let mut gateway = with_journal(setup).start().await;
        let journal = Peek::of(&gateway);
        let read = async || {
            for key in ["misplaced", "seen"] {
                assert_eq!(gateway.get(&format!("/bucket/{key}")).await.text(), "hello");
            }
        };
        // The one that lacks it has to be asked first, which chance decides.
        let deadline = Instant::now() + DEADLINE;
        while journal.cases().await.len() < 2 {
            assert!(Instant::now() < deadline, "{:#?}", journal.cases().await);
            read().await;
        }
        let cases = journal.cases().await;
        for _ in 0..8 {
            read().await;
        }
        gateway.stop().await;
        assert_eq!(journal.cases().await, cases);
        for case in &cases {
            assert_eq!((case.object.cluster.as_str(), case.records.len()), ("new", 1), "{case:#?}");
            let record = &case.records[0];
            match &record.intent.what {
                What::Seen => {
                    assert!(is_good(record.said(&new.url())) && !is_good(record.said(&other.url())))
                }
                What::Misplaced(found_on) => assert_eq!(found_on, "old"),
                what => panic!("{what:?}"),
            }
        }
        assert_ne!(cases[0].records[0].intent.what, cases[1].records[0].intent.what);
    });
}

#[test]
fn that_a_version_or_a_sub_resource_is_missing_says_nothing_of_the_object() {
    run(async {
        for target in ["/bucket/key?versionId=v1", "/bucket/key?tagging"] {
            let (a, b) = pair().await;
            a.will(Behaviour::answers(404));
            b.will(Behaviour::answers(200));
            let mut gateway = over(&[&a, &b], "none").start().await;
            // Which one is asked first is chance.
            while a.requests().is_empty() {
                assert_eq!(gateway.get(target).await.status, 200);
            }
            let journal = Peek::of(&gateway);
            gateway.stop_in_sync().await;
            assert!(journal.cases().await.is_empty(), "{target}");
        }
    });
}

#[test]
fn who_missed_a_write_is_asked_again_once_it_is_repaired() {
    run(async {
        let (a, b) = pair().await;
        let gateway = one_cluster(&[&a, &b]).start().await;
        a.will_once_on("PUT", Behaviour::answers(503));
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.wait_for_records(1).await;
        repaired(&gateway).await;
        let reads = |backend: &Misbehaving| {
            backend.requests().iter().filter(|request| request.method == "GET").count()
        };
        let before = reads(&a);
        let asked = async {
            while reads(&a) == before {
                assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
            }
        };
        soon("a read from who was repaired", asked).await;
        // What it loses later is not taken for what it missed then.
        a.will(Behaviour::answers(404));
        let journal = Peek::of(&gateway);
        let found = async {
            while journal.cases().await.is_empty() {
                assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
            }
        };
        soon("a record of what a read did not find", found).await;
    });
}

#[test]
fn what_an_older_cluster_did_not_delete_whole_stays_deleted_after_a_restart() {
    run(async {
        for policy in ["one", "race"] {
            let (missed, deleted, new) =
                (Misbehaving::start().await, Misbehaving::start().await, Misbehaving::start().await);
            for backend in [&missed, &deleted] {
                backend.holds("/bucket/key", "hello");
            }
            let region = Region::new("grown", &[("old", 0.0), ("new", 1.0)]).default_region();
            let region = region.set("ReadPolicy", policy);
            let setup = Setup::new().cluster("old", &[&missed, &deleted]).cluster("new", &[&new]);
            let mut gateway = with_journal(setup.region(region)).with_metrics().start().await;
            missed.will_once_on("DELETE", Behaviour::answers(503));
            assert_eq!(gateway.delete("/bucket/key").await.status, 204);
            gateway.wait_for_records(1).await;
            gateway.stop().await;
            let mut again = gateway.again().await;
            again
                .scrape_until("the memory", |s| s.value("akubra_journal_remembered_objects", &[]) == 1.0)
                .await;
            for _ in 0..20 {
                assert_eq!(again.get("/bucket/key").await.status, 404, "{policy}");
            }
            again.stop().await;
            assert_eq!(Peek::of(&again).records(1).await[0].intent.what, What::Delete);
        }
    });
}

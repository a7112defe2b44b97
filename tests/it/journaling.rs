//! What the gateway tells its journal of writes: a real file, which the test reads as `akubra sync` does.

use std::{path::Path, time::Duration};

use akubra::journal::{Case, Counts, Filter, Journal, Record, Said, Sqlite, What};
use tokio::time::{Instant, sleep};

use crate::fixture::*;

/// Two backends behind a gateway with a journal.
pub fn over(backends: &[&dyn Endpoint], consistency: &str) -> Setup {
    let region = Region::new("testregion", &[("testcluster", 1.0)]).default_region();
    with_journal(Gateway::over(backends).region(region.set("Consistency", consistency)))
}

pub fn with_journal(setup: Setup) -> Setup {
    setup.set_yaml("Journal", "{}")
}

/// The journal of a gateway, as another process sees it.
pub struct Peek(Sqlite);

impl Peek {
    pub fn of(gateway: &Gateway) -> Peek {
        Peek::at(&gateway.log_file("state/journal.sqlite"))
    }

    pub fn at(file: &Path) -> Peek {
        Peek(Sqlite::open(file).unwrap())
    }

    pub async fn counts(&self) -> Counts {
        self.0.counts().await.unwrap()
    }

    pub async fn cases(&self) -> Vec<Case> {
        self.0.list(&Filter::default(), None, 100).await.unwrap()
    }

    pub async fn until(&self, what: &str, so: impl Fn(&[Case], &Counts) -> bool) -> Vec<Case> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (cases, counts) = (self.cases().await, self.counts().await);
            if so(&cases, &counts) {
                return cases;
            }
            assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}: {counts:?} {cases:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The records of the one object that it has.
    pub async fn records(&self, count: usize) -> Vec<Record> {
        let cases = self.until("the records of one object", |cases, _| {
            cases.len() == 1 && cases[0].records.len() == count
        });
        cases.await.remove(0).records
    }
}

pub fn is_good(said: &Said) -> bool {
    matches!(said, Said::Good { .. })
}

#[test]
fn a_strong_write_is_in_the_journal_before_a_backend_sees_it_and_gone_when_all_are_good() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterHead));
        let mut gateway = over(&[&a, &b], "strong").start().await;
        let journal = Peek::of(&gateway);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        a.wait_for_connections(1).await;
        assert_eq!(journal.counts().await.intents, 1);
        client.send(b"hello").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        assert_eq!(journal.counts().await.intents, 1, "one backend has still to answer");
        a.release();
        journal.until("the intent to go", |_, counts| counts.intents == 0).await;
        assert!(journal.cases().await.is_empty());
        gateway.stop_in_sync().await;
    });
}

#[test]
fn what_a_backend_missed_is_recorded_with_what_each_said_and_so_is_what_follows() {
    run(async {
        for consistency in ["none", "weak", "strong"] {
            let (a, b) = pair().await;
            a.will(Behaviour::answers(503));
            b.will(Behaviour::good().with_header("x-amz-version-id", "v7"));
            let mut gateway = over(&[&a, &b], consistency).start().await;
            let journal = Peek::of(&gateway);
            let reply = gateway.put("/bucket/a%20key", b"hello").await;
            assert_eq!(reply.status, 200);
            let record = journal.records(1).await.remove(0);
            let Said::Good { etag: Some(etag), version } = record.said(&b.url()) else {
                panic!("{record:?}")
            };
            assert!(etag.contains(&hex_md5(b"hello")) && version.as_deref() == Some("v7"), "{record:?}");
            assert_eq!(record.said(&a.url()), &Said::NotApplied);
            let intent = &record.intent;
            assert_eq!((&intent.object.bucket[..], &intent.object.key[..]), (&b"bucket"[..], &b"a key"[..]));
            assert_eq!(
                (intent.object.cluster.as_str(), intent.region.as_str()),
                ("testcluster", "testregion")
            );
            assert_eq!((&intent.what, intent.length), (&What::Put, Some(5)));
            assert_eq!((intent.strong, record.commit.is_some()), (consistency == "strong", true));
            assert_eq!(Some(intent.req_id.as_str()), reply.header("x-akubra-request-id"));
            // Nobody could tell else that it is newer.
            a.will(Behaviour::good());
            assert_eq!(gateway.put("/bucket/a%20key", b"world").await.status, 200);
            assert_eq!(gateway.put("/bucket/other", b"other").await.status, 200);
            let records = journal.records(2).await;
            assert!(records[1].replies.iter().all(|(_, said)| is_good(said)), "{records:#?}");
            assert!(records[0].commit < records[1].commit);
            gateway.stop().await;
            assert_eq!(journal.counts().await.intents, 0);
        }
    });
}

#[test]
fn a_write_that_every_backend_refuses_or_whose_client_goes_leaves_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "strong").start().await;
        let journal = Peek::of(&gateway);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        a.wait_for_connections(1).await;
        client.send(b"hel").await;
        drop(client);
        journal.until("the intent to go", |_, counts| counts.intents == 0).await;
        for backend in [&a, &b] {
            backend.will(Behaviour::answers(403));
        }
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 403);
        gateway.stop_in_sync().await;
        assert_eq!((journal.counts().await.intents, journal.cases().await.len()), (0, 0));
    });
}

#[test]
fn what_a_killed_gateway_had_begun_is_a_record_before_the_next_one_begins_anything() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        b.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = over(&[&a, &b], "strong").start().await;
        let journal = Peek::of(&gateway);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        client.send(b"hello").await;
        a.wait_for_requests(1).await;
        gateway.signal("KILL");
        gateway.exit_status().await;
        assert_eq!((journal.counts().await.intents, journal.cases().await.len()), (1, 0));
        let mut again = gateway.again().await;
        let record = journal.records(1).await.remove(0);
        assert!(record.replies.is_empty() && record.is_uncertain() && record.commit.is_none(), "{record:?}");
        assert_eq!(journal.counts().await.intents, 0);
        again.stop().await;
    });
}

#[test]
fn without_its_journal_a_gateway_refuses_strong_writes_and_no_others() {
    run(async {
        let (a, b) = pair().await;
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("blocked");
        std::fs::write(&blocked, "no directory").unwrap();
        let file = blocked.join("journal.sqlite");
        let region = |name: &str| {
            Region::new(name, &[("testcluster", 1.0)])
                .domain(&format!("{name}.test"))
                .set("Consistency", name)
        };
        let setup = ["none", "weak", "strong"]
            .into_iter()
            .fold(Gateway::over(&[&a, &b]), |setup, name| setup.region(region(name)));
        let setup = setup.set_yaml("Journal", &format!("{{SQLite: {{File: {}}}}}", file.display()));
        let mut gateway = setup.with_metrics().start().await;
        let put = async |gateway: &Gateway, region: &str, body: &[u8]| {
            gateway.request("PUT", "/bucket/key", &[("Host", &format!("{region}.test"))], body).await
        };
        let reply = put(&gateway, "strong", b"hello").await;
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains("<Code>ServiceUnavailable</Code>"), "{}", reply.text());
        assert!(a.requests().is_empty());
        assert_eq!(put(&gateway, "weak", b"hello").await.status, 200);
        a.will(Behaviour::answers(503));
        assert_eq!(put(&gateway, "none", b"hello").await.status, 200);
        gateway.wait_for_records(1).await;
        a.will(Behaviour::good());
        gateway.wait_for_log("writes are refused").await;
        let scrape = gateway.scrape().await;
        assert_eq!(scrape.value("akubra_journal_unavailable", &[]), 1.0);
        assert_eq!(scrape.value("akubra_journal_refused_writes_total", &[]), 1.0);
        std::fs::remove_file(&blocked).unwrap();
        gateway.scrape_until("the journal", |s| s.value("akubra_journal_unavailable", &[]) == 0.0).await;
        assert_eq!(put(&gateway, "strong", b"hello").await.status, 200);
        // What happened meanwhile was kept for it.
        let journal = Peek::at(&file);
        let missed = |record: &Record| *record.said(&a.url()) == Said::NotApplied;
        journal.until("it", |cases, _| cases.iter().any(|case| case.records.iter().any(missed))).await;
        gateway.stop().await;
    });
}

#[test]
fn a_delete_is_recorded_for_each_cluster_by_itself() {
    run(async {
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        let regions = [("here", 1.0), ("there", 1.0)];
        let region = Region::new("both", &regions).default_region().set("Consistency", "strong");
        let setup = Setup::new().cluster("here", &[&a]).cluster("there", &[&b]).region(region);
        let mut gateway = with_journal(setup).start().await;
        let journal = Peek::of(&gateway);
        assert_eq!(gateway.delete("/bucket/key").await.status, 503);
        let record = journal.records(1).await.remove(0);
        assert_eq!((record.intent.object.cluster.as_str(), &record.intent.what), ("there", &What::Delete));
        // With the word of a backend that took it.
        let taken = Said::Good { etag: None, version: None };
        assert_eq!(record.replies, [(b.url(), Said::NotApplied), (a.url(), taken)]);
        gateway.stop().await;
        assert_eq!(journal.counts().await.intents, 0);
    });
}

#[test]
fn two_gateways_of_a_takeover_use_one_journal() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "strong").set("ResponseHeaderTimeout", "1m").start().await;
        let journal = Peek::of(&gateway);
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        assert_eq!(gateway.put("/bucket/before", b"hello").await.status, 200);
        let mut successor = gateway.hand_over().await;
        assert_eq!(successor.put("/bucket/after", b"hello").await.status, 200);
        journal.until("what the successor began to be over", |_, counts| counts.intents == 1).await;
        a.release();
        gateway.ended().await;
        journal.until("what the predecessor began to be over", |_, counts| counts.intents == 0).await;
        assert_eq!(successor.put("/bucket/after", b"world").await.status, 200);
        successor.stop_in_sync().await;
        assert_eq!((journal.counts().await.intents, journal.cases().await.len()), (0, 0));
    });
}

#[test]
fn a_delete_of_many_objects_is_recorded_for_each_of_them() {
    run(async {
        let (a, b) = pair().await;
        b.will(Behaviour::answers(Answer::new(200).body("<DeleteResult></DeleteResult>")));
        let kept = "<DeleteResult><Error><Key>b&amp;</Key><Code>InternalError</Code></Error></DeleteResult>";
        a.will(Behaviour::answers(Answer::new(200).body(kept)));
        let mut gateway = over(&[&a, &b], "strong").start().await;
        let journal = Peek::of(&gateway);
        let body = "<Delete><Object><Key>a</Key></Object><Object><Key>b&amp;</Key></Object></Delete>";
        let headers = [("Expect", "100-continue")];
        let mut client = gateway.client().await;
        let length = body.len().to_string();
        client.head("POST", "/bucket?delete", &[headers[0], ("Content-Length", &length)]).await;
        client.send(body.as_bytes()).await;
        assert_eq!(client.reply("POST").await.status, 200);
        let record = journal.records(1).await.remove(0);
        assert_eq!((&record.intent.object.key[..], &record.intent.what), (&b"b&"[..], &What::Delete));
        assert_eq!((record.said(&a.url()), is_good(record.said(&b.url()))), (&Said::NotApplied, true));
        for backend in [&a, &b] {
            let request = backend.wait_for_requests(1).await.remove(0);
            assert_eq!(request.body.as_deref(), Some(body.as_bytes()), "it is passed on as it came");
        }
        gateway.stop().await;
        assert_eq!(journal.counts().await.intents, 0);
    });
}

#[test]
fn with_none_a_write_under_way_is_told_when_there_is_something_to_tell_of_its_object() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "none").with_metrics().start().await;
        let whole = |scrape: &Scrape| scrape.value("akubra_journal_remembered_whole", &[]) == 1.0;
        gateway.scrape_until("the journal to be read", whole).await;
        let journal = Peek::of(&gateway);
        let mut slow = gateway.client().await;
        slow.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        slow.send(b"he").await;
        a.wait_for_connections(1).await;
        assert_eq!(journal.counts().await.intents, 0);
        // All take this one. Should the other fail, its record would say nothing of it.
        assert_eq!(gateway.put("/bucket/key", b"between").await.status, 200);
        journal.until("both", |cases, counts| cases.len() == 1 && counts.intents == 1).await;
        slow.send(b"llo").await;
        assert_eq!(slow.reply("PUT").await.status, 200);
        let records = journal.records(2).await;
        let commits: Vec<_> = records.iter().map(|record| record.commit).collect();
        assert!(commits[0] < commits[1], "{records:#?}");
        assert_eq!(records.iter().map(|record| record.intent.length).collect::<Vec<_>>(), [Some(7), Some(5)]);
        gateway.stop().await;
    });
}

#[test]
fn the_length_of_an_object_is_not_taken_from_the_request_that_puts_it_together() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "strong").start().await;
        let chunked = [
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "3"),
        ];
        let journal = Peek::of(&gateway);
        // It goes to one of the two, and is recorded for that.
        gateway.request("POST", "/bucket/key?uploadId=1", &[], b"<list of parts/>").await;
        journal.records(1).await;
        b.will_once(Behaviour::answers(503));
        gateway.request("PUT", "/bucket/key", &chunked, b"3\r\nabc\r\n0\r\n\r\n").await;
        let lengths: Vec<_> = journal.records(2).await.iter().map(|record| record.intent.length).collect();
        assert_eq!(lengths, [None, Some(3)]);
        gateway.stop().await;
    });
}

#[test]
fn what_was_sent_twice_is_uncertain_though_the_second_try_was_good() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = over(&[&a, &b], "none").start().await;
        assert_eq!(gateway.put("/bucket/first", b"hello").await.status, 200);
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/first").await;
        }
        // The pooled connection dies when it has all of the request.
        a.will_once(Behaviour::closes(Phase::AfterBody));
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let records = Peek::of(&gateway).records(1).await;
        assert!(is_good(records[0].said(&a.url())) && is_good(records[0].said(&b.url())), "{records:#?}");
        // What is to be waited for.
        assert!(records[0].is_uncertain());
        assert_eq!(records[0].replies.last(), Some(&(a.url(), Said::Unknown)));
        gateway.stop().await;
    });
}

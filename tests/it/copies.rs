//! Copies of objects that backends do not agree on: who takes part, and what they come to once repaired.

use crate::fixture::{sync::*, *};

const SOURCE: [(&str, &str); 1] = [("x-amz-copy-source", "/bucket/source")];

async fn copy(gateway: &Gateway, target: &str) -> Reply {
    gateway.request("PUT", target, &SOURCE, b"").await
}

/// Puts the source to both, and something newer to the second one only.
async fn diverge(gateway: &Gateway, misses: &Misbehaving, has: &Misbehaving) {
    assert_eq!(gateway.put("/bucket/source", b"old").await.status, 200);
    for backend in [misses, has] {
        backend.wait_for_object("/bucket/source").await;
    }
    misses.will_once_on("PUT", Behaviour::answers(503));
    assert_eq!(gateway.put("/bucket/source", b"new").await.status, 200);
    wait_for_open(gateway, 1).await;
}

/// Ends a gateway and starts another in its place, which remembers only what is in the journal.
async fn restarted(mut gateway: Gateway) -> Gateway {
    gateway.stop().await;
    let again = gateway.again().await;
    again.scrape_until("the memory", |s| s.value("akubra_journal_remembered_objects", &[]) == 1.0).await;
    again
}

/// Each backend copies what it has itself: the same bytes, with other tags.
#[test]
fn a_copy_of_what_backends_do_not_agree_on_is_the_same_on_all() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = one_cluster(&[&a, &b]).start().await;
        for backend in [&a, &b] {
            backend.is_whole();
        }
        assert_eq!(gateway.put("/bucket/source", b"hello").await.status, 200);
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/source").await;
        }
        b.will_once_on("PUT", Behaviour::answers(503));
        let tags = b"<Tagging><TagSet><Tag><Key>colour</Key><Value>blue</Value></Tag></TagSet></Tagging>";
        assert_eq!(gateway.put("/bucket/source?tagging", tags).await.status, 200);
        wait_for_open(&gateway, 1).await;
        assert_eq!(copy(&gateway, "/bucket/copy").await.status, 200);
        assert_eq!(a.wait_for_object("/bucket/copy").await.tags, "colour=blue");
        wait_for_open(&gateway, 2).await;
        repaired(&gateway).await;
        for path in ["/bucket/source", "/bucket/copy"] {
            let held = [&a, &b].map(|backend| backend.stored(path).unwrap());
            assert_eq!(held.map(|held| held.tags), ["colour=blue", "colour=blue"], "{path}");
        }
        gateway.stop().await;
    });
}

#[test]
fn who_has_an_older_version_of_the_source_takes_no_part_in_a_copy() {
    run(async {
        for is_restarted in [false, true] {
            // The first one in the configuration is the one that missed it.
            let (a, b) = pair().await;
            let mut gateway = one_cluster(&[&a, &b]).with_metrics().start().await;
            diverge(&gateway, &a, &b).await;
            if is_restarted {
                gateway = restarted(gateway).await;
            }
            let reply = copy(&gateway, "/bucket/copy").await;
            assert!(reply.status == 200 && reply.text().contains(&hex_md5(b"new")), "{reply:?}");
            wait_for_open(&gateway, 2).await;
            assert_eq!(a.stored_bytes("/bucket/copy"), None);
            let records = gateway.wait_for_records(2).await;
            assert!(records[1]["error"].as_str().unwrap().contains("older version"), "{records:#?}");
            repaired(&gateway).await;
            for backend in [&a, &b] {
                assert_eq!(backend.stored_bytes("/bucket/copy").unwrap(), "new", "{is_restarted}");
            }
            gateway.stop().await;
        }
    });
}

#[test]
fn what_is_deleted_is_not_copied_by_who_missed_that() {
    run(async {
        let (a, b) = pair().await;
        let gateway = one_cluster(&[&a, &b]).with_metrics().start().await;
        assert_eq!(gateway.put("/bucket/source", b"old").await.status, 200);
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/source").await;
        }
        a.will_once_on("DELETE", Behaviour::answers(503));
        assert_eq!(gateway.delete("/bucket/source").await.status, 204);
        wait_for_open(&gateway, 1).await;
        let mut gateway = restarted(gateway).await;
        assert_eq!(copy(&gateway, "/bucket/copy").await.status, 404);
        repaired(&gateway).await;
        for backend in [&a, &b] {
            assert!(backend.paths().is_empty());
        }
        gateway.stop().await;
    });
}

#[test]
fn without_who_has_the_newest_version_of_the_source_there_is_no_copy() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = one_cluster(&[&a, &b]).start().await;
        diverge(&gateway, &a, &b).await;
        b.will_once_on("PUT", Behaviour::answers(503));
        assert_eq!(copy(&gateway, "/bucket/copy").await.status, 503);
        assert_eq!(a.stored_bytes("/bucket/copy"), None);
        gateway.stop().await;
    });
}

#[test]
fn no_part_is_copied_of_an_older_version() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.is_whole();
        }
        let gateway = one_cluster(&[&a, &b]).with_metrics().start().await;
        let begun = gateway.request("POST", "/bucket/copy?uploads", &[], b"").await.text();
        let id = begun.split("UploadId>").nth(1).unwrap().trim_end_matches("</");
        let part = format!("/bucket/copy?partNumber=1&uploadId={id}");
        // The one that the upload is on.
        let (misses, has) = if a.requests().is_empty() { (&b, &a) } else { (&a, &b) };
        diverge(&gateway, misses, has).await;
        copy(&gateway, &part).await.assert_error(503, "ServiceUnavailable");
        let mut gateway = restarted(gateway).await;
        copy(&gateway, &part).await.assert_error(503, "ServiceUnavailable");
        assert!(misses.requests().iter().all(|request| request.target != part));
        repaired(&gateway).await;
        let copied = async { while copy(&gateway, &part).await.status != 200 {} };
        soon("the source to be known to be whole", copied).await;
        gateway.stop().await;
    });
}

/// Until a worker has done what it can.
async fn worked_through(gateway: &Gateway) {
    let worker = Worker::start(gateway);
    wait_for_open(gateway, 0).await;
    worker.stop().await;
}

#[test]
fn where_backends_copied_different_versions_none_is_written_over() {
    run(async {
        let (a, b) = pair().await;
        let setup = one_cluster(&[&a, &b]).set_yaml("Journal", "{Settle: 10ms}");
        let mut gateway = setup.start().await;
        assert_eq!(gateway.put("/bucket/source", b"old").await.status, 200);
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/source").await;
        }
        // Whether the second one has stored it nobody knows.
        a.will_once_on("PUT", Behaviour::answers(500).framed(Framing::Garbage));
        b.will_once_on("PUT", Behaviour::answers_garbage());
        assert_eq!(gateway.put("/bucket/source", b"new").await.status, 503);
        wait_for_open(&gateway, 1).await;
        a.will_once_on("PUT", Behaviour::hangs(Phase::AfterBody));
        let reply = copy(&gateway, "/bucket/copy").await;
        assert!(reply.status == 200 && reply.text().contains(&hex_md5(b"new")), "{reply:?}");
        a.release();
        wait_for_open(&gateway, 2).await;
        worked_through(&gateway).await;
        assert_eq!(b.stored_bytes("/bucket/copy").unwrap(), "new");
        let parked = reasons(&gateway, "parked").await;
        assert!(parked.len() == 1 && parked[0].contains("nothing tells which is newer"), "{parked:?}");
        gateway.stop().await;
    });
}

#[test]
fn who_missed_a_write_that_still_runs_elsewhere_takes_no_part_in_a_copy() {
    run(async {
        let (a, b) = pair().await;
        let c = Misbehaving::start().await;
        let mut gateway = one_cluster(&[&a, &b, &c]).start().await;
        assert_eq!(gateway.put("/bucket/source", b"old").await.status, 200);
        for backend in [&a, &b, &c] {
            backend.wait_for_object("/bucket/source").await;
        }
        b.will_once_on("PUT", Behaviour::answers(503));
        c.will_once_on("PUT", Behaviour::hangs(Phase::AfterBody));
        assert_eq!(gateway.put("/bucket/source", b"new").await.status, 200);
        b.wait_for_request("its answer", |request| request.answered == 503).await;
        let reply = copy(&gateway, "/bucket/copy").await;
        assert!(reply.status == 200 && reply.text().contains(&hex_md5(b"new")), "{reply:?}");
        assert_eq!(b.stored_bytes("/bucket/copy"), None);
        c.release();
        wait_for_open(&gateway, 2).await;
        repaired(&gateway).await;
        for backend in [&a, &b, &c] {
            assert_eq!(backend.stored_bytes("/bucket/copy").unwrap(), "new");
        }
        gateway.stop().await;
    });
}

#[test]
fn a_part_is_copied_once_its_source_is_repaired_though_the_memory_is_not_whole() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.is_whole();
        }
        let setup = one_cluster(&[&a, &b]).set_yaml("Journal", "{RememberedObjects: 1}").with_metrics();
        let mut gateway = setup.start().await;
        let begun = gateway.request("POST", "/bucket/copy?uploads", &[], b"").await.text();
        let id = begun.split("UploadId>").nth(1).unwrap().trim_end_matches("</");
        let part = format!("/bucket/copy?partNumber=1&uploadId={id}");
        let (misses, has) = if a.requests().is_empty() { (&b, &a) } else { (&a, &b) };
        // Nobody but a human does anything about these.
        for key in ["one", "other"] {
            misses.will_once_on("DELETE", Behaviour::answers(503));
            assert_eq!(gateway.delete(&format!("/bucket/{key}?versionId=v")).await.status, 204);
        }
        wait_for_open(&gateway, 2).await;
        worked_through(&gateway).await;
        diverge(&gateway, misses, has).await;
        copy(&gateway, &part).await.assert_error(503, "ServiceUnavailable");
        worked_through(&gateway).await;
        assert_eq!(misses.stored_bytes("/bucket/source").unwrap(), "new");
        let copied = async { while copy(&gateway, &part).await.status != 200 {} };
        soon("the source to be known to be whole", copied).await;
        assert_eq!(gateway.scrape().await.value("akubra_journal_remembered_whole", &[]), 0.0);
        gateway.stop().await;
    });
}

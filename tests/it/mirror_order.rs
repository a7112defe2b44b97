//! The order of writes to one object: on each backend a later write starts only when the earlier one there
//! has ended, so that a PUT on a slow backend cannot overtake the DELETE that followed it.

use std::time::{Duration, Instant};

use crate::fixture::*;

#[test]
fn a_delete_waits_for_the_put_that_hangs_before_it() {
    run(async {
        let (a, b) = pair().await;
        a.will_once_on("PUT", Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let mut client = gateway.client().await;
        client.head("DELETE", "/bucket/key", &[]).await;
        b.wait_for_request("DELETE at b", |request| request.method == "DELETE" && request.ended).await;
        assert!(client.stays_silent(Duration::from_millis(100)).await);
        assert_eq!(a.methods(), ["PUT"]);
        a.release();
        assert_eq!(client.reply("DELETE").await.status, 204);
        gateway.stop_in_sync().await;
        for backend in [&a, &b] {
            assert_eq!(backend.methods(), ["PUT", "DELETE"]);
            assert!(backend.paths().is_empty());
        }
    });
}

#[test]
fn a_second_put_waits_for_the_first_only_where_that_still_runs() {
    run(async {
        let (a, b) = pair().await;
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"first").await.status, 200);
        // The client's answer comes from `b`, which has nothing unfinished.
        assert_eq!(gateway.put("/bucket/key", b"second").await.status, 200);
        assert_eq!(a.wait_for_requests(1).await.len(), 1);
        a.release();
        a.wait_for_request("the second PUT", |request| request.body.as_deref() == Some(b"second")).await;
        gateway.stop_in_sync().await;
        for backend in [&a, &b] {
            assert_eq!(backend.stored_bytes("/bucket/key").unwrap(), "second");
        }
    });
}

#[test]
fn a_write_that_hangs_too_long_is_given_up_for_its_successor() {
    run(async {
        let (a, b) = pair().await;
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        let setup =
            Gateway::over(&[&a, &b]).set("SlowBackendTimeout", "400ms").set("ResponseHeaderTimeout", "1m");
        let mut gateway = setup.start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let start = Instant::now();
        assert_eq!(gateway.delete("/bucket/key").await.status, 204);
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&elapsed), "{elapsed:?}");
        let first = &a.requests()[0];
        assert!(first.ended && first.answered == 0, "{first:?}");
        let records = gateway.stop().await.records;
        let record = record_of(&records, &a);
        assert_eq!((&record["method"], &record["outcome"]), (&"PUT".into(), &"unknown".into()));
        assert_eq!(a.methods(), ["PUT", "DELETE"]);
    });
}

#[test]
fn writes_to_other_objects_do_not_wait() {
    run(async {
        let (a, b) = pair().await;
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        assert_eq!(gateway.put("/bucket/other", b"hello").await.status, 200);
        a.wait_for_object("/bucket/other").await;
        a.release();
        gateway.stop_in_sync().await;
    });
}

#[test]
fn many_writes_to_one_object_end_with_the_last_on_both() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::reads_at(200_000));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        for number in 0..20 {
            let reply =
                client.request("PUT", "/bucket/key", &[], format!("{number:-<5000}").as_bytes()).await;
            assert_eq!(reply.status, 200);
        }
        gateway.stop_in_sync().await;
        for backend in [&a, &b] {
            assert!(backend.stored_bytes("/bucket/key").unwrap().starts_with(b"19"));
            assert_eq!(backend.requests().len(), 20);
        }
    });
}

#[test]
fn a_write_that_ends_late_does_not_make_up_for_a_later_one_that_was_missed() {
    run(async {
        let (a, b) = pair().await;
        b.will_once(Behaviour::hangs(Phase::AfterBody));
        let setup = Gateway::over(&[&a, &b]).set("BackgroundRequests", 1).with_metrics();
        let gateway = setup.start().await;
        assert_eq!(gateway.put("/bucket/key", b"first").await.status, 200);
        b.wait_for_request("the first write", Received::is_complete).await;
        // There is no room to wait for the first one.
        assert_eq!(gateway.put("/bucket/key", b"second").await.status, 200);
        assert_eq!(record_of(&gateway.wait_for_records(1).await, &b)["outcome"], "not applied");
        b.release();
        gateway
            .scrape_until("the first write's end", |s| s.value("akubra_unfinished_writes", &[]) == 0.0)
            .await;
        assert_eq!(b.stored_bytes("/bucket/key").unwrap(), "first");
        for _ in 0..20 {
            assert_eq!(gateway.get("/bucket/key").await.text(), "second");
        }
    });
}

#[test]
fn an_upload_that_ends_late_is_not_missed_by_who_has_taken_a_later_write() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.is_whole();
        }
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let begun = gateway.request("POST", "/bucket/key?uploads", &[], b"").await.text();
        let upload = format!(
            "/bucket/key?uploadId={}",
            begun.split("UploadId>").nth(1).unwrap().trim_end_matches("</")
        );
        let part = format!("{upload}&partNumber=1");
        assert_eq!(gateway.request("PUT", &part, &[], b"upload").await.status, 200);
        // The one that the upload is on.
        let (on, other) = if a.requests().is_empty() { (&b, &a) } else { (&a, &b) };
        on.will_once_on("POST", Behaviour::hangs(Phase::AfterBody));
        on.will_once_on("PUT", Behaviour::answers(503));
        let list =
            b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>";
        let mut client = gateway.client().await;
        client.head("POST", &upload, &[("Content-Length", &list.len().to_string())]).await;
        client.send(list).await;
        on.wait_for_request("the completion", |request| request.target == upload && request.is_complete())
            .await;
        assert_eq!(gateway.put("/bucket/key", b"later").await.status, 200);
        on.release();
        assert_eq!(client.reply("POST").await.status, 200);
        gateway.wait_for_records(2).await;
        assert_eq!(on.stored_bytes("/bucket/key").unwrap(), "upload");
        assert_eq!(other.stored_bytes("/bucket/key").unwrap(), "later");
        for _ in 0..20 {
            assert_eq!(gateway.get("/bucket/key").await.text(), "later");
        }
    });
}

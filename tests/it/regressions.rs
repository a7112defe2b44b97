//! Writes that once went wrong: what their answers mean, what is recorded of them, in which order they arrive,
//! and what reads get after them.

use std::time::Duration;

use crate::fixture::*;

/// Reads an object so often that chance asks every backend first.
async fn always_reads(gateway: &Gateway, target: &str, status: u16, text: &str) {
    let mut client = gateway.client().await;
    for number in 0..40 {
        let reply = client.request("GET", target, &[], b"").await;
        assert_eq!(reply.status, status, "read {number}: {}", reply.text());
        if status == 200 {
            assert_eq!(reply.text(), text, "read {number}");
        }
    }
}

#[test]
fn early_200s_of_all_backends_are_no_success() {
    run(async {
        for after in [AfterEarly::KeepReading, AfterEarly::StopReading, AfterEarly::Close] {
            let (a, b) = pair().await;
            for backend in [&a, &b] {
                backend.will(Behaviour::answers_early(200, after));
            }
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            let mut client = gateway.client().await;
            client.head("PUT", "/bucket/key", &[("Content-Length", "1500000")]).await;
            client.send(&noise(100)).await;
            client.reply("PUT").await.assert_error(503, "ServiceUnavailable");
            drop(client);
            let logs = gateway.stop().await;
            assert!(logs.records.iter().all(|record| record["successhost"] == ""), "{:#?}", logs.records);
            assert_eq!(logs.access[0]["status"], 503);
            assert!(a.paths().is_empty() && b.paths().is_empty());
        }
    });
}

#[test]
fn a_copy_whose_answer_breaks_off_is_unknown() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.holds("/bucket/source", "hello");
        }
        a.will(Behaviour::good().framed(Framing::PromisesMore(10)));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let headers = [("x-amz-copy-source", "/bucket/source")];
        let reply = gateway.request("PUT", "/bucket/copy", &headers, b"").await;
        assert!(reply.status == 200 && reply.complete, "{reply:?}");
        let records = gateway.stop().await.records;
        let record = record_of(&records, &a);
        assert_eq!((&record["outcome"], &record["successhost"]), (&"unknown".into(), &b.url().into()));
        assert_eq!(records.len(), 1);
    });
}

#[test]
fn a_completion_whose_answer_breaks_off_is_no_success() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::good().framed(Framing::PromisesMore(10)));
        }
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("POST", "/bucket/key?uploadId=upload-1", &[("Content-Length", "11")]).await;
        client.send(b"<Complete/>").await;
        if let Some(reply) = client.reply_or_end("POST").await {
            assert!(reply.status == 503 || !reply.complete, "{reply:?}");
        }
        assert_in_doubt(&gateway.stop().await.records, &[&a, &b]);
    });
}

/// Every backend is recorded, and none is said to have the object.
#[track_caller]
fn assert_in_doubt(records: &[serde_json::Value], backends: &[&Misbehaving]) {
    for backend in backends {
        let record = record_of(records, *backend);
        assert_eq!((&record["method"], &record["successhost"]), (&"POST".into(), &"".into()));
    }
    assert!(records.iter().any(|record| record["outcome"] == "unknown"), "{records:#?}");
}

#[test]
fn a_completion_whose_answer_is_lost_leaves_all_backends_in_doubt() {
    run(async {
        for lost in [Behaviour::resets(Phase::AfterBody), Behaviour::hangs(Phase::AfterBody)] {
            let (a, b) = pair().await;
            for backend in [&a, &b] {
                backend.will(lost.clone());
            }
            let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "500ms").start().await;
            let target = "/bucket/key?uploadId=upload-1";
            assert_eq!(gateway.request("POST", target, &[], b"<Complete/>").await.status, 503);
            assert_in_doubt(&gateway.stop().await.records, &[&a, &b]);
        }
    });
}

#[test]
fn parts_and_lists_of_parts_that_time_out_record_nothing() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::hangs(Phase::AfterBody));
        }
        let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "300ms").start().await;
        assert_eq!(gateway.get("/bucket/key?uploadId=upload-1").await.status, 503);
        let part = "/bucket/key?partNumber=1&uploadId=upload-1";
        assert_eq!(gateway.put(part, b"hello").await.status, 503);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_whole_answer_is_preferred_to_one_that_breaks_off() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(Answer::new(200).body("half")).framed(Framing::PromisesMore(10)));
        b.will(Behaviour::answers(Answer::new(200).body("whole")).and_hangs(Phase::AfterBody));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        client.send(b"hello").await;
        b.wait_for_request("the body", Received::is_complete).await;
        a.wait_for_open_connections(0).await;
        assert!(client.stays_silent(Duration::from_millis(200)).await);
        b.release();
        let reply = client.reply("PUT").await;
        assert_eq!((reply.status, reply.complete, reply.text().as_str()), (200, true, "whole"));
    });
}

#[test]
fn an_error_at_the_end_of_a_long_delete_result_is_recorded() {
    run(async {
        const DELETED: &str = "<Deleted><Key>key</Key></Deleted>";
        // The element lies across 64 KiB, and far behind.
        for length in [(64 << 10) - 4, 200_000, 1_500_000] {
            let (a, b) = pair().await;
            let mut text = "<DeleteResult>".to_string() + &DELETED.repeat((length - 14) / DELETED.len());
            text.push_str(&" ".repeat(length - text.len()));
            text.push_str("<Error><Key>last</Key><Code>AccessDenied</Code></Error></DeleteResult>");
            a.will(Behaviour::answers(Answer::new(200).body(text)));
            b.will(Behaviour::answers(Answer::new(200).body("<DeleteResult></DeleteResult>")));
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            let reply = gateway.request("POST", "/bucket?delete", &[], b"<Delete/>").await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "<DeleteResult></DeleteResult>"));
            let records = gateway.stop().await.records;
            assert_eq!(record_of(&records, &a)["successhost"], b.url(), "{length}");
        }
    });
}

#[test]
fn after_a_multipart_upload_reads_prefer_the_backend_that_has_it() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        for number in 0..4 {
            let key = format!("/bucket/{number}");
            for backend in [&a, &b] {
                backend.holds(&key, "old");
            }
            let part = format!("{key}?partNumber=1&uploadId=upload-1");
            assert_eq!(gateway.put(&part, b"new").await.status, 200);
            let whole = format!("{key}?uploadId=upload-1");
            assert_eq!(gateway.request("POST", &whole, &[], b"<Complete/>").await.status, 200);
            let completed = |r: &Received| r.method == "POST" && r.path() == key;
            let chosen = if a.requests().iter().any(completed) { &a } else { &b };
            chosen.holds(&key, "new");
            gateway.wait_for_records(number + 1).await;
            always_reads(&gateway, &key, 200, "new").await;
        }
    });
}

#[test]
fn a_write_to_a_sub_resource_does_not_make_up_for_a_missed_object() {
    run(async {
        for method in ["PUT", "DELETE"] {
            let (a, b) = pair().await;
            b.holds("/bucket/key", "old");
            b.will_once_on("PUT", Behaviour::answers(500));
            let gateway = Gateway::over(&[&a, &b]).start().await;
            assert_eq!(gateway.put("/bucket/key", b"new").await.status, 200);
            gateway.wait_for_records(1).await;
            let target = "/bucket/key?tagging";
            let body: &[u8] = if method == "PUT" { b"<Tagging/>" } else { b"" };
            if method == "PUT" {
                assert_eq!(gateway.request(method, target, &[], body).await.status, 200);
            } else {
                // The fixture knows no tags: it would delete the object.
                a.will_once_on("DELETE", Behaviour::answers(204));
                b.will_once_on("DELETE", Behaviour::answers(204));
                assert_eq!(gateway.request(method, target, &[], body).await.status, 204);
            }
            b.wait_for_request("the tags", |r| r.target == target && r.answered > 0).await;
            always_reads(&gateway, "/bucket/key", 200, "new").await;
        }
    });
}

#[test]
fn an_object_that_one_backend_did_not_delete_is_gone_all_the_same() {
    run(async {
        let resets = Behaviour::resets(Phase::AfterBody);
        for (policy, failure) in [("one", Behaviour::answers(500)), ("one", resets.clone()), ("race", resets)]
        {
            let (a, b) = pair().await;
            for backend in [&a, &b] {
                backend.holds("/bucket/key", "hello");
            }
            b.will_once_on("DELETE", failure);
            let region = Region::new("r", &[("c", 1.0)]).default_region().set("ReadPolicy", policy);
            let mut gateway = Setup::new().cluster("c", &[&a, &b]).region(region).start().await;
            assert_eq!(gateway.delete("/bucket/key").await.status, 204);
            gateway.wait_for_records(1).await;
            always_reads(&gateway, "/bucket/key", 404, "").await;
            let records = gateway.stop().await.records;
            assert_eq!(record_of(&records, &b)["method"], "DELETE");
            assert_eq!(records.len(), 1, "{records:#?}");
        }
    });
}

/// Three writes to one object, which `a` holds up as it was told until the last has arrived there whole. What
/// arrives there whole must do so in the order of the writes.
async fn writes_arrive_in_order(a: &Misbehaving, bodies: [bytes::Bytes; 3]) {
    let b = Misbehaving::start().await;
    let setup = Gateway::over(&[a, &b])
        .set("SlowBackendTimeout", "300ms")
        .set("ReplicaBuffer", "16MiB")
        .set("ResponseHeaderTimeout", "1m");
    let mut gateway = setup.start().await;
    for body in &bodies {
        assert_eq!(gateway.put("/bucket/key", body).await.status, 200);
    }
    let write_of = |request: &Received| {
        let md5s = bodies.iter().map(|body| hex_md5(body));
        md5s.into_iter().position(|md5| request.is_complete() && md5 == request.body_md5)
    };
    a.wait_for_request("the last write", |request| write_of(request) == Some(2)).await;
    a.will(Behaviour::good());
    a.release();
    gateway.stop().await;
    let mut complete: Vec<_> = a.requests().into_iter().filter(Received::is_complete).collect();
    complete.sort_by_key(|request| request.completed);
    let writes: Vec<_> = complete.iter().map(|request| write_of(request).unwrap()).collect();
    assert!(writes.is_sorted(), "the writes arrived in the order {writes:?}");
    assert_eq!(b.stored("/bucket/key").unwrap().md5, hex_md5(&bodies[2]));
}

#[test]
fn a_write_that_is_held_up_in_its_body_never_completes_after_a_later_one() {
    run(async {
        // More than the sockets hold.
        let large = noise(8 << 20);
        let other = noise(7 << 20);
        // The first alone, and the first two.
        for hanging in 1..=2 {
            let a = Misbehaving::start().await;
            for _ in 0..hanging {
                a.will_once(Behaviour::hangs(Phase::MidBody(100_000)));
            }
            writes_arrive_in_order(&a, [large.clone(), other.clone(), noise(100)]).await;
            assert_eq!(a.stored("/bucket/key").unwrap().md5, hex_md5(&noise(100)));
        }
    });
}

#[test]
fn writes_that_are_not_answered_complete_in_their_order() {
    run(async {
        let a = Misbehaving::start().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        writes_arrive_in_order(&a, [noise(100), noise(200), noise(300)]).await;
    });
}

#[test]
fn a_write_to_a_backend_that_reads_nothing_never_completes_after_a_later_one() {
    run(async {
        let a = Misbehaving::start().await;
        for _ in 0..2 {
            a.will_once(Behaviour::hangs(Phase::Accepted));
        }
        writes_arrive_in_order(&a, [noise(8 << 20), noise(7 << 20), noise(300)]).await;
    });
}

//! Connections that once went wrong: bytes that nobody asked for, answers that never come to their end, and
//! clients that hold on to what they have.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crate::fixture::*;

#[test]
fn the_body_of_an_options_request_reaches_no_backend() {
    run(async {
        let smuggled = b"DELETE /bucket/key HTTP/1.1\r\nHost: a\r\n\r\n";
        let length = smuggled.len().to_string();
        for stored in [true, false] {
            let a = Misbehaving::start().await;
            let gateway = Gateway::over(&[&a]).start().await;
            a.holds("/bucket/other", "hello");
            if stored {
                a.holds("/bucket/key", "hello");
            }
            for _ in 0..5 {
                let mut client = gateway.client().await;
                client.head("OPTIONS", "/bucket/key", &[("Content-Length", &length)]).await;
                client.try_send(smuggled).await;
                let reply = client.reply("OPTIONS").await;
                let status = if stored { 200 } else { 404 };
                assert_eq!((reply.status, reply.header("content-length")), (status, Some("0")));
                let mut client = gateway.client().await;
                client.head("OPTIONS", "/bucket/key", &[("Transfer-Encoding", "chunked")]).await;
                client.chunk(smuggled).await;
                let reply = client.reply("OPTIONS").await;
                assert_eq!((reply.status, reply.header("content-length")), (status, Some("0")));
                assert_eq!(gateway.get("/bucket/other").await.text(), "hello");
            }
            let requests = a.requests();
            assert_eq!(a.methods(), ["HEAD", "HEAD", "GET"].repeat(5));
            for request in &requests {
                let framing = (request.header("content-length"), request.header("transfer-encoding"));
                assert_eq!(framing, (None, None), "{request:?}");
            }
            // It is the pooled connection that must carry the next request.
            assert!(a.accepted() < requests.len(), "{} connections", a.accepted());
        }
    });
}

/// What a backend sends behind an answer: short, and longer than what is read at once.
fn surplus() -> [bytes::Bytes; 4] {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign";
    ["x".into(), answer.into(), format!("{}{answer}", "x".repeat(8000)).into(), answer.repeat(400).into()]
}

#[test]
fn a_body_after_the_answer_to_head_is_not_taken_for_the_next_answer() {
    run(async { surplus_does_no_harm("HEAD", &[]).await });
}

#[test]
fn a_second_answer_is_not_taken_for_the_next_one() {
    run(async { surplus_does_no_harm("GET", b"").await });
}

#[test]
fn a_second_answer_to_a_write_is_not_taken_for_the_next_one() {
    run(async {
        surplus_does_no_harm("PUT", b"hello").await;
        surplus_does_no_harm("DELETE", b"").await;
    });
}

#[test]
fn a_second_answer_is_noticed_although_it_begins_where_a_read_of_the_first_ends() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/other", "hello");
        let gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        let foreign = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign";
        // With its head of 67 bytes the answer is around 4 KiB, and 64 KiB more.
        for length in (4020..4040).chain(4020 + (64 << 10)..4040 + (64 << 10)) {
            let answer = Answer::new(200).body(noise(length));
            a.will_once(Behaviour::answers(answer).followed_by(foreign));
            let reply = client.request("GET", "/bucket/key", &[], b"").await;
            assert!(reply.status == 200 && reply.complete && reply.body.len() == length, "{length}");
            let reply = client.request("GET", "/bucket/other", &[], b"").await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{length}");
        }
    });
}

/// After an answer with something behind it, the next requests get their own answers.
async fn surplus_does_no_harm(method: &str, body: &[u8]) {
    let a = Misbehaving::start().await;
    a.holds("/bucket/key", noise(20));
    a.holds("/bucket/other", "hello");
    let mut gateway = Gateway::over(&[&a]).start().await;
    let mut client = gateway.client().await;
    for surplus in surplus() {
        for round in 0..6 {
            a.will_once_on(method, Behaviour::good().followed_by(surplus.clone()));
            let reply = client.request(method, "/bucket/key", &[], body).await;
            assert!(
                matches!(reply.status, 200 | 204) && reply.complete,
                "{} {round}: {reply:?}",
                surplus.len()
            );
            a.holds("/bucket/key", noise(20));
            let reply = client.request("GET", "/bucket/other", &[], b"").await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{} {round}", surplus.len());
            let reply = client.request("PUT", "/bucket/new", &[], b"new").await;
            assert_eq!((reply.status, reply.header("content-length")), (200, Some("0")), "{reply:?}");
        }
    }
    gateway.stop_in_sync().await;
}

#[test]
fn clients_that_linger_after_a_refusal_take_no_place() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).set("MaxConcurrentRequests", 2).start().await;
        let mut uploads = Vec::new();
        for number in 0..2 {
            let mut client = gateway.client().await;
            client.head("PUT", &format!("/bucket/{number}"), &[("Content-Length", "10")]).await;
            client.send(b"hello").await;
            a.wait_for_requests(number + 1).await;
            uploads.push(client);
        }
        let mut lingering = Vec::new();
        for _ in 0..5 {
            let mut client = gateway.client().await;
            client.head("PUT", "/bucket/key", &[("Content-Length", "1500000")]).await;
            client.reply("PUT").await.assert_error(503, "SlowDown");
            lingering.push(client);
        }
        for upload in &mut uploads {
            upload.send(b"world").await;
            assert_eq!(upload.reply("PUT").await.status, 200);
        }
        // On its connection the next request begins when the upload has ended.
        assert_eq!(uploads[0].request("GET", "/bucket/0", &[], b"").await.text(), "helloworld");
        drop(lingering);
    });
}

#[test]
fn a_client_that_reads_no_answers_loses_its_place_in_time() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        a.will(Behaviour::good().with_header("x-amz-meta-long", &"x".repeat(30_000)));
        let gateway = Gateway::over(&[&a])
            .set("MaxConcurrentRequests", 1)
            .set("ClientWriteTimeout", "1s")
            .start()
            .await;
        let mut deaf = Client::connect_with_small_window(gateway.address()).await;
        // Answers of 30 MB: more than all sockets hold.
        let head = deaf.head_text("HEAD", "/bucket/key", &[]);
        deaf.send(head.repeat(1000).as_bytes()).await;
        let mut known = 0;
        loop {
            let entries = gateway.wait_for_access(known + 1).await;
            known = entries.len();
            if entries.iter().any(|entry| entry["method"] == "HEAD" && entry["error"] != "") {
                break;
            }
        }
        assert!(known < 1000, "{known} answers went out");
        let served = async {
            while gateway.get("/bucket/key").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("a place", served).await;
        drop(deaf);
    });
}

/// Asserts that something takes between these times.
async fn takes<T>(seconds: std::ops::Range<f64>, what: &str, future: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let value = future.await;
    let elapsed = start.elapsed().as_secs_f64();
    assert!(seconds.contains(&elapsed), "{what} took {elapsed} s");
    value
}

#[test]
fn a_backend_that_never_comes_to_its_answer_is_given_up_in_time() {
    run(async {
        for (what, behaviour) in [
            ("102s", Behaviour::keeps_processing(Duration::from_millis(300))),
            ("a head byte by byte", Behaviour::writes_at(5)),
        ] {
            let a = Misbehaving::start().await;
            a.will(behaviour);
            let gateway = Gateway::over(&[&a]).set("ResponseHeaderTimeout", "1s").start().await;
            for method in ["GET", "PUT", "DELETE"] {
                let what = format!("{method} with {what}");
                let reply = takes(0.9..4.0, &what, gateway.request(method, "/bucket/key", &[], b"")).await;
                assert_eq!(reply.status, 503, "{what}");
            }
        }
    });
}

#[test]
fn an_error_whose_body_never_ends_holds_a_read_up_no_longer_than_its_head_could() {
    run(async {
        for status in [503, 404, 403] {
            let (a, b) = pair().await;
            b.holds("/bucket/key", "hello");
            let hangs = Behaviour::answers(status).and_hangs(Phase::MidAnswerBody(10));
            a.will(hangs.clone());
            let gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1s").start().await;
            // Which backend is asked first is chance: until `a` was.
            while a.requests().is_empty() {
                let reply = takes(0.0..4.0, "failing over", gateway.get("/bucket/key")).await;
                assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
            }
            b.will(hangs);
            let mut client = gateway.client().await;
            client.head("GET", "/bucket/key", &[]).await;
            let reply = takes(0.0..6.0, "failing", client.reply_or_end("GET")).await;
            assert!(reply.is_none_or(|reply| reply.status == status || reply.status == 503));
        }
    });
}

#[test]
fn idle_connections_are_answered_and_closed_during_the_drain() {
    run(async {
        let (a, b) = pair().await;
        a.will_once_on("PUT", Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1m").start().await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            let mut client = gateway.client().await;
            assert_eq!(client.request("GET", "/bucket/none", &[], b"").await.status, 404);
            idle.push(client);
        }
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        a.wait_for_request("the upload", |r| r.method == "PUT" && r.is_complete()).await;
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        for (client, (method, target, body, status)) in idle.iter_mut().zip([
            ("GET", "/bucket/none", "", 404),
            ("PUT", "/bucket/late", "late", 200),
            ("GET", "/status/ping", "", 503),
        ]) {
            let reply = client.request(method, target, &[], body.as_bytes()).await;
            assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{method}");
            client.closed().await;
        }
        assert!(gateway.is_running());
        a.release();
        let logs = gateway.ended().await;
        assert!(logs.records.is_empty(), "{:#?}", logs.records);
        for backend in [&a, &b] {
            assert_eq!(backend.paths(), ["/bucket/key", "/bucket/late"]);
        }
    });
}

#[test]
fn what_arrives_while_the_drain_ends_is_stored_everywhere_or_recorded() {
    run(async {
        for _ in 0..5 {
            let (a, b) = pair().await;
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            let mut idle = Vec::new();
            for _ in 0..8 {
                let mut client = gateway.client().await;
                assert_eq!(client.request("GET", "/bucket/none", &[], b"").await.status, 404);
                idle.push(client);
            }
            a.will_once_on("PUT", Behaviour::hangs(Phase::AfterBody));
            assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
            a.wait_for_request("the upload", |r| r.method == "PUT" && r.is_complete()).await;
            gateway.signal("TERM");
            gateway.wait_for_refusal().await;
            a.release();
            for (number, client) in idle.iter_mut().enumerate() {
                let head = client.head_text("PUT", &format!("/bucket/{number}"), &[("Content-Length", "4")]);
                client.try_send(format!("{head}late").as_bytes()).await;
            }
            let mut answered = Vec::new();
            for client in &mut idle {
                answered.push(client.reply_or_end("PUT").await.is_some_and(|reply| reply.status == 200));
            }
            let records = gateway.ended().await.records;
            for (number, answered) in answered.into_iter().enumerate() {
                let path = format!("/bucket/{number}");
                let stored = [&a, &b].map(|backend| backend.stored(&path).is_some());
                let recorded = records.iter().any(|record| record["path"] == path);
                assert!(stored[0] == stored[1] || recorded, "{path}: {stored:?}, {records:#?}");
                assert!(!answered || stored.contains(&true), "{path} is nowhere");
            }
        }
    });
}

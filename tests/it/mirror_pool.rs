//! Pooled connections: reused where they live, replaced without a trace where they have died, and fresh
//! for what must not be sent twice.

use serde_json::Value;

use crate::fixture::*;

#[test]
fn connections_to_backends_are_reused() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        for number in 0..20 {
            let key = format!("/bucket/{number}");
            assert_eq!(gateway.put(&key, b"hello").await.status, 200);
            a.wait_for_object(&key).await;
            b.wait_for_object(&key).await;
            assert_eq!(gateway.get("/bucket/none").await.status, 404);
        }
        gateway.stop_in_sync().await;
        assert!(a.accepted() <= 4 && b.accepted() <= 4, "{} and {}", a.accepted(), b.accepted());
    });
}

#[test]
fn without_keep_alives_each_request_has_its_own_connection() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).set("DisableKeepAlives", true).start().await;
        for number in 0..5 {
            assert_eq!(gateway.put(&format!("/bucket/{number}"), b"hello").await.status, 200);
        }
        gateway.stop_in_sync().await;
        assert_eq!((a.accepted(), b.accepted()), (5, 5));
    });
}

#[test]
fn idle_connections_are_closed_in_time() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).set("IdleConnTimeout", "200ms").start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        a.wait_for_open_connections(0).await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        assert_eq!(a.accepted(), 2);
    });
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    run(async {
        let a = Misbehaving::start().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let gateway = Gateway::over(&[&a]).set("MaxIdleConnsPerHost", 2).start().await;
        let mut clients = Vec::new();
        for number in 0..6 {
            let mut client = gateway.client().await;
            client.head("PUT", &format!("/bucket/{number}"), &[("Content-Length", "2")]).await;
            client.send(b"hi").await;
            clients.push(client);
        }
        a.wait_for_connections(6).await;
        for request in 0..6 {
            a.wait_for_request("a body", |r| r.is_complete() && r.connection == request).await;
        }
        a.release();
        for client in &mut clients {
            assert_eq!(client.reply("PUT").await.status, 200);
        }
        a.wait_for_open_connections(2).await;
    });
}

#[test]
fn a_connection_that_the_backend_says_it_closes_is_not_used_again() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::good().then(Afterwards::CloseWithWarning));
        }
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        for number in 0..10 {
            let reply = client.request("PUT", &format!("/bucket/{number}"), &[], b"hello").await;
            // That word is between the backend and us.
            assert_eq!(reply.status, 200);
            assert_ne!(reply.header("connection"), Some("close"));
        }
        gateway.stop_in_sync().await;
        assert_eq!((a.requests().len(), a.accepted()), (10, 10));
    });
}

#[test]
fn a_connection_that_was_closed_without_a_word_is_no_divergence() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::good().then(Afterwards::CloseSilentlyAfter(1)));
        b.will(Behaviour::good().then(Afterwards::CloseSilentlyAfter(3)));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        // Around what is kept for a second try, and far above it.
        for (number, size) in [5, 5, 4096, 200_000, 300_000, 3_000_000].repeat(4).into_iter().enumerate() {
            let (key, body) = (format!("/bucket/{number}"), noise(size));
            assert_eq!(client.request("PUT", &key, &[], &body).await.status, 200);
            for backend in [&a, &b] {
                assert_eq!(backend.wait_for_object(&key).await.md5, hex_md5(&body));
            }
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn connections_that_close_at_random_are_no_divergence() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::closes_idle_connections_at_random(3));
        }
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let puts = (0..8).map(|client| put_many(gateway.address(), client, 60));
        let tasks: Vec<_> = puts.map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
        gateway.stop_in_sync().await;
        assert_eq!((a.paths().len(), b.paths().len()), (480, 480));
    });
}

#[test]
fn a_body_larger_than_what_is_kept_loses_nothing_on_a_connection_that_dies() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::closes_idle_connections_at_random(2));
        }
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(400_000);
        let clients = (0..4).map(async |client| {
            let mut connection = gateway.client().await;
            for number in 0..25 {
                // Without a length nothing but the bytes themselves would show that some are missing.
                let path = format!("/bucket/{client}-{number}");
                connection.head("PUT", &path, &[("Transfer-Encoding", "chunked")]).await;
                connection.chunk(&body).await;
                connection.last_chunk().await;
                assert_eq!(connection.reply("PUT").await.status, 200);
            }
        });
        futures_util::future::join_all(clients).await;
        let records = gateway.stop().await.records;
        let md5 = hex_md5(&body);
        let mut missing = 0;
        for backend in [&a, &b] {
            for path in
                (0..4).flat_map(|client| (0..25).map(move |number| format!("/bucket/{client}-{number}")))
            {
                if let Some(object) = backend.stored(&path) {
                    assert_eq!(object.md5, md5, "{path} is not whole");
                    continue;
                }
                // On a busy machine a backend's kernel may take more than what is kept before the connection ends.
                let told = |record: &&Value| record["path"] == path && record["failedhost"] == backend.url();
                assert!(records.iter().any(|record| told(&record)), "{path} is missing, and nobody says so");
                missing += 1;
            }
        }
        assert!(missing < 20, "{missing} of 200 were given up: {records:#?}");
    });
}

async fn put_many(gateway: std::net::SocketAddr, client: usize, count: usize) {
    let mut connection = Client::connect(gateway).await;
    let body = noise(4096);
    for number in 0..count {
        let reply = connection.request("PUT", &format!("/bucket/{client}-{number}"), &[], &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[test]
fn reads_survive_connections_that_closed_without_a_word() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        a.will(Behaviour::good().then(Afterwards::CloseSilentlyAfter(1)));
        let gateway = Gateway::over(&[&a]).start().await;
        for _ in 0..30 {
            assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
        }
    });
}

#[test]
fn what_must_not_be_sent_twice_takes_a_fresh_connection() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let held = format!("\"{}\"", hex_md5(b"hello"));
        a.holds("/bucket/2", "hello");
        b.holds("/bucket/2", "hello");
        let requests: [(&str, &[(&str, &str)]); 4] = [
            ("PUT", &[("If-None-Match", "*")]),
            ("POST", &[]),
            ("PUT", &[("If-Match", &held)]),
            ("POST", &[("x-amz-meta-a", "b")]),
        ];
        for (number, (method, headers)) in requests.into_iter().enumerate() {
            // One that leaves an idle connection behind on each.
            assert_eq!(gateway.put(&format!("/bucket/warm-{number}"), b"hello").await.status, 200);
            let key = format!("/bucket/{number}");
            assert_eq!(gateway.request(method, &key, headers, b"hello").await.status, 200);
            for backend in [&a, &b] {
                let request = backend.wait_for_request("it", |r| r.path() == key && r.is_complete()).await;
                assert_eq!(request.nth_on_connection, 0, "{method} {headers:?}");
            }
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_fresh_connection_that_dies_is_not_tried_again() {
    run(async {
        let (a, b) = pair().await;
        a.will_once(Behaviour::resets(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let records = gateway.stop().await.records;
        assert_eq!(record_of(&records, &a)["outcome"], "unknown");
        assert_eq!(a.requests().len(), 1);
    });
}

#[test]
fn a_reused_connection_that_dies_is_tried_once_more_and_not_for_ever() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/warm", b"hello").await.status, 200);
        a.wait_for_object("/bucket/warm").await;
        a.will(Behaviour::resets(Phase::AfterBody));
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let records = gateway.stop().await.records;
        assert_eq!(record_of(&records, &a)["outcome"], "unknown");
        let tries: Vec<_> =
            a.requests().into_iter().filter(|request| request.path() == "/bucket/key").collect();
        // The first connection may still have been on its way back to the pool.
        assert_eq!(tries.len(), if tries[0].nth_on_connection > 0 { 2 } else { 1 });
        assert_eq!(tries.last().unwrap().nth_on_connection, 0);
    });
}

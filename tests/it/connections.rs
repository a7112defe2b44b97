//! Client connections: how long their heads are waited for, and what becomes of them when the gateway ends.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::fixture::*;

#[test]
fn a_head_that_does_not_come_to_its_end_in_time_is_408() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).set("ClientHeaderTimeout", "1s").start().await;
        for reused in [false, true] {
            let mut client = gateway.client().await;
            if reused {
                assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
                // The time between requests does not count.
                tokio::time::sleep(Duration::from_millis(1200)).await;
            }
            let start = Instant::now();
            // Each byte comes in time; all of them together do not.
            let head = client.head_text("GET", "/bucket/key", &[]);
            let mut bytes = head.as_bytes().chunks(1);
            while client.stays_silent(Duration::from_millis(100)).await {
                assert!(client.try_send(bytes.next().unwrap()).await);
            }
            let reply = client.reply("GET").await;
            reply.assert_error(408, "RequestTimeout");
            assert_eq!(reply.header("connection"), Some("close"));
            assert!(
                reply.header("x-amz-request-id").is_some() && reply.header("x-akubra-request-id").is_some()
            );
            let elapsed = start.elapsed();
            assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&elapsed), "{elapsed:?}");
            client.finish_sending().await;
            client.closed().await;
        }
        let refused = |entry: &&serde_json::Value| entry["status"] == 408 && entry["remote"] == "127.0.0.1";
        assert_eq!(gateway.wait_for_access(3).await.iter().filter(refused).count(), 2);
        assert!(a.requests().len() == 1);
    });
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    run(async {
        let a = Misbehaving::start().await;
        let setup = Gateway::over(&[&a]).set("ClientHeaderTimeout", "1s").set("ClientIdleTimeout", "2s");
        let gateway = setup.start().await;
        // An empty line is no request (RFC 9112, 2.2).
        for (sent, reused, range) in
            [("", false, 0.9..1.9), ("\r\n", false, 0.9..1.9), ("\r\n", true, 1.9..4.0)]
        {
            let mut client = gateway.client().await;
            if reused {
                assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
            }
            let start = Instant::now();
            client.send(sent.as_bytes()).await;
            assert!(client.reply_or_end("GET").await.is_none());
            let elapsed = start.elapsed().as_secs_f64();
            assert!(range.contains(&elapsed), "{sent:?} {reused}: {elapsed}");
        }
    });
}

#[test]
fn empty_lines_gain_a_silent_client_no_time() {
    run(async {
        let a = Misbehaving::start().await;
        let setup = Gateway::over(&[&a]).set("ClientHeaderTimeout", "1s").set("ClientIdleTimeout", "2s");
        let gateway = setup.start().await;
        let in_turn = [("\r\n".to_owned(), 300), ("\r\n".repeat(100_000), 0)];
        for ((lines, pause), reused) in in_turn.iter().flat_map(|turn| [(turn, false), (turn, true)]) {
            let mut client = gateway.client().await;
            if reused {
                assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
            }
            let start = Instant::now();
            while client.try_send(lines.as_bytes()).await {
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                assert!(start.elapsed() < DEADLINE);
            }
            let elapsed = start.elapsed().as_secs_f64();
            let range = if reused { 1.9..4.0 } else { 0.9..3.0 };
            assert!(range.contains(&elapsed), "{} {reused}: {elapsed}", lines.len());
        }
    });
}

#[test]
fn the_end_does_not_wait_for_a_client_that_sends_empty_lines() {
    run(async {
        let a = Misbehaving::start().await;
        let mut gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
        let lines = "\r\n".repeat(100_000);
        let sending = tokio::spawn(async move { while client.try_send(lines.as_bytes()).await {} });
        let start = Instant::now();
        gateway.stop().await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        soon("the connection to be closed", sending).await.unwrap();
    });
}

#[test]
fn a_refused_client_that_sends_on_hears_its_answer() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).with_metrics().start().await;
        let large = format!("GET /bucket/key HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(3 << 20));
        let chunk = "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let broken = format!("{chunk}\r\n{}", "y".repeat(3 << 20));
        for (bytes, status) in [(large, 431), (broken, 400)] {
            for _ in 0..20 {
                let mut client = gateway.client().await;
                client.try_send(bytes.as_bytes()).await;
                assert_eq!(client.reply("PUT").await.status, status);
            }
        }
        assert!(a.paths().is_empty());
        // Whether its head got as far as a session or not.
        let all = |scrape: &Scrape| scrape.sum("akubra_lingering_closes_total", &[]) == 40.0;
        gateway.scrape_until("forty that were put up with", all).await;
    });
}

#[test]
fn thousands_of_idle_connections_are_in_nobodys_way() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).logging("warn,akubra=info").start().await;
        let at_rest = gateway.memory_kib();
        let mut idle = idle_connections(&gateway, 2000).await;
        // Of an unoptimised program; the figure that is promised is measured by `make figures`.
        let each = (gateway.memory_kib() - at_rest) / 2000;
        assert!(each <= 28, "{each} KiB for each idle connection");
        let mut client = gateway.client().await;
        let start = Instant::now();
        for number in 0..50 {
            let path = format!("/bucket/new-{number}");
            assert_eq!(client.request("PUT", &path, &[], b"hello").await.status, 200);
            assert_eq!(client.request("GET", &path, &[], b"").await.text(), "hello");
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        for client in idle.iter_mut().step_by(100) {
            assert_eq!(client.request("GET", "/bucket/new-0", &[], b"").await.text(), "hello");
        }
        let start = Instant::now();
        gateway.stop_in_sync().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    });
}

#[test]
fn more_connections_than_allowed_are_closed_and_those_that_are_open_go_on() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).set("MaxClientConnections", 5).start().await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = gateway.client().await;
            assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.status, 404);
            clients.push(client);
        }
        // Also when they come at once, before any of them has a task.
        for _ in 0..200 {
            TcpStream::connect(gateway.address()).await.unwrap();
        }
        let mut more = gateway.client().await;
        more.closed().await;
        gateway.wait_for_log("clients have 5 connections: more are closed").await;
        assert_eq!(clients[0].request("PUT", "/bucket/key", &[], b"hello").await.status, 200);
        drop(clients.pop());
        let served = async {
            loop {
                let mut client = gateway.client().await;
                let head = client.head_text("GET", "/bucket/key", &[]);
                client.try_send(head.as_bytes()).await;
                if client.reply_or_end("GET").await.is_some() {
                    return;
                }
            }
        };
        soon("a place", served).await;
    });
}

#[test]
fn a_first_head_that_comes_after_sigterm_is_served() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(gateway.client().await);
        }
        // What waits to be accepted when the listener closes is reset; this is accepted last.
        assert_eq!(gateway.get("/bucket/key").await.status, 404);
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (number, client) in clients.iter_mut().enumerate() {
            let reply = client.request("PUT", &format!("/bucket/{number}"), &[], b"hello").await;
            assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        }
        let start = Instant::now();
        let logs = gateway.ended().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert!(logs.records.is_empty() && logs.access.len() == 101);
        assert_eq!((a.paths().len(), b.paths().len()), (100, 100));
    });
}

#[test]
fn the_end_waits_for_a_silent_connection_no_longer_than_its_header_timeout() {
    run(async {
        let a = Misbehaving::start().await;
        let mut gateway = Gateway::over(&[&a]).set("ClientHeaderTimeout", "1s").start().await;
        let mut silent = gateway.client().await;
        assert_eq!(gateway.get("/bucket/key").await.status, 404);
        let start = Instant::now();
        gateway.stop().await;
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&elapsed), "{elapsed:?}");
        assert!(silent.reply_or_end("GET").await.is_none());
    });
}

#[test]
fn sigint_does_not_wait_for_silent_connections() {
    run(async {
        let a = Misbehaving::start().await;
        let mut gateway = Gateway::over(&[&a]).start().await;
        let mut silent = gateway.client().await;
        let mut halfway = gateway.client().await;
        halfway.send(b"GET / HTTP/1.1\r\n").await;
        // Accepted by now, and both before it.
        assert_eq!(gateway.get("/bucket/key").await.status, 404);
        let start = Instant::now();
        gateway.signal("INT");
        gateway.ended().await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        silent.closed().await;
        halfway.closed().await;
    });
}

#[test]
fn the_end_waits_for_a_head_that_has_begun_on_a_reused_connection() {
    run(async {
        let a = Misbehaving::start().await;
        let mut gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        assert_eq!(client.request("PUT", "/bucket/one", &[], b"hello").await.status, 200);
        let head = client.head_text("PUT", "/bucket/two", &[("Content-Length", "5")]);
        client.send(&head.as_bytes()[..20]).await;
        // Whatever the gateway's threads are doing: the bytes before are read before this is answered.
        assert_eq!(gateway.get("/bucket/one").await.status, 200);
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send(&head.as_bytes()[20..]).await;
        client.send(b"world").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        gateway.ended().await;
        assert_eq!(a.stored_bytes("/bucket/two").unwrap(), "world");
    });
}

#[test]
fn a_unix_socket_is_served_and_its_first_heads_are_waited_for() {
    run(async {
        let a = Misbehaving::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("akubra.sock");
        let setup = Gateway::over(&[&a]).set("Listen", path.to_str().unwrap());
        let mut gateway = setup.set_yaml("TrustedProxies", "[unix]").start().await;
        let put = |key: &str| {
            format!(
                "PUT /bucket/{key} HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
            )
        };
        let mut connections = Vec::new();
        for _ in 0..10 {
            connections.push(soon("a connection", UnixStream::connect(&path)).await.unwrap());
        }
        // Accepted in order: by then all are.
        let first = connections.pop().unwrap();
        assert!(answer(first, &put("first")).await.starts_with("HTTP/1.1 200"));
        let waiting = connections.remove(0);
        gateway.signal("TERM");
        tokio::time::sleep(Duration::from_millis(300)).await;
        for (number, connection) in connections.into_iter().enumerate() {
            assert!(answer(connection, &put(&number.to_string())).await.starts_with("HTTP/1.1 200"));
        }
        drop(waiting);
        let logs = gateway.ended().await;
        assert_eq!((a.paths().len(), logs.access.len()), (9, 9));
        assert!(logs.access.iter().all(|entry| entry["remote"] == "192.0.2.7"));
    });
}

/// The answer to a request after which the connection ends.
async fn answer(mut stream: UnixStream, request: &str) -> String {
    let mut answer = String::new();
    soon("an answer", async {
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
    })
    .await;
    answer
}

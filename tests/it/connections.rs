//! Client connections: how long their heads are waited for, and what becomes of them when the gateway ends.

use std::time::{Duration, Instant};

use crate::fixture::*;

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

//! What clients do to an upload: leave in the middle, send less than announced, leave after the end, send
//! the next request too soon. No backend may end up with a part of an object.

use std::time::Duration;

use crate::fixture::*;

const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

/// A PUT that both backends have seen begin, and of whose body so much has been sent.
async fn begun(gateway: &Gateway, backends: [&Misbehaving; 2], framing: (&str, &str), body: &[u8]) -> Client {
    let mut client = gateway.client().await;
    client.head("PUT", "/bucket/key", &[framing]).await;
    match framing == CHUNKED {
        true => client.chunk(body).await,
        false => client.send(body).await,
    }
    for backend in backends {
        backend.wait_for_requests(1).await;
    }
    client
}

/// A PUT of five bytes, all of which both backends have.
async fn whole(gateway: &Gateway, backends: [&Misbehaving; 2]) -> Client {
    let mut client = gateway.client().await;
    client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
    client.send(b"hello").await;
    for backend in backends {
        backend.wait_for_request("the body", Received::is_complete).await;
    }
    client
}

fn leave(client: Client, reset: bool) {
    if reset { client.reset() } else { drop(client) }
}

async fn assert_refused_or_cut_off(mut client: Client) {
    if let Some(reply) = client.reply_or_end("PUT").await {
        assert!(reply.status >= 400, "{reply:?}");
    }
}

/// Both backends saw the body break off, neither stored anything.
async fn assert_nothing_stored(a: &Misbehaving, b: &Misbehaving) {
    for backend in [a, b] {
        let request = backend.wait_for_request("the end", |request| request.ended).await;
        assert_eq!(request.state, BodyState::BrokenOff);
        assert_eq!(request.answered, 0);
        assert!(backend.paths().is_empty());
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_the_body_leaves_nothing_behind() {
    run(async {
        for (size, sent) in [(1_000_000, 300_000), (100, 50), (100, 99)] {
            for reset in [true, false] {
                let (a, b) = pair().await;
                let mut gateway = Gateway::over(&[&a, &b]).start().await;
                let length = size.to_string();
                let client = begun(&gateway, [&a, &b], ("Content-Length", &length), &noise(sent)).await;
                leave(client, reset);
                assert_nothing_stored(&a, &b).await;
                let logs = gateway.stop_in_sync().await;
                assert_eq!(logs.access.len(), 1);
                assert!(
                    logs.access[0]["status"] != 200 && logs.access[0]["error"] != "",
                    "{:?}",
                    logs.access
                );
            }
        }
    });
}

#[test]
fn a_client_that_sends_less_than_announced_leaves_nothing_behind() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = begun(&gateway, [&a, &b], ("Content-Length", "1000"), &noise(999)).await;
        client.finish_sending().await;
        assert_nothing_stored(&a, &b).await;
        assert_refused_or_cut_off(client).await;
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_chunked_body_without_its_last_chunk_leaves_nothing_behind() {
    run(async {
        for reset in [true, false] {
            let (a, b) = pair().await;
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            leave(begun(&gateway, [&a, &b], CHUNKED, &noise(100_000)).await, reset);
            assert_nothing_stored(&a, &b).await;
            gateway.stop_in_sync().await;
        }
    });
}

#[test]
fn a_broken_chunk_leaves_nothing_behind() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = begun(&gateway, [&a, &b], CHUNKED, &noise(1000)).await;
        client.send(b"this is no chunk size\r\n").await;
        assert_nothing_stored(&a, &b).await;
        assert_refused_or_cut_off(client).await;
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_client_that_is_silent_for_too_long_leaves_nothing_behind() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).set("ClientReadTimeout", "400ms").start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "1000")]).await;
        client.send(&noise(500)).await;
        assert_nothing_stored(&a, &b).await;
        if let Some(reply) = client.reply_or_end("PUT").await {
            assert_eq!(reply.status, 408, "{reply:?}");
        }
        client.closed().await;
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_client_that_leaves_after_the_body_changes_nothing() {
    run(async {
        for reset in [true, false] {
            let (a, b) = pair().await;
            for backend in [&a, &b] {
                backend.will(Behaviour::hangs(Phase::AfterBody));
            }
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            leave(whole(&gateway, [&a, &b]).await, reset);
            tokio::time::sleep(Duration::from_millis(50)).await;
            for backend in [&a, &b] {
                backend.release();
                backend.wait_for_object("/bucket/key").await;
            }
            gateway.stop_in_sync().await;
        }
    });
}

#[test]
fn a_failure_after_the_client_has_left_is_recorded() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(500).and_hangs(Phase::AfterBody));
        b.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        whole(&gateway, [&a, &b]).await.reset();
        a.release();
        b.release();
        record_of(&gateway.wait_for_records(1).await, &a);
        assert_eq!(gateway.stop().await.records.len(), 1);
    });
}

#[test]
fn the_next_request_on_the_connection_loses_no_byte() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.will_once(Behaviour::hangs(Phase::AfterBody));
        }
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = whole(&gateway, [&a, &b]).await;
        // It comes while the gateway waits for the backends and watches the client.
        client.head("PUT", "/bucket/two", &[("Content-Length", "5")]).await;
        client.send(b"world").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        a.release();
        b.release();
        let reply = client.reply("PUT").await;
        assert_eq!(reply.status, 200);
        // Either it is served too, or the client is told that the connection ends here.
        if reply.header("connection") == Some("close") {
            client.closed().await;
        } else {
            assert_eq!(client.reply("PUT").await.status, 200);
            assert_eq!(a.wait_for_object("/bucket/two").await.length, 5);
        }
        gateway.stop_in_sync().await;
        assert!(a.requests().iter().all(|request| request.method == "PUT"));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_or_the_connection_ends() {
    run(async {
        let (a, b) = pair().await;
        a.holds("/bucket/key", "from before");
        b.holds("/bucket/key", "from before");
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        let mut bytes = client.head_text("PUT", "/bucket/new", &[("Content-Length", "5")]) + "hello";
        bytes += &client.head_text("GET", "/bucket/key", &[]);
        client.send(bytes.as_bytes()).await;
        let reply = client.reply("PUT").await;
        assert_eq!(reply.status, 200);
        if reply.header("connection") != Some("close") {
            assert_eq!(client.reply("GET").await.text(), "from before");
        }
    });
}

#[test]
fn one_connection_serves_many_requests_of_all_kinds() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        for number in 0..10 {
            let key = format!("/bucket/{number}");
            assert_eq!(client.request("PUT", &key, &[], b"hello").await.status, 200);
            assert_eq!(client.request("GET", &key, &[], b"").await.text(), "hello");
            assert_eq!(client.request("HEAD", &key, &[], b"").await.header("content-length"), Some("5"));
            assert_eq!(client.request("DELETE", &key, &[], b"").await.status, 204);
            assert_eq!(client.request("GET", &key, &[], b"").await.status, 404);
        }
        gateway.stop_in_sync().await;
    });
}

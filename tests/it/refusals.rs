//! Requests that the gateway refuses itself: nothing of them reaches a backend as a complete object, and
//! the answer is an S3 XML error wherever the program makes it.

use crate::fixture::*;

#[test]
fn a_body_over_the_limit_is_413() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).set("BodyMaxSize", "1KB").start().await;
        assert_eq!(gateway.put("/bucket/fits", &noise(1000)).await.status, 200);
        for _ in 0..30 {
            let mut client = gateway.client().await;
            client.head("PUT", "/bucket/key", &[("Content-Length", "1500000")]).await;
            client.try_send(&noise(1_500_000)).await;
            let reply = client.reply("PUT").await;
            reply.assert_error(413, "EntityTooLarge");
            assert!(reply.header("x-amz-request-id").is_some());
            assert!(reply.header("x-akubra-request-id").is_some());
        }
        assert!(a.requests().iter().all(|request| request.path() == "/bucket/fits"));
    });
}

#[test]
fn a_chunked_body_that_grows_over_the_limit_is_413_and_nothing_is_stored() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).set("BodyMaxSize", "100KB").start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Transfer-Encoding", "chunked")]).await;
        client.chunk(&noise(60_000)).await;
        for backend in [&a, &b] {
            backend.wait_for_requests(1).await;
        }
        client.chunk(&noise(60_000)).await;
        client.reply("PUT").await.assert_error(413, "EntityTooLarge");
        for backend in [&a, &b] {
            let request = backend.wait_for_request("the end", |request| request.ended).await;
            assert_eq!(request.state, BodyState::BrokenOff);
            assert!(backend.paths().is_empty());
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn bad_framing_is_400() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).start().await;
        for head in [
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: five\r\n\r\nhello",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "PUT /bucket/key HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
            "GET /bucket/%zz HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /bucket/%2 HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /bucket/a#b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /bucket/key HTTP/1.1\r\n\r\n",
            "GET /bucket/key HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        ] {
            let mut client = gateway.client().await;
            client.send(head.as_bytes()).await;
            let reply = client.reply("PUT").await;
            assert_eq!(reply.status, 400, "{head}");
        }
        assert!(a.requests().is_empty(), "{:?}", a.requests());
    });
}

#[test]
fn a_400_of_the_gateway_is_an_s3_error() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).start().await;
        let reply = gateway.get("/bucket/%zz").await;
        let text = reply.text();
        for element in ["<Error>", "<Code>", "<Message>", "<Resource>", "<RequestId>"] {
            assert!(text.contains(element), "no {element} in {text}");
        }
        assert_eq!(reply.header("content-type"), Some("application/xml"));
        let id = reply.header("x-akubra-request-id").unwrap();
        assert!(text.contains(id) && reply.header("x-amz-request-id").is_some());
    });
}

#[test]
fn an_answer_to_a_head_has_no_body() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        assert_eq!(client.request("HEAD", "/bucket/%zz", &[], b"").await.status, 400);
        if client.try_send(client.head_text("HEAD", "/bucket/key", &[]).as_bytes()).await
            && let Some(next) = client.reply_or_end("HEAD").await
        {
            assert_eq!(next.status, 404);
        }
    });
}

#[test]
fn more_requests_than_allowed_are_503_slow_down() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        a.will(Behaviour::hangs(Phase::AfterHead));
        let gateway = Gateway::over(&[&a]).set("MaxConcurrentRequests", 2).start().await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = gateway.client().await;
            client.head("GET", "/bucket/key", &[]).await;
            clients.push(client);
        }
        a.wait_for_requests(2).await;
        let reply = gateway.get("/bucket/key").await;
        reply.assert_error(503, "SlowDown");
        assert!(reply.header("retry-after").is_some());
        // Whatever the load, the health path answers.
        assert_eq!(gateway.get("/status/ping").await.status, 200);
        a.will(Behaviour::good());
        a.release();
        for client in &mut clients {
            assert_eq!(client.reply("GET").await.text(), "hello");
        }
        assert_eq!(gateway.get("/bucket/key").await.status, 200);
    });
}

#[test]
fn background_work_does_not_count_against_the_limit() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).set("MaxConcurrentRequests", 1).start().await;
        let mut client = gateway.client().await;
        for number in 0..5 {
            let reply = client.request("PUT", &format!("/bucket/{number}"), &[], b"hello").await;
            assert_eq!(reply.status, 200);
        }
        a.release();
        gateway.stop_in_sync().await;
    });
}

#[test]
fn the_health_path_answers_for_any_host() {
    run(async {
        let a = Misbehaving::start().await;
        let region = Region::new("r", &[("c", 1.0)]).domain("s3.internal");
        let gateway = Setup::new().cluster("c", &[&a]).region(region).start().await;
        let reply = gateway.request("GET", "/status/ping", &[("Host", "10.1.2.3")], b"").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "OK"));
        assert_eq!(reply.header("content-type"), Some("text/html"));
        assert_eq!(reply.header("cache-control"), Some("no-cache, no-store"));
        let head = gateway.request("HEAD", "/status/ping", &[], b"").await;
        assert_eq!(head.status, 200);
        assert!(a.requests().is_empty());
    });
}

#[test]
fn an_upgrade_is_ignored() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        let gateway = Gateway::over(&[&a]).start().await;
        let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        let mut client = gateway.client().await;
        for _ in 0..2 {
            let reply = client.request("GET", "/bucket/key", &headers, b"").await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        }
    });
}

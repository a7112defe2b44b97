//! The fixtures themselves, directly: what the other tests believe about them.

use std::time::{Duration, Instant};

use crate::fixture::*;

#[test]
fn a_real_s3_server_stores_what_the_aws_client_sends() {
    run(async {
        let backend = S3Backend::with_bucket("bucket").await;
        let body = noise(300_000);
        let put = backend.client().put_object().bucket("bucket").key("a/b").body(body.clone().into());
        let answer = put.send().await.unwrap();
        assert_eq!(answer.e_tag().unwrap(), format!("\"{}\"", hex_md5(&body)));
        assert_eq!(backend.object("bucket", "a/b").await.unwrap(), body);
        assert_eq!(std::fs::read(backend.file("bucket", "a/b")).unwrap(), body);
    });
}

#[test]
fn a_good_backend_is_a_small_s3() {
    run(async {
        let backend = Misbehaving::start().await;
        let client = s3_client(&backend.url());
        let body = noise(100_000);
        let put = client.put_object().bucket("b").key("k").metadata("colour", "blue");
        // Plain bytes with a Content-Length: no checksum trailer around them.
        let put = put.body(body.clone().into()).customize().disable_payload_signing();
        put.send().await.unwrap();
        let get = client.get_object().bucket("b").key("k").range("bytes=10-19").send().await.unwrap();
        assert_eq!(get.metadata().unwrap()["colour"], "blue");
        let received = &backend.requests()[0];
        assert_eq!((received.method.as_str(), received.path()), ("PUT", "/b/k"));
        assert!(received.is_complete() && received.ended && received.answered == 200);
        assert!(received.head.starts_with(b"PUT /b/k") && received.head.ends_with(b"\r\n\r\n"));
        client.delete_object().bucket("b").key("k").send().await.unwrap();
        let missing = client.head_object().bucket("b").key("k").send().await.unwrap_err();
        assert!(missing.into_service_error().is_not_found());
    });
}

#[test]
fn bodies_are_stored_in_both_framings_and_only_whole() {
    run(async {
        let backend = Misbehaving::start().await;
        let mut client = Client::connect(backend.address()).await;
        let reply = client.request("PUT", "/b/length", &[], b"hello").await;
        assert_eq!(reply.header("etag").unwrap(), format!("\"{}\"", hex_md5(b"hello")));
        client.head("PUT", "/b/chunked", &[("Transfer-Encoding", "chunked")]).await;
        client.chunk(b"hello ").await;
        client.chunk(b"world").await;
        client.last_chunk().await;
        assert_eq!(client.reply("PUT").await.status, 200);
        client.head("PUT", "/b/short", &[("Content-Length", "10")]).await;
        client.send(b"12345").await;
        client.reset();
        let short = backend.wait_for_request("the short one", |r| r.path() == "/b/short" && r.ended).await;
        assert_eq!((short.state, short.body_length), (BodyState::BrokenOff, 5));
        assert_eq!(backend.stored_bytes("/b/length").unwrap(), "hello");
        assert_eq!(backend.stored_bytes("/b/chunked").unwrap(), "hello world");
        assert_eq!(backend.paths(), ["/b/chunked", "/b/length"]);
        assert_eq!(backend.accepted(), 1);
    });
}

#[test]
fn a_refusing_backend_refuses_until_it_listens_again() {
    run(async {
        let backend = Misbehaving::refusing().await;
        assert!(tokio::net::TcpStream::connect(backend.address()).await.is_err());
        backend.listen_again();
        assert_eq!(request(backend.address(), "GET", "/b/k", &[], b"").await.status, 404);
        backend.refuse().await;
        assert!(tokio::net::TcpStream::connect(backend.address()).await.is_err());
    });
}

#[test]
fn a_backend_stops_at_the_phase_it_was_told() {
    run(async {
        let backend = Misbehaving::start().await;
        let body = noise(1000);
        for (phase, read) in
            [(Phase::Accepted, None), (Phase::AfterHead, Some(0)), (Phase::MidBody(400), Some(400))]
        {
            for behaviour in [Behaviour::resets(phase), Behaviour::closes(phase)] {
                let before = backend.requests().len();
                backend.will_once(behaviour);
                let mut client = Client::connect(backend.address()).await;
                client.head("PUT", "/b/k", &[("Content-Length", "1000")]).await;
                client.try_send(&body).await;
                assert!(client.reply_or_end("PUT").await.is_none());
                drop(client);
                backend.wait_for_open_connections(0).await;
                let lengths: Vec<_> = backend.requests()[before..].iter().map(|r| r.body_length).collect();
                assert_eq!(lengths, Vec::from_iter(read), "{phase:?}");
            }
        }
        assert!(backend.paths().is_empty());
    });
}

#[test]
fn a_hanging_backend_goes_on_when_it_is_released() {
    run(async {
        let backend = Misbehaving::start().await;
        backend.will_once(Behaviour::hangs(Phase::AfterBody));
        let mut client = Client::connect(backend.address()).await;
        client.head("PUT", "/b/k", &[("Content-Length", "2")]).await;
        client.send(b"hi").await;
        backend.wait_for_request("the body", Received::is_complete).await;
        assert!(client.stays_silent(Duration::from_millis(50)).await);
        assert!(backend.stored("/b/k").is_none());
        backend.release();
        assert_eq!(client.reply("PUT").await.status, 200);
        assert_eq!(backend.stored_bytes("/b/k").unwrap(), "hi");
    });
}

#[test]
fn a_hanging_backend_notices_that_the_peer_has_gone() {
    run(async {
        let backend = Misbehaving::start().await;
        backend.will(Behaviour::hangs(Phase::AfterHead));
        let mut client = Client::connect(backend.address()).await;
        client.head("PUT", "/b/k", &[("Content-Length", "2")]).await;
        client.send(b"hi").await;
        backend.wait_for_requests(1).await;
        drop(client);
        let request = backend.wait_for_request("the end", |request| request.ended).await;
        assert_eq!((request.state, request.answered), (BodyState::BrokenOff, 0));
    });
}

#[test]
fn answers_come_early_late_broken_and_wrong_as_told() {
    run(async {
        let backend = Misbehaving::start().await;
        backend.holds("/b/k", "0123456789");
        backend.will_once(Behaviour::answers_early(403, AfterEarly::KeepReading));
        let mut client = Client::connect(backend.address()).await;
        client.head("PUT", "/b/new", &[("Content-Length", "2")]).await;
        assert_eq!(client.reply("PUT").await.status, 403);
        client.send(b"hi").await;
        backend.will_once(Behaviour::good().after_interim(&[102, 103]));
        assert_eq!(client.request("GET", "/b/k", &[], b"").await.interim, [102, 103]);
        backend.will_once(Behaviour::good().framed(Framing::Chunked));
        let chunked = client.request("GET", "/b/k", &[], b"").await;
        assert_eq!((chunked.text().as_str(), chunked.complete), ("0123456789", true));
        assert_eq!(backend.accepted(), 1);
        for (behaviour, body) in [
            (Behaviour::good().framed(Framing::PromisesMore(3)), "0123456789"),
            (Behaviour::closes(Phase::MidAnswerBody(4)).framed(Framing::Chunked), "0123"),
            (Behaviour::resets(Phase::AfterAnswerHead), ""),
        ] {
            backend.will_once(behaviour);
            let broken = request(backend.address(), "GET", "/b/k", &[], b"").await;
            assert_eq!((broken.text().as_str(), broken.complete), (body, false));
        }
        backend.will_once(Behaviour::answers_garbage());
        let mut client = Client::connect(backend.address()).await;
        client.head("GET", "/b/k", &[]).await;
        assert!(client.reply_or_end("GET").await.is_none());
    });
}

#[test]
fn rates_hold_in_both_directions() {
    run(async {
        let backend = Misbehaving::start().await;
        backend.will_once(Behaviour::reads_at(1_000_000));
        let start = Instant::now();
        assert_eq!(request(backend.address(), "PUT", "/b/k", &[], &noise(200_000)).await.status, 200);
        assert!(start.elapsed() > Duration::from_millis(190), "{:?}", start.elapsed());
        backend.will_once(Behaviour::writes_at(1_000_000));
        let start = Instant::now();
        assert!(request(backend.address(), "GET", "/b/k", &[], b"").await.complete);
        assert!(start.elapsed() > Duration::from_millis(190), "{:?}", start.elapsed());
    });
}

#[test]
fn connections_close_with_and_without_a_word() {
    run(async {
        let backend = Misbehaving::start().await;
        backend.will_once(Behaviour::good().then(Afterwards::CloseWithWarning));
        let mut client = Client::connect(backend.address()).await;
        let reply = client.request("GET", "/b/k", &[], b"").await;
        assert_eq!(reply.header("connection"), Some("close"));
        client.closed().await;
        backend.will(Behaviour::good().then(Afterwards::CloseSilentlyAfter(2)));
        let mut client = Client::connect(backend.address()).await;
        for _ in 0..2 {
            let reply = client.request("GET", "/b/k", &[], b"").await;
            assert_eq!((reply.status, reply.header("connection")), (404, None));
        }
        client.closed().await;
    });
}

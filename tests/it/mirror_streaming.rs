//! The mirror when all goes well: every body streamed to every backend, in both framings, and the client's
//! answer is the first good reply while the others go on to their own end.

use std::time::{Duration, Instant};

use crate::fixture::*;

#[test]
fn a_put_is_stored_on_both_backends() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(300_000);
        let reply = gateway.put("/bucket/key", &body).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("etag").unwrap(), format!("\"{}\"", hex_md5(&body)));
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/key").await;
            assert_eq!(backend.stored_bytes("/bucket/key").unwrap(), body);
            assert_eq!(backend.requests().len(), 1);
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn the_body_reaches_the_backends_while_the_client_still_sends() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(1_000_000);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "1000000")]).await;
        client.send(&body[..200_000]).await;
        for backend in [&a, &b] {
            backend.wait_for_request("a part of the body", |r| r.body_length >= 128 << 10).await;
            assert!(!backend.requests()[0].is_complete());
        }
        client.send(&body[200_000..]).await;
        assert_eq!(client.reply("PUT").await.status, 200);
        for backend in [&a, &b] {
            assert_eq!(backend.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn chunks_that_trickle_in_pieces_arrive_whole() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Transfer-Encoding", "chunked")]).await;
        // Each piece by itself: a chunk's size without its data reads as zero bytes of body.
        for piece in ["5", "\r", "\n", "hel", "lo", "\r\n", "6\r\n", " world", "\r", "\n1\r\n!\r\n"] {
            client.send(piece.as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(a.requests().iter().chain(&b.requests()).all(|request| !request.is_complete()));
        client.last_chunk().await;
        assert_eq!(client.reply("PUT").await.status, 200);
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/key").await;
            assert_eq!(backend.stored_bytes("/bucket/key").unwrap(), "hello world!");
            let request = &backend.requests()[0];
            assert_eq!(request.header("transfer-encoding"), Some("chunked"));
            assert_eq!(request.header("content-length"), None);
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_large_chunked_upload_arrives_whole() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(5_000_000);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Transfer-Encoding", "chunked")]).await;
        for piece in body.chunks(77_777) {
            client.chunk(piece).await;
        }
        client.last_chunk().await;
        assert_eq!(client.reply("PUT").await.status, 200);
        for backend in [&a, &b] {
            assert_eq!(backend.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn empty_bodies_are_objects_too() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/length", b"").await.status, 200);
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/chunked", &[("Transfer-Encoding", "chunked")]).await;
        client.last_chunk().await;
        assert_eq!(client.reply("PUT").await.status, 200);
        for backend in [&a, &b] {
            for key in ["/bucket/length", "/bucket/chunked"] {
                assert_eq!(backend.wait_for_object(key).await.length, 0);
            }
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn the_client_gets_the_first_good_reply_and_the_other_backend_goes_on() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        b.will(Behaviour::good().with_header("X-Answered-By", "b"));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let reply = gateway.put("/bucket/key", b"hello").await;
        assert_eq!((reply.status, reply.header("x-answered-by")), (200, Some("b")));
        assert!(a.stored("/bucket/key").is_none());
        // The client's connection is closed by now.
        a.release();
        a.wait_for_object("/bucket/key").await;
        gateway.stop_in_sync().await;
        assert_eq!(a.stored_bytes("/bucket/key").unwrap(), "hello");
    });
}

#[test]
fn a_bad_answer_does_not_win_over_a_later_good_one() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(500));
        b.will(Behaviour::hangs(Phase::AfterBody));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        client.send(b"hello").await;
        a.wait_for_request("the answer of a", |request| request.answered == 500).await;
        b.wait_for_request("the body at b", Received::is_complete).await;
        assert!(client.stays_silent(Duration::from_millis(100)).await);
        b.release();
        assert_eq!(client.reply("PUT").await.status, 200);
        assert_eq!(record_of(&gateway.wait_for_records(1).await, &a)["status"], 500);
    });
}

#[test]
fn a_good_answer_waits_for_the_end_of_the_clients_body() {
    run(async {
        let (a, b) = pair().await;
        // A storage that answers 200 before it has the body has not stored it.
        a.will(Behaviour::answers_early(200, AfterEarly::KeepReading));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "10")]).await;
        client.send(b"hello").await;
        a.wait_for_request("the early answer", |request| request.answered == 200).await;
        assert!(client.stays_silent(Duration::from_millis(100)).await);
        client.send(b"world").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        assert_eq!(b.wait_for_object("/bucket/key").await.length, 10);
    });
}

#[test]
fn the_other_backend_goes_on_reading_after_the_client_has_its_answer() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::reads_at(2_000_000));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let body = noise(900_000);
        let start = Instant::now();
        assert_eq!(gateway.put("/bucket/key", &body).await.status, 200);
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
        assert!(!a.requests()[0].is_complete());
        assert_eq!(a.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
        gateway.stop_in_sync().await;
    });
}

#[test]
fn interim_answers_are_passed_over() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::good().after_interim(&[100, 102, 103]));
        b.will(Behaviour::good().after_interim(&[103, 103]));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        for key in ["/bucket/one", "/bucket/two"] {
            let mut client = gateway.client().await;
            let reply = client.request("PUT", key, &[], b"hello").await;
            assert_eq!((reply.status, reply.interim.as_slice()), (200, [].as_slice()));
            let reply = client.request("GET", key, &[], b"").await;
            assert_eq!((reply.text().as_str(), reply.interim.as_slice()), ("hello", [].as_slice()));
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn expect_100_continue_is_answered_by_the_gateway_alone() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        let headers = [("Content-Length", "5"), ("Expect", "100-continue")];
        client.head("PUT", "/bucket/key", &headers).await;
        let (status, _) = soon("100", client.read_head()).await.unwrap();
        assert_eq!(status, 100);
        client.send(b"hello").await;
        let reply = client.reply("PUT").await;
        assert_eq!((reply.status, reply.interim.as_slice()), (200, [].as_slice()));
        for backend in [&a, &b] {
            backend.wait_for_object("/bucket/key").await;
            assert_eq!(backend.requests()[0].header("expect"), None);
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn the_last_answer_carries_its_request_ids_and_the_backends_headers() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let reply = gateway.put("/bucket/key", b"hello").await;
        let id = reply.header("x-akubra-request-id").unwrap();
        assert!(!id.is_empty() && reply.header("x-amz-request-id").is_some());
        for backend in [&a, &b] {
            let requests = backend.wait_for_requests(1).await;
            assert_eq!(requests[0].header("x-akubra-request-id"), Some(id));
        }
        for backend in [&a, &b] {
            backend.will(Behaviour::good().with_header("x-amz-request-id", "backends-own"));
        }
        let reply = gateway.put("/bucket/key", b"hello").await;
        assert_eq!(reply.header("x-amz-request-id"), Some("backends-own"));
    });
}

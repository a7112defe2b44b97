//! Answers with bodies on their way to the client: untouched, as they come, never ended as if complete
//! when they are not, and no longer than the client reads.

use crate::fixture::*;

#[test]
fn a_chunked_answer_and_one_without_length_arrive_whole() {
    run(async {
        let a = Misbehaving::start().await;
        let body = noise(500_000);
        a.holds("/bucket/key", body.clone());
        let gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        for framing in [Framing::Chunked, Framing::UntilClose, Framing::Length] {
            a.will(Behaviour::good().framed(framing));
            let reply = client.request("GET", "/bucket/key", &[], b"").await;
            assert!(reply.status == 200 && reply.complete && reply.body == body, "{framing:?}");
        }
    });
}

#[test]
fn an_answer_that_breaks_off_is_passed_on_as_broken() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", noise(500_000));
        let gateway = Gateway::over(&[&a]).start().await;
        for behaviour in [
            Behaviour::closes(Phase::MidAnswerBody(200_000)),
            Behaviour::resets(Phase::MidAnswerBody(200_000)),
            Behaviour::closes(Phase::MidAnswerBody(200_000)).framed(Framing::Chunked),
            Behaviour::resets(Phase::MidAnswerBody(200_000)).framed(Framing::Chunked),
            Behaviour::good().framed(Framing::PromisesMore(10)),
        ] {
            a.will_once_on("GET", behaviour.clone());
            let mut client = gateway.client().await;
            client.head("GET", "/bucket/key", &[]).await;
            if let Some(reply) = client.reply_or_end("GET").await {
                assert!(!reply.complete || reply.status >= 500, "{behaviour:?}: {}", reply.status);
            }
            client.closed().await;
        }
        let entry = &gateway.wait_for_access(1).await[0];
        assert_ne!(entry["error"], "", "{entry}");
    });
}

#[test]
fn an_answer_that_breaks_off_before_its_body_is_told_as_unavailable() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", noise(500_000));
        let gateway = Gateway::over(&[&a]).start().await;
        a.will_once_on("GET", Behaviour::resets(Phase::AfterAnswerHead));
        let mut client = gateway.client().await;
        client.request("GET", "/bucket/key", &[], b"").await.assert_error(503, "ServiceUnavailable");
        assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.body.len(), 500_000);
    });
}

#[test]
fn an_answer_longer_than_it_promised_does_not_spoil_the_next() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "0123456789");
        let gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        for _ in 0..5 {
            a.will_once(Behaviour::good().framed(Framing::PromisesLess(4)));
            assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.text(), "012345");
            assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.text(), "0123456789");
        }
    });
}

#[test]
fn a_trickling_answer_is_passed_on_as_it_comes() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", noise(100_000));
        a.will(Behaviour::hangs(Phase::MidAnswerBody(40_000)));
        let gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        client.head("GET", "/bucket/key", &[]).await;
        let (status, _) = soon("the head", client.read_head()).await.unwrap();
        assert_eq!(status, 200);
        client.read_at_least(40_000).await;
        a.release();
        client.read_at_least(100_000).await;
    });
}

#[test]
fn a_client_that_stops_reading_does_not_hold_the_backend_for_ever() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", noise(8 << 20));
        let gateway = Gateway::over(&[&a]).set("ClientWriteTimeout", "500ms").start().await;
        let mut client = Client::connect_with_small_window(gateway.address()).await;
        client.head("GET", "/bucket/key", &[]).await;
        a.wait_for_request("the request", |request| request.answered == 200).await;
        a.wait_for_open_connections(0).await;
        let reply = client.reply_or_end("GET").await.unwrap();
        assert!(!reply.complete);
    });
}

#[test]
fn a_client_that_leaves_frees_the_backend() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", noise(8 << 20));
        let gateway = Gateway::over(&[&a]).start().await;
        let mut client = Client::connect_with_small_window(gateway.address()).await;
        client.head("GET", "/bucket/key", &[]).await;
        a.wait_for_request("the request", |request| request.answered == 200).await;
        client.reset();
        a.wait_for_open_connections(0).await;
    });
}

#[test]
fn a_backend_that_hangs_in_its_answer_is_given_up() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        a.will(Behaviour::hangs(Phase::MidAnswerBody(2)));
        let gateway = Gateway::over(&[&a]).set("BackgroundTimeout", "500ms").start().await;
        let mut client = gateway.client().await;
        client.head("GET", "/bucket/key", &[]).await;
        // An end that looks complete would be an object of two bytes.
        assert!(client.reply_or_end("GET").await.is_none_or(|reply| !reply.complete));
        client.closed().await;
        a.wait_for_open_connections(0).await;
    });
}

#[test]
fn ranges_conditions_and_heads_pass_untouched() {
    run(async {
        let (a, b) = pair().await;
        let body = noise(100_000);
        a.holds("/bucket/key", body.clone());
        b.holds("/bucket/key", body.clone());
        let etag = format!("\"{}\"", hex_md5(&body));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let range = gateway.request("GET", "/bucket/key", &[("Range", "bytes=100-199")], b"").await;
        assert_eq!((range.status, range.body), (206, body.slice(100..200)));
        let unmodified = gateway.request("GET", "/bucket/key", &[("If-None-Match", &etag)], b"").await;
        assert_eq!((unmodified.status, unmodified.header("etag")), (304, Some(etag.as_str())));
        let failed = gateway.request("GET", "/bucket/key", &[("If-Match", "\"other\"")], b"").await;
        assert_eq!(failed.status, 412);
        let beyond = gateway.request("GET", "/bucket/key", &[("Range", "bytes=200000-")], b"").await;
        assert_eq!(beyond.status, 416);
        let mut client = gateway.client().await;
        let head = client.request("HEAD", "/bucket/key", &[], b"").await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
        assert!(head.header("last-modified").is_some());
        assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.body, body);
    });
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_no_success() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let copied = [("x-amz-copy-source", "/bucket/source")];
        let doomed = b"<Delete><Object><Key>key</Key></Object></Delete>";
        let asked: [(&str, &str, &[_], &[u8]); 3] = [
            ("POST", "/bucket?delete", &[], doomed),
            ("POST", "/bucket/key?uploadId=1", &[], b"<CompleteMultipartUpload/>"),
            ("PUT", "/bucket/key", &copied, b""),
        ];
        for (method, target, headers, body) in asked {
            for backend in [&a, &b] {
                backend.will(Behaviour::answers(Answer::new(200).body("<html>We are moving</html>")));
            }
            let reply = gateway.request(method, target, headers, body).await;
            reply.assert_error(503, "ServiceUnavailable");
            b.will(Behaviour::answers(200));
            a.will(Behaviour::answers(200));
            assert_eq!(gateway.request(method, target, headers, body).await.status, 200, "{method} {target}");
        }
    });
}

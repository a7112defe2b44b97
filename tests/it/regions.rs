//! Which region a Host means, and what happens to headers on the way.

use crate::fixture::*;

/// Two regions with a cluster each; none is the default.
fn two_regions(a: &Misbehaving, b: &Misbehaving) -> Setup {
    Setup::new()
        .cluster("one", &[a])
        .cluster("two", &[b])
        .region(Region::new("first", &[("one", 1.0)]).domain("one.internal").domain("s3.internal"))
        .region(Region::new("second", &[("two", 1.0)]).domain("two.internal").domain("deep.one.internal"))
}

#[test]
fn the_host_chooses_the_region() {
    run(async {
        let (a, b) = pair().await;
        let gateway = two_regions(&a, &b).start().await;
        for (host, backend) in [
            ("one.internal", &a),
            ("ONE.internal:8080", &a),
            ("s3.internal", &a),
            ("bucket.one.internal", &a),
            ("two.internal", &b),
            ("a.bucket.two.internal", &b),
            ("deep.one.internal", &b),
            ("bucket.deep.one.internal", &b),
        ] {
            let before = backend.requests().len();
            gateway.request("GET", "/bucket/key", &[("Host", host)], b"").await;
            let requests = backend.requests();
            assert_eq!(requests.len(), before + 1, "{host}");
            assert_eq!(requests[before].header("host"), Some(host));
        }
    });
}

#[test]
fn an_unknown_host_is_404_without_a_default_region() {
    run(async {
        let (a, b) = pair().await;
        let gateway = two_regions(&a, &b).start().await;
        for host in ["three.internal", "xone.internal", "internal"] {
            let reply = gateway.request("GET", "/bucket/key", &[("Host", host)], b"").await;
            assert!(
                reply.status == 404 && reply.text().contains("No region found for this domain."),
                "{reply:?}"
            );
            assert!(reply.text().contains("<Error>"), "{reply:?}");
        }
        assert!(a.requests().is_empty() && b.requests().is_empty());
    });
}

#[test]
fn an_unknown_host_goes_to_the_default_region() {
    run(async {
        let (a, b) = pair().await;
        let setup = Setup::new()
            .cluster("one", &[&a])
            .cluster("two", &[&b])
            .region(Region::new("first", &[("one", 1.0)]).domain("one.internal"))
            .region(Region::new("second", &[("two", 1.0)]).default_region());
        let gateway = setup.start().await;
        gateway.request("GET", "/bucket/key", &[("Host", "anything")], b"").await;
        gateway.request("GET", "/bucket/key", &[("Host", "one.internal")], b"").await;
        assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
    });
}

#[test]
fn a_bucket_in_the_host_and_one_in_the_path_are_the_same_object() {
    run(async {
        let (a, b) = pair().await;
        let region = Region::new("r", &[("one", 1.0), ("two", 1.0)]).domain("s3.internal");
        let setup = Setup::new().cluster("one", &[&a]).cluster("two", &[&b]).region(region);
        let gateway = setup.start().await;
        for number in 0..20 {
            let path = format!("/bucket/{number}");
            gateway.request("PUT", &path, &[("Host", "s3.internal")], b"x").await;
            let home = if a.paths().contains(&path) { &a } else { &b };
            let before = home.requests().len();
            let host = [("Host", "bucket.s3.internal")];
            gateway.request("PUT", &format!("/{number}"), &host, b"x").await;
            let requests = home.requests();
            assert_eq!(requests.len(), before + 1);
            assert_eq!(requests[before].target, format!("/{number}"));
        }
    });
}

#[test]
fn hop_by_hop_headers_are_not_forwarded_in_either_direction() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        let answer =
            Behaviour::good().with_header("Connection", "X-Backend-Hop").with_header("X-Backend-Hop", "1");
        let answer = answer.with_header("Keep-Alive", "timeout=5").with_header("Proxy-Authenticate", "Basic");
        a.will(
            answer.with_header("Upgrade", "h2c").with_header("Trailer", "x").with_header("X-End-To-End", "1"),
        );
        let gateway = Gateway::over(&[&a]).start().await;
        let headers = [
            ("Connection", "X-Client-Hop, keep-alive, upgrade"),
            ("X-Client-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "Basic x"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Upgrade", "websocket"),
            ("X-End-To-End", "1"),
        ];
        let reply = gateway.request("GET", "/bucket/key", &headers, b"").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        let received = &a.requests()[0];
        for hop in [
            "x-client-hop",
            "keep-alive",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "upgrade",
        ] {
            assert_eq!(received.header(hop), None, "{hop}");
        }
        assert_ne!(received.header("connection"), Some(headers[0].1));
        for hop in ["x-backend-hop", "keep-alive", "proxy-authenticate", "upgrade", "trailer"] {
            assert_eq!(reply.header(hop), None, "{hop}");
        }
        assert_eq!((received.header("x-end-to-end"), reply.header("x-end-to-end")), (Some("1"), Some("1")));
    });
}

#[test]
fn every_other_header_is_forwarded_untouched() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).start().await;
        let headers = [
            ("Host", "Some.Host:1234"),
            ("Authorization", "AWS4-HMAC-SHA256 Credential=x"),
            ("x-amz-date", "20260101T000000Z"),
            ("x-amz-meta-colour", "bl\u{fc}e"),
            ("Cookie", "a=b"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("Accept-Encoding", "gzip"),
        ];
        gateway.request("PUT", "/bucket/a%2Fb//c%20d?x=1&y", &headers, b"hello").await;
        let received = &a.requests()[0];
        assert_eq!(received.target, "/bucket/a%2Fb//c%20d?x=1&y");
        for (name, value) in headers {
            assert_eq!(received.header(&name.to_lowercase()), Some(value), "{name}");
        }
        let ours: Vec<_> = received.headers.iter().map(|(name, _)| name.as_str()).collect();
        let expected = headers.iter().map(|(name, _)| name.to_lowercase());
        let expected: Vec<_> =
            expected.chain(["content-length".into(), "x-akubra-request-id".into()]).collect();
        assert!(
            ours.iter().all(|name| *name == "connection" || expected.iter().any(|e| e == name)),
            "{ours:?}"
        );
    });
}

#[test]
fn additional_headers_are_added_only_where_absent() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        let gateway = Gateway::over(&[&a])
            .set_yaml("AdditionalRequestHeaders", "{Cache-Control: public, X-Ours: '1'}")
            .set_yaml("AdditionalResponseHeaders", "{Server: ours, X-Answer: '2', ETag: none}")
            .start()
            .await;
        let reply = gateway.request("GET", "/bucket/key", &[("Cache-Control", "private")], b"").await;
        let received = &a.requests()[0];
        assert_eq!(
            (received.header("cache-control"), received.header("x-ours")),
            (Some("private"), Some("1"))
        );
        assert_eq!((reply.header("server"), reply.header("x-answer")), (Some("misbehaving"), Some("2")));
        assert_ne!(reply.header("etag"), Some("none"));
    });
}

//! Requests that are not plain reads and writes of objects: where each of them goes and what the client
//! gets, by the table of operations.

use crate::fixture::*;

/// A region of two clusters with equal weights.
fn sharded(first: &[&dyn Endpoint], second: &[&dyn Endpoint]) -> Setup {
    Setup::new()
        .cluster("first", first)
        .cluster("second", second)
        .region(Region::new("sharded", &[("first", 1.0), ("second", 1.0)]).default_region())
}

#[test]
fn objects_are_spread_over_the_clusters_and_found_again() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = sharded(&[&a], &[&b]).start().await;
        for number in 0..60 {
            assert_eq!(gateway.put(&format!("/bucket/{number}"), b"hello").await.status, 200);
        }
        assert_eq!(a.paths().len() + b.paths().len(), 60);
        assert!(a.paths().len() > 5 && b.paths().len() > 5);
        for number in 0..60 {
            assert_eq!(gateway.get(&format!("/bucket/{number}")).await.status, 200);
        }
        assert!(gateway.stop_in_sync().await.misplacements.is_empty());
    });
}

#[test]
fn a_delete_goes_to_every_backend_of_every_cluster() {
    run(async {
        let backends = [pair().await, pair().await];
        let [(a, b), (c, d)] = &backends;
        for backend in [a, b, c, d] {
            backend.holds("/bucket/key", "hello");
        }
        let mut gateway = sharded(&[a, b], &[c, d]).start().await;
        assert_eq!(gateway.delete("/bucket/key").await.status, 204);
        for backend in [a, b, c, d] {
            assert!(backend.paths().is_empty());
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_delete_waits_for_all_and_is_good_with_one_good_reply_per_cluster() {
    run(async {
        let backends = [pair().await, pair().await];
        let [(a, b), (c, d)] = &backends;
        a.will(Behaviour::answers(500));
        d.will(Behaviour::answers(404));
        c.will(Behaviour::answers(403));
        b.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = sharded(&[a, b], &[c, d]).start().await;
        let mut client = gateway.client().await;
        client.head("DELETE", "/bucket/key", &[]).await;
        for backend in [a, c, d] {
            backend.wait_for_request("an answer", |request| request.ended).await;
        }
        assert!(client.stays_silent(std::time::Duration::from_millis(100)).await);
        b.release();
        assert_eq!(client.reply("DELETE").await.status, 204);
        let records = gateway.stop().await.records;
        // NoSuchKey is what was wanted.
        assert_eq!(records.len(), 2, "{records:#?}");
        assert_eq!(record_of(&records, a)["status"], 500);
        assert_eq!(record_of(&records, c)["status"], 403);
    });
}

#[test]
fn a_delete_that_fails_in_a_whole_cluster_is_503() {
    run(async {
        let (a, b) = pair().await;
        for bad in [Behaviour::answers(500), Behaviour::answers(403), Behaviour::resets(Phase::AfterBody)] {
            b.will(bad);
            let mut gateway = sharded(&[&a], &[&b]).start().await;
            let reply = gateway.delete("/bucket/key").await;
            let code = if reply.text().contains("SlowDown") { "SlowDown" } else { "ServiceUnavailable" };
            reply.assert_error(503, code);
            record_of(&gateway.stop().await.records, &b);
        }
    });
}

#[test]
fn a_delete_that_all_backends_refuse_is_answered_with_their_refusal_and_not_recorded() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = sharded(&[&a], &[&b]).start().await;
        for backend in [&a, &b] {
            backend.will(Behaviour::answers(403));
        }
        // Clients try a 503 again and again.
        assert_eq!(gateway.delete("/bucket/key").await.status, 403);
        b.will(Behaviour::answers(500));
        assert_eq!(gateway.delete("/bucket/key").await.status, 503);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_delete_of_a_sub_resource_or_version_concerns_the_home_cluster_only() {
    run(async {
        for query in ["tagging", "versionId=abc"] {
            let (a, b) = pair().await;
            let gateway = sharded(&[&a], &[&b]).start().await;
            for number in 0..10 {
                assert_eq!(gateway.delete(&format!("/bucket/{number}?{query}")).await.status, 204);
            }
            assert_eq!(a.requests().len() + b.requests().len(), 10);
        }
    });
}

#[test]
fn sub_resources_go_as_their_method_says() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key?tagging", b"<Tagging/>").await.status, 200);
        for backend in [&a, &b] {
            let request = backend.wait_for_request("the tagging", Received::is_complete).await;
            assert_eq!(request.target, "/bucket/key?tagging");
        }
        gateway.get("/bucket/key?acl").await;
        gateway.stop().await;
        // One backend, and the other after its 404.
        assert!(a.methods().contains(&"GET".to_string()) || b.methods().contains(&"GET".to_string()));
    });
}

#[test]
fn bucket_writes_go_to_every_backend_of_every_cluster() {
    run(async {
        let backends = [pair().await, pair().await];
        let [(a, b), (c, d)] = &backends;
        let mut gateway = sharded(&[a, b], &[c, d]).start().await;
        for (method, target, body, status) in [
            ("PUT", "/bucket", "", 200),
            ("PUT", "/bucket/?versioning", "<x/>", 200),
            ("POST", "/bucket?delete", "<Delete/>", 200),
            ("DELETE", "/bucket/", "", 204),
        ] {
            let reply = gateway.request(method, target, &[], body.as_bytes()).await;
            assert_eq!(reply.status, status, "{method} {target}");
            for backend in [a, b, c, d] {
                let same = |r: &Received| r.method == method && r.target == target && r.is_complete();
                assert_eq!(backend.wait_for_request(target, same).await.body_length, body.len() as u64);
            }
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_bucket_write_that_fails_on_one_backend_is_recorded() {
    run(async {
        let backends = [pair().await, pair().await];
        let [(a, b), (c, d)] = &backends;
        a.will(Behaviour::answers(500));
        let mut gateway = sharded(&[a, b], &[c, d]).start().await;
        assert_eq!(gateway.put("/bucket", b"").await.status, 200);
        let records = gateway.stop().await.records;
        let record = record_of(&records, a);
        assert_eq!((&record["bucket"], &record["key"]), (&"bucket".into(), &"".into()));
        assert_eq!(records.len(), 1);
    });
}

#[test]
fn a_bucket_write_that_fails_in_a_whole_cluster_fails() {
    run(async {
        let backends = [pair().await, pair().await];
        let [(a, b), (c, d)] = &backends;
        c.will(Behaviour::answers(Answer::error(409, "BucketAlreadyExists")));
        d.will(Behaviour::answers(Answer::error(409, "BucketAlreadyExists")));
        let mut gateway = sharded(&[a, b], &[c, d]).start().await;
        let reply = gateway.put("/bucket", b"").await;
        assert!(reply.status == 409 && reply.text().contains("BucketAlreadyExists"), "{reply:?}");
        let records = gateway.stop().await.records;
        record_of(&records, c);
        record_of(&records, d);
    });
}

#[test]
fn listings_of_one_cluster_pass() {
    run(async {
        let (a, b) = pair().await;
        let gateway = Gateway::over(&[&a, &b]).start().await;
        for target in ["/bucket?list-type=2", "/bucket", "/"] {
            assert_eq!(gateway.get(target).await.status, 200);
        }
        assert_eq!(a.requests().len() + b.requests().len(), 3);
    });
}

#[test]
fn listings_over_several_clusters_are_501_unless_allowed() {
    run(async {
        let (a, b) = pair().await;
        let gateway = sharded(&[&a], &[&b]).start().await;
        for target in ["/bucket?list-type=2", "/bucket?versions", "/bucket?uploads", "/bucket", "/"] {
            let reply = gateway.get(target).await;
            reply.assert_error(501, "NotImplemented");
            assert!(reply.text().contains("listing over several clusters is not merged yet"), "{reply:?}");
        }
        assert!(a.requests().is_empty() && b.requests().is_empty());
        assert_eq!(gateway.request("HEAD", "/bucket", &[], b"").await.status, 200);
        assert_eq!(gateway.get("/bucket?location").await.status, 200);

        let region = Region::new("r", &[("first", 1.0), ("second", 1.0)]).default_region();
        let region = region.set("UnmergedListings", "allow");
        let gateway =
            Setup::new().cluster("first", &[&a]).cluster("second", &[&b]).region(region).start().await;
        assert_eq!(gateway.get("/bucket?list-type=2").await.status, 200);
    });
}

#[test]
fn a_copy_within_a_cluster_is_a_put() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/source", b"hello").await.status, 200);
        a.wait_for_object("/bucket/source").await;
        b.wait_for_object("/bucket/source").await;
        let headers = [("x-amz-copy-source", "/bucket/source")];
        assert_eq!(gateway.request("PUT", "/bucket/copy", &headers, b"").await.status, 200);
        for backend in [&a, &b] {
            assert_eq!(backend.wait_for_object("/bucket/copy").await.length, 5);
        }
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_copy_from_another_cluster_is_501() {
    run(async {
        let (a, b) = pair().await;
        let gateway = sharded(&[&a], &[&b]).start().await;
        for number in 0..12 {
            gateway.put(&format!("/bucket/{number}"), b"hello").await;
        }
        let home_of = |path: &String| a.paths().contains(path);
        let target = "/bucket/0".to_string();
        for number in 1..12 {
            let source = format!("/bucket/{number}");
            let reply = gateway.request("PUT", &target, &[("x-amz-copy-source", &source)], b"").await;
            if home_of(&source) == home_of(&target) {
                assert_eq!(reply.status, 200);
            } else {
                reply.assert_error(501, "NotImplemented");
            }
        }
    });
}

#[test]
fn a_multipart_upload_stays_with_one_backend_and_its_completion_is_recorded() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        for number in 0..8 {
            let key = format!("/bucket/{number}");
            let part = format!("{key}?partNumber=1&uploadId=upload-1");
            let whole = format!("{key}?uploadId=upload-1");
            assert_eq!(gateway.request("POST", &format!("{key}?uploads"), &[], b"").await.status, 200);
            assert_eq!(gateway.put(&part, b"hello").await.status, 200);
            assert_eq!(gateway.get(&whole).await.status, 200);
            assert_eq!(gateway.request("POST", &whole, &[], b"<Complete/>").await.status, 200);
            let of_key = |backend: &Misbehaving| {
                backend.requests().into_iter().filter(|request| request.path() == key).count()
            };
            assert_eq!((of_key(&a) + of_key(&b), of_key(&a) * of_key(&b)), (4, 0));
        }
        // By hash of the key: both had some.
        assert!(!a.requests().is_empty() && !b.requests().is_empty());
        let records = gateway.stop().await.records;
        assert_eq!(records.len(), 8, "{records:#?}");
        for record in &records {
            let (failed, good) = (&record["failedhost"], &record["successhost"]);
            assert!(failed != good && record["method"] == "POST" && record["outcome"] == "not applied");
        }
    });
}

#[test]
fn an_aborted_multipart_upload_leaves_no_record() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.request("POST", "/bucket/key?uploads", &[], b"").await.status, 200);
        assert_eq!(gateway.delete("/bucket/key?uploadId=upload-1").await.status, 204);
        assert!(a.requests().is_empty() || b.requests().is_empty());
        gateway.stop_in_sync().await;
    });
}

#[test]
fn a_form_post_is_501() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).start().await;
        let headers = [("Content-Type", "multipart/form-data; boundary=x")];
        for target in ["/bucket", "/bucket/key"] {
            let reply = gateway.request("POST", target, &headers, b"--x--").await;
            reply.assert_error(501, "NotImplemented");
        }
        assert!(a.requests().is_empty());
    });
}

#[test]
fn options_is_answered_by_the_gateway_where_cors_headers_are_configured() {
    run(async {
        let a = Misbehaving::start().await;
        let cors = "{Access-Control-Allow-Origin: '*', Access-Control-Allow-Methods: 'GET, POST'}";
        let gateway = Gateway::over(&[&a]).set_yaml("AdditionalResponseHeaders", cors).start().await;
        let reply = gateway.request("OPTIONS", "/bucket/key", &[], b"").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("*")));
        assert_eq!(reply.header("access-control-allow-methods"), Some("GET, POST"));
        assert!(a.requests().is_empty());
    });
}

#[test]
fn options_is_a_head_where_no_cors_headers_are_configured() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        let gateway = Gateway::over(&[&a]).start().await;
        let reply = gateway.request("OPTIONS", "/bucket/key", &[], b"").await;
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("0")));
        assert_eq!(a.methods(), ["HEAD"]);
    });
}

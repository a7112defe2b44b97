//! What the synclog says of a write: the fields of a record, disagreeing ETags, the filter by method.

use chrono::DateTime;

use crate::fixture::*;

#[test]
fn a_record_says_what_was_asked_of_which_object_and_what_came_of_it() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        b.will(Behaviour::good().with_header("x-amz-version-id", "v7"));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let headers = [("User-Agent", "tester/1.0")];
        let reply =
            gateway.request("PUT", "/bucket/a%20key/%C3%BC?tagging&versionId=v3", &headers, b"hello").await;
        let record = record_of(&gateway.wait_for_records(1).await, &a).clone();
        for (field, value) in [
            ("method", "PUT"),
            ("path", "/bucket/a%20key/%C3%BC"),
            ("successhost", &b.url()),
            ("useragent", "tester/1.0"),
            ("reqID", reply.header("x-akubra-request-id").unwrap()),
            ("region", "testregion"),
            ("cluster", "testcluster"),
            ("bucket", "bucket"),
            ("key", "a key/ü"),
            ("outcome", "not applied"),
            ("subresource", "tagging"),
        ] {
            assert_eq!(record[field], value, "{field} of {record}");
        }
        assert_eq!((&record["content-length"], &record["status"]), (&5.into(), &0.into()));
        assert!(!record["error"].as_str().unwrap().is_empty());
        let ts = record["ts"].as_str().unwrap();
        DateTime::parse_from_rfc3339(ts).unwrap();
        assert_eq!(
            ts.split('.').nth(1).map(|rest| rest.find(|c: char| !c.is_ascii_digit())),
            Some(Some(9)),
            "{ts}"
        );
    });
}

#[test]
fn a_record_has_the_etag_and_version_of_the_good_reply() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        b.will(Behaviour::good().with_header("x-amz-version-id", "v7"));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        gateway.put("/bucket/key", b"hello").await;
        let record = record_of(&gateway.wait_for_records(1).await, &a).clone();
        assert!(record["etag"].as_str().unwrap().contains(&hex_md5(b"hello")), "{record}");
        assert_eq!(record["version"], "v7");
    });
}

#[test]
fn good_replies_that_disagree_are_recorded() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(Answer::new(200).header("ETag", "\"0123456789abcdef0123456789abcdef\"")));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let records = gateway.stop().await.records;
        assert!(
            !records.is_empty() && records.iter().all(|record| record["outcome"] == "good"),
            "{records:#?}"
        );
    });
}

#[test]
fn copies_of_what_backends_do_not_agree_on_are_recorded() {
    run(async {
        let (a, b) = pair().await;
        a.holds("/bucket/source", "new");
        b.holds("/bucket/source", "old");
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let source = [("x-amz-copy-source", "/bucket/source")];
        let reply = gateway.request("PUT", "/bucket/key", &source, b"").await;
        assert!(reply.status == 200 && reply.text().contains("<CopyObjectResult>"), "{reply:?}");
        let records = gateway.stop().await.records;
        let [record] = &records[..] else { panic!("{records:#?}") };
        let other = if record["failedhost"] == a.url() { "old" } else { "new" };
        // The ETag of a copy is in the body of its answer.
        assert_eq!(
            (&record["outcome"], &record["etag"]),
            (&"good".into(), &format!("\"{}\"", hex_md5(other.as_bytes())).into())
        );
    });
}

#[test]
fn etags_that_are_no_plain_md5_need_not_agree() {
    run(async {
        for etag in ["\"0123456789abcdef0123456789abcdef-2\"", "\"5f2a-62\"", "W/\"x\""] {
            let (a, b) = pair().await;
            a.will(Behaviour::answers(Answer::new(200).header("ETag", etag)));
            let mut gateway = Gateway::over(&[&a, &b]).start().await;
            assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
            gateway.stop_in_sync().await;
        }
    });
}

#[test]
fn etags_differ_in_quotes_and_case_without_disagreeing() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(Answer::new(200).header("ETag", &hex_md5(b"hello").to_uppercase())));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn comparing_etags_can_be_switched_off() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(Answer::new(200).header("ETag", "\"0123456789abcdef0123456789abcdef\"")));
        let mut gateway = Gateway::over(&[&a, &b]).set("CompareETags", false).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.stop_in_sync().await;
    });
}

#[test]
fn only_the_methods_that_are_asked_for_are_printed() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        let methods = vec!["DELETE".to_string()];
        let mut gateway = Gateway::over(&[&a, &b]).set("SyncLogMethods", methods).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        assert_eq!(gateway.delete("/bucket/key").await.status, 204);
        let records = gateway.stop().await.records;
        assert_eq!(record_of(&records, &a)["method"], "DELETE");
        assert_eq!(records.len(), 1);
    });
}

#[test]
fn every_failed_backend_of_three_has_its_record() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        let c = Misbehaving::start().await;
        c.will(Behaviour::answers(500));
        let mut gateway = Gateway::over(&[&a, &b, &c]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let records = gateway.stop().await.records;
        assert_eq!(record_of(&records, &a)["status"], 0);
        assert_eq!(record_of(&records, &c)["status"], 500);
        assert_eq!(records.len(), 2);
    });
}

#[test]
fn what_a_backend_has_said_counts_though_it_is_cut_off_before_it_has_said_all() {
    run(async {
        let (a, b) = pair().await;
        let other = Answer::new(200).header("ETag", "\"0123456789abcdef0123456789abcdef\"").body("more");
        b.will(Behaviour::answers(other).and_hangs(Phase::AfterAnswerHead));
        let mut gateway = Gateway::over(&[&a, &b]).set("grace_period_seconds", 1).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        b.wait_for_request("the head of its answer", |request| request.answered == 200).await;
        let records = gateway.stop().await.records;
        let record = record_of(&records, &b);
        assert_eq!((&record["outcome"], &record["status"]), (&"good".into(), &200.into()));
        assert!(record["error"].as_str().unwrap().contains("ETag"), "{record}");
    });
}

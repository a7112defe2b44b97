//! One backend fails in each way there is: the client gets the other's good reply, the failure is recorded
//! as what it is. And what the client gets where no backend has a good reply.

use serde_json::Value;

use crate::fixture::*;

/// More than all socket buffers and queues hold, so that the failure comes before the end of the body.
const LARGE: usize = 12 << 20;

/// What a PUT of this size comes to with one backend behaving like this: its record.
async fn put_with(bad: Behaviour, size: usize) -> Value {
    let (a, b) = pair().await;
    a.will(bad);
    let mut gateway = Gateway::over(&[&a, &b])
        .set("ResponseHeaderTimeout", "400ms")
        .set("SlowBackendTimeout", "2s")
        .start()
        .await;
    let body = noise(size);
    let reply = gateway.put("/bucket/key", &body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(b.wait_for_object("/bucket/key").await.md5, hex_md5(&body));
    let records = gateway.wait_for_records(1).await;
    let record = record_of(&records, &a).clone();
    assert_eq!(record["successhost"], b.url());
    assert_ne!(record["error"], "");
    assert_eq!(gateway.stop().await.records.len(), 1);
    record
}

#[test]
fn one_backend_refuses_and_the_put_is_recorded() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let records = gateway.stop().await.records;
        let record = record_of(&records, &a);
        assert_eq!((&record["outcome"], &record["status"]), (&"not applied".into(), &0.into()));
        assert_eq!(b.stored_bytes("/bucket/key").unwrap(), "hello");
    });
}

#[test]
fn a_connection_that_is_reset_before_the_end_of_the_body_is_not_applied() {
    run(async {
        for phase in [Phase::Accepted, Phase::AfterHead, Phase::MidBody(100_000)] {
            let record = put_with(Behaviour::resets(phase), LARGE).await;
            assert_eq!(
                (&record["outcome"], &record["status"]),
                (&"not applied".into(), &0.into()),
                "{record}"
            );
        }
    });
}

#[test]
fn a_connection_that_is_closed_before_the_end_of_the_body_is_not_good() {
    run(async {
        // It discards what still comes, so that the whole body may have gone out before the FIN is noticed.
        for phase in [Phase::Accepted, Phase::AfterHead, Phase::MidBody(100_000)] {
            let record = put_with(Behaviour::closes(phase), LARGE).await;
            assert_eq!(record["status"], 0, "{phase:?}: {record}");
            assert_ne!(record["outcome"], "good", "{phase:?}: {record}");
        }
    });
}

#[test]
fn a_small_put_on_a_connection_that_ends_is_recorded() {
    run(async {
        for phase in [Phase::Accepted, Phase::AfterHead, Phase::MidBody(2)] {
            let record = put_with(Behaviour::resets(phase), 5).await;
            assert_eq!(record["status"], 0, "{phase:?}: {record}");
            assert_ne!(record["outcome"], "good", "{phase:?}: {record}");
        }
    });
}

#[test]
fn a_connection_that_ends_after_the_body_leaves_the_outcome_unknown() {
    run(async {
        for behaviour in [Behaviour::resets(Phase::AfterBody), Behaviour::closes(Phase::AfterBody)] {
            for size in [5, LARGE] {
                let record = put_with(behaviour.clone(), size).await;
                assert_eq!(
                    (&record["outcome"], &record["status"]),
                    (&"unknown".into(), &0.into()),
                    "{record}"
                );
            }
        }
    });
}

#[test]
fn an_answer_that_never_comes_leaves_the_outcome_unknown() {
    run(async {
        let record = put_with(Behaviour::hangs(Phase::AfterBody), 5).await;
        assert_eq!((&record["outcome"], &record["status"]), (&"unknown".into(), &0.into()), "{record}");
    });
}

#[test]
fn a_backend_that_never_reads_is_not_good() {
    run(async {
        for phase in [Phase::Accepted, Phase::AfterHead, Phase::MidBody(100_000)] {
            let record = put_with(Behaviour::hangs(phase), LARGE).await;
            assert_eq!(
                (&record["outcome"], &record["status"]),
                (&"not applied".into(), &0.into()),
                "{record}"
            );
        }
    });
}

#[test]
fn any_final_answer_but_2xx_is_not_applied() {
    run(async {
        for status in [301, 307, 400, 403, 404, 409, 500, 503] {
            let record = put_with(Behaviour::answers(status), 5).await;
            assert_eq!(
                (&record["outcome"], &record["status"]),
                (&"not applied".into(), &status.into()),
                "{record}"
            );
        }
    });
}

#[test]
fn garbage_after_the_body_leaves_the_outcome_unknown() {
    run(async {
        let record = put_with(Behaviour::answers_garbage(), 5).await;
        assert_eq!(record["outcome"], "unknown", "{record}");
    });
}

#[test]
fn interim_answers_without_a_final_one_leave_the_outcome_unknown() {
    run(async {
        let hangs = Behaviour::answers_garbage().after_interim(&[100, 103]);
        assert_eq!(put_with(hangs, 5).await["outcome"], "unknown");
    });
}

#[test]
fn the_answer_counts_even_if_its_body_breaks_off() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(Answer::new(200).body("<xml/>")).framed(Framing::PromisesMore(9)));
        let mut gateway = Gateway::over(&[&a, &b]).set("CompareETags", false).start().await;
        // Whichever came first is the client's; the 2xx of `a` is a final answer after the end of the body.
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        client.send(b"hello").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        gateway.stop_in_sync().await;
        assert!(a.stored("/bucket/key").is_some() && b.stored("/bucket/key").is_some());
    });
}

#[test]
fn where_all_fail_the_first_answer_is_the_clients() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(Answer::error(409, "FirstAnswer")));
        b.will(Behaviour::answers(503).and_hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
        client.send(b"hello").await;
        a.wait_for_request("the answer of a", |request| request.answered == 409).await;
        b.wait_for_request("the body at b", Received::is_complete).await;
        assert!(client.stays_silent(std::time::Duration::from_millis(100)).await);
        b.release();
        let reply = client.reply("PUT").await;
        assert!(reply.status == 409 && reply.text().contains("FirstAnswer"), "{reply:?}");
        // Nobody has it, nobody may have it: nothing diverged.
        gateway.stop_in_sync().await;
    });
}

#[test]
fn where_one_answers_and_the_other_refuses_the_answer_is_the_clients() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        b.will(Behaviour::answers(403));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let reply = gateway.put("/bucket/key", b"hello").await;
        assert!(reply.status == 403 && reply.text().contains("as told"), "{reply:?}");
        gateway.stop_in_sync().await;
    });
}

#[test]
fn where_none_answers_the_client_gets_503() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::refusing().await);
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let reply = gateway.put("/bucket/key", b"hello").await;
        let code = if reply.text().contains("SlowDown") { "SlowDown" } else { "ServiceUnavailable" };
        reply.assert_error(503, code);
        assert!(reply.header("x-akubra-request-id").is_some() && reply.header("x-amz-request-id").is_some());
        gateway.stop_in_sync().await;
    });
}

#[test]
fn where_all_outcomes_are_unknown_all_are_recorded() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::resets(Phase::AfterBody));
        b.will(Behaviour::closes(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 503);
        let records = gateway.stop().await.records;
        for backend in [&a, &b] {
            let record = record_of(&records, backend);
            assert_eq!((&record["outcome"], &record["successhost"]), (&"unknown".into(), &"".into()));
        }
    });
}

#[test]
fn one_unknown_outcome_without_a_good_one_records_all() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::resets(Phase::AfterBody));
        b.will(Behaviour::answers(403));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 403);
        let records = gateway.stop().await.records;
        assert_eq!(record_of(&records, &a)["outcome"], "unknown");
        assert_eq!(record_of(&records, &b)["outcome"], "not applied");
        assert!(records.iter().all(|record| record["successhost"] == ""), "{records:#?}");
    });
}

#[test]
fn a_backend_under_maintenance_gets_nothing_and_is_recorded() {
    run(async {
        let (a, b) = pair().await;
        let maintained = vec![a.url()];
        let mut gateway = Gateway::over(&[&a, &b]).set("MaintainedBackends", maintained).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
        let records = gateway.stop().await.records;
        assert_eq!(record_of(&records, &a)["outcome"], "not applied");
        assert_eq!(a.accepted(), 0);
    });
}

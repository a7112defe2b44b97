//! Reads of objects: one backend of the home cluster, then the next, then cluster by cluster backwards;
//! what goes on and what does not, and who is asked last.

use crate::fixture::*;

/// Objects live on `new`; `old` is where they were before.
fn old_and_new(old: &[&dyn Endpoint], new: &[&dyn Endpoint]) -> Setup {
    Setup::new()
        .cluster("old", old)
        .cluster("new", new)
        .region(Region::new("grown", &[("old", 0.0), ("new", 1.0)]).default_region())
}

#[test]
fn a_read_asks_one_backend() {
    run(async {
        let (a, b) = pair().await;
        a.holds("/bucket/key", "hello");
        b.holds("/bucket/key", "hello");
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
        gateway.stop_in_sync().await;
        assert_eq!(a.requests().len() + b.requests().len(), 1);
    });
}

#[test]
fn a_read_goes_to_the_next_backend_when_one_fails() {
    run(async {
        for behaviour in [
            Behaviour::resets(Phase::Accepted),
            Behaviour::closes(Phase::AfterHead),
            Behaviour::answers_garbage(),
            Behaviour::hangs(Phase::AfterHead),
            Behaviour::answers(500),
            Behaviour::answers(503),
            Behaviour::answers(403),
            Behaviour::answers(404),
        ] {
            let (a, b) = pair().await;
            a.will(behaviour.clone());
            b.holds("/bucket/key", "hello");
            let gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "800ms").start().await;
            for _ in 0..6 {
                let reply = gateway.get("/bucket/key").await;
                assert_eq!((reply.status, reply.text().as_str()), (200, "hello"), "{behaviour:?}");
            }
        }
    });
}

#[test]
fn a_read_goes_to_the_next_backend_when_one_refuses() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        b.holds("/bucket/key", "hello");
        let gateway = Gateway::over(&[&a, &b]).start().await;
        for method in ["GET", "HEAD", "GET", "HEAD", "GET", "HEAD"] {
            assert_eq!(gateway.request(method, "/bucket/key", &[], b"").await.status, 200);
        }
    });
}

#[test]
fn no_other_answer_makes_a_read_go_on() {
    run(async {
        for status in [301, 304, 400, 401, 405, 409, 412, 416, 429] {
            let (old, new) = pair().await;
            old.holds("/bucket/key", "an old version");
            new.will(Behaviour::answers(status));
            let gateway = old_and_new(&[&old], &[&new]).start().await;
            assert_eq!(gateway.get("/bucket/key").await.status, status);
            assert!(old.requests().is_empty(), "{status}");
        }
    });
}

#[test]
fn an_object_that_is_not_at_home_is_found_on_the_cluster_before() {
    run(async {
        let (old, new) = pair().await;
        old.holds("/bucket/key", "hello");
        let mut gateway = old_and_new(&[&old], &[&new]).start().await;
        for method in ["GET", "HEAD"] {
            let reply = gateway.request(method, "/bucket/key", &[], b"").await;
            assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
        }
        let logs = gateway.stop_in_sync().await;
        assert_eq!(logs.misplacements.len(), 2);
        let expected = serde_json::json!({"Key": "/bucket/key", "Expected": "new", "Actual": "old"});
        assert_eq!(logs.misplacements[0], expected);
    });
}

#[test]
fn backtracking_keeps_the_connections() {
    run(async {
        let (old, new) = pair().await;
        old.holds("/bucket/key", "hello");
        let gateway = old_and_new(&[&old], &[&new]).start().await;
        let mut client = gateway.client().await;
        for _ in 0..20 {
            assert_eq!(client.request("GET", "/bucket/key", &[], b"").await.text(), "hello");
        }
        assert!(new.accepted() <= 2 && old.accepted() <= 2, "{} and {}", new.accepted(), old.accepted());
    });
}

#[test]
fn writes_never_backtrack() {
    run(async {
        let (old, new) = pair().await;
        new.will(Behaviour::answers(404));
        let gateway = old_and_new(&[&old], &[&new]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 404);
        assert!(old.requests().is_empty());
    });
}

#[test]
fn what_no_backend_has_is_404() {
    run(async {
        let (old, new) = pair().await;
        let mut gateway = old_and_new(&[&old], &[&new]).start().await;
        let reply = gateway.get("/bucket/none").await;
        assert!(reply.status == 404 && reply.text().contains("NoSuchKey"), "{reply:?}");
        assert_eq!((old.requests().len(), new.requests().len()), (1, 1));
        assert!(gateway.stop_in_sync().await.misplacements.is_empty());
    });
}

#[test]
fn one_404_in_every_cluster_is_enough_for_404() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        let (c, d) = pair().await;
        c.will(Behaviour::answers(500));
        let gateway = old_and_new(&[&a, &b], &[&c, &d]).start().await;
        assert_eq!(gateway.get("/bucket/none").await.status, 404);
    });
}

#[test]
fn a_cluster_that_is_down_never_turns_into_404() {
    run(async {
        for (old_is, new_is, expected) in [
            (404, 500, 500..600),
            (500, 404, 500..600),
            (403, 500, 500..600),
            (500, 403, 500..600),
            (403, 404, 403..404),
            (404, 403, 403..404),
        ] {
            let (old, new) = pair().await;
            old.will(Behaviour::answers(old_is));
            new.will(Behaviour::answers(new_is));
            let gateway = old_and_new(&[&old], &[&new]).start().await;
            let status = gateway.get("/bucket/key").await.status;
            assert!(expected.contains(&status), "{old_is} and {new_is} made {status}");
        }
    });
}

#[test]
fn where_no_backend_can_be_reached_a_read_is_503() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::refusing().await);
        let gateway = Gateway::over(&[&a, &b]).start().await;
        let reply = gateway.get("/bucket/key").await;
        let code = if reply.text().contains("SlowDown") { "SlowDown" } else { "ServiceUnavailable" };
        reply.assert_error(503, code);
    });
}

#[test]
fn a_404_beside_a_good_answer_is_a_recorded_divergence() {
    run(async {
        let (a, b) = pair().await;
        b.holds("/bucket/key", "hello");
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        // Which backend is asked first is chance: until `a` was.
        while a.requests().is_empty() {
            assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
        }
        let records = gateway.stop().await.records;
        let record = record_of(&records[..1], &a);
        assert_eq!((&record["method"], &record["status"]), (&"GET".into(), &404.into()));
        assert_eq!(record["successhost"], b.url());
    });
}

#[test]
fn with_read_policy_race_the_first_good_answer_wins() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.holds("/bucket/key", "hello");
        }
        let region = Region::new("racing", &[("both", 1.0)]).default_region().set("ReadPolicy", "race");
        let gateway = Setup::new().cluster("both", &[&a, &b]).region(region).start().await;
        for (count, winner) in (1..).zip([&a, &b, &a]) {
            for backend in [&a, &b] {
                backend.will(Behaviour::hangs(Phase::AfterBody));
            }
            let mut client = gateway.client().await;
            client.head("GET", "/bucket/key", &[]).await;
            a.wait_for_requests(count).await;
            b.wait_for_requests(count).await;
            winner.release();
            assert_eq!(client.reply("GET").await.text(), "hello");
        }
    });
}

#[test]
fn with_read_policy_race_a_bad_answer_does_not_win() {
    run(async {
        let (a, b) = pair().await;
        b.holds("/bucket/key", "hello");
        b.will(Behaviour::hangs(Phase::AfterBody));
        let region = Region::new("racing", &[("both", 1.0)]).default_region().set("ReadPolicy", "race");
        let gateway = Setup::new().cluster("both", &[&a, &b]).region(region).start().await;
        let mut client = gateway.client().await;
        client.head("GET", "/bucket/key", &[]).await;
        a.wait_for_request("404 of a", |request| request.answered == 404).await;
        b.wait_for_request("GET at b", Received::is_complete).await;
        b.release();
        assert_eq!(client.reply("GET").await.text(), "hello");
    });
}

#[test]
fn a_backend_that_missed_the_last_write_is_asked_last() {
    run(async {
        let (a, b) = pair().await;
        a.holds("/bucket/key", "old");
        b.holds("/bucket/key", "old");
        a.will_once(Behaviour::answers(500));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"new").await.status, 200);
        gateway.wait_for_records(1).await;
        for _ in 0..20 {
            assert_eq!(gateway.get("/bucket/key").await.text(), "new");
        }
        assert_eq!(a.methods(), ["PUT"]);
        // A later write that succeeds makes it equal again.
        assert_eq!(gateway.put("/bucket/key", b"newest").await.status, 200);
        while !a.methods().contains(&"GET".to_string()) {
            assert_eq!(gateway.get("/bucket/key").await.text(), "newest");
        }
    });
}

#[test]
fn a_backend_whose_write_is_unfinished_is_asked_last() {
    run(async {
        let (a, b) = pair().await;
        a.holds("/bucket/key", "old");
        a.will_once_on("PUT", Behaviour::hangs(Phase::AfterBody));
        let gateway = Gateway::over(&[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/key", b"new").await.status, 200);
        for _ in 0..20 {
            assert_eq!(gateway.get("/bucket/key").await.text(), "new");
        }
        assert_eq!(a.methods(), ["PUT"]);
        a.release();
    });
}

#[test]
fn the_backend_that_has_the_last_write_is_waited_for_though_its_connections_are_in_use() {
    run(async {
        let (a, b) = pair().await;
        for backend in [&a, &b] {
            backend.holds("/bucket/key", "old");
        }
        b.will_once(Behaviour::answers(503));
        let setup = Gateway::over(&[&a, &b]).set("MaxConnsPerBackend", 1).set("DialTimeout", "10s");
        let gateway = setup.with_metrics().start().await;
        assert_eq!(gateway.put("/bucket/key", b"new").await.status, 200);
        gateway.wait_for_records(1).await;
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        let mut clients = [gateway.client().await, gateway.client().await];
        clients[0].head("GET", "/bucket/key", &[]).await;
        a.wait_for_requests(2).await;
        clients[1].head("GET", "/bucket/key", &[]).await;
        gateway.scrape_until("the second read", |s| s.value("akubra_requests_in_flight", &[]) == 2.0).await;
        a.release();
        for client in &mut clients {
            assert_eq!(client.reply("GET").await.text(), "new");
        }
        assert_eq!(b.methods(), ["PUT"]);
    });
}

//! Metrics of a running gateway after real traffic: what happened is what is counted, and nothing that a client or a
//! backend invents becomes a series.

use std::collections::BTreeSet;

use crate::fixture::*;

/// Requests that have ended, whatever came of them.
fn ended(scrape: &Scrape) -> f64 {
    scrape.sum("akubra_requests_total", &[])
}

/// Whether nothing is under way.
fn at_rest(scrape: &Scrape) -> bool {
    let gauges = [
        "akubra_unfinished_writes",
        "akubra_requests_in_flight",
        "akubra_client_connections",
        "akubra_background_requests",
        "akubra_background_bytes",
        "akubra_replica_buffer_bytes",
        "akubra_log_queue_lines",
        "akubra_log_backlog_bytes",
    ];
    gauges.iter().all(|gauge| scrape.sum(gauge, &[]) == 0.0)
        && scrape.sum("akubra_backend_connections", &[("state", "busy")]) == 0.0
}

/// With these backends on a cluster of their own before them.
fn grown(old: &Misbehaving, new: &[&dyn Endpoint]) -> Setup {
    let region = Region::new("grown", &[("old", 0.0), ("new", 1.0)]).default_region();
    Setup::new().cluster("old", &[old]).cluster("new", new).region(region).with_metrics()
}

#[test]
fn a_write_that_one_backend_misses_is_counted_where_it_belongs() {
    run(async {
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        let gateway = Gateway::over(&[&a, &b]).with_metrics().start().await;
        for n in 0..3 {
            assert_eq!(gateway.put(&format!("/bucket/{n}"), b"hello").await.status, 200);
        }
        let scrape = gateway
            .scrape_until("three records", |scrape| {
                at_rest(scrape)
                    && ended(scrape) == 3.0
                    && scrape.sum("akubra_log_lines_written_total", &[("log", "synclog")]) == 3.0
            })
            .await;
        let (at_a, at_b) = (("backend", a.url()), ("backend", b.url()));
        let (a, b) = ((at_a.0, at_a.1.as_str()), (at_b.0, at_b.1.as_str()));
        let put = ("method", "PUT");
        assert_eq!(scrape.value("akubra_requests_total", &[put, ("status", "200")]), 3.0);
        assert_eq!(scrape.value("akubra_request_duration_seconds_count", &[put]), 3.0);
        assert_eq!(scrape.value("akubra_client_received_bytes_total", &[]), 15.0);
        let good = [a, put, ("status", "2xx"), ("outcome", "good")];
        assert_eq!(scrape.value("akubra_backend_replies_total", &good), 3.0);
        let missed = [b, put, ("status", "none"), ("outcome", "not applied")];
        assert_eq!(scrape.value("akubra_backend_replies_total", &missed), 3.0);
        assert_eq!(scrape.value("akubra_backend_errors_total", &[b]), 3.0);
        assert_eq!(
            scrape.value("akubra_backend_errors_total", &[b, ("phase", "dial"), ("cause", "io")]),
            3.0
        );
        assert_eq!(scrape.sum("akubra_backend_errors_total", &[a]), 0.0);
        assert_eq!(scrape.value("akubra_divergences_total", &[b, put]), 3.0);
        assert_eq!(scrape.sum("akubra_divergences_total", &[]), 3.0);
        assert_eq!(scrape.value("akubra_missed_writes", &[]), 3.0);
        assert_eq!(scrape.value("akubra_backend_connections_opened_total", &[a]), 1.0);
        assert_eq!(scrape.value("akubra_backend_connections", &[a, ("state", "idle")]), 1.0);
        assert_eq!(scrape.value("akubra_backend_answer_wait_seconds_count", &[a]), 3.0);
        assert!(scrape.value("akubra_backend_sent_bytes_total", &[a]) > 300.0);
    });
}

#[test]
fn the_way_of_a_read_is_counted() {
    run(async {
        let (old, new) = pair().await;
        old.holds("/bucket/key", "hello");
        let gateway = grown(&old, &[&new]).start().await;
        assert_eq!(gateway.get("/bucket/key").await.text(), "hello");
        assert_eq!(gateway.get("/bucket/none").await.status, 404);
        assert_eq!(gateway.request("HEAD", "/bucket/key", &[], b"").await.status, 200);
        let scrape = gateway.scrape_until("three requests", |scrape| ended(scrape) == 3.0).await;
        assert_eq!(scrape.value("akubra_backtracks_total", &[]), 3.0);
        assert_eq!(scrape.value("akubra_misplacements_total", &[]), 2.0);
        assert_eq!(scrape.value("akubra_requests_total", &[("method", "GET"), ("status", "404")]), 1.0);
        let (old_url, new_url) = (old.url(), new.url());
        let replies = |url: &str, status| {
            scrape.sum("akubra_backend_replies_total", &[("backend", url), ("status", status)])
        };
        assert_eq!(
            (replies(&new_url, "4xx"), replies(&old_url, "4xx"), replies(&old_url, "2xx")),
            (3.0, 1.0, 2.0)
        );
        assert!(scrape.value("akubra_client_sent_bytes_total", &[]) >= 5.0);
    });
}

#[test]
fn refusals_and_broken_requests_are_told_apart() {
    run(async {
        let (a, b) = pair().await;
        let setup =
            Gateway::over(&[&a, &b]).with_metrics().set("BodyMaxSize", "1K").set("MaxConcurrentRequests", 1);
        let gateway = setup.start().await;
        let refusals = |scrape: &Scrape, code| scrape.value("akubra_refusals_total", &[("code", code)]);
        gateway.request("PUT", "/bucket/large", &[], &[0; 2000]).await.assert_error(413, "EntityTooLarge");
        assert_eq!(gateway.get("/bucket/k%zz").await.status, 400);
        let mut slow = gateway.client().await;
        slow.head("PUT", "/bucket/slow", &[("Content-Length", "10")]).await;
        slow.send(b"hello").await;
        a.wait_for_requests(1).await;
        let scrape = gateway
            .scrape_until("one upload", |scrape| {
                let now = |gauge| scrape.value(gauge, &[]);
                now("akubra_requests_in_flight") == 1.0 && now("akubra_client_connections") == 1.0
            })
            .await;
        assert_eq!(scrape.value("akubra_limit", &[("bound", "MaxConcurrentRequests")]), 1.0);
        gateway.get("/bucket/key").await.assert_error(503, "SlowDown");
        slow.reset();
        let scrape = gateway
            .scrape_until("the broken upload", |scrape| {
                scrape.sum("akubra_requests_broken_total", &[]) == 1.0
            })
            .await;
        assert_eq!(scrape.value("akubra_requests_broken_total", &[("by", "client")]), 1.0);
        assert_eq!(scrape.value("akubra_requests_total", &[("method", "PUT"), ("status", "none")]), 1.0);
        for code in ["EntityTooLarge", "SlowDown"] {
            assert_eq!(refusals(&scrape, code), 1.0, "{code}");
        }
        assert_eq!(scrape.sum("akubra_refusals_total", &[]), 3.0);
        assert_eq!(scrape.sum("akubra_refusals_total", &[("code", "other")]), 0.0);
        assert_eq!(scrape.sum("akubra_lingering_closes_total", &[]), 1.0);
        // An answer that breaks off in its body is the backend's doing.
        a.will(Behaviour::closes(Phase::MidAnswerBody(100_000)));
        b.will(Behaviour::closes(Phase::MidAnswerBody(100_000)));
        a.holds("/bucket/long", noise(400_000));
        b.holds("/bucket/long", noise(400_000));
        assert!(!gateway.get("/bucket/long").await.complete);
        let scrape = gateway
            .scrape_until("the broken download", |scrape| {
                scrape.sum("akubra_requests_broken_total", &[]) == 2.0
            })
            .await;
        assert_eq!(scrape.value("akubra_requests_broken_total", &[("by", "backend")]), 1.0);
        assert_eq!(
            scrape.sum("akubra_backend_errors_total", &[("phase", "receive"), ("cause", "closed")]),
            1.0
        );
    });
}

#[test]
fn bounds_that_are_reached_show() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup =
            Gateway::over(&[&a, &b]).with_metrics().set("MaxConnsPerBackend", 2).set("DialTimeout", "200ms");
        let gateway = setup.set("BackgroundRequests", 1).set("ResponseHeaderTimeout", "1m").start().await;
        let backend = a.url();
        let at_a = ("backend", backend.as_str());
        // The first is left to the background, and fills it.
        assert_eq!(gateway.put("/bucket/1", b"hello").await.status, 200);
        gateway
            .scrape_until("the background", |scrape| {
                scrape.sum("akubra_background_requests", &[at_a]) == 1.0
                    && scrape.sum("akubra_unfinished_writes", &[]) == 1.0
            })
            .await;
        assert_eq!(gateway.put("/bucket/2", b"hello").await.status, 200);
        gateway
            .scrape_until("the full background", |scrape| {
                scrape.sum("akubra_sub_requests_cut_total", &[at_a, ("reason", "background")]) == 1.0
            })
            .await;
        // One connection is taken by the first; an upload that does not end takes the other; a third finds none.
        let mut upload = gateway.client().await;
        upload.head("PUT", "/bucket/3", &[("Content-Length", "10")]).await;
        upload.send(b"hello").await;
        b.wait_for_request("the third upload", |request| request.target == "/bucket/3").await;
        a.wait_for_request("the third upload", |request| request.target == "/bucket/3").await;
        assert_eq!(gateway.put("/bucket/4", b"hello").await.status, 200);
        let scrape = gateway
            .scrape_until("a wait in vain", |scrape| {
                scrape.sum("akubra_backend_errors_total", &[at_a, ("phase", "limit")])
                    + scrape.sum("akubra_sub_requests_cut_total", &[at_a, ("reason", "background")])
                    >= 2.0
            })
            .await;
        assert_eq!(scrape.value("akubra_backend_connections", &[at_a, ("state", "busy")]), 2.0);
        a.release();
        upload.send(b"world").await;
        assert_eq!(upload.reply("PUT").await.status, 200);
        drop(upload);
        gateway.scrape_until("the end of all work", at_rest).await;
    });
}

#[test]
fn a_wait_for_a_connection_is_counted_by_how_it_ended() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", noise(400_000));
        a.will(Behaviour::hangs(Phase::MidAnswerBody(100_000)));
        let setup =
            Gateway::over(&[&a]).with_metrics().set("MaxConnsPerBackend", 1).set("DialTimeout", "300ms");
        let gateway = setup.start().await;
        let mut first = gateway.client().await;
        first.head("GET", "/bucket/key", &[]).await;
        a.wait_for_request("the answer", |request| request.answered == 200).await;
        assert_eq!(gateway.get("/bucket/key").await.status, 503);
        let waits = |scrape: &Scrape, outcome| {
            scrape.value("akubra_backend_connection_waits_total", &[("outcome", outcome)])
        };
        let scrape = gateway.scrape().await;
        assert_eq!((waits(&scrape, "timeout"), waits(&scrape, "served")), (1.0, 0.0));
        let limit = [("phase", "limit"), ("cause", "limit")];
        assert_eq!(scrape.value("akubra_backend_errors_total", &limit), 1.0);
    });
}

#[test]
fn a_slow_backend_that_is_dropped_and_bytes_that_wait_show() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::MidBody(1_000_000)));
        let setup = Gateway::over(&[&a, &b]).with_metrics().set("SlowBackendTimeout", "500ms");
        let gateway = setup.set("ReplicaBuffer", "64KiB").start().await;
        let backend = a.url();
        let at_a = ("backend", backend.as_str());
        let mut upload = gateway.client().await;
        // More than all socket buffers and queues hold.
        let body = noise(12 << 20);
        upload.head("PUT", "/bucket/key", &[("Content-Length", &body.len().to_string())]).await;
        let (sent, _) = tokio::join!(upload.try_send(&body), async {
            gateway
                .scrape_until("bytes that wait", |scrape| {
                    scrape.sum("akubra_replica_buffer_bytes", &[at_a]) > 0.0
                })
                .await
        });
        assert!(sent);
        assert_eq!(upload.reply("PUT").await.status, 200);
        let scrape = gateway
            .scrape_until("the record", |scrape| scrape.sum("akubra_divergences_total", &[at_a]) == 1.0)
            .await;
        assert_eq!(scrape.value("akubra_sub_requests_cut_total", &[at_a, ("reason", "slow")]), 1.0);
        assert_eq!(scrape.sum("akubra_replica_buffer_bytes", &[]), 0.0);
    });
}

#[test]
fn a_dead_pooled_connection_is_a_retry_and_no_divergence() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "hello");
        let gateway = Gateway::over(&[&a]).with_metrics().start().await;
        assert_eq!(gateway.get("/bucket/key").await.status, 200);
        gateway
            .scrape_until("a pooled connection", |scrape| {
                scrape.sum("akubra_backend_connections", &[("state", "idle")]) == 1.0
            })
            .await;
        a.will_once(Behaviour::closes(Phase::AfterHead));
        assert_eq!(gateway.get("/bucket/key").await.status, 200);
        let scrape = gateway.scrape_until("two requests", |scrape| ended(scrape) == 2.0).await;
        assert_eq!(scrape.value("akubra_backend_retries_total", &[]), 1.0);
        assert_eq!(scrape.value("akubra_backend_errors_total", &[]), 1.0);
        assert_eq!(
            scrape.value("akubra_backend_errors_total", &[("phase", "await"), ("cause", "stale")]),
            1.0
        );
        assert_eq!(scrape.value("akubra_backend_connections_opened_total", &[]), 2.0);
    });
}

#[test]
fn what_clients_and_backends_invent_makes_no_series() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).with_metrics().start().await;
        let mut count = 0.0;
        for n in 0..40 {
            gateway.request(&format!("X{n}"), &format!("/b{n}/k{n}"), &[("User-Agent", "x")], b"").await;
            count += 1.0;
        }
        for status in [200, 299, 418, 599, 600, 777, 999] {
            a.will(Behaviour::answers(status));
            gateway.get("/bucket/key").await;
            count += 1.0;
        }
        let scrape = gateway.scrape_until("all requests", |scrape| ended(scrape) == count).await;
        let known: BTreeSet<_> = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "other"].into();
        assert!(scrape.values_of("method").is_subset(&known), "{:?}", scrape.values_of("method"));
        assert_eq!(scrape.sum("akubra_requests_total", &[("method", "other")]), 40.0);
        assert!(scrape.series("akubra_requests_total") <= 12);
        let all = format!("{scrape:?}");
        for invented in ["bucket", "b39", "k39", "X39"] {
            assert!(!all.contains(invented), "{invented}");
        }
        for status in scrape.values_of("status") {
            let classes = ["none", "other", "1xx", "2xx", "3xx", "4xx", "5xx"];
            let code = status.parse().is_ok_and(|code: u16| (100..600).contains(&code));
            assert!(code || classes.contains(&status), "{status}");
        }
    });
}

#[test]
fn what_is_scraped_is_what_is_documented() {
    run(async {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).with_metrics().with_technical_endpoint().start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let scrape = gateway.scrape_until("a request", |scrape| ended(scrape) == 1.0).await;
        assert!(scrape.families().count() > 40);
        for (name, kind, help) in scrape.families() {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | {kind} |")));
            assert!(row.is_some_and(|row| row.contains(help)), "{name} {kind} {help}");
        }
        assert_eq!(scrape.value("akubra_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        assert!(scrape.value("process_resident_memory_bytes", &[]) > 1e6);
        assert!(scrape.value("process_open_fds", &[]) > 5.0 && scrape.value("process_threads", &[]) > 3.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - scrape.value("process_start_time_seconds", &[])).abs() < 100.0);
        for runtime in ["gateway", "metrics", "technical"] {
            assert!(scrape.value("akubra_tasks", &[("runtime", runtime)]) >= 1.0, "{runtime}");
        }
        for (bound, most) in
            [("BackgroundRequests", 1000.0), ("missed_writes", 65536.0), ("synclog_lines", 8192.0)]
        {
            assert_eq!(scrape.value("akubra_limit", &[("bound", bound)]), most);
        }
        assert_eq!(scrape.sum("akubra_limit", &[("bound", "MaxConnsPerBackend")]), 0.0);
    });
}

#[test]
fn they_are_at_one_path_of_their_own_address() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).with_metrics().start().await;
        let metrics = gateway.metrics().await;
        let reply = request(metrics, "GET", "/", &[], b"").await;
        assert!(reply.status == 404 && reply.text().contains("GET /metrics"), "{}", reply.text());
        let reply = request(metrics, "POST", "/metrics", &[], b"x").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
        let mut scraper = Client::connect(metrics).await;
        let head = scraper.request("HEAD", "/metrics", &[], b"").await;
        assert!(head.header("content-length").is_some_and(|length| length.parse::<usize>().unwrap() > 1000));
        // Scrapers keep their connection.
        for _ in 0..3 {
            let reply = scraper.request("GET", "/metrics", &[("Accept-Encoding", "gzip")], b"").await;
            assert_eq!(reply.status, 200);
            assert!(
                reply.header("content-type").is_some_and(|of| of.starts_with("text/plain; version=0.0.4"))
            );
        }
        // To the gateway it is a bucket.
        assert_ne!(gateway.get("/metrics").await.header("content-type"), Some("text/plain; version=0.0.4"));
        let none = Gateway::over(&[&a]).start().await;
        assert!(!none.stderr().contains("metrics on") && !none.stderr().contains("technical endpoint on"));
    });
}

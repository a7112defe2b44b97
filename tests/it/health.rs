//! Backends that fall sick: taken out of use, left alone, brought back by checks and by nothing else.

use serde_json::Value;

use crate::fixture::*;

/// Ejected after five failures, for an hour.
const FOR_LONG: &str = "{ConsecutiveFailures: 5, Time: 1h, MaxTime: 1h}";
/// Ejected after five failures, for a moment.
const BRIEFLY: &str = "{ConsecutiveFailures: 5, Time: 200ms, MaxTime: 200ms}";
/// What checks ask for, and no client does.
const PROBED: &str = "/a-health-check";

/// No checks but in probation, and those are connections.
fn unchecked(ejection: &str, backends: &[&dyn Endpoint]) -> Setup {
    let setup = Gateway::over(backends).set_yaml("Ejection", ejection).with_metrics();
    setup.set_yaml("HealthCheck", "{Type: none, Interval: 100ms, Timeout: 100ms}")
}

/// Checks by requests, with patience for a machine that is busy.
fn checked(every: &str, ejection: &str, backends: &[&dyn Endpoint]) -> Setup {
    let check = format!("{{Path: {PROBED}, Interval: {every}, Timeout: {every}, Healthy: 2, Unhealthy: 2}}");
    Gateway::over(backends).set_yaml("Ejection", ejection).set_yaml("HealthCheck", &check).with_metrics()
}

/// So many PUTs, one after another; their answers' statuses.
async fn puts(gateway: &Gateway, name: &str, count: usize) -> Vec<u16> {
    let mut client = gateway.client().await;
    let mut statuses = Vec::new();
    for number in 0..count {
        statuses.push(client.request("PUT", &format!("/bucket/{name}-{number}"), &[], b"x").await.status);
    }
    statuses
}

/// What clients had from it, checks left out.
fn of_clients(backend: &Misbehaving) -> Vec<Received> {
    backend.requests().into_iter().filter(|request| request.target != PROBED).collect()
}

async fn wait_for_state(gateway: &Gateway, backend: &dyn Endpoint, state: &str) -> Scrape {
    let url = backend.url();
    let what = format!("{url} to be {state}");
    let labels = [("backend", url.as_str()), ("state", state)];
    gateway.scrape_until(&what, |scrape| scrape.value("akubra_backend_state", &labels) == 1.0).await
}

fn records_of(records: &[Value], backend: &dyn Endpoint) -> Vec<String> {
    let of_backend = records.iter().filter(|record| record["failedhost"] == backend.url());
    of_backend.map(|record| record["error"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backend_that_fails_is_ejected_and_what_it_misses_is_recorded_at_once() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::answers(503));
        let mut gateway = unchecked(FOR_LONG, &[&a, &b]).start().await;
        assert_eq!(puts(&gateway, "before", 5).await, [200; 5]);
        gateway.wait_for_log(&format!("{}: ejected for", a.url())).await;
        // It would take its time now.
        a.will(Behaviour::hangs(Phase::AfterHead));
        assert_eq!(puts(&gateway, "after", 20).await, [200; 20]);
        let records = gateway.wait_for_records(25).await;
        for number in 0..20 {
            let reply = gateway.get(&format!("/bucket/after-{number}")).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "x"));
        }
        assert_eq!(of_clients(&a).len(), 5);
        let errors = records_of(&records, &a);
        let reason =
            format!("{}: ejected: 5 failures in a row, the last: answered 503 Service Unavailable", a.url());
        assert_eq!(errors.iter().filter(|error| **error == reason).count(), 20, "{errors:#?}");
        let late = records.iter().find(|record| record["error"] == reason).unwrap();
        assert_eq!((&late["outcome"], &late["status"]), (&"not applied".into(), &0.into()));
        let scrape = gateway.scrape().await;
        let (at_a, at_b) = (a.url(), b.url());
        let (at_a, at_b) = (("backend", at_a.as_str()), ("backend", at_b.as_str()));
        let ejections = [at_a, ("reason", "consecutive_failures")];
        assert_eq!(scrape.value("akubra_backend_ejections_total", &ejections), 1.0);
        assert_eq!(scrape.sum("akubra_backend_ejections_total", &[]), 1.0);
        assert_eq!(scrape.value("akubra_backend_state", &[at_a, ("state", "ejected")]), 1.0);
        assert_eq!(scrape.value("akubra_backend_state", &[at_b, ("state", "healthy")]), 1.0);
        assert_eq!(scrape.sum("akubra_backend_state", &[]), 2.0);
        assert_eq!(gateway.stop().await.records.len(), 25);
    });
}

#[test]
fn checks_and_no_client_bring_a_backend_back() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = checked("1s", BRIEFLY, &[&a, &b]).start().await;
        a.refuse().await;
        assert_eq!(puts(&gateway, "refused", 10).await, [200; 10]);
        gateway.wait_for_log(&format!("{}: ejected for", a.url())).await;
        // Many times its time is over, and it is ejected again, because checks fail.
        gateway.wait_for_log("a health check failed in probation: connection refused while connecting").await;
        assert_eq!(puts(&gateway, "meanwhile", 3).await, [200; 3]);
        a.listen_again();
        gateway
            .wait_for_log(&format!("{}: healthy again: 2 health checks in a row were good", a.url()))
            .await;
        assert!(of_clients(&a).is_empty(), "{:#?}", of_clients(&a));
        let probes = a.requests();
        assert!(probes.len() >= 2, "{probes:#?}");
        let probe = &probes[0];
        assert_eq!(probe.header("host"), Some(a.url().trim_start_matches("http://")));
        assert_eq!((probe.method.as_str(), probe.header("connection")), ("GET", Some("close")));
        wait_for_state(&gateway, &a, "healthy").await;
        assert_eq!(gateway.put("/bucket/again", b"hello").await.status, 200);
        assert_eq!(a.wait_for_object("/bucket/again").await.bytes.unwrap(), "hello");
        assert_eq!(gateway.stop().await.records.len(), 13);
    });
}

#[test]
fn a_backend_that_hangs_is_found_by_checks_and_gets_nothing_else() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterHead));
        let gateway = checked("2s", FOR_LONG, &[&a, &b]).start().await;
        let reason = "2 health checks failed in a row, the last: it took longer than 2s";
        let line = gateway.wait_for_log(reason).await;
        assert!(line.contains(&format!("{}: ejected for", a.url())), "{line}");
        assert_eq!(puts(&gateway, "put", 20).await, [200; 20]);
        for number in 0..20 {
            assert_eq!(gateway.get(&format!("/bucket/put-{number}")).await.status, 200);
        }
        assert_eq!(gateway.wait_for_records(20).await.len(), 20);
        let probes = a.requests();
        assert!(probes.iter().all(|request| request.target == PROBED), "{probes:#?}");
        let url = a.url();
        let failed = [("backend", url.as_str()), ("outcome", "failed")];
        let scrape = gateway.scrape().await;
        assert_eq!(scrape.value("akubra_backend_health_checks_total", &failed), 2.0);
        assert_eq!(probes.len(), 2);
    });
}

#[test]
fn half_of_a_cluster_stays_and_a_sick_one_goes_when_another_is_back() {
    run(async {
        let (a, b) = pair().await;
        let gateway = unchecked(FOR_LONG, &[&a, &b]).start().await;
        a.refuse().await;
        assert_eq!(puts(&gateway, "one", 6).await, [200; 6]);
        gateway.wait_for_log(&format!("{}: ejected for", a.url())).await;
        b.will(Behaviour::answers(500));
        // It fails, and all the same it is asked: nobody else is left.
        assert_eq!(puts(&gateway, "both", 10).await, [500; 10]);
        let kept = format!(
            "{}: 5 failures in a row, the last: answered 500 Internal Server Error; it stays in use, because cluster \
             testcluster can spare no more backends",
            b.url()
        );
        gateway.wait_for_log(&kept).await;
        let url = b.url();
        let at_b = [("backend", url.as_str())];
        let scrape = gateway.scrape().await;
        assert_eq!(scrape.value("akubra_backend_ejections_refused_total", &at_b), 1.0);
        // With an hour to go it is asked at every interval, since it is needed.
        a.listen_again();
        gateway.wait_for_log(&format!("{}: healthy again", a.url())).await;
        wait_for_state(&gateway, &b, "ejected").await;
        assert_eq!(puts(&gateway, "again", 3).await, [200; 3]);
        assert_eq!(gateway.stderr().matches("it stays in use").count(), 1);
    });
}

#[test]
fn a_lone_backend_is_never_ejected() {
    run(async {
        let a = Misbehaving::start().await;
        a.will(Behaviour::answers(503));
        let gateway = unchecked(FOR_LONG, &[&a]).start().await;
        assert_eq!(puts(&gateway, "bad", 10).await, [503; 10]);
        gateway.wait_for_log("it stays in use").await;
        a.will(Behaviour::good());
        assert_eq!(puts(&gateway, "good", 3).await, [200; 3]);
        gateway.wait_for_log("not sick any more").await;
        let scrape = gateway.scrape().await;
        assert_eq!(scrape.sum("akubra_backend_ejections_total", &[]), 0.0);
        assert_eq!(of_clients(&a).len(), 13);
    });
}

#[test]
fn where_connections_exceed_the_limit_the_backend_with_most_of_them_is_ejected() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup = unchecked(FOR_LONG, &[&a, &b]).set("MaxConnsPerBackend", 2).set("DialTimeout", "300ms");
        let gateway = setup.set("ResponseHeaderTimeout", "1m").start().await;
        assert_eq!(puts(&gateway, "hangs", 3).await, [200; 3]);
        let line = gateway.wait_for_log(&format!("{}: ejected for", a.url())).await;
        let reason = format!("all connections to {} that MaxConnsPerBackend allows were in use", a.url());
        assert!(line.contains(&reason) && line.contains("has most in use, 2"), "{line}");
        let scrape = wait_for_state(&gateway, &a, "ejected").await;
        let url = a.url();
        let ejections = [("backend", url.as_str()), ("reason", "connections")];
        assert_eq!(scrape.value("akubra_backend_ejections_total", &ejections), 1.0);
        // What is under way there goes on to its own end.
        a.release();
        for target in ["/bucket/hangs-0", "/bucket/hangs-1"] {
            a.wait_for_object(target).await;
        }
        assert_eq!(puts(&gateway, "after", 5).await, [200; 5]);
        assert_eq!(of_clients(&a).len(), 2);
        let records = gateway.wait_for_records(6).await;
        assert_eq!(records_of(&records, &a).iter().filter(|error| error.contains("ejected")).count(), 5);
    });
}

#[test]
fn an_upload_that_is_under_way_when_its_backend_is_ejected_goes_on() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = unchecked(FOR_LONG, &[&a, &b]).start().await;
        let mut upload = gateway.client().await;
        upload.head("PUT", "/bucket/long", &[("Transfer-Encoding", "chunked")]).await;
        upload.chunk(b"begun, ").await;
        a.wait_for_requests(1).await;
        a.will(Behaviour::answers(503));
        assert_eq!(puts(&gateway, "bad", 5).await, [200; 5]);
        wait_for_state(&gateway, &a, "ejected").await;
        upload.chunk(b"and ended").await;
        upload.last_chunk().await;
        assert_eq!(upload.reply("PUT").await.status, 200);
        assert_eq!(a.wait_for_object("/bucket/long").await.bytes.unwrap(), "begun, and ended");
        assert_eq!(gateway.stop().await.records.len(), 5);
    });
}

#[test]
fn a_delete_that_an_ejected_backend_missed_is_not_undone_by_its_return() {
    run(async {
        let (a, b) = pair().await;
        let gateway = unchecked(BRIEFLY, &[&a, &b]).start().await;
        assert_eq!(gateway.put("/bucket/gone", b"old").await.status, 200);
        a.wait_for_object("/bucket/gone").await;
        a.refuse().await;
        assert_eq!(puts(&gateway, "bad", 6).await, [200; 6]);
        gateway.wait_for_log(&format!("{}: ejected for", a.url())).await;
        assert_eq!(gateway.delete("/bucket/gone").await.status, 204);
        a.listen_again();
        gateway.wait_for_log(&format!("{}: healthy again", a.url())).await;
        wait_for_state(&gateway, &a, "healthy").await;
        assert!(a.stored("/bucket/gone").is_some());
        for _ in 0..10 {
            assert_eq!(gateway.get("/bucket/gone").await.status, 404);
        }
    });
}

#[test]
fn by_default_each_backend_is_checked_and_ejection_is_on() {
    run(async {
        let (a, b) = pair().await;
        // The defaults, with an interval that a test can wait for.
        let setup = Gateway::over(&[&a, &b]).set_yaml("Ejection", "{}").with_metrics();
        let gateway = setup.set_yaml("HealthCheck", "{Interval: 1s}").start().await;
        for backend in [&a, &b] {
            let check = backend.wait_for_request("a health check", |request| request.target == "/").await;
            assert_eq!(check.method, "GET");
        }
        a.refuse().await;
        assert_eq!(puts(&gateway, "put", 10).await, [200; 10]);
        gateway.wait_for_log(&format!("{}: ejected for", a.url())).await;
        // The checks are no exchanges: nobody counts them among what clients caused.
        let url = b.url();
        let at_b = [("backend", url.as_str())];
        let exchanges = "akubra_backend_exchange_duration_seconds_count";
        let scrape =
            gateway.scrape_until("ten exchanges", |scrape| scrape.sum(exchanges, &at_b) >= 10.0).await;
        assert_eq!(scrape.value(exchanges, &at_b), 10.0);
    });
}

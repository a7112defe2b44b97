//! Metrics that leave in reports: to a graphite collector, to stdout, and as expvar's JSON.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::fixture::*;

fn reporting(backends: &[&dyn Endpoint], collector: SocketAddr) -> Setup {
    let keys = "Interval: 1s, Prefix: my.metrics, AppendDefaults: true, Percentiles: [0.5, 0.999]";
    let yaml = format!("{{Target: graphite, Addr: '{collector}', {keys}}}");
    Gateway::over(backends).set_yaml("Metrics", &yaml)
}

/// The number of the path that ends so, behind whatever the host's name is.
fn number(report: &Report, end: &str) -> Option<f64> {
    report.iter().find(|(path, _)| path.ends_with(&format!(".akubra.{end}"))).map(|(_, number)| *number)
}

fn node(backend: &Misbehaving) -> String {
    backend.url().replace("http://", "").replace(['.', ':'], "_")
}

#[test]
fn a_collector_gets_what_happened_under_the_originals_names_and_ours() {
    run(async {
        let (a, b) = (Misbehaving::start().await, Misbehaving::refusing().await);
        let collector = Collector::start().await;
        let mut gateway = reporting(&[&a, &b], collector.address()).start().await;
        for n in 0..3 {
            assert_eq!(gateway.put(&format!("/bucket/{n}"), b"hello").await.status, 200);
        }
        let puts = "reqs.global.method_PUT.count";
        let report = collector.wait_for_report("3 PUTs", |report| number(report, puts) == Some(3.0)).await;
        let hosts: Vec<&str> = report.keys().map(|path| path.split('.').nth(2).unwrap()).collect();
        for path in report.keys() {
            assert!(path.starts_with(&format!("my.metrics.{}.akubra.", hosts[0])), "{path}");
        }
        let (a, b) = (node(&a), node(&b));
        for (path, expected) in [
            ("reqs.global.all.count", 3.0),
            ("reqs.global.status_200.count", 3.0),
            (&format!("reqs.backend.{a}.all.count"), 3.0),
            (&format!("reqs.backend.{a}.status_200.count"), 3.0),
            (&format!("reqs.backend.{b}.err.count"), 3.0),
            (&format!("reqs.inconsistencies.{b}.method-PUT.count"), 3.0),
            ("akubra_requests_total.PUT.200", 3.0),
            (&format!("akubra_backend_errors_total.{b}.dial.io"), 3.0),
        ] {
            let latest =
                collector.wait_for_report(path, |report| number(report, path) == Some(expected)).await;
            assert_eq!(number(&latest, path), Some(expected));
        }
        assert!(number(&report, "runtime.goroutines_num.value").is_some_and(|tasks| tasks >= 1.0));
        assert!(number(&report, "process_threads").is_none());
        // Percentiles are those of the interval in which the requests were.
        for path in ["reqs.global.all.999-percentile", "akubra_request_duration_seconds.PUT.50-percentile"] {
            let seen = collector.wait_for_report(path, |report| number(report, path).is_some()).await;
            assert!(number(&seen, path).is_some_and(|seconds| seconds > 0.0 && seconds < 60.0));
        }
        // The last report is that of the end.
        assert_eq!(gateway.put("/bucket/last", b"hello").await.status, 200);
        gateway.stop().await;
        assert_eq!(collector.reports().last().and_then(|report| number(report, puts)), Some(4.0));
    });
}

#[test]
fn a_collector_that_comes_late_gets_what_is_then() {
    run(async {
        let a = Misbehaving::start().await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let gateway = reporting(&[&a], socket.local_addr().unwrap()).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.wait_for_log("does not take reports: no connection to 127.0.0.1").await;
        let collector = Collector::on_socket(socket);
        let all = "reqs.global.all.count";
        collector.wait_for_report("what is counted", |report| number(report, all) == Some(1.0)).await;
        gateway.wait_for_log("takes reports again").await;
        let missed = "akubra_metrics_reports_total.graphite.missed";
        collector.wait_for_report("a missed report", |report| number(report, missed).is_some()).await;
        let said = gateway.stderr();
        assert_eq!(said.lines().filter(|line| line.contains("does not take reports")).count(), 1);
    });
}

#[test]
fn a_collector_that_hangs_holds_nothing_up() {
    run(async {
        let a = Misbehaving::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut gateway = reporting(&[&a], listener.local_addr().unwrap()).start().await;
        let _held = soon("a report", listener.accept()).await.unwrap();
        for n in 0..3 {
            assert_eq!(gateway.put(&format!("/bucket/{n}"), b"hello").await.status, 200);
        }
        let logs = gateway.stop().await;
        assert!(logs.main.contains("metrics: the last report was not taken within 2s"), "{}", logs.main);
        assert_eq!(logs.access.len(), 3);
    });
}

#[test]
fn both_processes_of_a_takeover_report_under_names_of_their_own() {
    run(async {
        let a = Misbehaving::start().await;
        let collector = Collector::start().await;
        let mut gateway = reporting(&[&a], collector.address()).start().await;
        let mut upload = gateway.client().await;
        upload.head("PUT", "/bucket/key", &[("Content-Length", "10")]).await;
        upload.send(b"hello").await;
        a.wait_for_requests(1).await;
        let mut successor = gateway.hand_over().await;
        assert_eq!(successor.get("/bucket/none").await.status, 404);
        let ours = "reqs.global.method_GET.count";
        collector.wait_for_report("the new process", |report| number(report, ours) == Some(1.0)).await;
        let draining = |report: &Report, end: &str| {
            let end = format!(".akubra-draining.{end}");
            report.iter().find(|(path, _)| path.ends_with(&end)).map(|(_, number)| *number)
        };
        let old = collector
            .wait_for_report("the old process", |report| draining(report, "akubra_draining") == Some(1.0))
            .await;
        assert!(old.keys().all(|path| path.contains(".akubra-draining.")));
        upload.send(b"world").await;
        assert_eq!(upload.reply("PUT").await.status, 200);
        gateway.ended().await;
        let last = collector.wait_for_report("its upload", |report| {
            draining(report, "reqs.global.method_PUT.count") == Some(1.0)
        });
        last.await;
        successor.stop().await;
    });
}

#[test]
fn stdout_gets_the_same_lines() {
    run(async {
        let a = Misbehaving::start().await;
        let yaml = "{Target: stdout, Interval: 1s, Debug: true}";
        let mut gateway = Gateway::over(&[&a]).set_yaml("Metrics", yaml).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.wait_for_access(1).await;
        gateway.stop().await;
        let text = std::fs::read_to_string(gateway.log_file("stdout")).unwrap();
        let last = text.lines().rev().find(|line| line.starts_with("reqs.global.all.count ")).unwrap();
        assert!(last.starts_with("reqs.global.all.count 1 "), "{last}");
        // From the last report on.
        let from = text.rfind("\nreqs.backend.").and_then(|at| text[..at].rfind("\nprocess_")).unwrap_or(0);
        let end = text[from..].find("reqs.").map_or(0, |at| from + at);
        let report = parse_report(&text[end..]);
        assert_eq!(report["akubra_requests_total.PUT.200"], 1.0);
        assert!(report["process_threads"] >= 2.0);
    });
}

#[test]
fn expvar_is_one_object_at_a_path_of_its_own() {
    run(async {
        let a = Misbehaving::start().await;
        let yaml = "{Target: expvar, ExpAddr: '127.0.0.1:0', Interval: 1s}";
        let gateway = Gateway::over(&[&a]).set_yaml("Metrics", yaml).start().await;
        let metrics = gateway.metrics().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.wait_for_access(1).await;
        let variables = || async {
            let reply = request(metrics, "GET", "/debug/vars", &[], b"").await;
            assert_eq!(
                (reply.status, reply.header("content-type")),
                (200, Some("application/json; charset=utf-8"))
            );
            serde_json::from_str::<serde_json::Value>(&reply.text()).unwrap()
        };
        let seen = async {
            loop {
                let now = variables().await;
                if now.get("reqs.global.all.75-percentile").is_some() {
                    break now;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let seen = soon("the end of an interval", seen).await;
        assert_eq!(seen["reqs.global.all.count"], 1);
        assert_eq!(seen["akubra_requests_total.PUT.200"], 1);
        assert!(seen["cmdline"][0].as_str().unwrap().ends_with("akubra") && seen["process_threads"].is_u64());
        assert_eq!(request(metrics, "GET", "/metrics", &[], b"").await.status, 404);
        assert_eq!(request(metrics, "POST", "/debug/vars", &[], b"x").await.status, 405);
    });
}

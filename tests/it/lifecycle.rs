//! The program's start and end: the check of its configuration, signals, and what a graceful end waits for.

use std::{
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use crate::fixture::*;

fn write(folder: &Path, yaml: &str) -> String {
    let file = folder.join("akubra.yaml");
    std::fs::write(&file, yaml).unwrap();
    file.display().to_string()
}

#[test]
fn a_good_configuration_passes_the_check() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let backend = Misbehaving::start().await;
        let file = write(folder.path(), &Gateway::over(&[&backend]).to_yaml(folder.path()));
        let output = akubra(&["-t", "-c", &file]).await;
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("OK"), "{output:?}");
        assert_eq!(backend.accepted(), 0);
    });
}

#[test]
fn every_shipped_configuration_passes_the_check() {
    run(async {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = vec![root.join("tests/data/seed.yaml")];
        for folder in ["conf", "conf/examples"] {
            let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
            files
                .extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")));
        }
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            let output = akubra(&["-t", "-c", file.to_str().unwrap()]).await;
            assert!(output.status.success(), "{}: {output:?}", file.display());
        }
    });
}

#[test]
fn a_bad_configuration_ends_with_20_and_tells_all_that_is_wrong() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let yaml = "Listen: 127.0.0.1:0\n\
                    Lisen: 127.0.0.1:1\n\
                    BodyMaxSize: 100X\n\
                    Clusters:\n  c:\n    Backends: ['http://127.0.0.1:1']\n\
                    Regions:\n  r:\n    Default: true\n    Clusters:\n      - Cluster: c\n        Weight: 7\n";
        let file = write(folder.path(), yaml);
        for arguments in [&["-t", "-c", &file][..], &["-c", &file]] {
            let output = akubra(arguments).await;
            assert_eq!(output.status.code(), Some(20), "{output:?}");
            let text = String::from_utf8_lossy(&output.stderr);
            for what in ["Lisen", "BodyMaxSize", "Regions.r.Clusters[0].Weight", "2", "3", "12"] {
                assert!(text.contains(what), "no {what} in {text}");
            }
        }
    });
}

#[test]
fn a_configuration_that_is_not_there_or_no_yaml_ends_with_20() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "Listen: [\n");
        for arguments in [&["-t", "-c", &file][..], &["-c", "/nowhere/akubra.yaml"], &[]] {
            let output = akubra(arguments).await;
            assert_eq!(output.status.code(), Some(20), "{arguments:?}: {output:?}");
            assert!(!output.stderr.is_empty());
        }
    });
}

#[test]
fn an_address_that_is_taken_is_told_at_once() {
    run(async {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let backend = Misbehaving::start().await;
        let setup = Gateway::over(&[&backend]).set("Listen", address.clone());
        let file = write(folder.path(), &setup.to_yaml(folder.path()));
        let output = akubra(&["-c", &file]).await;
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(&address), "{output:?}");
    });
}

#[test]
fn version_and_help_are_there() {
    run(async {
        let version = akubra(&["--version"]).await;
        assert_eq!(
            String::from_utf8_lossy(&version.stdout),
            format!("akubra {}\n", env!("CARGO_PKG_VERSION"))
        );
        let help = akubra(&["--help"]).await;
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(help.status.success() && text.contains("--conf") && text.contains("locate"), "{text}");
    });
}

#[test]
fn locate_explains_where_an_object_lives() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = pair().await;
        let region = Region::new("grown", &[("old", 0.0), ("new", 1.0)]).default_region();
        let setup = Setup::new().cluster("old", &[&a]).cluster("new", &[&b]).region(region);
        let file = write(folder.path(), &setup.to_yaml(folder.path()));
        let output = akubra(&["locate", "-c", &file, "--host", "any", "/bucket/key"]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        for what in ["grown", "old", "new", &a.url(), &b.url()] {
            assert!(text.contains(what), "no {what} in {text}");
        }
    });
}

#[test]
fn without_work_sigterm_ends_the_gateway_at_once() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).set("grace_period_seconds", 60).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        // An idle connection is no work.
        let mut idle = gateway.client().await;
        assert_eq!(idle.request("GET", "/bucket/key", &[], b"").await.status, 200);
        let start = Instant::now();
        let logs = gateway.stop_in_sync().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(logs.access.len(), 2);
        idle.closed().await;
    });
}

#[test]
fn a_request_that_came_on_an_idle_connection_before_the_end_is_served() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut clients = Vec::new();
        for number in 0..20 {
            let mut client = gateway.client().await;
            assert_eq!(client.request("PUT", &format!("/bucket/{number}"), &[], b"hello").await.status, 200);
            clients.push(client);
        }
        let mut silent = gateway.client().await;
        assert_eq!(silent.request("GET", "/bucket/0", &[], b"").await.status, 200);
        // Signal and requests are there when it looks again, in whatever order.
        gateway.signal("STOP");
        for client in &mut clients {
            client.head("PUT", "/bucket/key", &[("Content-Length", "5")]).await;
            client.send(b"world").await;
        }
        gateway.signal("TERM");
        gateway.signal("CONT");
        for client in &mut clients {
            assert_eq!(client.reply("PUT").await.status, 200);
        }
        silent.closed().await;
        let logs = gateway.ended().await;
        assert!(logs.records.is_empty() && logs.access.len() == 41, "{logs:#?}");
    });
}

#[test]
fn a_running_upload_finishes_after_sigterm() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut client = gateway.client().await;
        client.head("PUT", "/bucket/key", &[("Content-Length", "10")]).await;
        client.send(b"hello").await;
        a.wait_for_requests(1).await;
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        client.send(b"world").await;
        let reply = client.reply("PUT").await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        let logs = gateway.ended().await;
        assert!(logs.records.is_empty() && logs.access.len() == 1, "{logs:#?}");
        for backend in [&a, &b] {
            assert_eq!(backend.stored_bytes("/bucket/key").unwrap(), "helloworld");
        }
    });
}

#[test]
fn a_running_download_finishes_after_sigterm() {
    run(async {
        let a = Misbehaving::start().await;
        let body = noise(400_000);
        a.holds("/bucket/key", body.clone());
        a.will(Behaviour::hangs(Phase::MidAnswerBody(100_000)));
        let mut gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        client.head("GET", "/bucket/key", &[]).await;
        a.wait_for_request("the answer", |request| request.answered == 200).await;
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        a.release();
        let reply = client.reply("GET").await;
        assert!(reply.complete && reply.body == body);
        gateway.ended().await;
    });
}

#[test]
fn background_work_finishes_after_sigterm_and_then_the_gateway_ends() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1m").start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        assert!(gateway.is_running());
        a.release();
        let start = Instant::now();
        let logs = gateway.ended().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert!(logs.records.is_empty());
        assert_eq!(a.stored_bytes("/bucket/key").unwrap(), "hello");
    });
}

#[test]
fn what_does_not_finish_in_the_grace_period_is_cut_off_recorded_and_flushed() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let setup =
            Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1m").set("grace_period_seconds", 1);
        let mut gateway = setup.start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let start = Instant::now();
        let records = gateway.stop().await.records;
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(6)).contains(&elapsed), "{elapsed:?}");
        assert_eq!(record_of(&records, &a)["outcome"], "unknown");
    });
}

#[test]
fn a_read_that_does_not_finish_in_the_grace_period_is_cut_off_and_logged() {
    run(async {
        let a = Misbehaving::start().await;
        a.holds("/bucket/key", "0123456789".repeat(50_000));
        a.will_once_on("GET", Behaviour::hangs(Phase::MidAnswerBody(200_000)));
        let mut gateway = Gateway::over(&[&a]).set("grace_period_seconds", 1).start().await;
        let mut client = gateway.client().await;
        client.head("GET", "/bucket/key", &[]).await;
        client.read_at_least(100_000).await;
        let logs = gateway.stop().await;
        assert_eq!(logs.access.len(), 1);
        assert_eq!(logs.access[0]["error"], "cut off: the gateway is stopping");
    });
}

#[test]
fn a_body_sent_to_the_health_path_holds_up_nothing() {
    run(async {
        let a = Misbehaving::start().await;
        let mut gateway = Gateway::over(&[&a]).start().await;
        let mut client = gateway.client().await;
        client.head("POST", "/status/ping", &[("Content-Length", "1000000000000")]).await;
        assert_eq!(client.reply("POST").await.status, 200);
        let start = Instant::now();
        gateway.stop().await;
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    });
}

#[test]
fn health_turns_503_while_the_gateway_drains() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let mut open = gateway.client().await;
        assert_eq!(open.request("GET", "/status/ping", &[], b"").await.status, 200);
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        // Its head is half there when the signal comes.
        let head = open.head_text("GET", "/status/ping", &[]);
        open.send(&head.as_bytes()[..10]).await;
        gateway.signal("TERM");
        gateway.wait_for_refusal().await;
        open.send(&head.as_bytes()[10..]).await;
        let reply = open.reply("GET").await;
        assert_eq!((reply.status, reply.header("connection")), (503, Some("close")));
        a.release();
        gateway.ended().await;
    });
}

#[test]
fn sigint_ends_the_gateway_without_waiting() {
    run(async {
        let (a, b) = pair().await;
        a.will(Behaviour::hangs(Phase::AfterBody));
        let mut gateway = Gateway::over(&[&a, &b]).set("ResponseHeaderTimeout", "1m").start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let start = Instant::now();
        gateway.signal("INT");
        let records = gateway.ended().await.records;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        record_of(&records, &a);
    });
}

#[test]
fn other_signals_end_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        for signal in ["QUIT", "HUP", "USR1"] {
            gateway.signal(signal);
            gateway.wait_for_log(&format!("SIG{signal}")).await;
            assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        }
        gateway.stop_in_sync().await;
    });
}

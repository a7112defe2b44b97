//! The logs as an operator finds them: lines, fields, files and other places.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use chrono::DateTime;

use crate::fixture::*;

#[test]
fn the_access_log_has_a_line_per_request() {
    run(async {
        let (a, b) = pair().await;
        let mut gateway = Gateway::over(&[&a, &b]).start().await;
        let headers = [("User-Agent", "tester/1.0"), ("Host", "some.host:80")];
        let reply = gateway.request("PUT", "/bucket/key?x-id=PutObject", &headers, b"hello").await;
        assert_eq!(reply.status, 200);
        assert_eq!(gateway.get("/bucket/none").await.status, 404);
        assert_eq!(gateway.get("/bucket/%zz").await.status, 400);
        let access = gateway.stop().await.access;
        assert_eq!(access.len(), 3, "{access:#?}");
        // Lines are written when their requests have ended, in no order among connections.
        let line_of = |status: u16| access.iter().find(|line| line["status"] == status).unwrap();
        let put = line_of(200);
        for (field, value) in [
            ("method", "PUT"),
            ("host", "some.host:80"),
            ("path", "/bucket/key"),
            ("useragent", "tester/1.0"),
            ("error", ""),
            ("reqID", reply.header("x-akubra-request-id").unwrap()),
            ("region", "testregion"),
            ("cluster", "testcluster"),
            ("remote", "127.0.0.1"),
        ] {
            assert_eq!(put[field], value, "{field} of {put}");
        }
        assert_eq!((&put["bytes_in"], &put["asked"]), (&5.into(), &2.into()));
        assert!(put["duration"].as_f64().unwrap() < 15_000.0, "{put}");
        DateTime::parse_from_rfc3339(put["ts"].as_str().unwrap()).unwrap();
        assert_eq!(line_of(400)["path"], "/bucket/%zz");
        assert!(line_of(404)["bytes_out"].as_u64().unwrap() > 0);
    });
}

#[test]
fn log_files_are_for_their_owner_only() {
    run(async {
        let a = Misbehaving::start().await;
        let gateway = Gateway::over(&[&a]).start().await;
        gateway.put("/bucket/key", b"hello").await;
        gateway.wait_for_access(1).await;
        let mode = std::fs::metadata(gateway.log_file("access.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn logs_go_to_stderr_where_that_is_asked_for() {
    run(async {
        let (a, b) = (Misbehaving::refusing().await, Misbehaving::start().await);
        let everything = "{Synclog: {stderr: true}, Accesslog: {stderr: true}, \
                          Mainlog: {stderr: true, level: Info}}";
        let mut gateway = Gateway::over(&[&a, &b]).set_yaml("Logging", everything).start().await;
        assert_eq!(gateway.put("/bucket/key", b"hello").await.status, 200);
        let main = gateway.stop().await.main;
        let json: Vec<serde_json::Value> =
            main.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert!(json.iter().any(|line| line["failedhost"] == a.url()), "{main}");
        assert!(json.iter().any(|line| line["status"] == 200 && line["duration"].is_number()), "{main}");
        assert!(!main.contains("DEBUG"), "{main}");
    });
}

#[test]
fn a_main_log_that_goes_nowhere_is_silent_once_the_gateway_serves() {
    run(async {
        let a = Misbehaving::start().await;
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gateway.sock");
        let setup = Gateway::over(&[&a]).set("Listen", format!("unix:{}", socket.display()));
        let mut gateway = setup.set_yaml("Logging", "{Mainlog: {stderr: false}}").launch(&[]);
        soon("the gateway to listen", async {
            while tokio::net::UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let main = gateway.stop().await.main;
        assert!(!main.contains("ending"), "{main}");
    });
}

#[test]
fn a_gateway_goes_on_with_the_log_files_of_the_one_before() {
    run(async {
        let a = Misbehaving::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        for count in 1..=2 {
            let logging = format!("{{Accesslog: {{file: {}}}, Mainlog: {{stderr: true}}}}", file.display());
            let mut gateway = Gateway::over(&[&a]).set_yaml("Logging", &logging).start().await;
            gateway.put("/bucket/key", b"hello").await;
            gateway.stop().await;
            assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), count);
        }
    });
}

use std::{fs, path::Path, time::Duration};

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::config::LogConfig;

fn record() -> Record {
    Record {
        method: "PUT".into(),
        failedhost: "http://10.0.0.2:9000".into(),
        path: "/bucket/a%20key".into(),
        successhost: "http://10.0.0.1:9000".into(),
        useragent: "aws-cli/2".into(),
        content_length: 5_000_000_000,
        error: "connection refused".into(),
        req_id: "r-1".into(),
        ts: DateTime::from_timestamp(1_767_323_045, 7).unwrap(),
        region: "eu".into(),
        cluster: "c1".into(),
        bucket: "bucket".into(),
        key: "a key".into(),
        status: 0,
        outcome: Outcome::NotApplied,
        etag: Some("\"0123\"".into()),
        version: None,
        sub_resource: None,
    }
}

fn line_of<T: serde::Serialize>(entry: &T) -> String {
    let mut line = Vec::new();
    line::push_json(entry, &mut line).unwrap();
    String::from_utf8(line).unwrap()
}

fn to_file(path: &Path) -> LogConfig {
    LogConfig { file: Some(path.to_path_buf()), ..LogConfig::default() }
}

async fn flush(log: &SyncLog) {
    log.flush(Instant::now() + Duration::from_secs(30)).await;
}

#[test]
fn a_record_has_the_fields_in_their_order() {
    let expected = concat!(
        r#"{"method":"PUT","failedhost":"http://10.0.0.2:9000","path":"/bucket/a%20key","#,
        r#""successhost":"http://10.0.0.1:9000","useragent":"aws-cli/2","content-length":5000000000,"#,
        r#""error":"connection refused","reqID":"r-1","ts":"2026-01-02T03:04:05.000000007Z","#,
        r#""region":"eu","cluster":"c1","bucket":"bucket","key":"a key","status":0,"#,
        r#""outcome":"not applied","etag":"\"0123\"","version":""}"#,
        "\n"
    );
    assert_eq!(line_of(&record()), expected);
}

#[test]
fn a_databases_template_can_name_every_field() {
    let record = Record { sub_resource: Some("acl".into()), ..record() };
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line_of(&record)).unwrap();
    let mut fields: Vec<&str> = line.keys().map(String::as_str).chain(["id"]).collect();
    let mut known = crate::config::FIELDS;
    fields.sort_unstable();
    known.sort_unstable();
    assert_eq!(fields, known);
}

#[test]
fn a_sub_resource_comes_last_and_outcomes_have_the_words_of_the_documents() {
    let line = line_of(&Record {
        sub_resource: Some("acl".into()),
        version: Some("v1".into()),
        outcome: Outcome::Unknown,
        ..record()
    });
    assert!(line.ends_with(",\"version\":\"v1\",\"subresource\":\"acl\"}\n"), "{line}");
    assert!(line.contains(r#""outcome":"unknown""#));
    assert!(line_of(&Record { outcome: Outcome::Good, ..record() }).contains(r#""outcome":"good""#));
}

#[test]
fn a_presigned_query_is_never_written() {
    let line = line_of(&Record { path: "/b/k?X-Amz-Signature=secret".into(), ..record() });
    assert!(line.contains(r#""path":"/b/k","#), "{line}");
    assert!(!line.contains("secret"));
}

#[tokio::test]
async fn only_the_methods_of_the_filter_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (sync, cluster) = (dir.path().join("sync.log"), dir.path().join("cluster.log"));
    let logging =
        Logging { synclog: to_file(&sync), clustersynclog: to_file(&cluster), ..Logging::default() };
    let log = SyncLog::open(&logging, Some(vec![Method::PUT, Method::DELETE]), dir.path()).unwrap();
    log.start().unwrap();
    for method in ["PUT", "POST", "DELETE", "put"] {
        log.record(Record { method: method.into(), ..record() }).await;
    }
    let found = Misplacement { key: "b/k\n".into(), expected: "new".into(), actual: "old".into() };
    log.misplaced(found).await;
    flush(&log).await;
    let written = fs::read_to_string(sync).unwrap();
    let methods: Vec<&str> = written.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(methods, ["PUT", "DELETE"]);
    let expected = "{\"Key\":\"b/k\\n\",\"Expected\":\"new\",\"Actual\":\"old\"}\n";
    assert_eq!(fs::read_to_string(cluster).unwrap(), expected);
}

#[tokio::test]
async fn records_given_before_the_start_are_written_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sync.log");
    let logging = Logging { synclog: to_file(&path), ..Logging::default() };
    let log = SyncLog::open(&logging, None, dir.path()).unwrap();
    log.record(record()).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    log.start().unwrap();
    log.start().unwrap();
    flush(&log).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), line_of(&record()));
}

#[tokio::test]
async fn a_synclog_that_is_off_takes_everything() {
    let log = SyncLog::off();
    for _ in 0..5 {
        log.record(record()).await;
    }
    flush(&log).await;
}

#[tokio::test]
async fn the_feed_shows_a_record_without_what_the_client_sent_in_headers() {
    let log = SyncLog::off();
    log.record(Record { etag: Some("\"from a backend\"".into()), ..record() }).await;
    let events = log.feed().after(0);
    let expected = serde_json::json!({
        "number": 1, "kind": "divergence", "ts": "2026-01-02T03:04:05.000000007Z", "cut": false,
        "reqID": "r-1", "method": "PUT", "region": "eu", "cluster": "c1", "bucket": "bucket", "key": "a key",
        "failedhost": "http://10.0.0.2:9000", "successhost": "http://10.0.0.1:9000",
        "status": 0, "outcome": "not applied", "error": "connection refused",
    });
    assert_eq!(serde_json::to_value(&*events[0]).unwrap(), expected);
}

proptest! {
    #[test]
    fn hostile_text_stays_on_its_line(key in any::<String>(), agent in any::<String>()) {
        let line = line_of(&Record { key: key.clone(), useragent: agent.clone(), ..record() });
        let json = line.strip_suffix('\n').unwrap();
        let broken = json.contains(|c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c));
        prop_assert!(!broken);
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        prop_assert_eq!(&read["key"], &serde_json::Value::from(key));
        prop_assert_eq!(&read["useragent"], &serde_json::Value::from(agent));
    }
}

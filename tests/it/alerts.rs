//! What comes for Prometheus and Grafana, judged by Prometheus' own tool: the alerts and what they say to made-up series,
//! and the queries of the dashboard. That all of it names only metrics that there are is a unit test of
//! `telemetry::metrics`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Debian's `prometheus` brings it; `make test` installs that.
fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new("promtool").args(arguments).arg(file).output();
    let output = output.expect("promtool is missing: run scripts/install-missing alerts");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?} {}: {said}", file.display());
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(file("conf/grafana/akubra.json")).unwrap()).unwrap()
}

/// All queries of the dashboard, as one would ask them.
fn queries(value: &Value) -> Vec<String> {
    let within = |values: &mut dyn Iterator<Item = &Value>| values.flat_map(queries).collect::<Vec<_>>();
    match value {
        Value::Object(map) => {
            let mut found = within(&mut map.values());
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            found
        }
        Value::Array(list) => within(&mut list.iter()),
        _ => Vec::new(),
    }
}

#[test]
fn the_alerts_are_valid_and_say_what_they_should() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &file("conf/prometheus/akubra.rules.yml"));
    promtool(&["test", "rules"], &file("tests/data/alerts.yml"));
}

#[test]
fn every_alert_says_what_happened_and_where_to_read_on() {
    let text = std::fs::read_to_string(file("conf/prometheus/akubra.rules.yml")).unwrap();
    let rules: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let groups = rules["groups"].as_sequence().unwrap();
    let alerts: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_sequence().unwrap()).collect();
    let mut names = BTreeSet::new();
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(name.starts_with("Akubra") && names.insert(name), "{name}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}");
        for annotation in ["summary", "description"] {
            assert!(alert["annotations"][annotation].as_str().unwrap().len() > 20, "{name}");
        }
        let runbook = alert["annotations"]["runbook"].as_str().unwrap();
        assert!(runbook.starts_with("docs/operations.md#"), "{name}");
    }
    assert!(alerts.len() > 20);
}

#[test]
fn the_dashboards_queries_are_valid() {
    let queries = queries(&dashboard());
    assert!(queries.len() > 50);
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let asked =
                query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$backend", ".*");
            assert!(!asked.contains('$'), "{asked}");
            json!({ "record": format!("query:{number}"), "expr": asked })
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries.yml");
    let text = serde_json::to_string(&json!({ "groups": [{ "name": "queries", "rules": rules }] })).unwrap();
    std::fs::write(&path, text).unwrap();
    promtool(&["check", "rules", "--lint=none"], &path);
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "instance", "backend"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && cells.insert((x, y)), "{} lies over another panel", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        }
    }
    let rows = panels.iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<&str> = rows.map(|row| row["title"].as_str().unwrap()).collect();
    let expected = [
        "Traffic",
        "Latency",
        "Backends",
        "Divergences and background work",
        "Journal and repair",
        "Logs",
        "Process",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn every_alert_has_its_place_in_the_operations_guide() {
    let read = |path: &str| std::fs::read_to_string(file(path)).unwrap();
    let (rules, guide) = (read("conf/prometheus/akubra.rules.yml"), read("docs/operations.md"));
    // As they are linked to: lower case, with dashes for blanks.
    let headings: Vec<String> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let after = |prefix: &'static str| rules.lines().filter_map(move |line| line.trim().strip_prefix(prefix));
    for anchor in after("runbook: docs/operations.md#") {
        assert!(headings.iter().any(|heading| heading == anchor), "{anchor}");
    }
    let alerts: BTreeSet<&str> = after("- alert: ").collect();
    let words = guide.split(|c: char| !c.is_ascii_alphanumeric());
    let named: BTreeSet<&str> = words.filter(|word| word.len() > 6 && word.starts_with("Akubra")).collect();
    assert_eq!(named, alerts);
}

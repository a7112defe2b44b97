//! That what is documented is what there is, and that what is counted is exported.

use std::collections::BTreeSet;

use http::{Method, StatusCode};

use super::*;

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// The rows of the first table in `docs/metrics.md`: name, type, labels, unit, meaning, the Go program's name.
fn documented() -> Vec<[String; 6]> {
    let table = PAGE.lines().skip_while(|line| !line.starts_with("| name |")).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
            let cells = cells.map(|cell| if cell == "-" { String::new() } else { cell });
            cells.collect::<Vec<_>>().try_into().unwrap_or_else(|cells| panic!("{cells:?}"))
        })
        .collect()
}

fn unit(name: &str) -> &'static str {
    let base = name.strip_suffix("_total").unwrap_or(name);
    match base.rsplit('_').next() {
        Some("seconds") => "seconds",
        Some("bytes") => "bytes",
        _ => "",
    }
}

#[test]
fn the_documentation_lists_every_family_and_no_other() {
    let there_is: BTreeSet<[String; 5]> = METRICS
        .declared
        .iter()
        .map(|d| {
            let labels = d.labels.join(", ");
            [d.name.clone(), d.kind.clone(), labels, unit(&d.name).to_owned(), d.help.clone()]
        })
        .collect();
    let documented: BTreeSet<[String; 5]> = documented()
        .into_iter()
        .map(|[name, kind, labels, unit, meaning, _]| [name, kind, labels, unit, meaning])
        .collect();
    let rows = |set: BTreeSet<&[String; 5]>| set.iter().map(|row| row.join(" | ")).collect::<Vec<_>>();
    let missing = rows(there_is.difference(&documented).collect());
    let stale = rows(documented.difference(&there_is).collect());
    assert!(missing.is_empty() && stale.is_empty(), "missing: {missing:#?}\nnot so: {stale:#?}");
}

#[test]
fn every_name_in_the_documentation_is_one() {
    for rest in PAGE.split("akubra_").skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let name = format!("akubra_{}", name.trim_end_matches("_bucket"));
        assert!(METRICS.declared.iter().any(|declared| declared.name == name), "{name}");
    }
}

/// Each name of ours in a text, with the names of the labels that are asked for right behind it.
fn asked(text: &str) -> Vec<(&str, Vec<&str>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for prefix in ["akubra_", "process_"] {
        for (at, _) in text.match_indices(prefix).filter(|(at, _)| !text[..*at].ends_with(word)) {
            let end = text[at..].find(|c| !word(c)).map_or(text.len(), |length| at + length);
            let labels = text[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels).split(',').filter_map(|matcher| {
                matcher.trim().split(['=', '!']).next().filter(|label| !label.is_empty())
            });
            found.push((&text[at..end], labels.collect()));
        }
    }
    found
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    for text in [
        include_str!("../../../conf/grafana/akubra.json"),
        include_str!("../../../conf/prometheus/akubra.rules.yml"),
        include_str!("../../../tests/data/alerts.yml"),
    ] {
        let asked = asked(text);
        assert!(asked.len() > 10);
        for (name, labels) in asked {
            let is = |declared: &&Declared| match declared.kind.as_str() {
                "histogram" => ["bucket", "count", "sum"]
                    .iter()
                    .any(|part| name.strip_suffix(part) == Some(&format!("{}_", declared.name))),
                _ => declared.name == name,
            };
            let declared = METRICS.declared.iter().find(is).unwrap_or_else(|| panic!("there is no {name}"));
            for label in labels {
                let of_prometheus = ["job", "instance"].contains(&label);
                assert!(
                    of_prometheus || declared.labels.iter().any(|l| l == label),
                    "{name} has no label {label}"
                );
            }
        }
    }
}

#[test]
fn what_is_exported_has_been_declared() {
    BackendMetrics::of("http://declared.test").failed("dial", "deadline");
    DestinationMetrics::of("declared-test", "file").written.inc();
    LogMetrics::of("declared-test").queue.set(3);
    for family in gather() {
        let declared = METRICS.declared.iter().find(|declared| declared.name == family.name());
        let declared = declared.unwrap_or_else(|| panic!("{}", family.name()));
        let kind = format!("{:?}", family.type_()).to_lowercase();
        assert_eq!((kind, family.help()), (declared.kind.clone(), declared.help.as_str()));
        for metric in &family.metric {
            let labels: BTreeSet<&str> = metric.label.iter().map(|label| label.name()).collect();
            assert_eq!(labels, declared.labels.iter().map(String::as_str).collect(), "{}", family.name());
        }
    }
}

#[test]
fn names_say_kind_and_unit() {
    for declared in &METRICS.declared {
        let Declared { name, kind, help, .. } = declared;
        assert!(name.starts_with("akubra_") || name.starts_with("process_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        assert!(kind != "histogram" || unit(name) == "seconds", "{name}");
        assert!(help.ends_with('.') && help.len() < 140 && !help.contains('|'), "{name}: {help}");
    }
}

/// The value of the one child that has all these labels.
fn value(family: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let gathered = gather();
    let family = gathered.iter().find(|f| f.name() == family)?;
    let has = |metric: &&pingora_prometheus::prometheus::proto::Metric| {
        labels
            .iter()
            .all(|(name, value)| metric.label.iter().any(|l| l.name() == *name && l.value() == *value))
    };
    let metric = family.metric.iter().find(has)?;
    Some(metric.counter.as_ref().map(|counter| counter.value()).unwrap_or_else(|| metric.gauge.value()))
}

#[test]
fn what_is_counted_is_exported_under_its_labels() {
    let url = "http://counted.test";
    let backend = BackendMetrics::of(url);
    backend.failed("await", "deadline");
    backend.failed("await", "deadline");
    backend.failed("dial", "an invention");
    backend.cut(Cut::Superseded);
    let of = |name, value| [("backend", url), (name, value)];
    assert_eq!(value("akubra_backend_errors_total", &of("phase", "await")), Some(2.0));
    assert_eq!(value("akubra_backend_errors_total", &of("phase", "dial")), None);
    assert_eq!(value("akubra_sub_requests_cut_total", &of("reason", "superseded")), Some(1.0));
    assert_eq!(value("akubra_sub_requests_cut_total", &of("reason", "slow")), Some(0.0));

    let replies = ReplyCounters::of(url);
    replies.count(&Method::PUT, Some(StatusCode::OK), ReplyOutcome::Good);
    replies.count(&Method::PUT, None, ReplyOutcome::NotApplied);
    replies.diverged(&Method::PUT);
    let labels =
        |status, outcome| [("backend", url), ("method", "PUT"), ("status", status), ("outcome", outcome)];
    assert_eq!(value("akubra_backend_replies_total", &labels("2xx", "good")), Some(1.0));
    assert_eq!(value("akubra_backend_replies_total", &labels("none", "not applied")), Some(1.0));
    assert_eq!(value("akubra_backend_replies_total", &labels("none", "unknown")), None);
    assert_eq!(value("akubra_divergences_total", &of("method", "PUT")), Some(1.0));

    METRICS.limit("a test's", 7);
    assert_eq!(value("akubra_limit", &[("bound", "a test's")]), Some(7.0));
}

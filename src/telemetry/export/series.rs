//! Series as they leave in reports: each has a path, names with dots between, as graphite wants them.
//!
//! Our own paths are the family's name and then the values of its labels, in the order of `docs/metrics.md`:
//! `akubra_backend_errors_total.s3_dc1_internal_9000.dial.deadline`. What the Go program counted stands beside them
//! under its own names ([`original`]), so that dashboards made for it go on.
//!
//! A node of a path holds ASCII letters, digits, "-" and "_" alone, whatever the value of a label is: nothing can end
//! a line, add a node, or mean something to a collector. An URL loses its `http://` and is in lower case, which is what
//! the Go program called a backend.

use pingora_prometheus::prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{histogram::Histogram, original};
use crate::telemetry::metrics::METRICS;

/// Longest node: collectors keep one file or folder for each.
const NODE_MOST: usize = 200;

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub path: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A number at the path itself.
    Value(f64),
    /// A number at `PATH.value`, as the Go program's gauges are.
    Gauge(f64),
    /// `PATH.count`, `PATH.sum` and percentiles.
    Histogram(Histogram),
    /// The Go program's kind of counter: `PATH.count` and how it grows.
    Meter(f64),
    /// A meter with percentiles, where durations are known.
    Timer(f64, Option<Histogram>),
}

/// All series of these families. `debug`: with what the process itself is.
pub fn all(families: &[MetricFamily], debug: bool) -> Vec<Series> {
    let mut all = original::series(families);
    for family in families.iter().filter(|family| debug || !family.name().starts_with("process_")) {
        all.extend(family.metric.iter().filter_map(|metric| ours(family, metric)));
    }
    all
}

fn ours(family: &MetricFamily, metric: &Metric) -> Option<Series> {
    let name = family.name();
    let declared = METRICS.declared.iter().find(|declared| declared.name == name)?;
    let mut path = name.to_owned();
    for label_name in &declared.labels {
        path.push('.');
        path.push_str(&node(label_name, label(metric, label_name)));
    }
    let what = match family.type_() {
        MetricType::HISTOGRAM => What::Histogram(Histogram::of(metric)),
        _ => What::Value(value(metric)),
    };
    Some(Series { path, what })
}

/// The value of a counter or a gauge.
pub fn value(metric: &Metric) -> f64 {
    metric.counter.as_ref().map_or_else(|| metric.gauge.value(), |counter| counter.value())
}

/// The value of a label; empty if there is none.
pub fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.label.iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

/// A label's value as a node.
fn node(name: &str, value: &str) -> String {
    if name == "backend" { backend_node(value) } else { clean(value) }
}

/// A backend's node: host and port.
pub fn backend_node(url: &str) -> String {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    clean(host).to_ascii_lowercase()
}

/// `text` with an underscore for whatever may not stand in a node.
pub fn clean(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    if text.is_empty() { "_".to_owned() } else { text.chars().take(NODE_MOST).map(clean).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::metrics::{BackendMetrics, gather};

    #[test]
    fn backends_have_the_originals_names() {
        let cases = [
            ("http://127.0.0.1:9001", "127_0_0_1_9001"),
            ("http://S3.dc1.Internal", "s3_dc1_internal"),
            ("http://[::1]:9001", "___1__9001"),
            ("", "_"),
        ];
        for (url, node) in cases {
            assert_eq!(backend_node(url), node, "{url}");
        }
    }

    #[test]
    fn a_path_is_the_name_and_the_labels_in_the_order_of_the_documentation() {
        BackendMetrics::of("http://series.test:1").failed("dial", "deadline");
        let series = all(&gather(), false);
        let find = |path: &str| series.iter().find(|series| series.path == path).map(|series| &series.what);
        let errors = find("akubra_backend_errors_total.series_test_1.dial.deadline");
        assert_eq!(errors, Some(&What::Value(1.0)));
        let durations = find("akubra_backend_exchange_duration_seconds.series_test_1");
        assert!(matches!(durations, Some(What::Histogram(_))));
        assert!(find("akubra_requests_in_flight").is_some() && find("process_threads").is_none());
        let build = format!("akubra_build_info.{}", env!("CARGO_PKG_VERSION").replace('.', "_"));
        assert_eq!(find(&build), Some(&What::Value(1.0)));
        assert!(all(&gather(), true).iter().any(|series| series.path == "process_threads"));
    }

    proptest! {
        #[test]
        fn no_value_of_a_label_breaks_a_path(value in "(?s).{0,300}") {
            for node in [node("backend", &value), node("method", &value)] {
                prop_assert!((1..=NODE_MOST).contains(&node.len()), "{}", node.len());
                prop_assert!(node.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            }
        }
    }
}

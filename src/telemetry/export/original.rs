//! The names that the Go program had, for what it counted: dashboards that were made for it go on.
//!
//! It made a name for each host, method and status; here they are added up from families with labels. Only what has
//! happened has a name, as there. `docs/metrics.md` says what each is made from, and what is missing.

use std::collections::BTreeMap;

use pingora_prometheus::prometheus::proto::{Metric, MetricFamily};

use super::{
    histogram::Histogram,
    series::{Series, What, backend_node, clean, label, value},
};

/// Counts and durations by path.
#[derive(Default)]
struct Timers(BTreeMap<String, (f64, Option<Histogram>)>);

impl Timers {
    fn count(&mut self, path: String, count: f64) {
        if count > 0.0 {
            self.0.entry(path).or_default().0 += count;
        }
    }

    /// Durations of what is counted at the path.
    fn durations(&mut self, path: &str, histogram: &Histogram) {
        if let Some((_, durations)) = self.0.get_mut(path) {
            durations.get_or_insert_default().add(histogram);
        }
    }
}

pub fn series(families: &[MetricFamily]) -> Vec<Series> {
    let mut timers = Timers::default();
    clients(families, &mut timers);
    backends(families, &mut timers);
    let timers = timers.0.into_iter();
    let mut series: Vec<Series> =
        timers.map(|(path, (count, took))| Series { path, what: What::Timer(count, took) }).collect();
    for metric in children(families, "akubra_divergences_total").filter(|metric| value(metric) > 0.0) {
        let (host, method) = (backend_node(label(metric, "backend")), clean(label(metric, "method")));
        let path = format!("reqs.inconsistencies.{host}.method-{method}");
        series.push(Series { path, what: What::Meter(value(metric)) });
    }
    for (path, family) in
        [("runtime.goroutines_num", "akubra_tasks"), ("runtime.mem.os_mem", "process_resident_memory_bytes")]
    {
        if let Some(value) = children(families, family).map(value).reduce(|sum, value| sum + value) {
            series.push(Series { path: path.to_owned(), what: What::Gauge(value) });
        }
    }
    series
}

fn clients(families: &[MetricFamily], timers: &mut Timers) {
    for metric in children(families, "akubra_requests_total") {
        let (method, status) = (label(metric, "method"), label(metric, "status"));
        timers.count("reqs.global.all".into(), value(metric));
        timers.count(format!("reqs.global.method_{}", clean(method)), value(metric));
        if is_code(status) {
            timers.count(format!("reqs.global.status_{status}"), value(metric));
        }
    }
    for metric in children(families, "akubra_request_duration_seconds") {
        let histogram = Histogram::of(metric);
        timers.durations("reqs.global.all", &histogram);
        timers.durations(&format!("reqs.global.method_{}", clean(label(metric, "method"))), &histogram);
    }
    for metric in children(families, "akubra_requests_broken_total") {
        timers.count("reqs.global.err".into(), value(metric));
    }
    // What no backend has answered.
    let unanswered = children(families, "akubra_refusals_total");
    for metric in unanswered.filter(|metric| label(metric, "code") == "ServiceUnavailable") {
        timers.count("reqs.global.err".into(), value(metric));
    }
}

fn backends(families: &[MetricFamily], timers: &mut Timers) {
    let name = |metric: &Metric| format!("reqs.backend.{}", backend_node(label(metric, "backend")));
    for metric in children(families, "akubra_backend_replies_total") {
        timers.count(format!("{}.all", name(metric)), value(metric));
        timers.count(format!("{}.method_{}", name(metric), clean(label(metric, "method"))), value(metric));
    }
    for metric in children(families, "akubra_backend_answers_total") {
        let status = label(metric, "status");
        if is_code(status) {
            timers.count(format!("{}.status_{status}", name(metric)), value(metric));
        }
    }
    // A dead pooled connection is tried again, as Go does without a word.
    for metric in
        children(families, "akubra_backend_errors_total").filter(|metric| label(metric, "cause") != "stale")
    {
        timers.count(format!("{}.err", name(metric)), value(metric));
    }
    for metric in children(families, "akubra_backend_exchange_duration_seconds") {
        timers.durations(&format!("{}.all", name(metric)), &Histogram::of(metric));
    }
}

fn children<'a>(families: &'a [MetricFamily], name: &str) -> impl Iterator<Item = &'a Metric> + use<'a> {
    let family = families.iter().find(|family| family.name() == name);
    family.into_iter().flat_map(|family| &family.metric)
}

fn is_code(status: &str) -> bool {
    status.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use crate::telemetry::metrics::{BackendMetrics, METRICS, ReplyCounters, ReplyOutcome, gather};

    fn find(path: &str) -> Option<What> {
        let series = series(&gather());
        series.into_iter().find(|series| series.path == path).map(|series| series.what)
    }

    #[test]
    fn what_backends_do_has_the_originals_names() {
        let url = "http://Original.Test:9001";
        let (backend, replies) = (BackendMetrics::of(url), ReplyCounters::of(url));
        let node = "reqs.backend.original_test_9001";
        assert_eq!(find(&format!("{node}.all")), None);
        replies.count(&Method::PUT, Some(StatusCode::OK), ReplyOutcome::Good);
        replies.count(&Method::PUT, Some(StatusCode::INSUFFICIENT_STORAGE), ReplyOutcome::NotApplied);
        replies.count(&Method::GET, None, ReplyOutcome::Unknown);
        backend.exchange_duration.observe(0.02);
        backend.failed("dial", "io");
        backend.failed("await", "stale");
        replies.diverged(&Method::PUT);
        let count = |name: &str| match find(&format!("{node}.{name}")) {
            Some(What::Timer(count, histogram)) => (count, histogram.map(|histogram| histogram.count)),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(count("all"), (3.0, Some(1)));
        assert_eq!((count("status_200"), count("status_507")), ((1.0, None), (1.0, None)));
        assert_eq!((count("method_PUT"), count("method_GET")), ((2.0, None), (1.0, None)));
        assert_eq!(count("err"), (1.0, None));
        let missed = "reqs.inconsistencies.original_test_9001.method-";
        assert_eq!(find(&format!("{missed}PUT")), Some(What::Meter(1.0)));
        assert_eq!(find(&format!("{missed}GET")), None);
    }

    #[test]
    fn what_clients_do_has_the_originals_names() {
        let before = find("reqs.global.status_418");
        assert_eq!(before, None);
        METRICS.requests.ended(&Method::OPTIONS, Some(StatusCode::IM_A_TEAPOT), Duration::from_millis(3));
        METRICS.requests.refused("ServiceUnavailable");
        assert_eq!(find("reqs.global.status_418"), Some(What::Timer(1.0, None)));
        let Some(What::Timer(all, Some(_))) = find("reqs.global.all") else { panic!() };
        let Some(What::Timer(options, Some(_))) = find("reqs.global.method_OPTIONS") else { panic!() };
        assert!(all >= 1.0 && options >= 1.0);
        assert!(matches!(find("reqs.global.err"), Some(What::Timer(1.0.., None))));
        assert!(matches!(find("runtime.mem.os_mem"), Some(What::Gauge(1e6..))));
    }
}

//! Every metric family, declared once.
//!
//! A leaf: it imports nothing of ours, so that any module may count. All families live in one struct and one
//! registry of our own, made together at first use: what is exported does not depend on which code ran first.
//! Looking a child up by its labels costs a lock and a hash; the helpers at the end bind children once, to be
//! kept by whoever counts often. Labels take only values of a bounded set, never what a client sent.

use std::sync::LazyLock;

use http::Method;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// Seconds: from a cache hit in memory to a large upload.
const LATENCY_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// All families, registered.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The families; each field's help text is its documentation.
#[derive(Debug)]
pub struct Metrics {
    pub registry: Registry,

    /// By `method` ([`method_label`]) and `status`.
    pub requests: IntCounterVec,
    /// Seconds from the request's head to the end of the answer, by `method`.
    pub request_duration: HistogramVec,
    pub requests_in_flight: IntGauge,
    /// Connections in use and idle, by `backend` and `state` ("busy", "idle").
    pub upstream_connections: IntGaugeVec,
    /// By `backend`, `method` and `outcome` ("good", "not applied", "unknown").
    pub replies: IntCounterVec,
    /// Seconds from the start of an exchange to the end of its answer, by `backend`.
    pub exchange_duration: HistogramVec,
    /// By `backend` and `method`.
    pub divergences: IntCounterVec,
    pub misplacements: IntCounter,
    /// Sub-requests whose client already has its answer, by `backend`.
    pub background_requests: IntGaugeVec,
    /// Bytes that those still have to send, by `backend`.
    pub background_bytes: IntGaugeVec,

    /// Lines in or waiting for the channel, by `log`.
    pub log_queue: IntGaugeVec,
    /// Callers that found the channel full and waited, by `log`.
    pub log_waits: IntCounterVec,
    /// Lines that nobody has written because the channel was full, by `log`.
    pub log_dropped: IntCounterVec,
    /// Lines given to the other destinations only, by `log` and `destination`.
    pub log_missed: IntCounterVec,
    /// By `log` and `destination`.
    pub log_written: IntCounterVec,
    /// Failed writes, by `log` and `destination`.
    pub log_write_errors: IntCounterVec,
    /// Lines that no destination took before the deadline at shutdown and that went to stderr, by `log`.
    pub log_rescued: IntCounterVec,
}

impl Metrics {
    fn new() -> Metrics {
        let f = Families { registry: Registry::new() };
        Metrics {
            requests: f.counters("akubra_requests_total", "Client requests.", &["method", "status"]),
            request_duration: f.histograms(
                "akubra_request_duration_seconds",
                "Time from a request's head to the end of its answer.",
                &["method"],
            ),
            requests_in_flight: f
                .gauge("akubra_requests_in_flight", "Client requests without a full answer."),
            upstream_connections: f.gauges(
                "akubra_upstream_connections",
                "Connections to backends.",
                &["backend", "state"],
            ),
            replies: f.counters(
                "akubra_backend_replies_total",
                "What exchanges with backends came to.",
                &["backend", "method", "outcome"],
            ),
            exchange_duration: f.histograms(
                "akubra_backend_exchange_duration_seconds",
                "Time from the start of an exchange to the end of its answer.",
                &["backend"],
            ),
            divergences: f.counters(
                "akubra_divergences_total",
                "Records of backends that disagree with their cluster.",
                &["backend", "method"],
            ),
            misplacements: f
                .counter("akubra_misplacements_total", "Objects found on another cluster than their home."),
            background_requests: f.gauges(
                "akubra_background_requests",
                "Sub-requests whose client already has its answer.",
                &["backend"],
            ),
            background_bytes: f.gauges(
                "akubra_background_bytes",
                "Bytes that background sub-requests still have to send.",
                &["backend"],
            ),
            log_queue: f.gauges("akubra_log_queue_lines", "Lines on their way to a log's task.", &["log"]),
            log_waits: f.counters(
                "akubra_log_waits_total",
                "Times that a caller waited for room in a log's channel.",
                &["log"],
            ),
            log_dropped: f.counters(
                "akubra_log_lines_dropped_total",
                "Lines dropped because a log's channel was full.",
                &["log"],
            ),
            log_missed: f.counters(
                "akubra_log_lines_missed_total",
                "Lines that one failing destination of a log missed and another one took.",
                &["log", "destination"],
            ),
            log_written: f.counters(
                "akubra_log_lines_written_total",
                "Lines written.",
                &["log", "destination"],
            ),
            log_write_errors: f.counters(
                "akubra_log_write_errors_total",
                "Failed writes of a log.",
                &["log", "destination"],
            ),
            log_rescued: f.counters(
                "akubra_log_lines_rescued_total",
                "Lines that went to stderr at shutdown because no destination took them in time.",
                &["log"],
            ),
            registry: f.registry,
        }
    }
}

/// The label of a method: its name if it is one that S3 knows, else "other" (clients invent methods).
pub fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The children of one backend.
#[derive(Debug, Clone)]
pub struct BackendMetrics {
    pub busy_connections: IntGauge,
    pub idle_connections: IntGauge,
    pub exchange_duration: Histogram,
    pub background_requests: IntGauge,
    pub background_bytes: IntGauge,
}

impl BackendMetrics {
    /// `backend` is its URL.
    pub fn of(backend: &str) -> BackendMetrics {
        let m = &*METRICS;
        BackendMetrics {
            busy_connections: m.upstream_connections.with_label_values(&[backend, "busy"]),
            idle_connections: m.upstream_connections.with_label_values(&[backend, "idle"]),
            exchange_duration: m.exchange_duration.with_label_values(&[backend]),
            background_requests: m.background_requests.with_label_values(&[backend]),
            background_bytes: m.background_bytes.with_label_values(&[backend]),
        }
    }
}

/// Replies of one backend, counted by method and outcome.
#[derive(Debug, Clone)]
pub struct ReplyCounters {
    /// By [`METHODS`], then by [`OUTCOMES`].
    children: Vec<[IntCounter; OUTCOMES.len()]>,
}

const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "other"];
const OUTCOMES: [&str; 3] = ["good", "not applied", "unknown"];

/// Index among the outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome {
    Good,
    NotApplied,
    Unknown,
}

impl ReplyCounters {
    pub fn of(backend: &str) -> ReplyCounters {
        let child = |method, outcome| METRICS.replies.with_label_values(&[backend, method, outcome]);
        ReplyCounters {
            children: METHODS.iter().map(|method| OUTCOMES.map(|outcome| child(method, outcome))).collect(),
        }
    }

    pub fn count(&self, method: &Method, outcome: ReplyOutcome) {
        let label = method_label(method);
        let row = METHODS.iter().position(|known| *known == label);
        if let Some(row) = row.and_then(|row| self.children.get(row)) {
            row[outcome as usize].inc();
        }
    }
}

/// The children of one log's channel.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    pub queue: IntGauge,
    pub waits: IntCounter,
    pub dropped: IntCounter,
    pub rescued: IntCounter,
}

impl LogMetrics {
    pub fn of(log: &str) -> LogMetrics {
        let m = &*METRICS;
        LogMetrics {
            queue: m.log_queue.with_label_values(&[log]),
            waits: m.log_waits.with_label_values(&[log]),
            dropped: m.log_dropped.with_label_values(&[log]),
            rescued: m.log_rescued.with_label_values(&[log]),
        }
    }
}

/// The children of one destination of one log.
#[derive(Debug, Clone)]
pub struct DestinationMetrics {
    pub missed: IntCounter,
    pub written: IntCounter,
    pub errors: IntCounter,
}

impl DestinationMetrics {
    /// `destination` is "stderr", "stdout" or "file".
    pub fn of(log: &str, destination: &str) -> DestinationMetrics {
        let m = &*METRICS;
        DestinationMetrics {
            missed: m.log_missed.with_label_values(&[log, destination]),
            written: m.log_written.with_label_values(&[log, destination]),
            errors: m.log_write_errors.with_label_values(&[log, destination]),
        }
    }
}

/// Makes and registers families.
struct Families {
    registry: Registry,
}

impl Families {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }

    #[expect(clippy::expect_used, reason = "names and labels are constants, and a test makes every family")]
    fn register<C: Collector + Clone + 'static>(&self, family: prometheus::Result<C>) -> C {
        let family = family.expect("valid name and labels");
        self.registry.register(Box::new(family.clone())).expect("a name of its own");
        family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_made_and_registered() {
        LogMetrics::of("metrics-test").queue.set(3);
        BackendMetrics::of("http://metrics.test").background_bytes.set(7);
        DestinationMetrics::of("metrics-test", "file").written.inc();
        let gathered = METRICS.registry.gather();
        let queue = gathered.iter().find(|family| family.get_name() == "akubra_log_queue_lines").unwrap();
        let child = queue.get_metric().iter().find(|m| m.get_label()[0].get_value() == "metrics-test");
        assert_eq!(child.unwrap().get_gauge().get_value(), 3.0);
        assert!(gathered.iter().any(|family| family.get_name() == "akubra_background_bytes"));
    }

    #[test]
    fn a_method_that_a_client_invented_is_other() {
        let invented = Method::from_bytes(b"X1").unwrap();
        assert_eq!(method_label(&invented), "other");
        assert_eq!(method_label(&Method::DELETE), "DELETE");
    }
}

//! Every metric family, declared once.
//!
//! A leaf: it imports nothing of ours, so that any module may count. All families live in one struct and are
//! registered together at first use: what is exported does not depend on which code ran first. `docs/metrics.md`
//! lists them, and a test compares. They are in the default registry of the crate that `pingora-prometheus` serves.
//!
//! Looking a child up by its labels costs a lock and a hash. So whoever counts on the way of a request holds its
//! children, bound once ([`BackendMetrics`], [`LogMetrics`]), or indexes a table of them ([`cells`], [`Requests`]).
//! Labels take only values of a bounded set: nothing that a client sent, and of a backend's answers only the status.

mod backend;
mod cells;
mod families;
mod log;
mod process;
mod requests;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub use pingora_prometheus::prometheus::IntGauge;
use pingora_prometheus::prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, proto::MetricFamily,
};
use tokio::runtime::Handle;

use self::families::Families;
pub use self::{
    backend::{BackendMetrics, Cut, ReplyCounters, ReplyOutcome},
    families::Declared,
    log::{DestinationMetrics, LogMetrics},
    requests::{BrokenBy, Linger, Requests},
};

/// All families, registered.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The families; their help texts are their documentation. Those with labels are bound in the files of this module.
#[derive(Debug)]
pub struct Metrics {
    pub requests: Requests,
    pub requests_in_flight: IntGauge,
    pub client_connections: IntGauge,
    pub client_received_bytes: IntCounter,
    pub client_sent_bytes: IntCounter,

    replies: IntCounterVec,
    backend_errors: IntCounterVec,
    exchange_duration: HistogramVec,
    answer_wait: HistogramVec,
    backend_sent_bytes: IntCounterVec,
    backend_received_bytes: IntCounterVec,
    backend_connections: IntGaugeVec,
    connections_opened: IntCounterVec,
    idle_closed: IntCounterVec,
    connection_waits: IntCounterVec,
    retries: IntCounterVec,
    replay_waits: IntCounterVec,
    long_answers: IntCounterVec,
    addresses: IntGaugeVec,
    lookup_failures: IntCounterVec,
    maintenance: IntGaugeVec,

    divergences: IntCounterVec,
    cuts: IntCounterVec,
    replica_buffer_bytes: IntGaugeVec,
    background_requests: IntGaugeVec,
    background_bytes: IntGaugeVec,
    pub unfinished_writes: IntGauge,
    pub missed_writes: IntGauge,
    pub missed_writes_forgotten: IntCounter,
    pub backtracks: IntCounter,
    pub misplacements: IntCounter,

    log_queue: IntGaugeVec,
    log_waits: IntCounterVec,
    log_dropped: IntCounterVec,
    log_rescued: IntCounterVec,
    log_backlog: IntGaugeVec,
    log_missed: IntCounterVec,
    log_written: IntCounterVec,
    log_write_errors: IntCounterVec,

    /// By `endpoint` ("technical", "metrics") and `status`.
    pub endpoint_requests: IntCounterVec,
    pub endpoint_connections: IntGaugeVec,
    pub endpoint_refused: IntCounterVec,
    pub draining: IntGauge,
    limits: IntGaugeVec,
    tasks: process::Tasks,
    /// What there is, also without children yet.
    pub declared: Vec<Declared>,
}

impl Metrics {
    fn new() -> Metrics {
        let mut f = Families::default();
        let build = f.gauges("akubra_build_info", "1, with the version of the program.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        f.register(process::Process::new());
        Metrics {
            requests: Requests::new(&mut f),
            requests_in_flight: f
                .gauge("akubra_requests_in_flight", "Client requests without a full answer."),
            client_connections: f.gauge("akubra_client_connections", "Open connections of clients."),
            client_received_bytes: f.counter(
                "akubra_client_received_bytes_total",
                "Bytes of bodies that were read from clients, counted when the request has ended.",
            ),
            client_sent_bytes: f.counter(
                "akubra_client_sent_bytes_total",
                "Bytes of bodies that were sent to clients, counted when the request has ended.",
            ),
            replies: f.counters(
                "akubra_backend_replies_total",
                "What exchanges with backends came to, by the class of the answer's status (none = no answer).",
                &["backend", "method", "status", "outcome"],
            ),
            backend_errors: f.counters(
                "akubra_backend_errors_total",
                "Exchanges that failed on the way; cause stale is a pooled connection that turned out dead.",
                &["backend", "phase", "cause"],
            ),
            exchange_duration: f.histograms(
                "akubra_backend_exchange_duration_seconds",
                "Time from the start of an exchange to the end of its answer, connecting included.",
                &["backend"],
            ),
            answer_wait: f.histograms(
                "akubra_backend_answer_wait_seconds",
                "Time from the last byte of a request sent to a backend to the head of its answer.",
                &["backend"],
            ),
            backend_sent_bytes: f.counters(
                "akubra_backend_sent_bytes_total",
                "Bytes sent to backends, heads included, counted when the exchange has ended.",
                &["backend"],
            ),
            backend_received_bytes: f.counters(
                "akubra_backend_received_bytes_total",
                "Bytes received from backends, heads included, counted when the exchange has ended.",
                &["backend"],
            ),
            backend_connections: f.gauges(
                "akubra_backend_connections",
                "Connections to backends, busy (also those being opened) and idle.",
                &["backend", "state"],
            ),
            connections_opened: f.counters(
                "akubra_backend_connections_opened_total",
                "Connections to backends that were opened.",
                &["backend"],
            ),
            idle_closed: f.counters(
                "akubra_backend_idle_connections_closed_total",
                "Connections that were not kept for another exchange: too many idle ones, too old, found dead, or \
                 closed for a fresh one.",
                &["backend", "reason"],
            ),
            connection_waits: f.counters(
                "akubra_backend_connection_waits_total",
                "Exchanges that found MaxConnsPerBackend connections in use, by whether one became free in time.",
                &["backend", "outcome"],
            ),
            retries: f.counters(
                "akubra_backend_retries_total",
                "Requests sent once more on a fresh connection, because the pooled one was dead.",
                &["backend"],
            ),
            replay_waits: f.counters(
                "akubra_backend_replay_waits_total",
                "Uploads that outgrew ReplayBuffer on a pooled connection and waited until the backend showed life.",
                &["backend"],
            ),
            long_answers: f.counters(
                "akubra_backend_long_answers_total",
                "Answers longer than what is read whole before they are judged or passed on.",
                &["backend"],
            ),
            addresses: f.gauges(
                "akubra_backend_addresses",
                "Known addresses of a backend; with 0 it gets no requests.",
                &["backend"],
            ),
            lookup_failures: f.counters(
                "akubra_backend_lookup_failures_total",
                "Failed lookups of a backend's name.",
                &["backend"],
            ),
            maintenance: f.gauges(
                "akubra_backend_maintenance",
                "Whether a backend is in MaintainedBackends.",
                &["backend"],
            ),
            divergences: f.counters(
                "akubra_divergences_total",
                "Records of backends that do not agree with their cluster, printed or not.",
                &["backend", "method"],
            ),
            cuts: f.counters(
                "akubra_sub_requests_cut_total",
                "Sub-requests that were ended from outside: slow, too much in the background, superseded by a later \
                 write, or stopping.",
                &["backend", "reason"],
            ),
            replica_buffer_bytes: f.gauges(
                "akubra_replica_buffer_bytes",
                "Bytes of bodies that wait for a backend; ReplicaBuffer bounds those of one upload.",
                &["backend"],
            ),
            background_requests: f.gauges(
                "akubra_background_requests",
                "Sub-requests whose client already has its answer.",
                &["backend"],
            ),
            background_bytes: f.gauges(
                "akubra_background_bytes",
                "Bytes that background sub-requests had still to send when their client was answered.",
                &["backend"],
            ),
            unfinished_writes: f.gauge(
                "akubra_unfinished_writes",
                "Objects and backends with a write that has begun to take effect and has not ended.",
            ),
            missed_writes: f.gauge(
                "akubra_missed_writes",
                "Objects of which a backend is known to lack the last write; it is asked last for them.",
            ),
            missed_writes_forgotten: f.counter(
                "akubra_missed_writes_forgotten_total",
                "Objects that left the table of missed writes because it was full: any backend is asked for them again.",
            ),
            backtracks: f.counter(
                "akubra_backtracks_total",
                "Clusters that were asked because those before them in the search did not have the object.",
            ),
            misplacements: f
                .counter("akubra_misplacements_total", "Objects found on another cluster than their home."),
            log_queue: f.gauges("akubra_log_queue_lines", "Lines on their way to a log's task.", &["log"]),
            log_waits: f.counters(
                "akubra_log_waits_total",
                "Times that a request waited for room in a log's channel.",
                &["log"],
            ),
            log_dropped: f.counters(
                "akubra_log_lines_dropped_total",
                "Lines dropped because a log's channel was full.",
                &["log"],
            ),
            log_rescued: f.counters(
                "akubra_log_lines_rescued_total",
                "Lines that went to stderr at shutdown because no destination took them in time.",
                &["log"],
            ),
            log_backlog: f.gauges(
                "akubra_log_backlog_bytes",
                "Bytes that wait to be written to a destination of a log.",
                &["log", "destination"],
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
            endpoint_requests: f.counters(
                "akubra_endpoint_requests_total",
                "Requests to the endpoints for operators (technical, metrics).",
                &["endpoint", "status"],
            ),
            endpoint_connections: f.gauges(
                "akubra_endpoint_connections",
                "Open connections to the endpoints for operators.",
                &["endpoint"],
            ),
            endpoint_refused: f.counters(
                "akubra_endpoint_connections_refused_total",
                "Connections to the endpoints for operators that were closed at once because there were too many.",
                &["endpoint"],
            ),
            draining: f.gauge("akubra_draining", "1 once the process is on its way to its end."),
            limits: f.gauges(
                "akubra_limit",
                "Bounds in force, by the configuration's key where there is one; what has no limit has no line.",
                &["bound"],
            ),
            tasks: f.register(process::Tasks::new()),
            declared: f.declared,
        }
    }

    /// Tells how large a bound is.
    pub fn limit(&self, bound: &str, most: u64) {
        self.limits.with_label_values(&[bound]).set(i64::try_from(most).unwrap_or(i64::MAX));
    }

    /// Counts a runtime's tasks from now on, those of the thread that calls where each thread has a runtime.
    pub fn watch_tasks(&self, runtime: &str, handle: Handle) {
        self.tasks.watch(runtime, handle);
    }
}

/// The families as they are now.
pub fn gather() -> Vec<MetricFamily> {
    LazyLock::force(&METRICS);
    pingora_prometheus::prometheus::gather()
}

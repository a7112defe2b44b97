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
mod health;
mod journal;
mod log;
mod process;
pub mod reading;
mod reloads;
mod requests;
mod spans;
mod spool;
mod sync;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

pub use pingora_prometheus::prometheus::IntGauge;
use pingora_prometheus::prometheus::{IntCounter, IntCounterVec, IntGaugeVec, proto::MetricFamily};
use tokio::runtime::Handle;

pub use self::{
    backend::{BackendMetrics, CAUSES, Cut, PHASES, ReplyCounters, ReplyOutcome},
    families::Declared,
    health::{EJECTED_FOR, HealthMetrics, STATES},
    journal::{JournalMetrics, WAITING_CHANGES},
    log::{DestinationMetrics, LogMetrics},
    reloads::Reloads,
    requests::{BrokenBy, Linger, Requests},
    spans::Spans,
    spool::SpoolMetrics,
    sync::{OUTCOMES, SyncBackendMetrics, SyncMetrics},
};
use self::{
    backend::{Connections, Exchanges, Replicas},
    families::Families,
    log::Logs,
};

/// All families, registered.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The families; their help texts are their documentation. Those with labels are bound in the files of this module.
#[derive(Debug)]
pub struct Metrics {
    pub requests: Requests,
    exchanges: Exchanges,
    connections: Connections,
    replicas: Replicas,
    health: health::Health,
    logs: Logs,
    spool: SpoolMetrics,
    sync: SyncMetrics,
    journal: JournalMetrics,

    pub requests_in_flight: IntGauge,
    pub client_connections: IntGauge,
    pub client_connections_refused: IntCounter,
    pub client_received_bytes: IntCounter,
    pub client_sent_bytes: IntCounter,

    pub unfinished_writes: IntGauge,
    pub missed_writes: IntGauge,
    pub missed_writes_forgotten: IntCounter,
    pub backtracks: IntCounter,
    pub misplacements: IntCounter,

    /// By `endpoint` ("technical", "metrics", "sync") and `status`.
    pub endpoint_requests: IntCounterVec,
    pub endpoint_connections: IntGaugeVec,
    pub endpoint_refused: IntCounterVec,
    /// By `target` ("graphite", "stdout") and `outcome` ("taken", "missed").
    pub reports: IntCounterVec,
    pub status_viewers: IntGauge,
    pub draining: IntGauge,
    pub reloads: Reloads,
    pub trace_spans: Spans,
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
            exchanges: Exchanges::new(&mut f),
            connections: Connections::new(&mut f),
            replicas: Replicas::new(&mut f),
            health: health::Health::new(&mut f),
            logs: Logs::new(&mut f),
            spool: SpoolMetrics::new(&mut f),
            sync: SyncMetrics::new(&mut f),
            journal: JournalMetrics::new(&mut f),
            requests_in_flight: f
                .gauge("akubra_requests_in_flight", "Client requests that are being served, health checks and what lingers after its answer included."),
            client_connections: f.gauge("akubra_client_connections", "Open connections of clients."),
            client_connections_refused: f.counter(
                "akubra_client_connections_refused_total",
                "Connections of clients that were closed at once, because MaxClientConnections were open.",
            ),
            client_received_bytes: f.counter(
                "akubra_client_received_bytes_total",
                "Bytes of bodies that were read from clients, counted when the request has ended.",
            ),
            client_sent_bytes: f.counter(
                "akubra_client_sent_bytes_total",
                "Bytes of bodies that were sent to clients, counted when the request has ended.",
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
                "Objects that left the table of missed writes because it was full: any backend is asked for them \
                 again.",
            ),
            backtracks: f.counter(
                "akubra_backtracks_total",
                "Clusters that were asked because those before them in the search gave no good answer.",
            ),
            misplacements: f
                .counter("akubra_misplacements_total", "Objects found on another cluster than their home."),
            endpoint_requests: f.counters(
                "akubra_endpoint_requests_total",
                "Requests to the endpoints for operators (technical, metrics, sync).",
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
            reports: f.counters(
                "akubra_metrics_reports_total",
                "Reports of metrics, by whether they were taken where they go.",
                &["target", "outcome"],
            ),
            status_viewers: f.gauge("akubra_status_viewers", "Status pages that are open and told what changes."),
            draining: f.gauge("akubra_draining", "1 once the process is on its way to its end."),
            reloads: Reloads::new(&mut f),
            trace_spans: Spans::new(&mut f),
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

    /// As [`limit`](Self::limit), for a bound that a reload may set or take away.
    pub fn limit_if(&self, bound: &str, most: Option<u64>) {
        match most {
            Some(most) => self.limit(bound, most),
            // An error means that there was none before either.
            None => self.limits.remove_label_values(&[bound]).unwrap_or_default(),
        }
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

//! What is counted of `akubra sync`, the process that makes backends agree.

use pingora_prometheus::prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{METRICS, families::Families};

/// How a repair may end.
pub const OUTCOMES: [&str; 7] = ["resolved", "again", "failed", "parked", "dead", "lost", "postponed"];

/// Of the process.
#[derive(Debug, Clone)]
pub struct SyncMetrics {
    repairs: IntCounterVec,
    requests: IntGaugeVec,
    copied_objects: IntCounterVec,
    copied_bytes: IntCounterVec,
    deleted_objects: IntCounterVec,
    left_alone: IntGaugeVec,
    pub running: IntGauge,
    pub backoffs: IntCounter,
    pub journal_failures: IntCounter,
    pub paused: IntGauge,
}

/// Of one backend.
#[derive(Debug, Clone)]
pub struct SyncBackendMetrics {
    pub requests: IntGauge,
    pub copied_objects: IntCounter,
    pub copied_bytes: IntCounter,
    pub deleted_objects: IntCounter,
    pub left_alone: IntGauge,
}

impl SyncMetrics {
    pub(super) fn new(f: &mut Families) -> SyncMetrics {
        SyncMetrics {
            repairs: f.counters(
                "akubra_sync_repairs_total",
                "Objects that akubra sync has looked at, by what came of it.",
                &["outcome"],
            ),
            requests: f.gauges(
                "akubra_sync_backend_requests",
                "Requests of akubra sync that are under way with a backend.",
                &["backend"],
            ),
            copied_objects: f.counters(
                "akubra_sync_copied_objects_total",
                "Objects that were copied to a backend and verified.",
                &["backend"],
            ),
            copied_bytes: f.counters(
                "akubra_sync_copied_bytes_total",
                "Bytes of objects that were copied to a backend and verified.",
                &["backend"],
            ),
            deleted_objects: f.counters(
                "akubra_sync_deleted_objects_total",
                "Objects that were deleted on a backend.",
                &["backend"],
            ),
            left_alone: f.gauges(
                "akubra_sync_backend_left_alone",
                "1 while a backend is left alone because it could not be asked several times in a row.",
                &["backend"],
            ),
            running: f.gauge("akubra_sync_running_repairs", "Objects that are being repaired."),
            backoffs: f.counter(
                "akubra_sync_backoffs_total",
                "Objects that were put off because they could not be repaired now.",
            ),
            journal_failures: f.counter(
                "akubra_sync_journal_failures_total",
                "Times that the journal could not do what akubra sync asked of it.",
            ),
            paused: f.gauge("akubra_sync_paused", "1 while akubra sync is paused."),
        }
    }

    pub fn of_process() -> SyncMetrics {
        METRICS.sync.clone()
    }

    /// Counts an object, by one of [`OUTCOMES`].
    pub fn ended(&self, outcome: &'static str) {
        self.repairs.with_label_values(&[outcome]).inc();
    }

    pub fn backend(&self, url: &str) -> SyncBackendMetrics {
        let label = &[url];
        SyncBackendMetrics {
            requests: self.requests.with_label_values(label),
            copied_objects: self.copied_objects.with_label_values(label),
            copied_bytes: self.copied_bytes.with_label_values(label),
            deleted_objects: self.deleted_objects.with_label_values(label),
            left_alone: self.left_alone.with_label_values(label),
        }
    }
}

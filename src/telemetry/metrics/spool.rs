//! What is counted of the synclog's way into a database.

use pingora_prometheus::prometheus::{IntCounter, IntGauge};

use super::{METRICS, families::Families};

/// The spool and the database behind it; a process has one.
#[derive(Debug, Clone)]
pub struct SpoolMetrics {
    pub bytes: IntGauge,
    pub owner: IntGauge,
    pub connected: IntGauge,
    pub delivered: IntCounter,
    pub rejected: IntCounter,
    pub damaged: IntCounter,
    pub failures: IntCounter,
}

impl SpoolMetrics {
    pub(super) fn new(f: &mut Families) -> SpoolMetrics {
        SpoolMetrics {
            bytes: f.gauge(
                "akubra_synclog_spool_bytes",
                "Bytes of records that wait for the database, and of those that it refused.",
            ),
            owner: f.gauge(
                "akubra_synclog_spool_owner",
                "1 while this process is the one that delivers the spool.",
            ),
            connected: f.gauge(
                "akubra_synclog_database_connected",
                "1 while this process can deliver records to the database, as far as its last try tells.",
            ),
            delivered: f
                .counter("akubra_synclog_records_delivered_total", "Records that the database has taken."),
            rejected: f.counter(
                "akubra_synclog_records_rejected_total",
                "Records that the database refuses, set aside in rejected.jsonl.",
            ),
            damaged: f.counter(
                "akubra_synclog_spool_damaged_lines_total",
                "Lines of the spool that were not as they were written, set aside in rejected.jsonl.",
            ),
            failures: f.counter(
                "akubra_synclog_database_failures_total",
                "Times that records could not be delivered and were to be tried again.",
            ),
        }
    }

    pub fn of_process() -> SpoolMetrics {
        METRICS.spool.clone()
    }
}

//! What is counted of one log.

use pingora_prometheus::prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{METRICS, families::Families};

/// Families of logs.
#[derive(Debug)]
pub(super) struct Logs {
    queue: IntGaugeVec,
    waits: IntCounterVec,
    dropped: IntCounterVec,
    rescued: IntCounterVec,
    backlog: IntGaugeVec,
    missed: IntCounterVec,
    written: IntCounterVec,
    write_errors: IntCounterVec,
    cut: IntCounterVec,
}

impl Logs {
    pub fn new(f: &mut Families) -> Logs {
        Logs {
            queue: f.gauges("akubra_log_queue_lines", "Lines on their way to a log's task.", &["log"]),
            waits: f.counters(
                "akubra_log_waits_total",
                "Times that a request waited for room in a log's channel.",
                &["log"],
            ),
            dropped: f.counters(
                "akubra_log_lines_dropped_total",
                "Lines dropped because a log's channel was full.",
                &["log"],
            ),
            rescued: f.counters(
                "akubra_log_lines_rescued_total",
                "Lines that went to stderr at shutdown because no destination took them in time.",
                &["log"],
            ),
            backlog: f.gauges(
                "akubra_log_backlog_bytes",
                "Bytes that wait to be written to a destination of a log.",
                &["log", "destination"],
            ),
            missed: f.counters(
                "akubra_log_lines_missed_total",
                "Lines that one failing destination of a log missed and another one took.",
                &["log", "destination"],
            ),
            written: f.counters("akubra_log_lines_written_total", "Lines written.", &["log", "destination"]),
            write_errors: f.counters(
                "akubra_log_write_errors_total",
                "Failed writes of a log.",
                &["log", "destination"],
            ),
            cut: f.counters(
                "akubra_log_lines_cut_total",
                "Lines that were longer than a syslog message may be, and were cut.",
                &["log", "destination"],
            ),
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
            queue: m.logs.queue.with_label_values(&[log]),
            waits: m.logs.waits.with_label_values(&[log]),
            dropped: m.logs.dropped.with_label_values(&[log]),
            rescued: m.logs.rescued.with_label_values(&[log]),
        }
    }
}

/// The children of one destination of one log.
#[derive(Debug, Clone)]
pub struct DestinationMetrics {
    pub backlog: IntGauge,
    pub missed: IntCounter,
    pub written: IntCounter,
    pub errors: IntCounter,
    pub cut: IntCounter,
}

impl DestinationMetrics {
    /// `destination` is "stderr", "stdout", "file", "syslog" or "database".
    pub fn of(log: &str, destination: &str) -> DestinationMetrics {
        let m = &*METRICS;
        DestinationMetrics {
            backlog: m.logs.backlog.with_label_values(&[log, destination]),
            missed: m.logs.missed.with_label_values(&[log, destination]),
            written: m.logs.written.with_label_values(&[log, destination]),
            errors: m.logs.write_errors.with_label_values(&[log, destination]),
            cut: m.logs.cut.with_label_values(&[log, destination]),
        }
    }
}

//! What is counted of one log.

use pingora_prometheus::prometheus::{IntCounter, IntGauge};

use super::METRICS;

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
    pub backlog: IntGauge,
    pub missed: IntCounter,
    pub written: IntCounter,
    pub errors: IntCounter,
}

impl DestinationMetrics {
    /// `destination` is "stderr", "stdout" or "file".
    pub fn of(log: &str, destination: &str) -> DestinationMetrics {
        let m = &*METRICS;
        DestinationMetrics {
            backlog: m.log_backlog.with_label_values(&[log, destination]),
            missed: m.log_missed.with_label_values(&[log, destination]),
            written: m.log_written.with_label_values(&[log, destination]),
            errors: m.log_write_errors.with_label_values(&[log, destination]),
        }
    }
}

//! What is counted of one backend: children bound once, held by the connections and by whoever judges replies.

use std::sync::Arc;

use http::{Method, StatusCode};
use pingora_prometheus::prometheus::{Histogram, IntCounter, IntGauge};

use super::{
    METRICS,
    cells::{CLASSES, Cells, METHODS, class_at, method_at},
};

/// The parts of an exchange in which it can fail, and the reasons, as `upstream` names them.
const PHASES: [&str; 6] = ["limit", "resolve", "dial", "send", "await", "receive"];
const CAUSES: [&str; 8] =
    ["limit", "unresolved", "deadline", "closed", "io", "invalid", "unsendable", "stale"];

/// Why a sub-request was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its queue alone held up the upload.
    Slow,
    /// Too much waits for the backend in the background.
    Background,
    /// It gave way to a later write to the same object.
    Superseded,
    /// The process ends.
    Stopping,
}

/// The children of one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    url: String,
    pub busy_connections: IntGauge,
    pub idle_connections: IntGauge,
    pub connections_opened: IntCounter,
    /// Not kept because enough are idle.
    pub closed_full: IntCounter,
    /// Closed because of `IdleConnTimeout`.
    pub closed_aged: IntCounter,
    /// Found to be closed at the other end.
    pub closed_dead: IntCounter,
    /// Closed to make room for a connection that had to be new.
    pub closed_for_fresh: IntCounter,
    pub waits_served: IntCounter,
    pub waits_in_vain: IntCounter,
    pub exchange_duration: Histogram,
    pub answer_wait: Histogram,
    pub sent_bytes: IntCounter,
    pub received_bytes: IntCounter,
    pub retries: IntCounter,
    pub replay_waits: IntCounter,
    pub long_answers: IntCounter,
    pub replica_buffer_bytes: IntGauge,
    pub background_requests: IntGauge,
    pub background_bytes: IntGauge,
    pub addresses: IntGauge,
    pub lookup_failures: IntCounter,
    pub maintenance: IntGauge,
    cuts: [IntCounter; 4],
    /// By phase, then by cause.
    errors: Cells,
}

impl BackendMetrics {
    /// `url` is the backend's name in metrics and logs.
    pub fn of(url: &str) -> Arc<BackendMetrics> {
        let m = &*METRICS;
        let closed = |reason| m.idle_closed.with_label_values(&[url, reason]);
        let waits = |outcome| m.connection_waits.with_label_values(&[url, outcome]);
        Arc::new(BackendMetrics {
            busy_connections: m.backend_connections.with_label_values(&[url, "busy"]),
            idle_connections: m.backend_connections.with_label_values(&[url, "idle"]),
            connections_opened: m.connections_opened.with_label_values(&[url]),
            closed_full: closed("full"),
            closed_aged: closed("aged"),
            closed_dead: closed("dead"),
            closed_for_fresh: closed("fresh"),
            waits_served: waits("served"),
            waits_in_vain: waits("timeout"),
            exchange_duration: m.exchange_duration.with_label_values(&[url]),
            answer_wait: m.answer_wait.with_label_values(&[url]),
            sent_bytes: m.backend_sent_bytes.with_label_values(&[url]),
            received_bytes: m.backend_received_bytes.with_label_values(&[url]),
            retries: m.retries.with_label_values(&[url]),
            replay_waits: m.replay_waits.with_label_values(&[url]),
            long_answers: m.long_answers.with_label_values(&[url]),
            replica_buffer_bytes: m.replica_buffer_bytes.with_label_values(&[url]),
            background_requests: m.background_requests.with_label_values(&[url]),
            background_bytes: m.background_bytes.with_label_values(&[url]),
            addresses: m.addresses.with_label_values(&[url]),
            lookup_failures: m.lookup_failures.with_label_values(&[url]),
            maintenance: m.maintenance.with_label_values(&[url]),
            cuts: ["slow", "background", "superseded", "stopping"]
                .map(|reason| m.cuts.with_label_values(&[url, reason])),
            errors: Cells::new(PHASES.len() * CAUSES.len()),
            url: url.to_owned(),
        })
    }

    /// An exchange failed; `phase` and `cause` are of [`PHASES`] and [`CAUSES`].
    pub fn failed(&self, phase: &str, cause: &str) {
        let at = |names: &[&str], name| names.iter().position(|known| *known == name);
        let (Some(phase), Some(cause)) = (at(&PHASES, phase), at(&CAUSES, cause)) else { return };
        self.errors.count(phase * CAUSES.len() + cause, || {
            METRICS.backend_errors.with_label_values(&[&self.url, PHASES[phase], CAUSES[cause]])
        });
    }

    pub fn cut(&self, reason: Cut) {
        self.cuts[reason as usize].inc();
    }
}

/// What a reply came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyOutcome {
    Good,
    NotApplied,
    Unknown,
}

const OUTCOMES: [&str; 3] = ["good", "not applied", "unknown"];

/// Replies and divergences of one backend.
#[derive(Debug)]
pub struct ReplyCounters {
    url: String,
    /// By method, then by class of status, then by outcome.
    replies: Cells,
    /// By method.
    divergences: [IntCounter; METHODS.len()],
}

impl ReplyCounters {
    pub fn of(url: &str) -> ReplyCounters {
        ReplyCounters {
            replies: Cells::new(METHODS.len() * CLASSES.len() * OUTCOMES.len()),
            divergences: METHODS.map(|method| METRICS.divergences.with_label_values(&[url, method])),
            url: url.to_owned(),
        }
    }

    /// A reply has come; `status` is that of the answer, if there was one.
    pub fn count(&self, method: &Method, status: Option<StatusCode>, outcome: ReplyOutcome) {
        let (method, class, outcome) = (method_at(method), class_at(status), outcome as usize);
        self.replies.count((method * CLASSES.len() + class) * OUTCOMES.len() + outcome, || {
            let labels = [&self.url, METHODS[method], CLASSES[class], OUTCOMES[outcome]];
            METRICS.replies.with_label_values(&labels)
        });
    }

    pub fn diverged(&self, method: &Method) {
        self.divergences[method_at(method)].inc();
    }
}

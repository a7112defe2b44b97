//! What is counted of one backend: children bound once, held by the connections and by whoever judges replies.

use std::sync::Arc;

use http::{Method, StatusCode};
use pingora_prometheus::prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::{
    METRICS,
    cells::{CLASSES, Cells, METHODS, STATUSES, class_at, method_at, status_at, status_label},
    families::Families,
};

/// The parts of an exchange in which it can fail, and the reasons, as `upstream` names them.
pub const PHASES: [&str; 6] = ["limit", "resolve", "dial", "send", "await", "receive"];
pub const CAUSES: [&str; 9] =
    ["limit", "unresolved", "ejected", "deadline", "closed", "io", "invalid", "unsendable", "stale"];

/// Families of exchanges with backends.
#[derive(Debug)]
pub(super) struct Exchanges {
    pub(super) replies: IntCounterVec,
    answers: IntCounterVec,
    pub(super) errors: IntCounterVec,
    exchange_duration: HistogramVec,
    pub(super) answer_wait: HistogramVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    retries: IntCounterVec,
    replay_waits: IntCounterVec,
    long_answers: IntCounterVec,
}

impl Exchanges {
    pub fn new(f: &mut Families) -> Exchanges {
        Exchanges {
            replies: f.counters(
                "akubra_backend_replies_total",
                "What exchanges with backends came to, by the class of the answer's status (none = no answer).",
                &["backend", "method", "status", "outcome"],
            ),
            answers: f.counters(
                "akubra_backend_answers_total",
                "Final answers of backends, by their status.",
                &["backend", "status"],
            ),
            errors: f.counters(
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
            sent_bytes: f.counters(
                "akubra_backend_sent_bytes_total",
                "Bytes sent to backends, heads included, counted when the exchange has ended.",
                &["backend"],
            ),
            received_bytes: f.counters(
                "akubra_backend_received_bytes_total",
                "Bytes received from backends, heads included, counted when the exchange has ended.",
                &["backend"],
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
        }
    }
}

/// Families of connections to backends.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) connections: IntGaugeVec,
    opened: IntCounterVec,
    idle_closed: IntCounterVec,
    waits: IntCounterVec,
    addresses: IntGaugeVec,
    lookup_failures: IntCounterVec,
    maintenance: IntGaugeVec,
}

impl Connections {
    pub fn new(f: &mut Families) -> Connections {
        Connections {
            connections: f.gauges(
                "akubra_backend_connections",
                "Connections to backends, busy (also those being opened) and idle.",
                &["backend", "state"],
            ),
            opened: f.counters(
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
            waits: f.counters(
                "akubra_backend_connection_waits_total",
                "Exchanges that found MaxConnsPerBackend connections in use, by whether one became free in time.",
                &["backend", "outcome"],
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
                "1 while a backend is under maintenance, by the configuration or by a change at run time.",
                &["backend"],
            ),
        }
    }
}

/// Families of what backends hold, and have still to get.
#[derive(Debug)]
pub(super) struct Replicas {
    pub(super) divergences: IntCounterVec,
    pub(super) cuts: IntCounterVec,
    pub(super) replica_buffer_bytes: IntGaugeVec,
    pub(super) background_requests: IntGaugeVec,
    pub(super) background_bytes: IntGaugeVec,
}

impl Replicas {
    pub fn new(f: &mut Families) -> Replicas {
        Replicas {
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
        }
    }
}

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
        let closed = |reason| m.connections.idle_closed.with_label_values(&[url, reason]);
        let waits = |outcome| m.connections.waits.with_label_values(&[url, outcome]);
        Arc::new(BackendMetrics {
            busy_connections: m.connections.connections.with_label_values(&[url, "busy"]),
            idle_connections: m.connections.connections.with_label_values(&[url, "idle"]),
            connections_opened: m.connections.opened.with_label_values(&[url]),
            closed_full: closed("full"),
            closed_aged: closed("aged"),
            closed_dead: closed("dead"),
            closed_for_fresh: closed("fresh"),
            waits_served: waits("served"),
            waits_in_vain: waits("timeout"),
            exchange_duration: m.exchanges.exchange_duration.with_label_values(&[url]),
            answer_wait: m.exchanges.answer_wait.with_label_values(&[url]),
            sent_bytes: m.exchanges.sent_bytes.with_label_values(&[url]),
            received_bytes: m.exchanges.received_bytes.with_label_values(&[url]),
            retries: m.exchanges.retries.with_label_values(&[url]),
            replay_waits: m.exchanges.replay_waits.with_label_values(&[url]),
            long_answers: m.exchanges.long_answers.with_label_values(&[url]),
            replica_buffer_bytes: m.replicas.replica_buffer_bytes.with_label_values(&[url]),
            background_requests: m.replicas.background_requests.with_label_values(&[url]),
            background_bytes: m.replicas.background_bytes.with_label_values(&[url]),
            addresses: m.connections.addresses.with_label_values(&[url]),
            lookup_failures: m.connections.lookup_failures.with_label_values(&[url]),
            maintenance: m.connections.maintenance.with_label_values(&[url]),
            cuts: ["slow", "background", "superseded", "stopping"]
                .map(|reason| m.replicas.cuts.with_label_values(&[url, reason])),
            errors: Cells::new(PHASES.len() * CAUSES.len()),
            url: url.to_owned(),
        })
    }

    /// An exchange failed; `phase` and `cause` are of [`PHASES`] and [`CAUSES`].
    pub fn failed(&self, phase: &str, cause: &str) {
        let at = |names: &[&str], name| names.iter().position(|known| *known == name);
        let (Some(phase), Some(cause)) = (at(&PHASES, phase), at(&CAUSES, cause)) else { return };
        self.errors.count(phase * CAUSES.len() + cause, || {
            METRICS.exchanges.errors.with_label_values(&[&self.url, PHASES[phase], CAUSES[cause]])
        });
    }

    /// The backend is not in the configuration any more: what tells how it is now goes, what was counted stays.
    pub fn retire(&self) {
        for gauges in [&METRICS.connections.addresses, &METRICS.connections.maintenance] {
            // An error means that it is gone already.
            gauges.remove_label_values(&[&self.url]).unwrap_or_default();
        }
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

pub const OUTCOMES: [&str; 3] = ["good", "not applied", "unknown"];

/// Replies and divergences of one backend.
#[derive(Debug)]
pub struct ReplyCounters {
    url: String,
    /// By method, then by class of status, then by outcome.
    replies: Cells,
    /// By status.
    answers: Cells,
    /// By method.
    divergences: [IntCounter; METHODS.len()],
}

impl ReplyCounters {
    pub fn of(url: &str) -> ReplyCounters {
        ReplyCounters {
            replies: Cells::new(METHODS.len() * CLASSES.len() * OUTCOMES.len()),
            answers: Cells::new(STATUSES),
            divergences: METHODS.map(|method| METRICS.replicas.divergences.with_label_values(&[url, method])),
            url: url.to_owned(),
        }
    }

    /// A reply has come; `status` is that of the answer, if there was one.
    pub fn count(&self, method: &Method, status: Option<StatusCode>, outcome: ReplyOutcome) {
        if status.is_some() {
            let at = status_at(status);
            self.answers
                .count(at, || METRICS.exchanges.answers.with_label_values(&[&self.url, &status_label(at)]));
        }
        let (method, class, outcome) = (method_at(method), class_at(status), outcome as usize);
        self.replies.count((method * CLASSES.len() + class) * OUTCOMES.len() + outcome, || {
            let labels = [&self.url, METHODS[method], CLASSES[class], OUTCOMES[outcome]];
            METRICS.exchanges.replies.with_label_values(&labels)
        });
    }

    pub fn diverged(&self, method: &Method) {
        self.divergences[method_at(method)].inc();
    }
}

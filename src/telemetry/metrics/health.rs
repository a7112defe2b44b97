//! What is counted of backends' health: children bound once, held by the backend's health.

use pingora_prometheus::prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{METRICS, families::Families};

/// The states of a backend, and why one is ejected, as `upstream::health` names them.
pub const STATES: [&str; 3] = ["healthy", "ejected", "probation"];
pub const EJECTED_FOR: [&str; 5] =
    ["consecutive_failures", "error_rate", "latency", "connections", "health_check"];

#[derive(Debug)]
pub(super) struct Health {
    state: IntGaugeVec,
    ejections: IntCounterVec,
    refused: IntCounterVec,
    checks: IntCounterVec,
}

impl Health {
    pub fn new(f: &mut Families) -> Health {
        Health {
            state: f.gauges(
                "akubra_backend_state",
                "1 for the state that a backend is in; only a healthy one gets requests.",
                &["backend", "state"],
            ),
            ejections: f.counters(
                "akubra_backend_ejections_total",
                "Times that a backend was taken out, by the rule that found it sick.",
                &["backend", "reason"],
            ),
            refused: f.counters(
                "akubra_backend_ejections_refused_total",
                "Times that a backend was found sick and stayed in, because its cluster could spare no more.",
                &["backend"],
            ),
            checks: f.counters(
                "akubra_backend_health_checks_total",
                "Health checks of a backend, those of ejected ones included.",
                &["backend", "outcome"],
            ),
        }
    }
}

/// The children of one backend.
#[derive(Debug)]
pub struct HealthMetrics {
    /// By [`STATES`].
    states: [IntGauge; STATES.len()],
    /// By [`EJECTED_FOR`].
    ejections: [IntCounter; EJECTED_FOR.len()],
    pub refused: IntCounter,
    pub checks_good: IntCounter,
    pub checks_failed: IntCounter,
}

impl HealthMetrics {
    /// The backend is not in the configuration any more: it is in no state.
    pub fn retire(&self) {
        self.states.iter().for_each(|state| state.set(0));
    }

    /// `url` is the backend's name in metrics and logs.
    pub fn of(url: &str) -> HealthMetrics {
        let m = &METRICS.health;
        HealthMetrics {
            states: STATES.map(|state| m.state.with_label_values(&[url, state])),
            ejections: EJECTED_FOR.map(|reason| m.ejections.with_label_values(&[url, reason])),
            refused: m.refused.with_label_values(&[url]),
            checks_good: m.checks.with_label_values(&[url, "good"]),
            checks_failed: m.checks.with_label_values(&[url, "failed"]),
        }
    }

    /// The backend is now in the state with this index among [`STATES`].
    pub fn is_in(&self, state: usize) {
        for (at, gauge) in self.states.iter().enumerate() {
            gauge.set((at == state).into());
        }
    }

    /// It was ejected for the reason with this index among [`EJECTED_FOR`].
    pub fn ejected(&self, reason: usize) {
        if let Some(counter) = self.ejections.get(reason) {
            counter.inc();
        }
    }
}

//! Whether a backend is worth asking: its state, what exchanges and checks say of it, and who may take it out.
//!
//! ```text
//!            sick, and its clusters can spare it              its time is over
//!  Healthy ---------------------------------------> Ejected -------------------> Probation
//!     ^                                                ^       a check fails         |
//!     |                                                +-----------------------------+
//!     +----------------------- checks succeed in a row ------------------------------+
//! ```
//!
//! [`Health`] is what all share: requests read its state and tell it how exchanges ended, both without locks. Only the
//! backend's own `Monitor` changes the state, a task with one async function per state; what finds a backend sick
//! on the way of a request rings its bell. A client's request never decides that a backend is well.
//!
//! | file | what it is |
//! |---|---|
//! | `detector.rs` | what exchanges say: a pure rule over counts |
//! | `escalation.rs` | how long an ejection lasts, pure |
//! | `wards.rs` | which clusters can spare a backend |
//! | `monitor.rs` | the states |
//! | `check.rs` | one health check |
//! | `api.rs` | what the rest of the program asks |

mod api;
mod check;
mod detector;
mod escalation;
mod monitor;
mod wards;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::{sync::Notify, task::AbortHandle};

use self::detector::{Detector, Symptom};
pub(super) use self::wards::Wards;
use self::{check::Watched, monitor::Monitor};
use super::failure::{Cause, Failure, Phase};
use crate::{
    config::{CheckKind, Config, Ejection, HealthCheck},
    telemetry::metrics::HealthMetrics,
};

/// The numbers by which health is judged; they can be exchanged at any time.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthPolicy {
    pub check: HealthCheck,
    pub ejection: Ejection,
}

impl HealthPolicy {
    pub fn of(config: &Config) -> HealthPolicy {
        HealthPolicy { check: config.health_check.clone(), ejection: config.ejection.clone() }
    }
}

/// Why a backend is healthy of which nothing is known.
const UNKNOWN: &str = "nothing is known against it";

/// The policy that all backends share.
pub(super) type SharedPolicy = Arc<ArcSwap<HealthPolicy>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Gets requests.
    Healthy,
    /// Gets nothing at all until its time is over.
    Ejected,
    /// Gets health checks only, and they decide.
    Probation,
}

/// A backend's state, for people.
#[derive(Debug, Clone)]
pub struct Status {
    pub state: State,
    /// Why it is in that state.
    pub reason: String,
    pub since: SystemTime,
}

impl Status {
    /// Whether anything has happened since the beginning.
    pub fn is_news(&self) -> bool {
        self.reason != UNKNOWN
    }
}

/// The rule that found a backend sick: its place among `EJECTED_FOR` of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    ConsecutiveFailures,
    ErrorRate,
    Latency,
    /// `MaxConnsPerBackend`
    Connections,
    HealthCheck,
}

impl From<Symptom> for Rule {
    fn from(symptom: Symptom) -> Rule {
        match symptom {
            Symptom::ConsecutiveFailures(_) => Rule::ConsecutiveFailures,
            Symptom::ErrorRate { .. } => Rule::ErrorRate,
            Symptom::Latency { .. } => Rule::Latency,
        }
    }
}

/// Why a backend should be taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trip {
    pub rule: Rule,
    pub reason: String,
}

/// The health of one backend. Outlives snapshots of the topology.
#[derive(Debug)]
pub(super) struct Health {
    url: String,
    policy: SharedPolicy,
    /// A [`State`] as a number.
    state: AtomicU8,
    status: ArcSwap<Status>,
    detector: Detector,
    /// Health checks that failed since the last good one.
    checks_failed: AtomicUsize,
    /// It is sick, and its clusters cannot spare it.
    kept_in: AtomicBool,
    /// Since when there is a [`Detector`]; its times are milliseconds from here.
    beginning: Instant,
    /// Exchanges that began before this moment say nothing of the backend as it is now.
    counted_from: AtomicU64,
    /// Whether `trip` is taken, so that what rings again costs no lock.
    rung: AtomicBool,
    trip: Mutex<Option<Trip>>,
    bell: Notify,
    metrics: HealthMetrics,
    /// The monitor, while there is one.
    pub(super) monitor: Mutex<Option<AbortHandle>>,
}

impl Health {
    pub fn new(url: &str, policy: SharedPolicy) -> Health {
        let status = Status { state: State::Healthy, reason: UNKNOWN.to_owned(), since: SystemTime::now() };
        let metrics = HealthMetrics::of(url);
        metrics.is_in(State::Healthy as usize);
        Health {
            url: url.to_owned(),
            policy,
            state: AtomicU8::new(State::Healthy as u8),
            status: ArcSwap::from_pointee(status),
            detector: Detector::default(),
            checks_failed: AtomicUsize::new(0),
            kept_in: AtomicBool::new(false),
            beginning: Instant::now(),
            counted_from: AtomicU64::new(0),
            rung: AtomicBool::new(false),
            trip: Mutex::default(),
            bell: Notify::new(),
            metrics,
            monitor: Mutex::default(),
        }
    }

    /// Whether requests may go to the backend.
    pub fn is_in(&self) -> bool {
        self.state.load(Relaxed) == State::Healthy as u8
    }

    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Failures without a good exchange since.
    pub fn failures_in_a_row(&self) -> usize {
        self.detector.in_a_row()
    }

    /// An exchange came to the end of its answer; `wait` is how long the head was waited for.
    pub fn answered(&self, begun: Instant, status: Option<StatusCode>, wait: Duration) {
        if status.is_some_and(is_failure) || !self.counts(begun) {
            return;
        }
        let policy = self.policy.load();
        let slow = policy.ejection.latency.is_some_and(|limit| wait > limit);
        let symptom = self.detector.good(self.now(), slow, &policy.ejection);
        self.ring(symptom, &policy, || format!("{wait:.1?}"));
    }

    /// An answer's head is here: some statuses are failures, whatever follows.
    pub fn answered_with(&self, begun: Instant, status: StatusCode) {
        if is_failure(status) {
            self.bad(begun, || format!("answered {status}"));
        }
    }

    /// An exchange failed on the way.
    pub fn failed(&self, failure: &Failure, begun: Instant) {
        if says_something(failure) {
            self.bad(begun, || format!("{} while {}", failure.cause, failure.phase));
        }
    }

    /// An exchange that began now or before was cut off, because the backend did not keep up.
    pub fn cut(&self, why: &'static str) {
        self.bad(Instant::now(), || why.to_owned());
    }

    fn bad(&self, begun: Instant, why: impl FnOnce() -> String) {
        if self.counts(begun) {
            let policy = self.policy.load();
            let symptom = self.detector.bad(self.now(), &policy.ejection);
            self.ring(symptom, &policy, why);
        }
    }

    fn ring(&self, symptom: Option<Symptom>, policy: &HealthPolicy, last: impl FnOnce() -> String) {
        if let Some(symptom) = symptom.filter(|_| policy.ejection.enabled) {
            self.raise(symptom.into(), || format!("{symptom}, the last: {}", last()));
        }
    }

    /// Tells the monitor that the backend should be taken out.
    pub fn raise(&self, rule: Rule, reason: impl FnOnce() -> String) {
        if self.is_in() && !self.rung.swap(true, Relaxed) {
            *self.trip() = Some(Trip { rule, reason: reason() });
            self.bell.notify_one();
        }
    }

    /// Waits for the bell.
    async fn rung(&self) -> Trip {
        loop {
            if let Some(trip) = self.take_trip() {
                return trip;
            }
            self.bell.notified().await;
        }
    }

    fn take_trip(&self) -> Option<Trip> {
        let trip = self.trip().take();
        self.rung.store(false, Relaxed);
        trip
    }

    /// Whether it is sick and stays in use all the same.
    pub fn is_kept_in(&self) -> bool {
        self.kept_in.load(Relaxed)
    }

    /// Whether something is wrong now, by exchanges and by checks.
    fn is_sick(&self, policy: &HealthPolicy) -> bool {
        let by_checks = self.checks_failed.load(Relaxed) >= policy.check.unhealthy
            && policy.check.kind != CheckKind::None;
        by_checks || self.detector.symptom(self.now(), &policy.ejection).is_some()
    }

    /// The backend is none any more.
    pub fn retire(&self) {
        self.metrics.retire();
    }

    /// Only the monitor calls this.
    fn enter(&self, state: State, reason: String) {
        if state == State::Healthy {
            self.forget();
        }
        self.kept_in.store(false, Relaxed);
        self.status.store(Arc::new(Status { state, reason, since: SystemTime::now() }));
        self.state.store(state as u8, Relaxed);
        self.metrics.is_in(state as usize);
    }

    /// Says something of the state that it is in.
    fn tell(&self, reason: String) {
        let Status { state, since, .. } = **self.status.load();
        self.status.store(Arc::new(Status { state, reason, since }));
    }

    /// Forgets what was found before now, also what exchanges that run still would say.
    pub fn forget(&self) {
        // The next moment, so that this one's are not counted either.
        self.counted_from.store(self.now() + 1, Relaxed);
        self.detector.reset();
        self.checks_failed.store(0, Relaxed);
        drop(self.take_trip());
    }

    fn counts(&self, begun: Instant) -> bool {
        let begun = begun.saturating_duration_since(self.beginning).as_millis();
        self.is_in() && begun >= u128::from(self.counted_from.load(Relaxed))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.beginning.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn trip(&self) -> MutexGuard<'_, Option<Trip>> {
        self.trip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 5xx say that the backend could not, 503 SlowDown among them. 501 and 505 say that it never will, which is about the
/// request.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error()
        && status != StatusCode::NOT_IMPLEMENTED
        && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED
}

/// Whether a failure is one of the backend. A stale connection is none, nor is a name without an address: nothing
/// reaches such a backend, and it is back when the name resolves. What is over the limit of connections has a rule of
/// its own.
fn says_something(failure: &Failure) -> bool {
    !failure.stale
        && !matches!(failure.phase, Phase::Limit | Phase::Resolve)
        && !matches!(failure.cause, Cause::Unsendable(_))
}

#[cfg(test)]
mod tests;

//! What counts against a backend, and what does not.

use super::*;
use crate::{telemetry::metrics::EJECTED_FOR, topology::Backend};

pub(super) fn policy() -> HealthPolicy {
    HealthPolicy { check: HealthCheck::default(), ejection: Ejection::default() }
}

pub(super) fn health(url: &str, policy: HealthPolicy) -> Health {
    Health::new(url, Arc::new(ArcSwap::from_pointee(policy)))
}

fn failure(phase: Phase, cause: Cause) -> Failure {
    let backend = Backend { id: 0, url: "http://a".into(), host: "a".into(), port: 80, maintained: false };
    Failure::new(&backend, phase, cause, Duration::from_millis(3))
}

#[test]
fn rules_are_counted_under_labels_that_metrics_know() {
    let label = |rule: Rule| EJECTED_FOR[rule as usize];
    assert_eq!(label(Rule::ConsecutiveFailures), "consecutive_failures");
    assert_eq!(label(Rule::ErrorRate), "error_rate");
    assert_eq!(label(Rule::Latency), "latency");
    assert_eq!(label(Rule::Connections), "connections");
    assert_eq!(label(Rule::HealthCheck), "health_check");
    use crate::telemetry::metrics::STATES;
    let states = [State::Healthy, State::Ejected, State::Probation];
    assert_eq!(states.map(|state| format!("{state:?}").to_lowercase()), STATES);
}

#[test]
fn what_is_the_backends_fault() {
    let closed = || Cause::Closed("reset".into());
    let cases = [
        (Phase::Dial, Cause::Io("connection refused".into()), true),
        (Phase::Dial, Cause::Deadline, true),
        (Phase::Send, Cause::Deadline, true),
        (Phase::Send, closed(), true),
        (Phase::Await, Cause::Deadline, true),
        (Phase::Await, Cause::Invalid("garbage".into()), true),
        (Phase::Receive, closed(), true),
        (Phase::Send, Cause::Unsendable("a signature".into()), false),
        (Phase::Resolve, Cause::Unresolved, false),
        (Phase::Limit, Cause::Limit(3), false),
    ];
    for (phase, cause, counts) in cases {
        let failure = failure(phase, cause);
        assert_eq!(says_something(&failure), counts, "{failure}");
        assert!(!says_something(&Failure { stale: true, ..failure }));
    }
    let counts = |code| is_failure(StatusCode::from_u16(code).unwrap());
    assert!([500, 502, 503, 504, 507, 599].into_iter().all(counts));
    assert!(![200, 206, 304, 307, 400, 403, 404, 409, 412, 416, 429, 501, 505].into_iter().any(counts));
}

#[test]
fn the_last_failure_is_told_as_the_reason() {
    let health = health("http://reason.test", policy());
    for _ in 0..5 {
        assert!(health.take_trip().is_none());
        health.failed(&failure(Phase::Dial, Cause::Io("connection refused".into())), Instant::now());
    }
    let trip = health.take_trip().unwrap();
    let reason = "5 failures in a row, the last: connection refused while connecting";
    assert_eq!(trip, Trip { rule: Rule::ConsecutiveFailures, reason: reason.into() });
}

#[test]
fn an_answer_of_5xx_is_a_failure_and_its_end_does_not_make_up_for_it() {
    let health = health("http://end.test", policy());
    let begun = Instant::now();
    for status in [StatusCode::SERVICE_UNAVAILABLE; 5] {
        health.answered_with(begun, status);
        health.answered(begun, Some(status), Duration::ZERO);
    }
    assert!(health.take_trip().unwrap().reason.contains("5 failures in a row, the last: answered 503"));
    health.answered(begun, Some(StatusCode::NOT_FOUND), Duration::ZERO);
    assert_eq!(health.failures_in_a_row(), 0);
}

#[test]
fn what_began_before_a_backend_came_back_says_nothing() {
    let health = health("http://before.test", policy());
    let before = Instant::now();
    health.enter(State::Ejected, "a test".into());
    health.answered_with(before, StatusCode::INTERNAL_SERVER_ERROR);
    health.enter(State::Healthy, "a test".into());
    for _ in 0..10 {
        health.answered_with(before, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(health.failures_in_a_row(), 0);
    let after = Instant::now() + Duration::from_millis(5);
    health.answered_with(after, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(health.failures_in_a_row(), 1);
}

#[test]
fn switched_off_nothing_rings() {
    let ejection = Ejection { enabled: false, ..Ejection::default() };
    let health = health("http://off.test", HealthPolicy { ejection, ..policy() });
    for _ in 0..50 {
        health.cut("a test");
    }
    assert_eq!((health.take_trip(), health.failures_in_a_row()), (None, 50));
}

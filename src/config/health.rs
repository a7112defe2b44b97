//! `HealthCheck` and `Ejection`: how backends are asked for their health, and when one is taken out.
//!
//! The defaults let a backend that fails every request be out within a second of work, and are far from what a storage
//! with an error now and then shows.

use std::time::Duration;

use super::{
    CheckKind, Ejection, HealthCheck,
    reader::{At, MapReader, Text},
};

const KINDS: [(&str, CheckKind); 3] =
    [("http", CheckKind::Http), ("tcp", CheckKind::Tcp), ("none", CheckKind::None)];

/// The sliding window has ten parts, and a part shorter than this says nothing.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            kind: CheckKind::Http,
            path: "/".to_owned(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Ejection {
            enabled: true,
            consecutive_failures: 5,
            error_rate: 0.5,
            min_requests: 20,
            window: Duration::from_secs(10),
            latency: None,
            latency_percentile: 0.99,
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_ejected: 0.5,
        }
    }
}

pub fn read_check(top: &mut MapReader) -> HealthCheck {
    let default = HealthCheck::default();
    let Some(mut map) = top.get("HealthCheck").and_then(|at| at.map()) else { return default };
    let interval = map.read("Interval", default.interval, At::timeout);
    // What nobody knows is not called wrong.
    let at_timeout = map.get("Timeout");
    let comparable = !map.is_unknown("Interval");
    let timeout = at_timeout.as_ref().and_then(At::timeout);
    let zero = "0 would judge without asking; write a whole number from 1 up";
    let check = HealthCheck {
        kind: map.read("Type", default.kind, |at| at.one_of(&KINDS)),
        path: map.read("Path", default.path, path),
        interval,
        // A short interval alone is no mistake.
        timeout: timeout.unwrap_or(default.timeout.min(interval)),
        healthy: map.read("Healthy", default.healthy, |at| at.positive(zero)),
        unhealthy: map.read("Unhealthy", default.unhealthy, |at| at.positive(zero)),
    };
    if let Some(at) = at_timeout.filter(|_| comparable && check.timeout > check.interval) {
        at.error::<()>("longer than Interval: checks would overtake each other; write at most that");
    }
    map.finish();
    check
}

pub fn read_ejection(top: &mut MapReader) -> Ejection {
    let default = Ejection::default();
    let Some(mut map) = top.get("Ejection").and_then(|at| at.map()) else { return default };
    let time = map.read("Time", default.time, At::timeout);
    let at_max_time = map.get("MaxTime");
    let comparable = !map.is_unknown("Time");
    let max_time = at_max_time.as_ref().and_then(At::timeout);
    let zero = "0 would judge by nothing; write a whole number from 1 up";
    let ejection = Ejection {
        enabled: map.read("Enabled", default.enabled, At::boolean),
        consecutive_failures: map.read("ConsecutiveFailures", default.consecutive_failures, At::count),
        error_rate: map.read("ErrorRate", default.error_rate, At::fraction),
        min_requests: map.read("MinRequests", default.min_requests, |at| at.positive(zero)),
        window: map.read("Window", default.window, window),
        latency: map.read("Latency", None, |at| at.duration().map(Some)).filter(|limit| !limit.is_zero()),
        latency_percentile: map.read("LatencyPercentile", default.latency_percentile, percentile),
        time,
        max_time: max_time.unwrap_or(default.max_time.max(time)),
        max_ejected: map.read("MaxEjected", default.max_ejected, max_ejected),
    };
    if let Some(at) = at_max_time.filter(|_| comparable && ejection.max_time < ejection.time) {
        at.error::<()>("shorter than Time; write at least that");
    }
    map.finish();
    ejection
}

/// The path, with a query if there is one.
fn path(at: &At) -> Option<String> {
    let Text { value, shown, .. } = at.text()?;
    if !value.starts_with('/') {
        return at.error(format!("{shown} does not start with \"/\"; write a path such as /status"));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) || value.contains('#') {
        return at.error(format!("{shown} is not a path; write ASCII without blanks and \"#\""));
    }
    if value.parse::<http::uri::PathAndQuery>().is_err() {
        return at.error(format!("{shown} has characters that a path cannot have; write them as %XX"));
    }
    Some(value)
}

fn window(at: &At) -> Option<Duration> {
    match at.timeout()? {
        window if window < SHORTEST_WINDOW => at.error("shorter than 1s; write a duration such as 10s"),
        window => Some(window),
    }
}

fn percentile(at: &At) -> Option<f64> {
    match at.fraction()? {
        part if part >= 1.0 => {
            at.error("one slow answer would do, and there is always one; write less than 1, such as 0.99")
        }
        part => Some(part),
    }
}

fn max_ejected(at: &At) -> Option<f64> {
    match at.fraction()? {
        0.0 => at.error("0 would eject no backend; write Enabled: false for that"),
        part => Some(part),
    }
}

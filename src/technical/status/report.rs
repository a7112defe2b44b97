//! The status as JSON; `docs/status.md` describes it.
//!
//! Counts are since the start of the process, rates and percentiles of the last [`WINDOW`](super::sampler::WINDOW)
//! samples. Made of two readings of the metrics; nothing here waits or asks anybody.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::{
    history::History,
    installation::{Condition, Region},
    journal::Journal,
    quantile::quantile,
};
use crate::{
    synclog::feed::Event,
    telemetry::metrics::reading::{self, Counts, Durations, Reading},
};

/// Classes of answers that are no answers to speak of.
const FAILED: [&str; 2] = ["5xx", "none"];

/// What changes: told again and again.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    #[serde(serialize_with = "instant")]
    pub generated: DateTime<Utc>,
    /// Between two points of the history.
    pub period_seconds: u64,
    /// What rates and percentiles are of.
    pub window_seconds: u64,
    pub process: Process,
    pub requests: Requests,
    pub writes: Writes,
    /// `None` = there is none.
    pub journal: Option<Journal>,
    pub regions: Vec<Region>,
    pub backends: Vec<Backend>,
}

/// What is told again and again: the report, and what the history has got since the last one.
#[derive(Debug, Serialize)]
pub struct News<'a> {
    #[serde(flatten)]
    pub report: &'a Report,
    pub last: Points,
}

/// A point of each series.
#[derive(Debug, Clone, Serialize)]
pub struct Points {
    pub requests: Pace,
    /// By URL.
    pub backends: HashMap<String, Pace>,
}

/// All there is.
#[derive(Debug, Serialize)]
pub struct Whole<'a> {
    #[serde(flatten)]
    pub report: &'a Report,
    pub history: &'a History,
    /// Newest first.
    pub events: Vec<&'a Event>,
    pub configuration: &'a str,
}

#[derive(Debug, Clone, Serialize)]
pub struct Process {
    pub version: &'static str,
    pub pid: u32,
    #[serde(serialize_with = "instant")]
    pub started: DateTime<Utc>,
    pub uptime_seconds: u64,
    pub draining: bool,
    /// Pages that are open.
    pub viewers: u64,
}

/// Clients' requests.
#[derive(Debug, Clone, Serialize)]
pub struct Requests {
    pub in_flight: u64,
    pub connections: u64,
    #[serde(flatten)]
    pub pace: Pace,
    #[serde(serialize_with = "rounded")]
    pub received_bytes_per_second: f64,
    #[serde(serialize_with = "rounded")]
    pub sent_bytes_per_second: f64,
    pub by_status: Counts,
    /// Answered with an error of the gateway's own, by S3's code.
    pub refused: Counts,
    /// Without a whole answer, by who broke off.
    pub broken: Counts,
}

/// Objects, and what has still to be done for them.
#[derive(Debug, Clone, Serialize)]
pub struct Writes {
    pub unfinished: u64,
    pub missed: u64,
    pub background_requests: u64,
    pub background_bytes: u64,
    pub divergences: u64,
    pub misplacements: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Backend {
    pub url: String,
    #[serde(flatten)]
    pub condition: Condition,
    /// Connections that are in use.
    pub in_flight: u64,
    pub idle_connections: u64,
    #[serde(flatten)]
    pub pace: Pace,
    pub replies: Counts,
    pub by_status: Counts,
    pub errors: Vec<Failures>,
    /// Sub-requests that were ended from outside, by reason.
    pub cut: Counts,
    pub divergences: u64,
    pub background_requests: u64,
    pub background_bytes: u64,
    /// Bytes of bodies that wait for it.
    pub waiting_bytes: u64,
}

/// Exchanges that failed in one way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failures {
    pub phase: &'static str,
    pub cause: &'static str,
    pub count: u64,
    /// Of them, in the window.
    pub recent: u64,
}

/// How fast it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pace {
    #[serde(serialize_with = "rounded")]
    pub per_second: f64,
    /// Those without an answer, or with 5xx.
    #[serde(serialize_with = "rounded")]
    pub failed_per_second: f64,
    #[serde(serialize_with = "rounded_some")]
    pub p50_seconds: Option<f64>,
    #[serde(serialize_with = "rounded_some")]
    pub p99_seconds: Option<f64>,
}

/// Two readings and the time between them.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    pub earlier: &'a Reading,
    pub now: &'a Reading,
    pub time: Duration,
}

impl Span<'_> {
    pub fn clients(&self) -> Pace {
        let (before, now) = (&self.earlier.clients, &self.now.clients);
        self.pace((&before.by_class, &before.duration), (&now.by_class, &now.duration))
    }

    pub fn backend(&self, url: &str) -> Pace {
        let Some(now) = self.now.backends.get(url) else { return Pace::default() };
        let none = reading::Backend::default();
        let before = self.earlier.backends.get(url).unwrap_or(&none);
        self.pace((&before.by_class, &before.answer_wait), (&now.by_class, &now.answer_wait))
    }

    fn pace(&self, before: (&Counts, &Durations), now: (&Counts, &Durations)) -> Pace {
        let failed = |counts: &Counts| FAILED.iter().filter_map(|class| counts.get(class)).sum::<u64>();
        let durations = now.1.since(before.1);
        Pace {
            per_second: self.rate(before.0.values().sum(), now.0.values().sum()),
            failed_per_second: self.rate(failed(before.0), failed(now.0)),
            p50_seconds: quantile(&durations, 0.5),
            p99_seconds: quantile(&durations, 0.99),
        }
    }

    pub fn rate(&self, before: u64, now: u64) -> f64 {
        if self.time.is_zero() { 0.0 } else { now.saturating_sub(before) as f64 / self.time.as_secs_f64() }
    }

    pub fn requests(&self) -> Requests {
        let (before, now) = (&self.earlier.clients, &self.now.clients);
        Requests {
            in_flight: now.in_flight,
            connections: now.connections,
            pace: self.clients(),
            received_bytes_per_second: self.rate(before.received_bytes, now.received_bytes),
            sent_bytes_per_second: self.rate(before.sent_bytes, now.sent_bytes),
            by_status: now.by_class.clone(),
            refused: now.refused.clone(),
            broken: now.broken.clone(),
        }
    }

    /// What goes on is that of these backends; what has diverged since the start was also of some that are gone, and is
    /// among the events.
    pub fn writes(&self, backends: &[Backend]) -> Writes {
        let sum = |count: fn(&Backend) -> u64| backends.iter().map(count).sum();
        let all = self.now.backends.values();
        let clients = &self.now.clients;
        Writes {
            unfinished: clients.unfinished_writes,
            missed: clients.missed_writes,
            background_requests: sum(|backend| backend.background_requests),
            background_bytes: sum(|backend| backend.background_bytes),
            divergences: all.map(|backend| backend.divergences).sum(),
            misplacements: clients.misplacements,
        }
    }

    pub fn status_of(&self, url: String, condition: Condition) -> Backend {
        let now = self.now.backends.get(&url).cloned().unwrap_or_default();
        Backend {
            condition,
            in_flight: now.busy_connections,
            idle_connections: now.idle_connections,
            pace: self.backend(&url),
            errors: self.failures(&url, &now),
            replies: now.replies,
            by_status: now.by_class,
            cut: now.cuts,
            divergences: now.divergences,
            background_requests: now.background_requests,
            background_bytes: now.background_bytes,
            waiting_bytes: now.waiting_bytes,
            url,
        }
    }

    fn failures(&self, url: &str, now: &reading::Backend) -> Vec<Failures> {
        let before = self.earlier.backends.get(url).map(|backend| &backend.errors);
        let failures = now.errors.iter().map(|((phase, cause), count)| {
            let earlier =
                before.and_then(|errors| errors.get(&(*phase, *cause))).copied().unwrap_or_default();
            Failures { phase, cause, count: *count, recent: count.saturating_sub(earlier) }
        });
        failures.collect()
    }
}

fn instant<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

pub fn moment<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => instant(at, serializer),
        None => serializer.serialize_none(),
    }
}

pub fn rounded<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(round(*number))
}

pub fn rounded_some<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(round).serialize(serializer)
}

/// To four digits: the rest is noise, and a hundred points of it are much text.
pub fn round(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let digits = 3 - number.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.clamp(-12, 12));
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(good: u64, failed: u64, waits: u64) -> Reading {
        let backend = reading::Backend {
            by_class: Counts::from([("2xx", good), ("5xx", failed), ("none", failed)]),
            errors: [(("dial", "closed"), failed)].into(),
            answer_wait: Durations(vec![0, waits, 0]),
            divergences: failed,
            background_requests: 2,
            ..Default::default()
        };
        let clients = reading::Clients {
            by_class: Counts::from([("2xx", good), ("4xx", failed)]),
            sent_bytes: good * 1000,
            ..Default::default()
        };
        Reading { clients, backends: [("http://a".to_owned(), backend)].into(), ..Reading::default() }
    }

    fn healthy() -> Condition {
        Condition { state: super::super::State::Healthy, reason: String::new(), since: None }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let (earlier, now) = (reading(10, 0, 5), reading(30, 4, 9));
        let span = Span { earlier: &earlier, now: &now, time: Duration::from_secs(4) };
        let requests = span.requests();
        assert_eq!((requests.pace.per_second, requests.pace.failed_per_second), (6.0, 0.0));
        assert_eq!(requests.sent_bytes_per_second, 5000.0);
        let backend = span.status_of("http://a".into(), healthy());
        let expected = Pace {
            per_second: 7.0,
            failed_per_second: 2.0,
            p50_seconds: Some(0.00075),
            p99_seconds: Some(0.000995),
        };
        assert_eq!(backend.pace, expected);
        assert_eq!(backend.errors, [Failures { phase: "dial", cause: "closed", count: 4, recent: 4 }]);
        let writes = span.writes(&[backend]);
        assert_eq!((writes.divergences, writes.background_requests), (4, 2));
        // After a reload without it.
        let writes = span.writes(&[]);
        assert_eq!((writes.divergences, writes.background_requests), (4, 0));
    }

    #[test]
    fn a_backend_that_nothing_is_known_of_and_no_time_are_no_trouble() {
        let (earlier, now) = (Reading::default(), reading(1, 1, 1));
        let span = Span { earlier: &earlier, now: &now, time: Duration::ZERO };
        assert_eq!(span.status_of("http://new".into(), healthy()).pace, Pace::default());
        assert_eq!(span.backend("http://a").per_second, 0.0);
    }

    #[test]
    fn numbers_have_four_digits() {
        for (number, rounded) in [
            (0.0, 0.0),
            (123_456.7, 123_500.0),
            (0.000_412_345, 0.000_412_3),
            (5.0, 5.0),
            (f64::NAN, 0.0),
            (1e-300, 0.0),
        ] {
            assert_eq!(round(number), rounded, "{number}");
        }
    }
}

//! `Metrics.Target: expvar`: one JSON object at `/debug/vars` of `Metrics.ExpAddr`, as Go programs have it.
//!
//! Its keys are the paths of [`series`], without a prefix, and `cmdline`. Go's `memstats` are not there:
//! they tell of Go's allocator and its garbage collection; `process_*` say what the system knows of the process.
//!
//! Nothing runs between requests. An interval ends with the first request that finds it `Interval` old, whoever
//! asks, and its percentiles stay until the next one ends.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::{protocols::http::ServerSession, services::listening};
use pingora_error::{ErrorType, OrErr, Result};
use serde_json::{Map, Value};

use super::{intervals::Intervals, series};
use crate::{
    config::{Config, Exporter, Listen, Reports},
    telemetry::{
        endpoint::{self, Answer, App, Draining, Endpoint, Route},
        metrics::{METRICS, gather},
    },
};

/// Where the variables are.
pub const PATH: &str = "/debug/vars";

pub struct Expvar {
    routes: [Route; 1],
    interval: Duration,
    intervals: Mutex<Intervals>,
}

/// The service, and where it listens, if the configuration asks for one.
pub fn service(config: &Config, draining: Draining) -> Option<(listening::Service<App<Expvar>>, Listen)> {
    let Some(Exporter::Expvar { listen, reports }) = &config.metrics else { return None };
    LazyLock::force(&METRICS);
    Some((endpoint::service(Expvar::new(reports), listen, draining), listen.clone()))
}

impl Expvar {
    fn new(reports: &Reports) -> Expvar {
        Expvar {
            routes: [Route::new(Method::GET, PATH)],
            interval: reports.interval,
            intervals: Mutex::new(Intervals::new(&reports.percentiles, Instant::now())),
        }
    }

    fn variables(&self, now: Instant) -> Map<String, Value> {
        let series = series::all(&gather(), true);
        let mut intervals = self.intervals.lock().unwrap_or_else(PoisonError::into_inner);
        if intervals.age(now) >= self.interval {
            intervals.end(&series, now);
        }
        let samples = intervals.samples(&series, now);
        let mut variables: Map<String, Value> =
            samples.into_iter().map(|(path, value)| (path, number(value))).collect();
        let cmdline = std::env::args_os().map(|argument| argument.to_string_lossy().into());
        variables.insert("cmdline".to_owned(), Value::Array(cmdline.map(Value::String).collect()));
        variables
    }
}

/// Whole numbers as such: not every reader takes `3.0` for a count.
fn number(value: f64) -> Value {
    /// Up to here every whole number is one of floating point, too.
    const EXACT: f64 = (1_u64 << 53) as f64;
    if value.fract() == 0.0 && value.abs() < EXACT { Value::from(value as i64) } else { Value::from(value) }
}

#[async_trait]
impl Endpoint for Expvar {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn routes(&self) -> &[Route] {
        &self.routes
    }

    async fn answer(&self, _: &Route, _: &mut ServerSession) -> Result<Answer> {
        let text = serde_json::to_string_pretty(&self.variables(Instant::now()))
            .or_err(ErrorType::InternalError, "the variables are no JSON")?;
        let mut answer = Answer::text(StatusCode::OK, text + "\n")?;
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        answer.head.insert_header(header::CONTENT_TYPE, json)?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_point() {
        let text = |value| number(value).to_string();
        assert_eq!([3.0, 0.5, -1.0, 1e15].map(text), ["3", "0.5", "-1", "1000000000000000"]);
        assert_eq!(number(1e300).as_f64(), Some(1e300));
    }

    #[test]
    fn an_interval_ends_with_a_request() {
        let reports = Reports {
            interval: Duration::from_secs(30),
            prefix: String::new(),
            append_defaults: false,
            percentiles: vec![0.5],
            debug: false,
        };
        let expvar = Expvar::new(&reports);
        METRICS.requests.ended(&Method::POST, Some(StatusCode::OK), Duration::from_millis(30));
        let path = "akubra_request_duration_seconds.POST";
        let now = Instant::now();
        let early = expvar.variables(now);
        assert!(early[&format!("{path}.count")].as_u64().unwrap() >= 1);
        assert!(!early.contains_key(&format!("{path}.50-percentile")));
        let later = expvar.variables(now + Duration::from_secs(31));
        assert!(later[&format!("{path}.50-percentile")].as_f64().unwrap() > 0.0);
        assert!(later["reqs.global.all.one-minute"].as_f64().unwrap() > 0.0);
        assert!(later["cmdline"].is_array() && later["process_threads"].is_u64());
        // Until the next one ends its percentiles stay.
        let soon = expvar.variables(now + Duration::from_secs(40));
        assert!(soon.contains_key(&format!("{path}.50-percentile")));
    }
}

//! The last minutes as series of points, for sparklines: one point per sample, the oldest goes first.

use std::collections::{HashMap, VecDeque};

use serde::{Serialize, Serializer};

use super::report::{Pace, Points, round};

/// Points of a series: five minutes.
pub const POINTS: usize = 150;

/// What is remembered.
#[derive(Debug, Default, Serialize)]
pub struct History {
    pub requests: Series,
    /// By URL.
    pub backends: HashMap<String, Series>,
}

/// Four series of the same length, oldest first.
#[derive(Debug, Default, Serialize)]
pub struct Series {
    #[serde(serialize_with = "points")]
    per_second: VecDeque<Option<f64>>,
    #[serde(serialize_with = "points")]
    failed_per_second: VecDeque<Option<f64>>,
    #[serde(serialize_with = "points")]
    p50_seconds: VecDeque<Option<f64>>,
    #[serde(serialize_with = "points")]
    p99_seconds: VecDeque<Option<f64>>,
}

impl History {
    /// Adds a point to every series; backends that have none are forgotten.
    pub fn push(&mut self, points: &Points) {
        self.requests.push(&points.requests);
        self.backends.retain(|url, _| points.backends.contains_key(url));
        for (url, pace) in &points.backends {
            self.backends.entry(url.clone()).or_default().push(pace);
        }
    }
}

impl Series {
    fn push(&mut self, pace: &Pace) {
        for (series, point) in [
            (&mut self.per_second, Some(pace.per_second)),
            (&mut self.failed_per_second, Some(pace.failed_per_second)),
            (&mut self.p50_seconds, pace.p50_seconds),
            (&mut self.p99_seconds, pace.p99_seconds),
        ] {
            if series.len() == POINTS {
                series.pop_front();
            }
            series.push_back(point.map(round));
        }
    }
}

fn points<S: Serializer>(points: &VecDeque<Option<f64>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_what_is_gone() {
        let mut history = History::default();
        let pace = |per_second| Pace {
            per_second,
            p50_seconds: (per_second > 2.0).then_some(0.5),
            ..Pace::default()
        };
        for count in 0..POINTS + 3 {
            let backends = [("a", count < 9), ("b", count > POINTS)];
            let backends = backends.into_iter().filter(|(_, there)| *there);
            let backends = backends.map(|(url, _)| (url.to_owned(), pace(1.0))).collect();
            history.push(&Points { requests: pace(count as f64), backends });
        }
        let json = serde_json::to_value(&history).unwrap();
        let requests = json["requests"]["per_second"].as_array().unwrap();
        assert_eq!((requests.len(), &requests[0]), (POINTS, &3.0.into()));
        assert_eq!(json["requests"]["p50_seconds"][0], 0.5);
        let backends = json["backends"].as_object().unwrap();
        assert_eq!(backends.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(backends["b"]["p50_seconds"].to_string(), "[null,null]");
    }
}

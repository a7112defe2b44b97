//! From series to the numbers that leave: counts as they are, and what an interval was like.
//!
//! Percentiles and means are those of the last whole interval, from the difference of two histograms; where nothing was
//! observed there is none. A meter's `one-minute`, `five-minute` and `fifteen-minute` are what the Go program's are,
//! events per second in an exponentially weighted moving average, here of one value per interval; `mean-rate` (`mean`
//! of what has no durations there) is that of the process's whole life.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    histogram::Histogram,
    series::{Series, What},
};
use crate::config::percentile_name;

/// Seconds over which each rate is averaged, and its name.
const AVERAGES: [(f64, &str); 3] = [(60.0, "one-minute"), (300.0, "five-minute"), (900.0, "fifteen-minute")];

/// A path and its number.
pub type Sample = (String, f64);

/// What is remembered from interval to interval.
pub struct Intervals {
    percentiles: Vec<(f64, String)>,
    began: Instant,
    ended: Instant,
    histograms: HashMap<String, Interval>,
    rates: HashMap<String, Rates>,
}

/// A histogram at the end of an interval, and what came in it.
struct Interval {
    total: Histogram,
    last: Histogram,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    count: f64,
    averages: [f64; AVERAGES.len()],
}

impl Intervals {
    /// The first interval begins now.
    pub fn new(percentiles: &[f64], now: Instant) -> Intervals {
        let named = |fraction: &f64| (*fraction, format!("{}-percentile", percentile_name(*fraction)));
        Intervals {
            percentiles: percentiles.iter().map(named).collect(),
            began: now,
            ended: now,
            histograms: HashMap::new(),
            rates: HashMap::new(),
        }
    }

    /// How long the interval lasts already.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.ended)
    }

    /// Ends an interval.
    pub fn end(&mut self, series: &[Series], now: Instant) {
        let seconds = self.age(now).as_secs_f64();
        let first = self.ended == self.began;
        self.ended = now;
        for Series { path, what } in series {
            let (count, histogram) = match what {
                What::Value(_) | What::Gauge(_) => continue,
                What::Histogram(histogram) => (None, Some(histogram)),
                What::Meter(count) => (Some(*count), None),
                What::Timer(count, histogram) => (Some(*count), histogram.as_ref()),
            };
            if let Some(total) = histogram {
                let before = self.histograms.remove(path).map(|interval| interval.total);
                let last = total.since(&before.unwrap_or_default());
                self.histograms.insert(path.clone(), Interval { total: total.clone(), last });
            }
            if let Some(count) = count.filter(|_| seconds > 0.0) {
                self.rates.entry(path.clone()).or_default().tick(count, seconds, first);
            }
        }
    }

    /// The numbers of these series.
    pub fn samples(&self, series: &[Series], now: Instant) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(series.len() * 2);
        for Series { path, what } in series {
            let mut push = |name: &str, value: f64| samples.push((format!("{path}{name}"), value));
            match what {
                What::Value(value) => push("", *value),
                What::Gauge(value) => push(".value", *value),
                What::Histogram(histogram) => {
                    push(".count", histogram.count as f64);
                    push(".sum", histogram.sum);
                    self.percentiles(path, &mut push);
                }
                What::Meter(count) => {
                    push(".count", *count);
                    self.rates(path, *count, "mean", now, &mut push);
                }
                What::Timer(count, _) => {
                    push(".count", *count);
                    self.mean(path, &mut push);
                    self.percentiles(path, &mut push);
                    self.rates(path, *count, "mean-rate", now, &mut push);
                }
            }
        }
        // What has no number has no sample.
        samples.retain(|(_, value)| value.is_finite());
        samples
    }

    fn mean(&self, path: &str, push: &mut impl FnMut(&str, f64)) {
        if let Some(mean) = self.histograms.get(path).and_then(|interval| interval.last.mean()) {
            push(".mean", mean);
        }
    }

    fn percentiles(&self, path: &str, push: &mut impl FnMut(&str, f64)) {
        let Some(Interval { last, .. }) = self.histograms.get(path) else { return };
        for (fraction, name) in &self.percentiles {
            if let Some(value) = last.percentile(*fraction) {
                push(&format!(".{name}"), value);
            }
        }
    }

    fn rates(&self, path: &str, count: f64, mean: &str, now: Instant, push: &mut impl FnMut(&str, f64)) {
        let Some(rates) = self.rates.get(path) else { return };
        for ((_, name), average) in AVERAGES.iter().zip(rates.averages) {
            push(&format!(".{name}"), average);
        }
        let life = now.saturating_duration_since(self.began).as_secs_f64();
        push(&format!(".{mean}"), count / life);
    }
}

impl Rates {
    fn tick(&mut self, count: f64, seconds: f64, first: bool) {
        let rate = (count - self.count).max(0.0) / seconds;
        self.count = count;
        for ((over, _), average) in AVERAGES.iter().zip(&mut self.averages) {
            // The first value stands for all that might have been before it.
            let weight = if first { 1.0 } else { 1.0 - (-seconds / over).exp() };
            *average += weight * (rate - *average);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(path: &str, count: f64, histogram: Option<Histogram>) -> Series {
        Series { path: path.to_owned(), what: What::Timer(count, histogram) }
    }

    fn histogram(buckets: &[(f64, u64)], sum: f64) -> Histogram {
        Histogram::made(buckets, sum)
    }

    fn close(found: Option<&f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-3)
    }

    #[test]
    fn percentiles_and_means_are_those_of_the_last_interval() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut intervals = Intervals::new(&[0.5, 0.999], began);
        let first = [timer("t", 10.0, Some(histogram(&[(1.0, 10), (2.0, 10)], 5.0)))];
        let names = |intervals: &Intervals, series: &[Series], at| -> HashMap<String, f64> {
            intervals.samples(series, after(at)).into_iter().collect()
        };
        // Before the first end only counts are known.
        assert_eq!(names(&intervals, &first, 0), HashMap::from([("t.count".into(), 10.0)]));
        intervals.end(&first, after(30));
        let found = names(&intervals, &first, 30);
        assert_eq!((found["t.50-percentile"], found["t.999-percentile"], found["t.mean"]), (0.5, 0.999, 0.5));
        let second = [timer("t", 14.0, Some(histogram(&[(1.0, 10), (2.0, 14)], 11.0)))];
        intervals.end(&second, after(60));
        let found = names(&intervals, &second, 60);
        assert_eq!((found["t.50-percentile"], found["t.mean"], found["t.count"]), (1.5, 1.5, 14.0));
        intervals.end(&second, after(90));
        let found = names(&intervals, &second, 90);
        assert!(!found.contains_key("t.50-percentile") && !found.contains_key("t.mean"));
        assert_eq!(found["t.count"], 14.0);
    }

    #[test]
    fn rates_are_moving_averages() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut intervals = Intervals::new(&[], began);
        let meter = |count| [Series { path: "m".into(), what: What::Meter(count) }];
        intervals.end(&meter(60.0), after(60));
        let found: HashMap<_, _> = intervals.samples(&meter(60.0), after(60)).into_iter().collect();
        assert!(close(found.get("m.one-minute"), 1.0) && close(found.get("m.fifteen-minute"), 1.0));
        intervals.end(&meter(60.0), after(120));
        let found: HashMap<_, _> = intervals.samples(&meter(60.0), after(120)).into_iter().collect();
        assert!(close(found.get("m.one-minute"), (-1.0_f64).exp()), "{found:?}");
        assert!(close(found.get("m.five-minute"), (-0.2_f64).exp()) && close(found.get("m.mean"), 0.5));
        // What appears later was nothing before.
        let late = [Series { path: "late".into(), what: What::Meter(60.0) }];
        intervals.end(&late, after(180));
        let found: HashMap<_, _> = intervals.samples(&late, after(180)).into_iter().collect();
        assert!(close(found.get("late.one-minute"), 1.0 - (-1.0_f64).exp()), "{found:?}");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let intervals = Intervals::new(&[], Instant::now());
        let series =
            [f64::NAN, f64::INFINITY, 7.0].map(|value| Series { path: "v".into(), what: What::Value(value) });
        assert_eq!(intervals.samples(&series, Instant::now()), [("v".to_owned(), 7.0)]);
    }
}

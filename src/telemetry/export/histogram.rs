//! Histograms as reports need them: what came in an interval, and percentiles of that.
//!
//! A percentile is found as Prometheus' `histogram_quantile` finds it: observations are taken to be spread evenly over
//! their bucket. So it is as exact as the bucket is narrow, and what lies beyond the last bound has that bound.

use pingora_prometheus::prometheus::proto::Metric;

/// Counts of observations by size, since the process began or in an interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds with the counts of what is not above them; the bound of the last, infinity, is left out.
    buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

impl Histogram {
    pub fn of(metric: &Metric) -> Histogram {
        let histogram = &metric.histogram;
        let buckets = histogram.bucket.iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        Histogram {
            buckets: buckets.filter(|(bound, _)| bound.is_finite()).collect(),
            count: histogram.sample_count(),
            sum: histogram.sample_sum(),
        }
    }

    /// Adds what another one with the same bounds holds.
    pub fn add(&mut self, other: &Histogram) {
        if self.buckets.is_empty() {
            *self = other.clone();
            return;
        }
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
    }

    /// What has come since `before`.
    pub fn since(&self, before: &Histogram) -> Histogram {
        let mut since = self.clone();
        for ((_, count), (_, less)) in since.buckets.iter_mut().zip(&before.buckets) {
            *count = count.saturating_sub(*less);
        }
        since.count = since.count.saturating_sub(before.count);
        since.sum = (since.sum - before.sum).max(0.0);
        since
    }

    /// The mean; `None` without observations.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The value that a fraction of the observations does not pass; `None` without any.
    pub fn percentile(&self, fraction: f64) -> Option<f64> {
        // Buckets are read one after another while others count: the last may know of more than `count`, or less.
        let all = self.buckets.last().map_or(0, |(_, count)| *count).max(self.count);
        if all == 0 {
            return None;
        }
        let rank = fraction * all as f64;
        let (mut lower, mut below) = (0.0, 0);
        for (upper, count) in &self.buckets {
            if *count as f64 >= rank && *count > below {
                let part = (rank - below as f64).max(0.0) / (*count - below) as f64;
                return Some(lower + (upper - lower) * part);
            }
            (lower, below) = (*upper, *count);
        }
        Some(lower)
    }
}

#[cfg(test)]
impl Histogram {
    /// With nothing beyond the last bound.
    pub fn made(buckets: &[(f64, u64)], sum: f64) -> Histogram {
        let count = buckets.last().map_or(0, |(_, count)| *count);
        Histogram { buckets: buckets.to_vec(), count, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(buckets: &[(f64, u64)], count: u64, sum: f64) -> Histogram {
        Histogram { buckets: buckets.to_vec(), count, sum }
    }

    #[test]
    fn a_percentile_is_interpolated_within_its_bucket() {
        let of = |fraction| histogram(&[(1.0, 0), (2.0, 10), (4.0, 20)], 20, 50.0).percentile(fraction);
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.0].map(of), [1.0, 1.5, 2.0, 3.0, 4.0].map(Some));
        // Beyond the last bound nothing is known but that.
        let long = histogram(&[(1.0, 1), (2.0, 1)], 2, 100.0);
        assert_eq!((long.percentile(0.5), long.percentile(0.99)), (Some(1.0), Some(2.0)));
        assert_eq!(histogram(&[(1.0, 0)], 0, 0.0).percentile(0.5), None);
        assert_eq!(Histogram::default().percentile(0.5), None);
    }

    #[test]
    fn an_interval_is_what_came_since() {
        let before = histogram(&[(1.0, 5), (2.0, 10)], 10, 12.0);
        let now = histogram(&[(1.0, 5), (2.0, 12)], 12, 15.0);
        let since = now.since(&before);
        assert_eq!(since, histogram(&[(1.0, 0), (2.0, 2)], 2, 3.0));
        assert_eq!((since.mean(), since.percentile(0.5)), (Some(1.5), Some(1.5)));
        assert_eq!((now.since(&now).mean(), now.since(&now).percentile(0.5)), (None, None));
    }

    #[test]
    fn histograms_add_up() {
        let mut sum = Histogram::default();
        sum.add(&histogram(&[(1.0, 1), (2.0, 2)], 3, 4.0));
        sum.add(&histogram(&[(1.0, 1), (2.0, 1)], 1, 1.0));
        assert_eq!(sum, histogram(&[(1.0, 2), (2.0, 3)], 4, 5.0));
    }
}

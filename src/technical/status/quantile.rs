//! Percentiles of durations that are only known by bucket.

use crate::telemetry::metrics::reading::Durations;

/// The duration in seconds below which this part (0 to 1) of the observations lies; `None` = there is none.
///
/// Within a bucket they count as spread evenly, as Prometheus' `histogram_quantile` has it. What is longer than the
/// last bound counts as that bound.
pub fn quantile(durations: &Durations, part: f64) -> Option<f64> {
    let Durations(counts) = durations;
    let all: u64 = counts.iter().sum();
    let rank = all as f64 * part.clamp(0.0, 1.0);
    let (mut below, mut lower) = (0, 0.0);
    for (count, bound) in counts.iter().zip(Durations::BOUNDS) {
        let within = rank - below as f64;
        if *count > 0 && within <= *count as f64 {
            return Some(lower + (bound - lower) * (within / *count as f64));
        }
        below += count;
        lower = *bound;
    }
    (all > 0).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts in these buckets, by their upper bounds.
    fn durations(observed: &[(f64, u64)]) -> Durations {
        let of = |bound: &f64| observed.iter().find(|(at, _)| at == bound).map_or(0, |(_, count)| *count);
        let beyond = of(&f64::INFINITY);
        Durations(Durations::BOUNDS.iter().map(of).chain([beyond]).collect())
    }

    #[track_caller]
    fn assert_quantiles(observed: &[(f64, u64)], expected: [f64; 3]) {
        let durations = durations(observed);
        for (part, expected) in [0.5, 0.99, 1.0].into_iter().zip(expected) {
            let found = quantile(&durations, part).unwrap();
            assert!((found - expected).abs() < 1e-9, "{part}: {found}, not {expected}");
        }
    }

    #[test]
    fn observations_count_as_spread_over_their_bucket() {
        assert_quantiles(&[(0.01, 100)], [0.0075, 0.00995, 0.01]);
        assert_quantiles(&[(0.0005, 1)], [0.00025, 0.000495, 0.0005]);
        assert_quantiles(&[(0.005, 50), (0.5, 50)], [0.005, 0.495, 0.5]);
        assert_quantiles(&[(0.001, 99), (120.0, 1)], [0.0005 + 0.0005 * 50.0 / 99.0, 0.001, 120.0]);
    }

    #[test]
    fn what_is_longer_than_all_bounds_counts_as_the_last() {
        assert_quantiles(&[(f64::INFINITY, 3)], [300.0, 300.0, 300.0]);
        assert_quantiles(&[(0.025, 1), (f64::INFINITY, 1)], [0.025, 300.0, 300.0]);
    }

    #[test]
    fn of_nothing_there_is_none() {
        assert_eq!(quantile(&durations(&[]), 0.5), None);
        assert_eq!(quantile(&Durations::default(), 0.5), None);
    }
}

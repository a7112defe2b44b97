//! What clients' exchanges say about a backend: failures in a row, and counts over a sliding window.
//!
//! Pure, but for being shared: no clock (time comes in milliseconds) and no locks. Exchanges that end at the same time
//! may lose a count to each other where a part of the window begins anew; the rules do not hang on a single one.
//! A good exchange costs some relaxed atomics, and the rules are looked at only when there is something bad.

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crate::config::Ejection;

/// Parts of the window: it slides by one of them at a time.
const PARTS: u64 = 10;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symptom {
    ConsecutiveFailures(usize),
    ErrorRate { failed: u64, asked: u64 },
    Latency { slow: u64, asked: u64 },
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Symptom::ConsecutiveFailures(count) => write!(f, "{count} failures in a row"),
            Symptom::ErrorRate { failed, asked } => write!(f, "{failed} of {asked} requests failed"),
            Symptom::Latency { slow, asked } => write!(f, "{slow} of {asked} answers were slow"),
        }
    }
}

#[derive(Debug, Default)]
pub struct Detector {
    in_a_row: AtomicUsize,
    parts: [Part; PARTS as usize],
}

/// The counts of a tenth of the window.
#[derive(Debug, Default)]
struct Part {
    /// Which tenth, counted from the beginning of time; the place is used again and again.
    period: AtomicU64,
    asked: AtomicU32,
    failed: AtomicU32,
    slow: AtomicU32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    asked: u64,
    failed: u64,
    slow: u64,
}

impl Detector {
    /// An exchange ended well; `slow` if its answer was longer in coming than `Ejection::latency`.
    pub fn good(&self, now: u64, slow: bool, rules: &Ejection) -> Option<Symptom> {
        if self.in_a_row.load(Relaxed) > 0 {
            self.in_a_row.store(0, Relaxed);
        }
        let part = self.part(now, rules);
        part.asked.fetch_add(1, Relaxed);
        if !slow {
            return None;
        }
        part.slow.fetch_add(1, Relaxed);
        latency(self.counts(now, rules), rules)
    }

    /// An exchange failed.
    pub fn bad(&self, now: u64, rules: &Ejection) -> Option<Symptom> {
        self.in_a_row.fetch_add(1, Relaxed);
        let part = self.part(now, rules);
        part.asked.fetch_add(1, Relaxed);
        part.failed.fetch_add(1, Relaxed);
        self.symptom(now, rules)
    }

    /// What is wrong now.
    pub fn symptom(&self, now: u64, rules: &Ejection) -> Option<Symptom> {
        let in_a_row = self.in_a_row.load(Relaxed);
        if rules.consecutive_failures > 0 && in_a_row >= rules.consecutive_failures {
            return Some(Symptom::ConsecutiveFailures(in_a_row));
        }
        let counts = self.counts(now, rules);
        error_rate(counts, rules).or_else(|| latency(counts, rules))
    }

    /// Failures without a good exchange since.
    pub fn in_a_row(&self) -> usize {
        self.in_a_row.load(Relaxed)
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.in_a_row.store(0, Relaxed);
        for part in &self.parts {
            part.begin();
        }
    }

    fn part(&self, now: u64, rules: &Ejection) -> &Part {
        let period = period(now, rules);
        // In range: a remainder of their number.
        let part = &self.parts[(period % PARTS) as usize];
        let seen = part.period.load(Relaxed);
        if seen != period && part.period.compare_exchange(seen, period, Relaxed, Relaxed).is_ok() {
            part.begin();
        }
        part
    }

    fn counts(&self, now: u64, rules: &Ejection) -> Counts {
        let now = period(now, rules);
        let within = |part: &&Part| {
            let period = part.period.load(Relaxed);
            period <= now && period + PARTS > now
        };
        self.parts.iter().filter(within).fold(Counts::default(), |sum, part| Counts {
            asked: sum.asked + u64::from(part.asked.load(Relaxed)),
            failed: sum.failed + u64::from(part.failed.load(Relaxed)),
            slow: sum.slow + u64::from(part.slow.load(Relaxed)),
        })
    }
}

impl Part {
    fn begin(&self) {
        for count in [&self.asked, &self.failed, &self.slow] {
            count.store(0, Relaxed);
        }
    }
}

fn period(now: u64, rules: &Ejection) -> u64 {
    let length = u64::try_from(rules.window.as_millis()).unwrap_or(u64::MAX) / PARTS;
    now / length.max(1)
}

fn error_rate(counts: Counts, rules: &Ejection) -> Option<Symptom> {
    let Counts { asked, failed, .. } = counts;
    let enough = asked >= rules.min_requests as u64;
    let over = rules.error_rate > 0.0 && failed as f64 >= asked as f64 * rules.error_rate;
    (enough && over).then_some(Symptom::ErrorRate { failed, asked })
}

/// The percentile is over the limit if more are slow than lie above it; so nothing has to be sorted.
fn latency(counts: Counts, rules: &Ejection) -> Option<Symptom> {
    rules.latency?;
    let Counts { asked, slow, .. } = counts;
    let above = asked as f64 * (1.0 - rules.latency_percentile);
    // With fewer requests the slowest one would be the percentile.
    let enough = asked >= rules.min_requests as u64 && above >= 0.999;
    (enough && slow as f64 > above).then_some(Symptom::Latency { slow, asked })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Symptom::*, *};

    fn rules() -> Ejection {
        Ejection { consecutive_failures: 3, min_requests: 4, ..Ejection::default() }
    }

    /// Feeds outcomes (`g`ood, `s`low, `b`ad), one each `step` ms; what is wrong after the last, and when it began.
    fn feed(rules: &Ejection, step: u64, outcomes: &str) -> (Option<Symptom>, Option<usize>) {
        let detector = Detector::default();
        let mut first = None;
        let mut last = None;
        for (at, outcome) in outcomes.bytes().enumerate() {
            let now = at as u64 * step;
            last = match outcome {
                b'b' => detector.bad(now, rules),
                outcome => detector.good(now, outcome == b's', rules),
            };
            first = first.or(last.map(|_| at));
        }
        (last, first)
    }

    #[test]
    fn what_is_a_symptom_and_from_which_exchange_on() {
        let by_rate = |failed, asked| Some(ErrorRate { failed, asked });
        let cases: &[(&str, u64, Option<Symptom>, Option<usize>)] = &[
            ("", 10, None, None),
            ("bb", 10, None, None),
            ("bbb", 10, Some(ConsecutiveFailures(3)), Some(2)),
            ("bbbbb", 10, Some(ConsecutiveFailures(5)), Some(2)),
            // A good one ends the row, however long ago it began.
            ("gbbgbb", 1_000, by_rate(4, 6), Some(4)),
            ("gbb", 10, None, None),
            ("gbbg", 10, None, None),
            // Half of at least four.
            ("gbgb", 10, by_rate(2, 4), Some(3)),
            ("ggbggb", 10, None, None),
            // A row has no end in time.
            ("bbb", 3_600_000, Some(ConsecutiveFailures(3)), Some(2)),
            // What is older than the window does not count.
            ("gbgb", 4_000, None, None),
            ("gbgbgb", 2_000, by_rate(3, 5), Some(3)),
            // Slow answers are not looked at.
            ("ssssssssss", 10, None, None),
        ];
        for (outcomes, step, symptom, first) in cases {
            assert_eq!(feed(&rules(), *step, outcomes), (*symptom, *first), "{outcomes} {step}");
        }
    }

    #[test]
    fn a_rule_that_is_off_never_speaks() {
        let rules = Ejection { consecutive_failures: 0, error_rate: 0.0, ..rules() };
        assert_eq!(feed(&rules, 10, &"b".repeat(1_000)), (None, None));
        let rules = Ejection { error_rate: 0.5, ..rules };
        assert_eq!(feed(&rules, 10, "bbbb").1, Some(3));
    }

    #[test]
    fn a_percentile_over_the_limit_is_more_slow_answers_than_lie_above_it() {
        let rules = |percentile| Ejection {
            latency: Some(Duration::from_millis(100)),
            latency_percentile: percentile,
            ..rules()
        };
        let many = |good: usize, slow: usize| "g".repeat(good) + &"s".repeat(slow);
        assert_eq!(feed(&rules(0.5), 1, "ggss").0, None);
        assert_eq!(feed(&rules(0.5), 1, "gsss").0, Some(Latency { slow: 3, asked: 4 }));
        assert_eq!(feed(&rules(0.99), 1, &many(99, 1)).0, None);
        assert_eq!(feed(&rules(0.99), 1, &many(98, 2)).0, Some(Latency { slow: 2, asked: 100 }));
        // Of fifty the slowest is no percentile.
        assert_eq!(feed(&rules(0.99), 1, &many(10, 40)).0, None);
    }

    #[test]
    fn what_is_forgotten_is_no_symptom() {
        let detector = Detector::default();
        for _ in 0..10 {
            detector.bad(5, &rules());
        }
        assert!(detector.symptom(5, &rules()).is_some());
        detector.reset();
        assert_eq!((detector.symptom(5, &rules()), detector.in_a_row()), (None, 0));
        assert_eq!(detector.bad(6, &rules()), None);
    }

    proptest! {
        /// Against the rule itself, on all outcomes with their times.
        #[test]
        fn the_window_counts_what_a_list_would(steps in prop::collection::vec((0u64..3_000, 0u8..3), 1..200)) {
            let rules = Ejection {
                consecutive_failures: 0,
                latency: Some(Duration::from_millis(1)),
                latency_percentile: 0.6,
                ..rules()
            };
            let detector = Detector::default();
            let mut now = 0;
            let mut seen: Vec<(u64, u8)> = Vec::new();
            for (step, outcome) in steps {
                now += step;
                let symptom = match outcome {
                    0 => detector.bad(now, &rules),
                    other => detector.good(now, other == 1, &rules),
                };
                seen.push((now / 1_000, outcome));
                seen.retain(|(period, _)| period + PARTS > now / 1_000);
                let count = |outcome| seen.iter().filter(|(_, o)| *o == outcome).count() as u64;
                let counts = Counts { asked: seen.len() as u64, failed: count(0), slow: count(1) };
                prop_assert_eq!(detector.counts(now, &rules), counts);
                let expected = match outcome {
                    0 => error_rate(counts, &rules).or_else(|| latency(counts, &rules)),
                    1 => latency(counts, &rules),
                    _ => None,
                };
                prop_assert_eq!(symptom, expected);
            }
        }

        #[test]
        fn a_storage_with_rare_errors_is_never_sick(good in 5usize..50, rounds in 1usize..100) {
            let outcomes = ("g".repeat(good) + "bbbb").repeat(rounds);
            prop_assert_eq!(feed(&Ejection::default(), 7, &outcomes).1, None);
        }
    }
}

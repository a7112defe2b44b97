//! How long an ejection lasts: twice as long each time, up to a limit, and shorter again after good times. Pure.

use std::time::Duration;

use crate::config::Ejection;

/// Ejections double no further: any base is over any limit by then. What is at the limit is not raised either, so that
/// it takes no longer to make up for.
const MOST: u32 = 31;

/// The ejections that a backend has not made up for.
#[derive(Debug, Default)]
pub struct Escalation {
    step: u32,
}

impl Escalation {
    /// How long the next ejection lasts. `chance` is from 0 to 1: up to a quarter is taken off, so that gateways
    /// that lost a backend at the same moment do not ask for it at the same moment.
    pub fn next(&mut self, rules: &Ejection, chance: f64) -> Duration {
        let full = nominal(self.step, rules);
        if full < rules.max_time {
            self.step = (self.step + 1).min(MOST);
        }
        full.mul_f64(1.0 - chance / 4.0)
    }

    /// The backend was healthy for so long: each ejection is made up for by as much time as it took.
    pub fn was_healthy(&mut self, mut time: Duration, rules: &Ejection) {
        while self.step > 0 {
            let owed = nominal(self.step - 1, rules);
            let Some(left) = time.checked_sub(owed) else { return };
            time = left;
            self.step -= 1;
        }
    }
}

fn nominal(step: u32, rules: &Ejection) -> Duration {
    rules.time.saturating_mul(1 << step.min(MOST)).min(rules.max_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_ejection_lasts_twice_as_long_up_to_the_limit() {
        let (rules, mut escalation) = (Ejection::default(), Escalation::default());
        let times: Vec<_> = (0..8).map(|_| escalation.next(&rules, 0.0).as_secs()).collect();
        assert_eq!(times, [10, 20, 40, 80, 160, 300, 300, 300]);
        for _ in 0..100 {
            assert_eq!(escalation.next(&rules, 0.0), s(300));
        }
        let mut again = Escalation::default();
        assert_eq!(again.next(&rules, 1.0), Duration::from_millis(7_500));
    }

    #[test]
    fn good_times_make_up_for_it() {
        let rules = Ejection::default();
        for (healthy, next) in [(0, 80), (39, 80), (40, 40), (59, 40), (60, 20), (70, 10), (10_000, 10)] {
            let mut escalation = Escalation::default();
            for _ in 0..3 {
                escalation.next(&rules, 0.0);
            }
            escalation.was_healthy(s(healthy), &rules);
            assert_eq!(escalation.next(&rules, 0.0), s(next), "{healthy}");
        }
    }
}

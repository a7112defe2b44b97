//! How long an object that could not be repaired waits for its next try.
//!
//! The longest pause doubles with each failed try, and chance picks one up to that: objects that failed together,
//! because a backend was away, do not come back together.

use std::time::Duration;

/// The bounds of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The pause after `failed` tries; `chance` is a number from 0 to 1.
    pub fn pause(&self, failed: u32, chance: f64) -> Duration {
        let doubled = 2u32.saturating_pow(failed.max(1));
        let most = self.min.saturating_mul(doubled).min(self.max).max(self.min);
        (self.min + (most - self.min).mul_f64(chance.clamp(0.0, 1.0))).min(most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_longest_pause_doubles_up_to_the_bound() {
        let backoff = Backoff { min: SECOND, max: 10 * SECOND };
        let longest = |failed| backoff.pause(failed, 1.0).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 100, u32::MAX].map(longest), [2, 2, 4, 8, 10, 10, 10]);
        assert_eq!(backoff.pause(5, 0.0), SECOND);
        assert_eq!(Backoff { min: SECOND, max: SECOND }.pause(9, 0.5), SECOND);
    }

    proptest! {
        #[test]
        fn a_pause_is_within_the_bounds(failed: u32, chance in -1.0f64..2.0, min in 1u64..1 << 40, more in 0u64..1 << 40) {
            let backoff = Backoff { min: Duration::from_millis(min), max: Duration::from_millis(min + more) };
            let pause = backoff.pause(failed, chance);
            prop_assert!(backoff.min <= pause && pause <= backoff.max);
        }
    }
}

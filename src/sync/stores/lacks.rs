//! What a backend was found not to know. It is found out anew after a while: backends are upgraded, and an answer may
//! have been that of somebody in between.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const BELIEVED: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Lacks(Mutex<Option<Instant>>);

impl Lacks {
    /// Whether it has to be done without now.
    pub fn lasts(&self, now: Instant) -> bool {
        self.since().is_some_and(|since| now.saturating_duration_since(since) < BELIEVED)
    }

    /// It was found out now; whether that is news.
    pub fn note(&self, now: Instant) -> bool {
        self.since().replace(now).is_none()
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_believed_for_a_while() {
        let (lacks, now) = (Lacks::default(), Instant::now());
        assert!(!lacks.lasts(now));
        assert!(lacks.note(now) && lacks.lasts(now));
        let later = now + BELIEVED;
        assert!(!lacks.lasts(later) && lacks.lasts(later - Duration::from_secs(1)));
        assert!(!lacks.note(later) && lacks.lasts(later));
    }
}

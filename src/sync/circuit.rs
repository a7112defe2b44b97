//! A backend that cannot be asked, or refuses, several times in a row is left alone for a while.
//!
//! Then one object at a time tries it again; the others of its clusters wait without anybody being asked. Pauses double
//! up to a bound while that fails. Where the one had no need to try, all may, up to the first failure. Pure: the time is
//! given.

use std::time::{Duration, Instant};

/// Failures in a row after which a backend is left alone.
const FAILURES: u32 = 5;
/// The first pause and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Before it is looked again whether somebody else's try has succeeded.
const PROBED: Duration = Duration::from_secs(1);

/// What is known of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// In a row.
    failures: u32,
    /// Whether it has ever answered.
    has_answered: bool,
    left_alone: Option<LeftAlone>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LeftAlone {
    until: Instant,
    pause: Duration,
    /// Somebody tries it.
    probed: bool,
    why: String,
}

/// Whether a backend may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    Free,
    /// Its state is for the caller to find out: nobody else asks it meanwhile.
    Probe,
    /// Not before so long, and why.
    Later(Duration, String),
}

/// What an answer, or that there was none, has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Opened,
    Closed,
    None,
}

impl Circuit {
    pub fn new() -> Circuit {
        Circuit { failures: 0, has_answered: false, left_alone: None }
    }

    pub fn admit(&mut self, now: Instant) -> Admission {
        match &mut self.left_alone {
            None => Admission::Free,
            Some(open) if now < open.until => Admission::Later(open.until - now, open.why.clone()),
            Some(open) if open.probed => Admission::Later(PROBED, open.why.clone()),
            Some(open) => {
                open.probed = true;
                Admission::Probe
            }
        }
    }

    /// Who was to try it did not.
    pub fn give_up(&mut self) {
        if let Some(open) = &mut self.left_alone {
            open.probed = false;
        }
    }

    /// Who was to try it had no need to, and others may not either: all may, and the first failure ends that.
    pub fn pass_over(&mut self) -> Turn {
        match &self.left_alone {
            Some(open) if open.probed => {
                self.left_alone = None;
                self.failures = FAILURES - 1;
                Turn::Closed
            }
            _ => Turn::None,
        }
    }

    /// Whether it was well when it was last heard of: what it refuses then is not everything.
    pub fn is_well(&self) -> bool {
        self.has_answered && self.failures == 0
    }

    pub fn is_closed(&self) -> bool {
        self.left_alone.is_none()
    }

    /// It answered.
    pub fn answered(&mut self) -> Turn {
        self.failures = 0;
        self.has_answered = true;
        if self.left_alone.take().is_some() { Turn::Closed } else { Turn::None }
    }

    /// It could not be asked.
    pub fn failed(&mut self, now: Instant, why: &str) -> Turn {
        self.failures = self.failures.saturating_add(1);
        match &mut self.left_alone {
            // What failed beside the one try began before.
            Some(open) if !open.probed => Turn::None,
            Some(open) => {
                let pause = (open.pause * 2).min(PAUSE.1);
                *open = LeftAlone { until: now + pause, pause, probed: false, why: why.to_owned() };
                Turn::None
            }
            None if self.failures >= FAILURES => {
                let why = why.to_owned();
                self.left_alone =
                    Some(LeftAlone { until: now + PAUSE.0, pause: PAUSE.0, probed: false, why });
                Turn::Opened
            }
            None => Turn::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_is_open_to_all_until_it_fails_once() {
        let now = Instant::now();
        let mut circuit = opened(now);
        assert_eq!(circuit.pass_over(), Turn::None);
        assert_eq!(circuit.admit(now + PAUSE.0), Admission::Probe);
        assert_eq!(circuit.pass_over(), Turn::Closed);
        assert_eq!(circuit.admit(now + PAUSE.0), Admission::Free);
        assert!(!circuit.is_well());
        assert_eq!(circuit.failed(now + PAUSE.0, "refused"), Turn::Opened);
        assert_eq!(circuit.admit(now + PAUSE.0), Admission::Later(PAUSE.0, "refused".into()));
    }

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::new();
        let turns: Vec<Turn> = (0..FAILURES).map(|_| circuit.failed(now, "refused")).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Opened).count(), 1);
        assert_eq!(turns.last(), Some(&Turn::Opened));
        circuit
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let now = Instant::now();
        let mut circuit = Circuit::new();
        assert!(!circuit.is_well());
        for _ in 0..10 {
            for _ in 1..FAILURES {
                assert_eq!(circuit.failed(now, "refused"), Turn::None);
            }
            assert!(!circuit.is_well());
            assert_eq!(circuit.answered(), Turn::None);
            assert!(circuit.is_well());
        }
        assert_eq!(circuit.admit(now), Admission::Free);
        assert_eq!(opened(now).admit(now), Admission::Later(PAUSE.0, "refused".into()));
    }

    #[test]
    fn one_at_a_time_tries_it_and_pauses_double() {
        let mut now = Instant::now();
        let mut circuit = opened(now);
        for pause in [10, 20, 40, 60, 60].map(Duration::from_secs) {
            now += PAUSE.1;
            assert_eq!(circuit.admit(now), Admission::Probe);
            assert_eq!(circuit.admit(now), Admission::Later(PROBED, "refused".into()));
            assert_eq!(circuit.failed(now, "refused"), Turn::None);
            assert_eq!(circuit.admit(now), Admission::Later(pause, "refused".into()));
            // A straggler changes nothing.
            circuit.failed(now, "late");
            assert_eq!(circuit.admit(now), Admission::Later(pause, "refused".into()));
        }
        now += PAUSE.1;
        assert_eq!(circuit.admit(now), Admission::Probe);
        circuit.give_up();
        assert_eq!(circuit.admit(now), Admission::Probe);
        assert_eq!(circuit.answered(), Turn::Closed);
        assert_eq!(circuit.admit(now), Admission::Free);
    }
}

//! When a slow backend is dropped from an upload: a pure rule.
//!
//! T is the time since the first byte of the body, pauses included. P is the part of T in which a backend's queue
//! was full while another's had room, so that this backend alone held up the client. It is dropped when
//! P > `SlowBackendTimeout` + T/2: a dead backend costs a long upload twice the timeout once, and one that is a
//! little slower than the client is waited for. With two backends this is "only its queue was full"; with more,
//! two dead ones must not protect each other.

use std::time::{Duration, Instant};

/// A sub-request's queue at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The sub-request has ended.
    Gone,
    Free,
    Full,
}

/// The books of one upload.
#[derive(Debug)]
pub struct Pace {
    allowance: Duration,
    started: Option<Instant>,
    /// When `rooms` was last true.
    at: Option<Instant>,
    rooms: Vec<Room>,
    held_up: Vec<Duration>,
}

impl Pace {
    pub fn new(subs: usize, allowance: Duration) -> Self {
        Pace {
            allowance,
            started: None,
            at: None,
            rooms: vec![Room::Free; subs],
            held_up: vec![Duration::ZERO; subs],
        }
    }

    /// Books the time since the last call to the state given then, and takes the new state.
    pub fn observe(&mut self, now: Instant, rooms: impl Iterator<Item = Room>) {
        self.started.get_or_insert(now);
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if self.rooms.contains(&Room::Free) {
            for (held_up, room) in self.held_up.iter_mut().zip(&self.rooms) {
                if *room == Room::Full {
                    *held_up += passed;
                }
            }
        }
        self.at = Some(now);
        self.rooms.clear();
        self.rooms.extend(rooms);
    }

    /// The state of the queues as last observed.
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// A backend to be dropped now, if any.
    pub fn overdue(&self) -> Option<usize> {
        let limit = self.allowance + self.elapsed() / 2;
        let alone = !self.rooms.contains(&Room::Free);
        if alone {
            return None;
        }
        (0..self.rooms.len()).find(|sub| self.rooms[*sub] == Room::Full && self.held_up[*sub] > limit)
    }

    /// How long until a backend could become overdue if nothing changes.
    pub fn next_check(&self) -> Option<Duration> {
        if !self.rooms.contains(&Room::Free) {
            return None;
        }
        let budget = self.allowance * 2 + self.elapsed();
        let full = (0..self.rooms.len()).filter(|sub| self.rooms[*sub] == Room::Full);
        // One millisecond more, since the rule asks for more than the limit.
        full.map(|sub| budget.saturating_sub(self.held_up[sub] * 2) + Duration::from_millis(1)).min()
    }

    fn elapsed(&self) -> Duration {
        match (self.started, self.at) {
            (Some(started), Some(at)) => at.saturating_duration_since(started),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Room::*, *};

    const ALLOWANCE: Duration = Duration::from_secs(5);

    /// Plays (seconds, state from then on); returns the first moment at which someone is overdue.
    fn play(script: &[(f64, &[Room])]) -> Option<(f64, usize)> {
        let start = Instant::now();
        let mut pace = Pace::new(script[0].1.len(), ALLOWANCE);
        for (second, rooms) in script {
            pace.observe(start + Duration::from_secs_f64(*second), rooms.iter().copied());
            if let Some(sub) = pace.overdue() {
                return Some((*second, sub));
            }
        }
        None
    }

    #[test]
    fn a_dead_backend_costs_twice_the_timeout() {
        assert_eq!(
            play(&[(0.0, &[Free, Full]), (9.9, &[Free, Full]), (10.1, &[Free, Full])]),
            Some((10.1, 1))
        );
    }

    #[test]
    fn one_a_little_slower_than_the_client_is_waited_for() {
        // Full two fifths of the time, for ten minutes.
        let script: Vec<(f64, &[Room])> = (0..600)
            .flat_map(|second| {
                let second = f64::from(second);
                [(second, [Free, Full].as_slice()), (second + 0.4, [Free, Free].as_slice())]
            })
            .collect();
        assert_eq!(play(&script), None);
    }

    #[test]
    fn the_last_healthy_backend_is_never_dropped() {
        assert_eq!(play(&[(0.0, &[Gone, Full]), (600.0, &[Gone, Full])]), None);
        assert_eq!(play(&[(0.0, &[Full, Full]), (600.0, &[Full, Full])]), None);
    }

    #[test]
    fn two_dead_backends_of_three_do_not_protect_each_other() {
        assert_eq!(play(&[(0.0, &[Free, Full, Full]), (11.0, &[Free, Full, Full])]), Some((11.0, 1)));
    }

    #[test]
    fn the_next_check_falls_on_the_moment_of_being_overdue() {
        let start = Instant::now();
        let mut pace = Pace::new(2, ALLOWANCE);
        pace.observe(start, [Free, Free].into_iter());
        assert_eq!(pace.next_check(), None);
        pace.observe(start + Duration::from_secs(2), [Free, Full].into_iter());
        let wait = pace.next_check().unwrap();
        assert_eq!(wait, Duration::from_secs(12) + Duration::from_millis(1));
        pace.observe(start + Duration::from_secs(2) + wait, [Free, Full].into_iter());
        assert_eq!(pace.overdue(), Some(1));
    }
}

//! Which write took effect before which, as far as that is known.

use crate::journal::Record;

/// Which of the writes took effect before which, as far as is known.
#[derive(Debug)]
pub(super) struct Order(Vec<Vec<bool>>);

impl Order {
    pub fn new(writes: &[&Record], clock_bound: i64) -> Order {
        let known = |a: &Record, b: &Record| is_before(a, b, clock_bound);
        let mut before: Vec<Vec<bool>> =
            writes.iter().map(|a| writes.iter().map(|b| known(a, b)).collect()).collect();
        // What is before something is before all that comes after it.
        for via in 0..writes.len() {
            for a in 0..writes.len() {
                for b in 0..writes.len() {
                    before[a][b] |= before[a][via] && before[via][b];
                }
            }
        }
        Order(before)
    }

    /// Whether write `a` took effect before write `b`.
    pub fn before(&self, a: usize, b: usize) -> bool {
        self.0[a][b]
    }

    pub fn is_newest(&self, a: usize) -> bool {
        !self.0[a].contains(&true)
    }
}

/// Whether one write is known to be before another.
pub(super) fn is_before(a: &Record, b: &Record, clock_bound: i64) -> bool {
    // The journal saw the end of the one before the other began.
    if a.turn.zip(b.intent.turn).is_some_and(|(ended, begun)| ended < begun) {
        return true;
    }
    if a.intent.id.gateway != b.intent.id.gateway {
        return a.ended.saturating_add(clock_bound) < b.intent.begun;
    }
    match (a.commit, b.commit) {
        (Some(one), Some(other)) => one < other,
        _ => a.ended < b.intent.begun,
    }
}

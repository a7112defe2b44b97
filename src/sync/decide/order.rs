//! Which write took effect before which, as far as that is known.

use crate::journal::{Record, What};

const BITS: usize = u64::BITS as usize;

/// Which of the writes took effect before which. A square of bits: its rows are joined a word at a time, so that some
/// thousand records are put in order within milliseconds.
#[derive(Debug)]
pub(super) struct Order {
    /// Row by row, those that a write is before.
    bits: Vec<u64>,
    /// Words of a row.
    width: usize,
}

impl Order {
    pub fn new(writes: &[&Record], clock_bound: i64) -> Order {
        let width = writes.len().div_ceil(BITS);
        let mut order = Order { bits: vec![0; width * writes.len()], width };
        for (a, one) in writes.iter().enumerate() {
            for (b, other) in writes.iter().enumerate() {
                if is_before(one, other, clock_bound) {
                    order.bits[a * width + b / BITS] |= 1 << (b % BITS);
                }
            }
        }
        order.close(writes.len());
        order.part(writes.len());
        order
    }

    /// What is before something is before all that comes after it.
    fn close(&mut self, count: usize) {
        let mut after = Vec::with_capacity(self.width);
        for via in 0..count {
            after.clear();
            after.extend_from_slice(self.row(via));
            for a in 0..count {
                if self.before(a, via) {
                    let row = &mut self.bits[a * self.width..][..self.width];
                    row.iter_mut().zip(&after).for_each(|(word, more)| *word |= more);
                }
            }
        }
    }

    /// Where clocks and gateways contradict each other nothing is known.
    fn part(&mut self, count: usize) {
        for a in 0..count {
            for b in 0..=a {
                if self.before(a, b) && self.before(b, a) {
                    self.bits[a * self.width + b / BITS] &= !(1 << (b % BITS));
                    self.bits[b * self.width + a / BITS] &= !(1 << (a % BITS));
                }
            }
        }
    }

    fn row(&self, a: usize) -> &[u64] {
        &self.bits[a * self.width..][..self.width]
    }

    /// Whether write `a` took effect before write `b`.
    pub fn before(&self, a: usize, b: usize) -> bool {
        self.row(a)[b / BITS] >> (b % BITS) & 1 == 1
    }

    pub fn is_newest(&self, a: usize) -> bool {
        self.row(a).iter().all(|word| *word == 0)
    }
}

/// Whether one write is known to be before another, or may be taken for it: where neither was over when the other began,
/// no client can tell.
pub(super) fn is_before(a: &Record, b: &Record, clock_bound: i64) -> bool {
    // The journal saw the end of the one before the other began.
    let is_seen = |a: &Record, b: &Record| a.turn.zip(b.intent.turn).is_some_and(|(end, begin)| end < begin);
    if is_seen(a, b) {
        return true;
    }
    if a.id().gateway != b.id().gateway {
        return a.ended.saturating_add(clock_bound) < b.intent.begun;
    }
    // When a dead gateway's write ended is told by another clock than its own.
    let was_over = |a: &Record, b: &Record| !a.replies.is_empty() && a.ended < b.intent.begun;
    match (a.commit, b.commit) {
        (Some(one), Some(other)) => one < other,
        _ if was_over(a, b) => true,
        // What a read has seen may have been so before the read had its number.
        _ if is_sighting(a) || is_sighting(b) => false,
        // The gateway told nobody which it sent first.
        _ => a.id().number < b.id().number && !is_seen(b, a) && !was_over(b, a),
    }
}

fn is_sighting(record: &Record) -> bool {
    matches!(record.intent.what, What::Seen | What::Misplaced(_))
}

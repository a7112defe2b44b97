//! The tee: one client body, one bounded queue per sub-request, and the commit gate.
//!
//! Pieces are reference-counted and never copied. A queue that is full pauses reading from the client. The piece
//! that would complete the body at the backend is held back until [`Queue::commit`], so that no backend can
//! store an object whose upload did not end properly, and so that writes to one object take effect in one order.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::order::Ticket;
use crate::telemetry::metrics::IntGauge;

/// The largest piece that a client's body is read in.
pub const LARGEST_PIECE: usize = 64 * 1024;
/// What a piece costs beside its bytes, so that a body of one-byte chunks cannot fill memory.
pub(super) const PIECE_OVERHEAD: usize = 64;

/// The queue between the client's body and one sub-request.
pub struct Queue {
    limit: usize,
    state: Mutex<State>,
    /// Bytes that wait for this backend in all queues.
    waiting: IntGauge,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    weight: usize,
    /// The piece that completes the body.
    held: Bytes,
    gate: Gate,
    waker: Option<Waker>,
    /// The sub-request has ended and takes nothing more.
    closed: bool,
}

#[derive(Default)]
enum Gate {
    #[default]
    Shut,
    Open(Option<Ticket>),
    Passed,
}

/// What a sub-request takes from its queue.
pub enum Piece {
    Data(Bytes),
    /// The end: the bytes that were held back, and the turn to wait for before they are sent.
    Last(Bytes, Option<Ticket>),
}

impl Queue {
    /// A queue for `limit` bytes (`ReplicaBuffer`) and the end from which its sub-request takes.
    pub fn new(limit: usize, waiting: IntGauge) -> (Arc<Queue>, Feed) {
        let queue = Arc::new(Queue { limit, state: Mutex::default(), waiting });
        (queue.clone(), Feed { queue })
    }

    /// Adds a piece; `last` if it completes the body, then it waits for the gate.
    pub fn push(&self, piece: Bytes, last: bool) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        if last {
            self.waiting.add(piece.len() as i64);
            state.held = piece;
            return;
        }
        state.weight += piece.len() + PIECE_OVERHEAD;
        self.waiting.add((piece.len() + PIECE_OVERHEAD) as i64);
        state.pieces.push_back(piece);
        wake(&mut state);
    }

    /// Opens the gate: the body ended properly.
    pub fn commit(&self, ticket: Option<Ticket>) {
        let mut state = self.state();
        if !state.closed {
            state.gate = Gate::Open(ticket);
            wake(&mut state);
        }
    }

    /// Whether another piece fits.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.closed || state.weight + LARGEST_PIECE <= self.limit || state.weight == 0
    }

    /// Bytes that wait here.
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state.weight + state.held.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(state: &mut State) {
    if let Some(waker) = state.waker.take() {
        waker.wake();
    }
}

/// A sub-request's end of its queue; dropping it closes the queue.
pub struct Feed {
    queue: Arc<Queue>,
}

impl Feed {
    /// The next piece if one is there.
    pub fn try_next(&mut self) -> Option<Piece> {
        let mut state = self.queue.state();
        if let Some(piece) = state.pieces.pop_front() {
            state.weight -= piece.len() + PIECE_OVERHEAD;
            self.queue.waiting.sub((piece.len() + PIECE_OVERHEAD) as i64);
            return Some(Piece::Data(piece));
        }
        match std::mem::take(&mut state.gate) {
            Gate::Open(ticket) => {
                state.gate = Gate::Passed;
                self.queue.waiting.sub(state.held.len() as i64);
                Some(Piece::Last(std::mem::take(&mut state.held), ticket))
            }
            gate => {
                state.gate = gate;
                None
            }
        }
    }

    /// Waits until [`Feed::try_next`] has something. May be cancelled.
    pub async fn ready(&mut self) {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.queue.state();
        if !state.pieces.is_empty() || matches!(state.gate, Gate::Open(_)) {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.queue.state(), State { closed: true, ..State::default() });
        self.queue.waiting.sub((state.weight + state.held.len()) as i64);
        // Outside the lock: a ticket's end takes locks of its own.
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(limit: usize) -> (Arc<Queue>, Feed) {
        Queue::new(limit, IntGauge::new("waiting", "of a test").unwrap())
    }

    fn data(feed: &mut Feed) -> Option<Bytes> {
        match feed.try_next() {
            Some(Piece::Data(bytes)) => Some(bytes),
            _ => None,
        }
    }

    #[test]
    fn the_piece_that_completes_the_body_waits_for_the_gate() {
        let (queue, mut feed) = queue(1 << 20);
        queue.push("one".into(), false);
        queue.push("two".into(), true);
        assert_eq!(data(&mut feed).unwrap(), "one");
        assert!(feed.try_next().is_none(), "the end came before the commit");
        queue.commit(None);
        assert!(matches!(feed.try_next(), Some(Piece::Last(bytes, None)) if bytes == "two"));
        assert!(feed.try_next().is_none(), "the end came twice");
    }

    #[test]
    fn a_full_queue_says_so_and_one_byte_pieces_count_for_what_they_cost() {
        let (queue, mut feed) = queue(2 * LARGEST_PIECE);
        assert!(queue.has_room());
        for _ in 0..2_000 {
            queue.push("x".into(), false);
        }
        assert!(!queue.has_room());
        while data(&mut feed).is_some() {}
        assert!(queue.has_room());
        assert_eq!((queue.waiting(), queue.waiting.get()), (0, 0));
    }

    #[test]
    fn a_sub_request_that_has_ended_takes_nothing_and_holds_up_nobody() {
        let (queue, feed) = queue(LARGEST_PIECE);
        queue.push(Bytes::from(vec![0; LARGEST_PIECE]), false);
        assert!(!queue.has_room());
        assert!(queue.waiting.get() > LARGEST_PIECE as i64);
        drop(feed);
        queue.push("late".into(), false);
        assert!(queue.has_room());
        assert_eq!((queue.waiting(), queue.waiting.get()), (0, 0));
    }
}

//! What a log has still to write, per destination, and the threads that write it.
//!
//! Each destination has a thread, a queue of batches shared with the others, and its own place in them: one
//! that fails or hangs stops no other. A batch leaves a queue when its last byte is written, so a write that
//! failed is tried again (100 ms, doubling to 5 s) from the very byte where it stopped. A file is opened anew between
//! two writes; a line that the old one has a part of is written whole to the new one.
//!
//! Queues are bounded in bytes. One whose destination is merely slow holds the log up. One whose destination
//! fails, or has taken nothing for five seconds, does not, as long as another destination takes the lines: they
//! are then counted as missed by the first. When all are full, the log's task waits, then its channel fills.
//! So every line that was pushed is in some queue until some destination has written it.

mod write_out;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    destination::Destination,
    metrics::{DestinationMetrics, METRICS},
    report::Report,
};

/// The bounds of a backlog; tests take smaller ones.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A queue with this many bytes takes no further batch.
    pub queue_bytes: usize,
    /// A write that takes longer is a destination that hangs.
    pub hangs_after: Duration,
    pub first_retry: Duration,
    pub last_retry: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queue_bytes: 8 << 20,
            hangs_after: Duration::from_secs(5),
            first_retry: Duration::from_millis(100),
            last_retry: Duration::from_secs(5),
        }
    }
}

/// Whole lines, written at once.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    pub lines: u64,
}

/// The queues of one log.
#[derive(Debug)]
pub struct Backlog {
    log: &'static str,
    limits: Limits,
    labels: Vec<Label>,
    state: Mutex<State>,
    /// The threads wait on it.
    changed: Condvar,
    /// Notified whenever a queue becomes empty.
    emptied: Notify,
}

#[derive(Debug)]
struct Label {
    name: String,
    metrics: DestinationMetrics,
    trouble: Report,
    missed: Report,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    queues: Vec<Queue>,
    pushed: u64,
    /// After giving up: batches that no destination has written, in order.
    unwritten: Vec<Arc<Queued>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Somebody waits for empty queues: no long pauses now.
    Flushing,
    /// Queues are empty for good, their threads end; what is pushed comes back.
    GivenUp,
    /// No more pushes; threads end when their queues are empty.
    Closed,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Arc<Queued>>,
    bytes: usize,
    /// Bytes of the first batch that are written.
    written: usize,
    /// The last write failed.
    failing: bool,
    /// Its file is to be opened anew.
    reopen: bool,
    /// Start of the write that is under way, or its last progress.
    busy_since: Option<Instant>,
}

#[derive(Debug)]
struct Queued {
    number: u64,
    batch: Batch,
    /// By at least one destination, to its last byte.
    written: AtomicBool,
}

impl Queue {
    /// Whether a full queue holds the log up.
    fn worth_waiting(&self, limits: &Limits) -> bool {
        !self.failing && self.busy_since.is_none_or(|since| since.elapsed() < limits.hangs_after)
    }
}

impl State {
    /// Whether a batch can be pushed now.
    fn open(&self, limits: &Limits) -> bool {
        let full = |queue: &Queue| queue.bytes >= limits.queue_bytes;
        self.queues.iter().any(|queue| !full(queue))
            && !self.queues.iter().any(|queue| full(queue) && queue.worth_waiting(limits))
    }
}

impl Backlog {
    pub fn new(log: &'static str, destinations: &[Destination], limits: Limits) -> Backlog {
        METRICS.limit("log_backlog_bytes", limits.queue_bytes as u64);
        let label = |destination: &Destination| Label {
            name: destination.to_string(),
            metrics: DestinationMetrics::of(log, destination.label()),
            trouble: Report::new(log),
            missed: Report::new(log),
        };
        let queues = destinations.iter().map(|_| Queue::default()).collect();
        Backlog {
            log,
            limits,
            labels: destinations.iter().map(label).collect(),
            state: Mutex::new(State { phase: Phase::Running, queues, pushed: 0, unwritten: Vec::new() }),
            changed: Condvar::new(),
            emptied: Notify::new(),
        }
    }

    /// Starts the thread of each destination, in the order of [`Backlog::new`].
    pub fn start(self: &Arc<Backlog>, destinations: Vec<Destination>) -> io::Result<()> {
        for (index, destination) in destinations.into_iter().enumerate() {
            let backlog = Arc::clone(self);
            let name = format!("{} {}", self.log, destination.label());
            thread::Builder::new().name(name).spawn(move || backlog.write_out(index, destination))?;
        }
        Ok(())
    }

    /// Queues a batch for every destination, waiting for room. After [`Backlog::give_up`] it comes back.
    pub fn push(&self, batch: Batch) -> Result<(), Batch> {
        let mut state = self.lock();
        while state.phase != Phase::GivenUp && !state.open(&self.limits) {
            // Waking now and then: that a destination hangs is seen by the clock only.
            let waited = self.changed.wait_timeout(state, self.limits.hangs_after / 4);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.phase == Phase::GivenUp {
            return Err(batch);
        }
        let (size, lines) = (batch.bytes.len(), batch.lines);
        let queued = Arc::new(Queued { number: state.pushed, batch, written: AtomicBool::new(false) });
        state.pushed += 1;
        let mut missing = Vec::new();
        for (queue, label) in state.queues.iter_mut().zip(&self.labels) {
            if queue.bytes >= self.limits.queue_bytes {
                label.metrics.missed.inc_by(lines);
                missing.push(label);
            } else {
                queue.bytes += size;
                label.metrics.backlog.add(size as i64);
                queue.batches.push_back(Arc::clone(&queued));
            }
        }
        drop(state);
        self.changed.notify_all();
        for Label { name, missed, .. } in missing {
            let log = self.log;
            missed.error(format_args!(
                "{log}: {name} misses {lines} lines: its queue is full; others take them"
            ));
        }
        Ok(())
    }

    /// Lets every file be opened anew before anything more is written to it.
    pub fn reopen(&self) {
        self.lock().queues.iter_mut().for_each(|queue| queue.reopen = true);
        self.changed.notify_all();
    }

    /// Ends the threads once they have written everything.
    pub fn close(&self) {
        self.set_phase(Phase::Closed);
    }

    /// Waits until every queue is empty, with pauses between tries cut short. Cancel-safe.
    pub async fn emptied(&self) {
        self.set_phase(Phase::Flushing);
        loop {
            let emptied = self.emptied.notified();
            if self.lock().queues.iter().all(|queue| queue.batches.is_empty()) {
                break;
            }
            emptied.await;
        }
        self.set_phase(Phase::Running);
    }

    /// Stops writing. What no destination has written can then be had from [`Backlog::take_unwritten`];
    /// a batch that was being written just now counts as unwritten.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.phase = Phase::GivenUp;
        for (queue, label) in state.queues.iter_mut().zip(&self.labels) {
            label.metrics.backlog.sub(std::mem::take(&mut queue.bytes) as i64);
        }
        let drained = state.queues.iter_mut().flat_map(|queue| queue.batches.drain(..));
        let pending: BTreeMap<u64, Arc<Queued>> = drained.map(|queued| (queued.number, queued)).collect();
        state.unwritten = pending.into_values().filter(|queued| !queued.written.load(Relaxed)).collect();
        drop(state);
        self.changed.notify_all();
    }

    /// After [`Backlog::give_up`], once: what no destination has written, in order.
    pub fn take_unwritten(&self) -> Vec<Batch> {
        let unwritten = std::mem::take(&mut self.lock().unwritten);
        let own = |queued: Arc<Queued>| match Arc::try_unwrap(queued) {
            Ok(queued) => queued.batch,
            Err(shared) => Batch { bytes: shared.batch.bytes.clone(), lines: shared.batch.lines },
        };
        unwritten.into_iter().map(own).collect()
    }

    fn set_phase(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != Phase::GivenUp {
            state.phase = phase;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{write_out::Work, *};
    use crate::telemetry::scripted::Scripted;

    #[test]
    fn a_file_that_is_opened_anew_gets_a_torn_line_whole() {
        let backlog = Backlog::new("test-reopen", &[Scripted::takes().destination()], Limits::default());
        backlog.push(Batch { bytes: b"one\ntwo\n".to_vec(), lines: 2 }).unwrap();
        for (taken, behind) in [(2, 0), (4, 4), (2, 4)] {
            backlog.advance(0, taken);
            backlog.reopen();
            assert!(matches!(backlog.next(0), Some(Work::Reopen)));
            backlog.to_start_of_line(0);
            let Some(Work::Write(_, offset)) = backlog.next(0) else { panic!("nothing to write") };
            assert_eq!(offset, behind);
        }
    }
}

//! The thread of a destination: takes one batch after another, writes what is left of it, and tries again.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Backlog, Label, Phase, Queued};
use crate::telemetry::{destination::Destination, report::Report};

/// What a destination's thread has to do.
pub(super) enum Work {
    /// The batch, and how much of it is written.
    Write(Arc<Queued>, usize),
    Reopen,
}

impl Backlog {
    /// The life of a destination's thread.
    pub(super) fn write_out(&self, index: usize, mut destination: Destination) {
        let (log, Label { name, metrics, trouble, .. }) = (self.log, &self.labels[index]);
        let mut failing_since: Option<Instant> = None;
        let mut pause = self.limits.first_retry;
        while let Some(work) = self.next(index) {
            let Work::Write(queued, offset) = work else {
                self.reopen_one(index, &mut destination);
                continue;
            };
            let rest = &queued.batch.bytes[offset..];
            match destination.write(rest, &mut |n| self.advance(index, n)) {
                Ok(()) => {
                    if let Some(since) = failing_since.take() {
                        let seconds = since.elapsed().as_secs();
                        trouble.over(format_args!("{log}: {name} is written again after {seconds} s"));
                    }
                    pause = self.limits.first_retry;
                }
                Err(error) => {
                    metrics.errors.inc();
                    failing_since.get_or_insert_with(Instant::now);
                    trouble
                        .error(format_args!("{log}: cannot write to {name}: {error}; nothing is lost yet"));
                    self.pause(index, pause);
                    pause = (pause * 2).min(self.limits.last_retry);
                }
            }
        }
    }

    fn reopen_one(&self, index: usize, destination: &mut Destination) {
        let (log, Label { name, metrics, .. }) = (self.log, &self.labels[index]);
        match destination.reopen() {
            Ok(true) => {
                self.to_start_of_line(index);
                log::info!("{log}: {name} was opened anew");
            }
            Ok(false) => {}
            Err(error) => {
                metrics.errors.inc();
                // Not throttled: whoever asked for it waits for an answer.
                let what = format!(
                    "{log}: {name} cannot be opened anew: {error}; the file that was open is written on"
                );
                Report::new(log).error(format_args!("{what}"));
            }
        }
    }

    /// Behind the last whole line that is written.
    pub(super) fn to_start_of_line(&self, index: usize) {
        let mut state = self.lock();
        let queue = &mut state.queues[index];
        let Some(queued) = queue.batches.front() else { return };
        let written = &queued.batch.bytes[..queue.written];
        queue.written = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    }

    /// What is to be done; waits for something. `None`: the thread shall end.
    pub(super) fn next(&self, index: usize) -> Option<Work> {
        let mut state = self.lock();
        loop {
            let phase = state.phase;
            let queue = &mut state.queues[index];
            if std::mem::take(&mut queue.reopen) {
                return Some(Work::Reopen);
            }
            if let Some(queued) = queue.batches.front() {
                queue.busy_since = Some(Instant::now());
                return Some(Work::Write(Arc::clone(queued), queue.written));
            }
            if matches!(phase, Phase::GivenUp | Phase::Closed) {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// `n` more bytes of the first batch are written.
    pub(super) fn advance(&self, index: usize, n: usize) {
        let mut state = self.lock();
        let queue = &mut state.queues[index];
        queue.written += n;
        queue.busy_since = Some(Instant::now());
        // None is there after giving up.
        let whole = |queued: &mut Arc<Queued>| queue.written >= queued.batch.bytes.len();
        let Some(queued) = queue.batches.pop_front_if(whole) else { return };
        queued.written.store(true, Relaxed);
        queue.bytes -= queued.batch.bytes.len();
        self.labels[index].metrics.backlog.sub(queued.batch.bytes.len() as i64);
        self.labels[index].metrics.written.inc_by(queued.batch.lines);
        (queue.written, queue.failing, queue.busy_since) = (0, false, None);
        let empty = queue.batches.is_empty();
        drop(state);
        self.changed.notify_all();
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// After a failed write: waits `pause`, or just the shortest one while somebody waits for the end.
    fn pause(&self, index: usize, pause: Duration) {
        let mut state = self.lock();
        state.queues[index].failing = true;
        self.changed.notify_all();
        let start = Instant::now();
        loop {
            let pause = if state.phase == Phase::Running { pause } else { self.limits.first_retry };
            let left = pause.saturating_sub(start.elapsed());
            if left.is_zero() || state.phase == Phase::GivenUp || state.queues[index].reopen {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

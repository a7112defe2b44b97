//! One log: a bounded channel, and a task that turns what comes out of it into lines.
//!
//! Entries are owned and unformatted; the task drains them in batches, formats them and hands the batch to the
//! destinations' threads ([`backlog`](super::backlog)). So a caller pays for moving an entry, never for JSON
//! and never for a disk. Nor does it pay for waking the task: after a batch the task rests for a moment before it
//! looks again, so under load it is woken [some fifty times](PAUSE) a second and not for every line, while the
//! first line after a silence is written at once. The task is a thread: it may have to wait for disks, it outlives a runtime that shuts
//! down, and it is started by [`LogChannel::start`], after the process has become a daemon.
//!
//! A full channel is the caller's choice: [`LogChannel::offer`] gives the entry up, [`LogChannel::send`] waits
//! for room. An entry whose `send` is cancelled in its wait is kept aside and written with the next batch.

use std::{
    fmt, io,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::{mpsc, mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{
    backlog::{Backlog, Batch, Limits},
    destination::Destination,
    metrics::{LogMetrics, METRICS},
    report::Report,
};

/// Entries drained at once.
const BATCH_LINES: usize = 512;
/// Rest after a batch that leaves the channel room for as long. Waking a sleeping thread costs as much as a third of
/// a small request.
const PAUSE: Duration = Duration::from_millis(20);
/// How long writing to stderr may take once a flush has passed its deadline.
const LAST_RESORT: Duration = Duration::from_secs(1);

/// Appends an entry's line to the buffer, or nothing if the entry is not to be printed.
pub type Encode<T> = Arc<dyn Fn(&T, &mut Vec<u8>) -> serde_json::Result<()> + Send + Sync>;

/// The handle of one log. Cheap to clone.
pub struct LogChannel<T>(Arc<Inner<T>>);

struct Inner<T> {
    log: &'static str,
    /// No destination: entries are taken and forgotten.
    off: bool,
    sender: mpsc::Sender<Message<T>>,
    /// Entries whose `send` was cancelled.
    strays: Arc<Mutex<Vec<T>>>,
    backlog: Arc<Backlog>,
    encode: Encode<T>,
    idle: Mutex<Option<Idle<T>>>,
    started: AtomicBool,
    metrics: LogMetrics,
    full: Report,
}

/// What the task needs, before it is started.
struct Idle<T> {
    receiver: mpsc::Receiver<Message<T>>,
    destinations: Vec<Destination>,
}

enum Message<T> {
    Entry(T),
    /// To be answered when everything before it was handed to the destinations' queues.
    Barrier(oneshot::Sender<()>),
}

impl<T: Send + 'static> LogChannel<T> {
    /// A channel of `capacity` entries to `destinations`; none means that the log is off.
    pub fn new(
        log: &'static str,
        destinations: Vec<Destination>,
        capacity: usize,
        limits: Limits,
        encode: Encode<T>,
    ) -> LogChannel<T> {
        let (sender, receiver) = mpsc::channel(capacity);
        if !destinations.is_empty() {
            METRICS.limit(&format!("{log}_lines"), capacity as u64);
        }
        LogChannel(Arc::new(Inner {
            log,
            off: destinations.is_empty(),
            sender,
            strays: Arc::default(),
            backlog: Arc::new(Backlog::new(log, &destinations, limits)),
            encode,
            idle: Mutex::new(Some(Idle { receiver, destinations })),
            started: AtomicBool::new(false),
            metrics: LogMetrics::of(log),
            full: Report::new(log),
        }))
    }

    /// Starts the threads, once; later calls do nothing. Entries given before wait in the channel.
    pub fn start(&self) -> io::Result<()> {
        let inner = &*self.0;
        let Some(Idle { receiver, destinations }) = lock(&inner.idle).take() else { return Ok(()) };
        if inner.off {
            inner.started.store(true, Relaxed);
            return Ok(());
        }
        inner.backlog.start(destinations)?;
        let task = Task {
            log: inner.log,
            receiver,
            strays: Arc::clone(&inner.strays),
            backlog: Arc::clone(&inner.backlog),
            encode: Arc::clone(&inner.encode),
            metrics: inner.metrics.clone(),
            broken: Report::new(inner.log),
        };
        thread::Builder::new().name(inner.log.to_string()).spawn(move || task.run())?;
        inner.started.store(true, Relaxed);
        Ok(())
    }

    /// Opens the log's file anew, as soon as what is being written is written. Does not wait for that.
    pub fn reopen(&self) {
        self.0.backlog.reopen();
    }

    pub fn is_started(&self) -> bool {
        self.0.started.load(Relaxed)
    }

    /// Whether the log has no destination.
    pub fn is_off(&self) -> bool {
        self.0.off
    }

    /// Hands an entry over if there is room; else it is dropped, counted, and the answer is `false`.
    pub fn offer(&self, entry: T) -> bool {
        let inner = &*self.0;
        if inner.off {
            return true;
        }
        inner.metrics.queue.inc();
        match inner.sender.try_reserve() {
            Ok(permit) => {
                permit.send(Message::Entry(entry));
                true
            }
            Err(_) => {
                inner.metrics.queue.dec();
                inner.metrics.dropped.inc();
                false
            }
        }
    }

    /// Hands an entry over, waiting for room if there is none; nothing is ever dropped.
    pub async fn send(&self, entry: T) {
        let inner = &*self.0;
        if inner.off {
            return;
        }
        inner.metrics.queue.inc();
        match inner.sender.try_reserve() {
            Ok(permit) => permit.send(Message::Entry(entry)),
            Err(TrySendError::Full(())) => inner.wait_for_room(entry).await,
            Err(TrySendError::Closed(())) => inner.without_task(&entry),
        }
    }

    /// Waits until everything handed over before is written, at most until `deadline`. `true` if it is.
    /// Pauses between tries of a failing destination are cut short meanwhile.
    pub async fn flush(&self, deadline: Instant) -> bool {
        if self.0.off {
            return true;
        }
        if let Err(error) = self.start() {
            self.0.full.error(format_args!("{}: cannot start its threads: {error}", self.0.log));
            return false;
        }
        let drained = async {
            self.barrier().await;
            self.0.backlog.emptied().await;
        };
        timeout_at(deadline, drained).await.is_ok()
    }

    /// [`LogChannel::flush`]; what is not written by the deadline goes to stderr, as does all that comes
    /// later. Takes at most a second past the deadline.
    pub async fn flush_or_rescue(&self, deadline: Instant) {
        if self.flush(deadline).await {
            return;
        }
        let log = self.0.log;
        log::error!("{log}: not written in time: what is left goes to stderr");
        self.0.backlog.give_up();
        if timeout(LAST_RESORT, self.barrier()).await.is_err() {
            log::error!("{log}: stderr does not take what is left either: lines are lost");
        }
    }

    async fn barrier(&self) {
        let (reached, reach) = oneshot::channel();
        if self.0.sender.send(Message::Barrier(reached)).await.is_ok() {
            // An error means that the task is gone, and so nothing is left to wait for.
            reach.await.ok();
        }
    }
}

impl<T> Inner<T> {
    async fn wait_for_room(&self, entry: T) {
        self.metrics.waits.inc();
        let (log, capacity) = (self.log, self.sender.max_capacity());
        self.full
            .error(format_args!("{log}: its channel of {capacity} lines is full: requests wait for room"));
        let mut waiting = Waiting { entry: Some(entry), strays: &self.strays };
        let room = self.sender.reserve().await;
        let Some(entry) = waiting.entry.take() else { return };
        match room {
            Ok(permit) => permit.send(Message::Entry(entry)),
            Err(_) => self.without_task(&entry),
        }
    }

    /// The task has died, which is a bug; the line is worth more than the caller's time.
    fn without_task(&self, entry: &T) {
        let mut batch = Batch::default();
        self.metrics.queue.dec();
        if (self.encode)(entry, &mut batch.bytes).is_ok() && !batch.bytes.is_empty() {
            batch.lines = 1;
            rescue(&batch, &self.metrics);
        }
    }
}

impl<T> Clone for LogChannel<T> {
    fn clone(&self) -> LogChannel<T> {
        LogChannel(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for LogChannel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogChannel").field(&self.0.log).finish()
    }
}

/// An entry that waits for room; when the wait is cancelled it is kept.
struct Waiting<'a, T> {
    entry: Option<T>,
    strays: &'a Mutex<Vec<T>>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        lock(self.strays).extend(self.entry.take());
    }
}

/// The task of one log.
struct Task<T> {
    log: &'static str,
    receiver: mpsc::Receiver<Message<T>>,
    strays: Arc<Mutex<Vec<T>>>,
    backlog: Arc<Backlog>,
    encode: Encode<T>,
    metrics: LogMetrics,
    broken: Report,
}

impl<T> Task<T> {
    /// Until all handles are gone.
    fn run(mut self) {
        let mut messages = Vec::with_capacity(BATCH_LINES);
        let mut handles_left = true;
        while handles_left {
            handles_left = self.receiver.blocking_recv_many(&mut messages, BATCH_LINES) > 0;
            let busy = messages.len() >= BATCH_LINES.min(self.receiver.max_capacity() / 2);
            let mut batch = Batch::default();
            let mut barriers = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Entry(entry) => self.print(&entry, &mut batch),
                    Message::Barrier(reached) => barriers.push(reached),
                }
            }
            let strays = std::mem::take(&mut *lock(&self.strays));
            strays.iter().for_each(|entry| self.print(entry, &mut batch));
            self.hand_on(batch);
            // Whoever flushes may be about to end the process.
            let flushing = !barriers.is_empty();
            for reached in barriers {
                // Whoever waited may have passed its deadline.
                reached.send(()).ok();
            }
            if handles_left && !busy && !flushing {
                thread::sleep(PAUSE);
            }
        }
        self.backlog.close();
    }

    fn print(&self, entry: &T, batch: &mut Batch) {
        self.metrics.queue.dec();
        let before = batch.bytes.len();
        match (self.encode)(entry, &mut batch.bytes) {
            Ok(()) => batch.lines += u64::from(batch.bytes.len() > before),
            Err(error) => self.broken.error(format_args!("{}: an entry has no line: {error}", self.log)),
        }
    }

    fn hand_on(&self, batch: Batch) {
        let given_up = if batch.bytes.is_empty() { None } else { self.backlog.push(batch).err() };
        for batch in self.backlog.take_unwritten().iter().chain(&given_up) {
            rescue(batch, &self.metrics);
        }
    }
}

/// The last resort.
fn rescue(batch: &Batch, metrics: &LogMetrics) {
    metrics.rescued.inc_by(batch.lines);
    // There is nowhere left to report to.
    io::stderr().write_all(&batch.bytes).ok();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;

//! A gateway's way into its journal: one task puts all that waits there in one transaction, while the next one collects.
//!
//! Nobody on the way of a request waits for it but a write that must not begin before its intent is on disk. While the
//! journal is away those are refused at once, and what others have to say waits in memory, as far as there is room.

mod flush;
mod life;
mod rest;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout, timeout_at},
};

use self::{life::Enrolment, rest::Rest};
use super::{
    Change, Changes, Intent, Journal, JournalError, Live, Presence, WriteId,
    batch::{self, WAITING_MOST, Waiting},
    trouble::NowAndThen,
};
use crate::telemetry::metrics::{JournalMetrics, METRICS, WAITING_CHANGES};

/// The longest that a write waits for its intent to be on disk.
const INTENT: Duration = Duration::from_secs(5);
/// Between tries while the journal is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A journal that is replaced once more within this is one that does not rest.
const AGAIN: Duration = Duration::from_secs(30);

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Journal>, JournalError>> + Send>>;
/// Makes the engine; asked again until it does.
pub type Opener = Box<dyn Fn() -> Opening + Send + Sync>;

/// Somebody who waits for a batch.
type Token = oneshot::Sender<()>;

/// The write was not begun: the journal cannot be told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal is unavailable")]
pub struct Refused;

pub struct Writer {
    open: Opener,
    presence: Arc<Presence>,
    settle: Duration,
    /// Told when the journal is another one.
    replaced: Box<dyn Fn() + Send + Sync>,
    /// What the journal is told again if it may have lost it.
    live: Arc<Live>,
    engine: OnceLock<Arc<dyn Journal>>,
    waiting: Mutex<Queue>,
    wake: Notify,
    /// Told when nothing waits any more.
    drained: Notify,
    /// Told when a batch is in the journal.
    taken: Notify,
    closing: AtomicBool,
    /// This process, whatever journal it is in.
    name: String,
    enrolment: Mutex<Enrolment>,
    enrolled: Notify,
    numbers: AtomicI64,
    /// Up to which of them the journal may lack writes: it took the process for dead, or is another one since.
    orphaned: AtomicI64,
    unavailable: AtomicBool,
    trouble: NowAndThen,
    refusals: NowAndThen,
    losses: NowAndThen,
    metrics: JournalMetrics,
}

#[derive(Default)]
struct Queue {
    waiting: Waiting<Token>,
    /// When the task looks at it again by itself.
    looked_at: Option<Instant>,
}

impl Writer {
    pub fn new(open: Opener, presence: Presence, settle: Duration) -> Writer {
        METRICS.limit(WAITING_CHANGES, WAITING_MOST as u64);
        let metrics = JournalMetrics::of_process();
        metrics.unavailable.set(1);
        Writer {
            open,
            presence: Arc::new(presence),
            settle,
            replaced: Box::new(|| ()),
            live: Arc::default(),
            engine: OnceLock::new(),
            waiting: Mutex::default(),
            wake: Notify::new(),
            drained: Notify::new(),
            taken: Notify::new(),
            closing: AtomicBool::new(false),
            name: life::name(),
            enrolment: Mutex::default(),
            enrolled: Notify::new(),
            numbers: AtomicI64::new(0),
            orphaned: AtomicI64::new(0),
            unavailable: AtomicBool::new(true),
            trouble: NowAndThen::default(),
            refusals: NowAndThen::default(),
            losses: NowAndThen::default(),
            metrics,
        }
    }

    /// `tell` is called when the journal turns out to be another one, before that is told of any write. Must not block.
    pub fn when_replaced(mut self, tell: impl Fn() + Send + Sync + 'static) -> Writer {
        self.replaced = Box::new(tell);
        self
    }

    /// Of these writes the journal is told again when it may have lost their intents.
    pub fn telling_again(mut self, live: Arc<Live>) -> Writer {
        self.live = live;
        self
    }

    /// The engine, once it could be opened.
    pub fn engine(&self) -> Option<&Arc<dyn Journal>> {
        self.engine.get()
    }

    /// Whether it took what it was given last.
    pub fn is_available(&self) -> bool {
        !self.unavailable.load(Relaxed)
    }

    /// Its number in the journal; 0 while it has none.
    pub fn gateway(&self) -> i64 {
        self.enrolment().number
    }

    /// A name for a write.
    pub fn next_id(&self) -> WriteId {
        WriteId { gateway: self.gateway(), number: 1 + self.numbers.fetch_add(1, Relaxed) }
    }

    /// Whether a record was made of the write's intent, because the process was taken for dead since it got its name.
    pub fn was_taken_for_dead(&self, id: WriteId) -> bool {
        id.number <= self.orphaned.load(Relaxed)
    }

    /// Returns when the intents of a strong write are on disk; one that cannot wait for that is refused. Dropped, or in
    /// vain, it leaves none.
    pub async fn begin(&self, intents: &[Arc<Intent>]) -> Result<(), Refused> {
        self.begin_within(intents, INTENT).await.map_err(|why| {
            self.metrics.refused.inc();
            self.refusals
                .error(format_args!("writes are refused, because the journal cannot be told of them: {why}"));
            Refused
        })
    }

    /// `Err` says why.
    async fn begin_within(&self, intents: &[Arc<Intent>], patience: Duration) -> Result<(), String> {
        let Some(on_disk) = self.begin_now(intents) else {
            return Err("it is away, or too much waits for it".into());
        };
        let mut withdrawing = Withdrawing { writer: self, intents };
        match timeout(patience, on_disk).await {
            Ok(Ok(())) => {
                withdrawing.intents = &[];
                Ok(())
            }
            // The task has withdrawn them itself.
            Ok(Err(_)) => {
                withdrawing.intents = &[];
                Err("it failed".into())
            }
            Err(_) => Err(format!("nothing was on disk after {patience:?}")),
        }
    }

    /// The intents of a write go next; `None` = they will not. What it gives ends when they are on disk, or could not be put
    /// there yet.
    pub fn begin_now(&self, intents: &[Arc<Intent>]) -> Option<oneshot::Receiver<()>> {
        let (token, on_disk) = oneshot::channel();
        let is_put = !self.unavailable.load(Relaxed)
            && self.put(|queue, now| queue.begin_now(intents, token, now)).is_ok();
        is_put.then_some(on_disk)
    }

    /// The intents will be on disk soon, unless their writes end before; false = they will not.
    pub fn begin_soon(&self, intents: &[Arc<Intent>]) -> bool {
        !self.unavailable.load(Relaxed) && self.put(|queue, now| queue.begin(intents, now))
    }

    pub fn taken_up_to(&self) -> u64 {
        self.queue().waiting.taken_up_to()
    }

    /// Waits until the journal has all that it has been told by now.
    pub async fn caught_up(&self) {
        let told = self.queue().waiting.told_up_to();
        loop {
            let taken = self.taken.notified();
            if self.taken_up_to() >= told {
                return;
            }
            taken.await;
        }
    }

    fn put<R>(&self, put: impl FnOnce(&mut Waiting<Token>, Instant) -> R) -> R {
        let mut queue = self.queue();
        let outcome = put(&mut queue.waiting, Instant::now());
        self.metrics.waiting.set(queue.waiting.len() as i64);
        let due = queue.waiting.due();
        if due.is_some_and(|due| queue.looked_at.is_none_or(|at| due < at)) {
            queue.looked_at = due;
            self.wake.notify_one();
        }
        outcome
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what waits into the journal, for as long as it is polled. One at a time.
    pub async fn run(&self) {
        let (mut pause, mut stranger_pause) = (FIRST_PAUSE, FIRST_PAUSE);
        let mut stranger_at: Option<Instant> = None;
        let rest = Rest::new();
        loop {
            let enrolment = self.enrolment();
            match self.step(enrolment).await {
                Ok(took) => {
                    pause = FIRST_PAUSE;
                    rest.after(took).await;
                }
                Err(JournalError::Stranger(_)) => {
                    self.is_stranger(enrolment);
                    // One that is another again and again is enrolled in now and then.
                    let is_again = stranger_at.is_some_and(|at| at.elapsed() < AGAIN);
                    stranger_pause =
                        if is_again { LONGEST_PAUSE.min(stranger_pause * 2) } else { FIRST_PAUSE };
                    stranger_at = Some(Instant::now());
                    sleep(stranger_pause).await;
                }
                Err(error) => {
                    self.is_away();
                    self.trouble.error(format_args!("{error}"));
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
    }

    /// Returns how long the journal was busy with a batch.
    async fn step(&self, enrolment: Enrolment) -> Result<Duration, JournalError> {
        let engine = match self.engine() {
            Some(engine) => engine,
            None => {
                let opened = (self.open)().await?;
                self.engine.get_or_init(|| opened)
            }
        };
        if enrolment.number == 0 {
            self.enrol(engine).await?;
        } else if self.unavailable.load(Relaxed) && self.queue().waiting.due().is_none() {
            self.is_alive(engine, enrolment).await?;
        } else {
            return match self.next().await {
                Some(batch) => self.flush(engine, enrolment, batch).await,
                None => Ok(Duration::ZERO),
            };
        }
        if self.gateway() != 0 {
            self.is_there();
        }
        Ok(Duration::ZERO)
    }

    fn is_away(&self) {
        self.unavailable.store(true, Relaxed);
        self.metrics.unavailable.set(1);
    }

    fn is_there(&self) {
        if self.unavailable.swap(false, Relaxed) {
            self.metrics.unavailable.set(0);
            log::info!("journal: it is there");
        }
    }

    /// The next batch, when it is due; `None` = look again.
    async fn next(&self) -> Option<batch::Batch<Token>> {
        let due = {
            let mut queue = self.queue();
            let due = queue.waiting.due();
            if due.is_none() {
                self.drained.notify_waiters();
            }
            let now = Instant::now();
            if due.is_some_and(|due| due <= now || self.closing.load(Relaxed)) {
                queue.looked_at = None;
                return Some(queue.waiting.take()).filter(|batch| !batch.is_empty());
            }
            queue.looked_at = due;
            due
        };
        match due {
            Some(due) => timeout_at(due.into(), self.wake.notified()).await.unwrap_or_default(),
            None => self.wake.notified().await,
        }
        None
    }
}

impl Changes for Writer {
    fn has_lost(&self, id: WriteId) -> bool {
        self.was_taken_for_dead(id)
    }

    fn begin(&self, intent: &Arc<Intent>) -> bool {
        self.begin_soon(std::slice::from_ref(intent))
    }

    fn still(&self, intent: &Arc<Intent>) {
        self.put(|queue, now| queue.still(intent, now));
    }

    fn end(&self, change: Change, begun: bool, needed: bool) -> u64 {
        let put = self.put(|queue, now| queue.end(change, begun, needed, now));
        put.unwrap_or_else(|| {
            self.metrics.dropped.inc();
            self.losses.error(format_args!(
                "what became of writes is lost to the journal, not to the synclog: {WAITING_MOST} steps wait for it"
            ));
            0
        })
    }
}

/// Takes intents back when it is dropped.
struct Withdrawing<'a> {
    writer: &'a Writer,
    intents: &'a [Arc<Intent>],
}

impl Drop for Withdrawing<'_> {
    fn drop(&mut self) {
        for intent in self.intents {
            self.writer.end(Change::Void(intent.id), true, false);
        }
    }
}

//! The scheduler: tasks on a clock of its own, and chance decides which of those that are ready goes on.
//!
//! One seed makes one history: everything random comes from one generator, everything that waits does so here. An
//! actor is what can crash or stall as a whole; a crash drops its tasks wherever they are.

use std::{
    collections::BTreeMap,
    fmt::Write,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::future::{Either, select};

/// When histories begin, in milliseconds since 1970.
pub const START: i64 = 1_700_000_000_000;

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `from` to `to`, both among them.
    pub fn range(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1) as u64) as i64
    }

    /// Happens so many times in a thousand.
    pub fn chance(&mut self, per_mille: i64) -> bool {
        self.range(0, 999) < per_mille
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() as i64 - 1) as usize]
    }
}

pub type Actor = usize;
/// What belongs to nobody: requests on their way, clients, the backends.
pub const WORLD: Actor = 0;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    actor: Actor,
    work: Option<Work>,
    wakeup: Arc<Wakeup>,
}

struct Wakeup {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            lock(&self.ready).push(self.task);
        }
    }
}

struct State {
    rng: Rng,
    now: i64,
    timers: BTreeMap<(i64, u64), Waker>,
    timer_count: u64,
    tasks: BTreeMap<usize, Task>,
    task_count: usize,
    actor_count: usize,
    stalled: BTreeMap<Actor, i64>,
    trace: Option<String>,
}

#[derive(Clone)]
pub struct Sim {
    state: Arc<Mutex<State>>,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Sim {
    pub fn new(rng: Rng, traced: bool) -> Sim {
        let state = State {
            rng,
            now: START,
            timers: BTreeMap::new(),
            timer_count: 0,
            tasks: BTreeMap::new(),
            task_count: 0,
            actor_count: 0,
            stalled: BTreeMap::new(),
            trace: traced.then(String::new),
        };
        Sim { state: Arc::new(Mutex::new(state)), ready: Arc::default() }
    }

    pub fn now(&self) -> i64 {
        lock(&self.state).now
    }

    pub fn range(&self, from: i64, to: i64) -> i64 {
        lock(&self.state).rng.range(from, to)
    }

    pub fn chance(&self, per_mille: i64) -> bool {
        lock(&self.state).rng.chance(per_mille)
    }

    pub fn pick<T: Copy>(&self, from: &[T]) -> T {
        lock(&self.state).rng.pick(from)
    }

    /// A line for whoever reads what happened.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut state = lock(&self.state);
        let at = state.now - START;
        if let Some(trace) = &mut state.trace {
            let line = line();
            writeln!(trace, "{:>4}.{:03} {line}", at.div_euclid(1000), at.rem_euclid(1000)).unwrap();
        }
    }

    pub fn trace(&self) -> String {
        lock(&self.state).trace.clone().unwrap_or_default()
    }

    pub fn actor(&self) -> Actor {
        let mut state = lock(&self.state);
        state.actor_count += 1;
        state.actor_count
    }

    pub fn spawn(&self, actor: Actor, work: impl Future<Output = ()> + Send + 'static) {
        let mut state = lock(&self.state);
        state.task_count += 1;
        let task = state.task_count;
        let wakeup = Arc::new(Wakeup { task, queued: AtomicBool::new(false), ready: self.ready.clone() });
        state.tasks.insert(task, Task { actor, work: Some(Box::pin(work)), wakeup: wakeup.clone() });
        drop(state);
        wakeup.wake();
    }

    /// Ends all tasks of an actor where they are.
    pub fn crash(&self, actor: Actor) {
        let mut state = lock(&self.state);
        let doomed: Vec<usize> =
            state.tasks.iter().filter(|(_, task)| task.actor == actor).map(|(id, _)| *id).collect();
        let doomed: Vec<Task> = doomed.iter().filter_map(|id| state.tasks.remove(id)).collect();
        drop(state);
        drop(doomed);
    }

    /// An actor does nothing for a while.
    pub fn stall(&self, actor: Actor, duration: i64) {
        let mut state = lock(&self.state);
        let until = state.now + duration;
        state.stalled.insert(actor, until);
    }

    pub fn is_stalled(&self, actor: Actor) -> bool {
        let state = lock(&self.state);
        state.stalled.get(&actor).is_some_and(|until| *until > state.now)
    }

    pub async fn sleep(&self, duration: i64) {
        let until = self.now() + duration;
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if state.now >= until {
                return Poll::Ready(());
            }
            state.wake_at(until, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Sleeps for a random time.
    pub async fn pause(&self, from: i64, to: i64) {
        let duration = self.range(from, to);
        self.sleep(duration).await;
    }

    /// `None` = it took longer; it is dropped then.
    pub async fn within<T>(&self, duration: i64, work: impl Future<Output = T>) -> Option<T> {
        match select(pin!(work), pin!(self.sleep(duration))).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// Goes on until `work` is done; false = nothing can go on, or it takes too long.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static, most: usize) -> bool {
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        self.spawn(WORLD, async move {
            work.await;
            flag.store(true, Relaxed);
        });
        for _ in 0..most {
            if done.load(Relaxed) {
                return true;
            }
            if !self.step() {
                return false;
            }
        }
        false
    }

    fn step(&self) -> bool {
        let mut state = lock(&self.state);
        let mut ready = lock(&self.ready);
        if ready.is_empty() {
            drop(ready);
            let Some(((at, _), waker)) = state.timers.pop_first() else { return false };
            state.now = state.now.max(at);
            waker.wake();
            while state.timers.first_key_value().is_some_and(|((next, _), _)| *next == at) {
                state.timers.pop_first().into_iter().for_each(|(_, waker)| waker.wake());
            }
            return true;
        }
        let at = state.rng.range(0, ready.len() as i64 - 1) as usize;
        let id = ready.swap_remove(at);
        drop(ready);
        let Some(task) = state.tasks.get_mut(&id) else { return true };
        let (actor, wakeup) = (task.actor, task.wakeup.clone());
        wakeup.queued.store(false, Relaxed);
        let waker = Waker::from(wakeup);
        if let Some(until) = state.stalled.get(&actor).copied().filter(|until| *until > state.now) {
            state.wake_at(until, waker);
            return true;
        }
        let Some(mut work) = state.tasks.get_mut(&id).and_then(|task| task.work.take()) else { return true };
        drop(state);
        let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = lock(&self.state);
        if polled.is_ready() {
            state.tasks.remove(&id);
        } else if let Some(task) = state.tasks.get_mut(&id) {
            task.work = Some(work);
            return true;
        }
        // It ended, or was crashed by itself: what it holds may lock again.
        drop(state);
        drop(work);
        true
    }

    /// Drops all that is left: tasks hold what holds them.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut lock(&self.state).tasks);
        drop(tasks);
        lock(&self.state).timers.clear();
    }
}

impl State {
    fn wake_at(&mut self, at: i64, waker: Waker) {
        self.timer_count += 1;
        self.timers.insert((at, self.timer_count), waker);
    }
}

/// Set once; whoever waits for it goes on.
#[derive(Default)]
pub struct Latch(Mutex<(bool, Vec<Waker>)>);

impl Latch {
    pub fn set(&self) {
        let mut latch = lock(&self.0);
        latch.0 = true;
        latch.1.drain(..).for_each(Waker::wake);
    }

    pub fn is_set(&self) -> bool {
        lock(&self.0).0
    }

    pub async fn wait(&self) {
        poll_fn(|cx| {
            let mut latch = lock(&self.0);
            if latch.0 {
                return Poll::Ready(());
            }
            latch.1.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A value for somebody who waits for it; `None` when its sender is gone.
pub struct Sender<T>(Arc<Slot<T>>);
pub struct Receiver<T>(Arc<Slot<T>>);

struct Slot<T> {
    value: Mutex<Option<T>>,
    closed: Latch,
}

pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot { value: Mutex::new(None), closed: Latch::default() });
    (Sender(slot.clone()), Receiver(slot))
}

impl<T> Sender<T> {
    pub fn send(self, value: T) {
        *lock(&self.0.value) = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.set();
    }
}

impl<T> Receiver<T> {
    pub async fn recv(self) -> Option<T> {
        self.0.closed.wait().await;
        lock(&self.0.value).take()
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

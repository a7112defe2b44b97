//! What lies between backends and those who ask.
//!
//! What is sent to a backend may be lost, its answer may be, and it may arrive late, though never `settle` after it was sent,
//! or after nobody waits for it any more. The backend may say that it is broken although it did what it was asked.

use std::sync::{Arc, Mutex, atomic::Ordering::Relaxed};

use crate::{
    exec::{Actor, Latch, WORLD, lock},
    world::{LANDED, SETTLE, World},
};

/// What is slow, and not late, has arrived by then.
const SLOW: i64 = 400;
/// And this, where few things are.
const SLOWEST: i64 = 1_500;

/// How long what is neither lost nor late takes to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Quick,
    Slow,
    /// Quick, but for some that are slower than all others.
    Uneven,
}

/// What came of a request.
pub enum Answer<T> {
    Done(T),
    /// It did not get there.
    Away,
    /// It says that something went wrong; what it was asked to do may have been done.
    Broken,
    /// Nobody knows.
    Lost,
}

impl World {
    /// Sends a request before this returns; who drops what is returned does not take it back.
    pub fn exchange<T: Send + 'static, F: FnOnce(&World) -> T + Send + 'static>(
        self: &Arc<Self>,
        at: usize,
        effect: F,
    ) -> impl Future<Output = Answer<T>> + Send + use<T, F> + 'static {
        self.exchange_with(self.lateness, None, at, effect)
    }

    /// [`Self::exchange`] of who is about to stand still: so may what lies between, and be late every other time.
    pub fn exchange_stalling<T: Send + 'static, F: FnOnce(&World) -> T + Send + 'static>(
        self: &Arc<Self>,
        at: usize,
        effect: F,
    ) -> impl Future<Output = Answer<T>> + Send + use<T, F> + 'static {
        self.exchange_with(500, None, at, effect)
    }

    /// [`Self::exchange`] with a backend that takes its time, and answers, as long as it is waited for.
    pub fn exchange_dragging<T: Send + 'static, F: FnOnce(&World) -> T + Send + 'static>(
        self: &Arc<Self>,
        actor: Actor,
        at: usize,
        effect: F,
    ) -> impl Future<Output = Answer<T>> + Send + use<T, F> + 'static {
        self.exchange_with(0, Some(actor), at, effect)
    }

    fn exchange_with<T: Send + 'static, F: FnOnce(&World) -> T + Send + 'static>(
        self: &Arc<Self>,
        lateness: i64,
        dragged: Option<Actor>,
        at: usize,
        effect: F,
    ) -> impl Future<Output = Answer<T>> + Send + use<T, F> + 'static {
        let sim = self.sim.clone();
        let is_down = lock(&self.stores)[at].down_until > sim.now() && self.faults.load(Relaxed);
        let (is_lost, is_late) = (self.is_faulty(80), self.is_late && self.is_faulty(lateness));
        let patience = if is_lost || is_late { sim.range(5, 1500) } else { 60_000 };
        let patience = if self.is_late { patience } else { patience.max(LANDED) };
        let arrives = match self.pace {
            _ if is_late => sim.range(1, SETTLE - 10),
            Pace::Slow if self.is_late => sim.range(1, SLOW),
            Pace::Uneven if self.is_late && sim.chance(200) => sim.range(1, SLOWEST),
            _ => sim.range(1, 40),
        };
        let never = is_lost && sim.chance(500);
        let is_broken = !is_lost && !is_late && self.is_faulty(20);
        let done = Arc::new((Latch::default(), Mutex::new(None)));
        let (world, told) = (self.clone(), done.clone());
        let waits = Waits(Arc::default());
        let given_up = waits.0.clone();
        if !is_down && !never {
            sim.clone().spawn(WORLD, async move {
                match dragged.filter(|_| !is_lost) {
                    Some(actor) => world.drag(actor, &given_up).await,
                    None => world.sim.sleep(arrives).await,
                }
                let answer = effect(&world);
                world.sim.pause(0, 20).await;
                if !is_lost {
                    *lock(&told.1) = Some(answer);
                    told.0.set();
                }
            });
        }
        async move {
            let _waits = waits;
            if is_down {
                sim.pause(1, 5).await;
                return Answer::Away;
            }
            match sim.within(patience, done.0.wait()).await {
                Some(()) if is_broken => Answer::Broken,
                Some(()) => lock(&done.1).take().map_or(Answer::Lost, Answer::Done),
                None => Answer::Lost,
            }
        }
    }

    /// For long, but not for longer than `settle` once nobody waits, or who does stands still.
    async fn drag(&self, actor: Actor, given_up: &Latch) {
        const STEP: i64 = 50;
        for _ in 0..self.sim.range(SETTLE, 4 * SETTLE) / STEP {
            if given_up.is_set() || self.sim.is_stalled(actor) {
                return self.sim.pause(0, SETTLE - 2 * STEP).await;
            }
            self.sim.sleep(STEP).await;
        }
    }
}

/// Who waits for an answer.
struct Waits(Arc<Latch>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set();
    }
}

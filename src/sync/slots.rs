//! Places among the objects that are repaired at once.
//!
//! An object that only waits, for what may still arrive, holds none, so that others are repaired meanwhile. It is not
//! counted among those that were leased ahead either, unless very many wait.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::telemetry::metrics::IntGauge;

/// For each place so many objects may wait beside those that are leased ahead: each has a lease to be renewed.
const WAITING: usize = 16;

pub struct Slots {
    at_once: usize,
    places: Semaphore,
    /// How many are taken.
    running: IntGauge,
    waiting: AtomicUsize,
    /// Somebody has begun to wait.
    left: Notify,
}

/// A place, taken until this is dropped.
pub struct Slot<'a> {
    slots: &'a Slots,
    taken: Option<Taken<'a>>,
}

struct Taken<'a> {
    _permit: SemaphorePermit<'a>,
    running: &'a IntGauge,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.running.dec();
    }
}

/// Counted among those that wait.
struct Waiting<'a>(&'a Slots);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Slots {
    pub fn new(at_once: usize, running: IntGauge) -> Slots {
        let places = Semaphore::new(at_once.min(Semaphore::MAX_PERMITS));
        Slots { at_once, places, running, waiting: AtomicUsize::new(0), left: Notify::new() }
    }

    /// A place, once there is one.
    pub async fn take(&self) -> Slot<'_> {
        let mut slot = Slot { slots: self, taken: None };
        slot.sit_down().await;
        slot
    }

    /// How many more may be leased while there are so many jobs: for each place so many `ahead`, so that nobody waits for
    /// the journal.
    pub fn room(&self, jobs: usize, ahead: usize) -> usize {
        let waiting = self.waiting.load(Relaxed).min(self.at_once.saturating_mul(WAITING));
        self.at_once.saturating_mul(ahead.saturating_add(1)).saturating_sub(jobs.saturating_sub(waiting))
    }

    /// Returns when an object has left its place to wait.
    pub async fn left(&self) {
        self.left.notified().await;
    }
}

impl Slot<'_> {
    async fn sit_down(&mut self) {
        // Nobody closes the semaphore.
        if let Ok(permit) = self.slots.places.acquire().await {
            self.slots.running.inc();
            self.taken = Some(Taken { _permit: permit, running: &self.slots.running });
        }
    }

    /// Waits without holding the place, and takes one again.
    pub async fn aside<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.taken = None;
        self.slots.waiting.fetch_add(1, Relaxed);
        let waiting = Waiting(self.slots);
        self.slots.left.notify_one();
        let done = wait.await;
        drop(waiting);
        self.sit_down().await;
        done
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_leaves_its_place_to_others_and_makes_room_up_to_a_bound() {
        let slots = Slots::new(1, IntGauge::new("running", "Places that are taken.").unwrap());
        assert_eq!([0, 1, 3, 4].map(|jobs| slots.room(jobs, 2)), [3, 2, 0, 0]);
        let mut first = slots.take().await;
        assert!(slots.take().now_or_never().is_none());
        let mut waits = Box::pin(first.aside(sleep(Duration::from_secs(9))));
        assert!((&mut waits).now_or_never().is_none());
        slots.left().await;
        assert_eq!(slots.room(3, 2), 1);
        let second = slots.take().await;
        sleep(Duration::from_secs(10)).await;
        assert!((&mut waits).now_or_never().is_none(), "the place is taken");
        assert_eq!(slots.room(3, 2), 0, "it does not wait any more");
        drop(second);
        waits.await;

        // Also who is dropped while it waits.
        assert!(first.aside(std::future::pending::<()>()).now_or_never().is_none());
        assert_eq!(slots.room(3, 2), 0);
        let many: Vec<_> = (0..2 * WAITING).map(|_| Waiting(&slots)).collect();
        slots.waiting.store(many.len(), Relaxed);
        assert_eq!((slots.room(WAITING, 2), slots.room(many.len(), 2)), (3, 0));
    }
}

//! What is under way, and the end of a process: wait until nothing is, then stop.
//!
//! Client requests and background work are counted by guards. A drain waits for both counts to reach zero,
//! at most `grace_period_seconds`; what still runs then is cut off through a latch, which makes the mirror
//! record it, and given a moment to do so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{mirror::Latch, telemetry::metrics::METRICS};

/// Counts of what runs. Cheap to share.
#[derive(Debug, Default)]
pub struct Activity {
    draining: AtomicBool,
    requests: AtomicUsize,
    /// Of the requests, those that count against `MaxConcurrentRequests`.
    admitted: AtomicUsize,
    background: AtomicUsize,
    less: Notify,
    /// Set when the rest must end at once.
    pub stop: Arc<Latch>,
}

/// Something that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    activity: Arc<Activity>,
    background: bool,
}

/// A request's share of `MaxConcurrentRequests`, given back when dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Activity>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, SeqCst);
    }
}

impl Activity {
    /// Admits a request unless `most` are being served already; 0 = no limit.
    pub fn admit(self: &Arc<Self>, most: usize) -> Option<Admitted> {
        let before = self.admitted.fetch_add(1, SeqCst);
        let admitted = Admitted(self.clone());
        (most == 0 || before < most).then_some(admitted)
    }

    pub fn request(self: &Arc<Self>) -> Running {
        self.begin(false)
    }

    pub fn background(self: &Arc<Self>) -> Running {
        self.begin(true)
    }

    fn begin(self: &Arc<Self>, background: bool) -> Running {
        self.count(background).fetch_add(1, SeqCst);
        if !background {
            METRICS.requests_in_flight.inc();
        }
        Running { activity: self.clone(), background }
    }

    fn count(&self, background: bool) -> &AtomicUsize {
        if background { &self.background } else { &self.requests }
    }

    /// Client requests under way.
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    pub fn begin_draining(&self) {
        METRICS.draining.set(1);
        self.draining.store(true, SeqCst);
    }

    /// Waits until nothing runs, at most `grace`; what is left is then cut off. Returns how much that was.
    pub async fn drain(&self, grace: Duration) -> usize {
        /// For those that were cut off to say so.
        const LAST_WORDS: Duration = Duration::from_secs(2);
        let ended = tokio::time::timeout(grace, self.idle()).await.is_ok();
        let left = if ended { 0 } else { self.running() };
        // Also when nothing is left: a write that begins on an open connection while the logs are flushed must
        // not reach a backend.
        self.stop.set();
        if tokio::time::timeout(LAST_WORDS, self.idle()).await.is_err() {
            log::error!("{} requests did not end within {LAST_WORDS:?} of being cut off", self.running());
        }
        left
    }

    fn running(&self) -> usize {
        self.requests() + self.background.load(SeqCst)
    }

    async fn idle(&self) {
        loop {
            let mut less = std::pin::pin!(self.less.notified());
            less.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            less.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.activity.count(self.background).fetch_sub(1, SeqCst);
        if !self.background {
            METRICS.requests_in_flight.dec();
        }
        if self.activity.is_draining() {
            self.activity.less.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_as_soon_as_nothing_runs() {
        let activity = Arc::new(Activity::default());
        let (request, background) = (activity.request(), activity.background());
        activity.begin_draining();
        let started = tokio::time::Instant::now();
        let (left, ()) = tokio::join!(activity.drain(Duration::from_secs(300)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(request);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(background);
        });
        assert_eq!((left, started.elapsed()), (0, Duration::from_secs(2)));
    }

    #[test]
    fn no_more_than_the_limit_are_admitted() {
        let activity = Arc::new(Activity::default());
        let first = activity.admit(1);
        assert!(first.is_some() && activity.admit(1).is_none());
        drop(first);
        assert!(activity.admit(1).is_some() && activity.admit(0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut_off() {
        let activity = Arc::new(Activity::default());
        let running = activity.background();
        activity.begin_draining();
        let stop = activity.stop.clone();
        let (left, ()) = tokio::join!(activity.drain(Duration::from_secs(3)), async {
            stop.wait().await;
            drop(running);
        });
        assert_eq!(left, 1);
    }
}

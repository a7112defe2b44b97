//! What is under way, and the end of a process: wait until nothing is, then stop.
//!
//! Connections that a request is expected on or under way, and background work, are counted by guards. A drain
//! waits for all counts to reach zero, at most `grace_period_seconds`; what still runs then is cut off through a
//! latch, which makes the mirror record it, and given a moment to do so.
//!
//! What holds, so that a drain never ends while something is left:
//! - Work that passes from one count to another is in the later one before it leaves the earlier:
//!   accepted -> request -> background. The counts are read in that order. After the last call, idle -> request.
//! - A connection is counted as accepted in the accept loop, without an await between the two; its task takes the
//!   count over. Until the loops have ended ([`Activity::listeners_closed`]) zero means nothing.
//! - A connection whose first head has not come is waited for; it ends by itself after `ClientHeaderTimeout`.
//! - An idle connection that has served a request is not waited for. When nothing else is left there is a last
//!   call: each looks whether a request has come, serves it or closes, and none is left when `stop` is set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{mirror::Latch, telemetry::metrics::METRICS};

/// For the accept loops to end, and for what they accepted last to be taken over. Both take a moment only; a
/// connection that got lost in between must not hold up the end.
const HANDOVER: Duration = Duration::from_secs(2);
/// For tasks of connections that the accept loop could not count (unix sockets) to begin.
const UNCOUNTED: Duration = Duration::from_millis(50);

/// Counts of what runs. Cheap to share.
#[derive(Debug, Default)]
pub struct Activity {
    draining: AtomicBool,
    /// Connections that no task has taken over yet.
    accepted: AtomicUsize,
    /// Whether there are connections that are not counted from the accept on.
    uncounted: AtomicBool,
    listeners_closed: Latch,
    /// Connections that a request is under way on, or expected.
    requests: AtomicUsize,
    /// Of the requests, those that count against `MaxConcurrentRequests`.
    admitted: AtomicUsize,
    background: AtomicUsize,
    /// Connections between two requests.
    idle: AtomicUsize,
    less: Notify,
    /// Set when idle connections shall take a last look and close.
    pub last_call: Latch,
    /// Set when the rest must end at once.
    pub stop: Arc<Latch>,
}

/// Something that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    activity: Arc<Activity>,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Request,
    Background,
    Idle,
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

    /// A connection was accepted; its task will take it over.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, SeqCst);
    }

    /// Accepted connections whose task has not begun.
    pub fn not_taken_over(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    /// An accepted connection's task has begun. `counted` = it was counted by [`accepted`](Self::accepted).
    pub fn take_over(self: &Arc<Self>, counted: bool) -> Running {
        let running = self.request();
        match counted {
            true => _ = self.accepted.fetch_sub(1, SeqCst),
            false => self.uncounted.store(true, SeqCst),
        }
        self.tell();
        running
    }

    /// The accept loops have ended: no more connections will come.
    pub fn listeners_closed(&self) {
        self.listeners_closed.set();
    }

    /// A request is under way, or expected.
    pub fn request(self: &Arc<Self>) -> Running {
        self.begin(What::Request)
    }

    pub fn background(self: &Arc<Self>) -> Running {
        self.begin(What::Background)
    }

    /// A connection between two requests; to be kept until the next is counted.
    pub fn idle(self: &Arc<Self>) -> Running {
        self.begin(What::Idle)
    }

    fn begin(self: &Arc<Self>, what: What) -> Running {
        self.count(what).fetch_add(1, SeqCst);
        Running { activity: self.clone(), what }
    }

    fn count(&self, what: What) -> &AtomicUsize {
        match what {
            What::Request => &self.requests,
            What::Background => &self.background,
            What::Idle => &self.idle,
        }
    }

    /// Connections that a request is under way on, or expected.
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
        let nothing_left = async {
            self.all_taken_over().await;
            self.until(|| self.running() == 0).await;
            self.last_call.set();
            self.until(|| self.idle.load(SeqCst) == 0 && self.running() == 0).await;
        };
        let ended = tokio::time::timeout(grace, nothing_left).await.is_ok();
        let left = if ended { 0 } else { self.running() };
        // Also when nothing is left: a write that begins on an open connection while the logs are flushed must
        // not reach a backend.
        self.stop.set();
        self.last_call.set();
        let idle = self.until(|| self.running() == 0);
        if tokio::time::timeout(LAST_WORDS, idle).await.is_err() {
            log::error!("{} requests did not end within {LAST_WORDS:?} of being cut off", self.running());
        }
        left
    }

    /// Waits until every connection that was accepted is in the hands of its task.
    async fn all_taken_over(&self) {
        let taken_over = async {
            self.listeners_closed.wait().await;
            self.until(|| self.not_taken_over() == 0).await;
        };
        if tokio::time::timeout(HANDOVER, taken_over).await.is_err() {
            let lost = self.not_taken_over();
            log::error!("after {HANDOVER:?} listeners are open, or connections not taken over: {lost}");
        }
        if self.uncounted.load(SeqCst) {
            tokio::time::sleep(UNCOUNTED).await;
        }
    }

    fn running(&self) -> usize {
        // In this order: a request begins its background work before it ends.
        let requests = self.requests();
        requests + self.background.load(SeqCst)
    }

    async fn until(&self, reached: impl Fn() -> bool) {
        loop {
            let mut less = std::pin::pin!(self.less.notified());
            less.as_mut().enable();
            if reached() {
                return;
            }
            less.await;
        }
    }

    /// Wakes a drain.
    fn tell(&self) {
        if self.is_draining() {
            self.less.notify_waiters();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.activity.count(self.what).fetch_sub(1, SeqCst);
        self.activity.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> Arc<Activity> {
        let activity = Arc::new(Activity::default());
        activity.listeners_closed();
        activity
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_as_soon_as_nothing_runs() {
        let activity = activity();
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

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_connections_that_were_just_accepted() {
        let activity = Arc::new(Activity::default());
        activity.begin_draining();
        let started = tokio::time::Instant::now();
        let (left, ()) = tokio::join!(activity.drain(Duration::from_secs(300)), async {
            activity.accepted();
            tokio::time::sleep(Duration::from_millis(500)).await;
            activity.listeners_closed();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let running = activity.take_over(true);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(running);
        });
        assert_eq!((left, started.elapsed()), (0, Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_get_a_last_call_when_nothing_else_is_left() {
        let activity = activity();
        let (idle, request) = (activity.idle(), activity.request());
        activity.begin_draining();
        let started = tokio::time::Instant::now();
        let (left, ()) = tokio::join!(activity.drain(Duration::from_secs(300)), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!activity.last_call.is_set());
            drop(request);
            activity.last_call.wait().await;
            // A request had come.
            let request = activity.request();
            drop(idle);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!activity.stop.is_set());
            drop(request);
        });
        assert_eq!((left, started.elapsed()), (0, Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_got_lost_does_not_hold_up_the_end() {
        let activity = activity();
        activity.accepted();
        activity.begin_draining();
        let started = tokio::time::Instant::now();
        assert_eq!(activity.drain(Duration::from_secs(300)).await, 0);
        assert_eq!(started.elapsed(), HANDOVER);
    }

    #[test]
    fn no_more_than_the_limit_are_admitted() {
        let activity = activity();
        let first = activity.admit(1);
        assert!(first.is_some() && activity.admit(1).is_none());
        drop(first);
        assert!(activity.admit(1).is_some() && activity.admit(0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut_off() {
        let activity = activity();
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

//! A flag that is set once and can be waited for.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub struct Latch {
    set: AtomicBool,
    changed: Notify,
}

impl Latch {
    pub fn set(&self) {
        self.set.store(true, SeqCst);
        self.changed.notify_waiters();
    }

    pub fn is_set(&self) -> bool {
        self.set.load(SeqCst)
    }

    /// Waits until it is set. May be cancelled.
    pub async fn wait(&self) {
        let mut changed = pin!(self.changed.notified());
        // Registered before the flag is read, so that a `set` in between is not missed.
        changed.as_mut().enable();
        if !self.is_set() {
            changed.await;
        }
    }
}

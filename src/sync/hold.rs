//! A lease as its worker holds it: renewed while the work goes on, and a [`Gate`] that closes when it may be another's.
//!
//! The worker's own clocks decide, from before the journal was asked: what the journal grants lasts longer than what
//! the worker believes. Two clocks, because one stands still while a machine sleeps, and the other can be set.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::Gate;
use crate::journal::{Journal, JournalError, Lease};

/// Before a renewal that the journal could not answer is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub struct Hold {
    length: Duration,
    /// `None` = lost.
    until: Mutex<Option<(Instant, SystemTime)>>,
}

/// When somebody asked for a lease.
#[derive(Debug, Clone, Copy)]
pub struct Asked(Instant, SystemTime);

impl Asked {
    pub fn now() -> Asked {
        Asked(Instant::now(), SystemTime::now())
    }
}

impl Hold {
    /// What was asked for then, and granted.
    pub fn new(asked: Asked, length: Duration) -> Hold {
        let hold = Hold { length, until: Mutex::new(None) };
        hold.extend(asked);
        hold
    }

    fn extend(&self, asked: Asked) {
        let until = asked.1.checked_add(self.length).map(|wall| (asked.0 + self.length, wall));
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn lose(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How long it is certainly ours.
    pub fn left(&self) -> Duration {
        let Some((until, wall)) = *self.until.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Duration::ZERO;
        };
        let left = until.saturating_duration_since(Instant::now());
        left.min(wall.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Renews the lease again and again; returns when it is lost.
    pub async fn keep(&self, journal: &dyn Journal, lease: &Lease, settle: Duration) {
        loop {
            // A third of it gone: two more tries have room.
            sleep(self.left().saturating_sub(self.length * 2 / 3)).await;
            let asked = Asked::now();
            let left = self.left();
            match timeout(left, journal.renew(lease, self.length, settle)).await {
                Ok(Ok(true)) => self.extend(asked),
                Ok(
                    Ok(false)
                    | Err(
                        JournalError::Unusable(_) | JournalError::Stranger(_) | JournalError::TakenForDead(_),
                    ),
                )
                | Err(_) => {
                    return self.lose();
                }
                Ok(Err(JournalError::Unavailable(why))) => {
                    log::debug!("{}: its lease cannot be renewed now: {why}", lease.object);
                    sleep(RETRY.min(self.left())).await;
                }
            }
            if self.left().is_zero() {
                return self.lose();
            }
        }
    }
}

#[async_trait]
impl Gate for Hold {
    async fn may_go_on(&self) -> bool {
        !self.left().is_zero()
    }
}

//! The least rate of a copy: one that trickles never stalls, and is given up all the same.
//!
//! Who moves bytes has an account of time. It is full at the beginning. What is waited for the backend is taken from it,
//! and each byte pays back as much as it may take at the least rate, up to the full account. So it is empty when the
//! backend was slower than that on the average of about [`Least::window`], however fast it was before. Waiting for
//! limits of our own costs nothing.

use std::{future::Future, time::Duration};

use pingora_timeout::timeout;
use tokio::time::Instant;

/// What is asked of a backend.
#[derive(Debug, Clone, Copy)]
pub struct Least {
    /// Bytes per second; 0 = none is too slow.
    pub rate: u64,
    /// The full account.
    pub window: Duration,
}

pub struct Account {
    least: Least,
    left: Duration,
}

impl Account {
    pub fn open(least: Least) -> Account {
        Account { least, left: least.window }
    }

    /// A step that the backend is waited for; `None` = the account is empty.
    pub async fn wait<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        if self.least.rate == 0 {
            return Some(step.await);
        }
        let begun = Instant::now();
        let outcome = timeout(self.left, step).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        outcome.ok()
    }

    /// So many bytes were moved.
    pub fn moved(&mut self, bytes: usize) {
        if self.least.rate > 0 {
            let earned = Duration::from_secs_f64(bytes as f64 / self.least.rate as f64);
            self.left = self.left.saturating_add(earned).min(self.least.window);
        }
    }

    /// What is to be said once it is empty.
    pub fn too_slow(&self) -> String {
        format!("slower than {} bytes a second for {:?}", self.least.rate, self.least.window)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const LEAST: Least = Least { rate: 1000, window: Duration::from_millis(200) };

    #[tokio::test]
    async fn it_is_empty_once_the_backend_was_too_slow_for_the_window() {
        let mut account = Account::open(LEAST);
        let step = Duration::from_millis(20);
        let mut steps = 0;
        // A byte each time, where twenty are asked for.
        while account.wait(sleep(step)).await.is_some() {
            account.moved(1);
            steps += 1;
        }
        assert!((1..=11).contains(&steps), "{steps}");
        assert_eq!(account.too_slow(), "slower than 1000 bytes a second for 200ms");
    }

    #[tokio::test]
    async fn who_is_fast_enough_goes_on_and_saves_nothing_for_later() {
        let mut account = Account::open(LEAST);
        for _ in 0..20 {
            account.wait(sleep(Duration::from_millis(20))).await.unwrap();
            account.moved(1_000_000);
        }
        assert_eq!(account.left, LEAST.window);
        assert!(account.wait(std::future::pending::<()>()).await.is_none());
        let mut none = Account::open(Least { rate: 0, ..LEAST });
        assert!(none.wait(sleep(LEAST.window * 2)).await.is_some());
    }
}

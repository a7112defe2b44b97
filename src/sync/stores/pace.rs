//! A limit of bytes per second, shared by all copies from and to one backend.
//!
//! Each piece takes the next free stretch of time and waits for its end, so that none is let go first for ever. What
//! was not used is made up for by a little only.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// So much time may be made up for.
const BURST: Duration = Duration::from_millis(100);

pub struct Pace {
    /// Bytes per second; 0 = no limit.
    rate: u64,
    free: Mutex<Option<Instant>>,
}

impl Pace {
    pub fn new(rate: u64) -> Pace {
        Pace { rate, free: Mutex::new(None) }
    }

    /// Waits until so many bytes may be moved.
    pub async fn take(&self, bytes: usize) {
        if self.rate > 0 {
            sleep_until(self.reserve(bytes, Instant::now())).await;
        }
    }

    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let long = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let end = free.map_or(now, |free| free.max(earliest)) + long;
        *free = Some(end);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_together() {
        let pace = Pace::new(1000);
        let begun = Instant::now();
        tokio::join!(pace.take(500), pace.take(500));
        assert_eq!(begun.elapsed().as_millis(), 1000);
        tokio::time::advance(Duration::from_secs(10)).await;
        let begun = Instant::now();
        pace.take(1000).await;
        assert_eq!(begun.elapsed().as_millis(), 900);
        Pace::new(0).take(usize::MAX).await;
    }
}

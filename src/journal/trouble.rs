//! The same trouble in the main log, now and then.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines about it.
const TROUBLE: Duration = Duration::from_secs(10);

/// Errors in the main log about the same trouble.
#[derive(Debug, Default)]
pub struct NowAndThen(Mutex<Option<Instant>>);

impl NowAndThen {
    pub fn error(&self, what: std::fmt::Arguments) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= TROUBLE) {
            *last = Some(Instant::now());
            log::error!("{what}");
        }
    }
}

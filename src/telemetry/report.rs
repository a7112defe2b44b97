//! How a log tells of its own trouble: to the main log, and not for every line.
//!
//! A full disk fails thousands of writes a minute; one error in ten seconds, with the number of those that
//! were held back, says as much. Troubles of the main log itself cannot go there: they go to stderr.

use std::{
    fmt, io,
    io::Write,
    sync::Mutex,
    sync::PoisonError,
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(10);

/// One kind of trouble of one log.
#[derive(Debug)]
pub struct Report {
    /// The main log's own troubles go to stderr.
    to_stderr: bool,
    throttle: Mutex<Throttle>,
}

#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Report {
    pub fn new(log: &str) -> Report {
        Report { to_stderr: log == super::MAINLOG, throttle: Mutex::default() }
    }

    /// Logs an error unless one was logged in the last ten seconds. Never blocks on a disk, except for the
    /// main log's own troubles.
    pub fn error(&self, what: fmt::Arguments<'_>) {
        self.at(log::Level::Error, what);
    }

    /// The same at a level.
    pub fn at(&self, level: log::Level, what: fmt::Arguments<'_>) {
        let Some(held_back) = self.pass(Instant::now()) else { return };
        if held_back == 0 {
            self.say(level, what);
        } else {
            self.say(level, format_args!("{what} ({held_back} like this one were held back)"));
        }
    }

    /// Logs that the trouble is over; the next one is told at once.
    pub fn over(&self, what: fmt::Arguments<'_>) {
        *self.throttle.lock().unwrap_or_else(PoisonError::into_inner) = Throttle::default();
        self.say(log::Level::Warn, what);
    }

    /// `None` to hold back, else how many were since the last one.
    fn pass(&self, now: Instant) -> Option<u64> {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if throttle.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            throttle.held_back += 1;
            return None;
        }
        throttle.last = Some(now);
        Some(std::mem::take(&mut throttle.held_back))
    }

    fn say(&self, level: log::Level, what: fmt::Arguments<'_>) {
        if self.to_stderr {
            // Where stderr fails too there is nobody left to tell.
            writeln!(io::stderr(), "{level} akubra::telemetry: {what}").ok();
        } else {
            log::log!(level, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_seconds_passes_with_the_count_of_the_others() {
        let report = Report::new("report-test");
        let start = Instant::now();
        assert_eq!(report.pass(start), Some(0));
        assert_eq!(report.pass(start + Duration::from_secs(1)), None);
        assert_eq!(report.pass(start + Duration::from_secs(9)), None);
        assert_eq!(report.pass(start + Duration::from_secs(10)), Some(2));
        report.over(format_args!("well again"));
        assert_eq!(report.pass(start + Duration::from_secs(11)), Some(0));
    }
}

//! `Metrics.Target: graphite` and `stdout`: a report every `Interval`, one line per number: `PATH NUMBER TIME`.
//!
//! A thread of its own makes and delivers them. It may wait, for a name to be resolved, for a collector, for a pipe that
//! nobody reads: nothing else waits with it. A report that is not taken is tried again, after a second and then
//! longer, until the next one is due; then it is missed. Counts go on, so that only the time between has no numbers.
//!
//! The thread starts when the process serves: a successor that fails must not report in the name of the process that
//! goes on. When a successor has taken over, both report until the end of the old one, which then has
//! `-draining` behind its prefix: under one name its counts and those of the new process, which begin at 0,
//! would take turns.

use std::{
    fmt::Write as _,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::oneshot;

use super::{
    graphite::Graphite,
    intervals::{Intervals, Sample},
    name, series,
};
use crate::{
    config::{Config, Exporter, Reports},
    telemetry::{
        destination::Destination,
        metrics::{METRICS, gather},
    },
};

/// Before a report is tried again; doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Where reports go.
enum Target {
    Graphite(Graphite),
    Stdout(Destination),
}

/// Reports on their way from one state to the next: configured, running, ended.
#[derive(Default)]
pub struct Reporter {
    idle: Option<Task>,
    running: Option<Running>,
    followed: Arc<AtomicBool>,
}

struct Running {
    /// Dropped to ask for the end.
    stop: Sender<()>,
    /// Its sender is dropped at the end.
    ended: oneshot::Receiver<()>,
}

impl Reporter {
    /// As the configuration says; does nothing yet, or for ever where it asks for no reports.
    pub fn new(config: &Config) -> Reporter {
        let (target, reports) = match &config.metrics {
            Some(Exporter::Graphite { collector, reports }) => {
                (Target::Graphite(Graphite::new(collector.clone())), reports)
            }
            Some(Exporter::Stdout { reports }) => (Target::Stdout(Destination::Stdout), reports),
            _ => return Reporter::default(),
        };
        let followed = Arc::<AtomicBool>::default();
        let task = Task { target, reports: reports.clone(), followed: followed.clone(), missed: None };
        Reporter { idle: Some(task), running: None, followed }
    }

    /// Starts the thread, once the process has forked for the last time and serves.
    pub fn start(&mut self) -> io::Result<()> {
        let Some(task) = self.idle.take() else { return Ok(()) };
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("metrics reports".into()).spawn(move || {
            task.run(&stopped);
            drop(end);
        })?;
        self.running = Some(Running { stop, ended });
        Ok(())
    }

    /// A successor serves in this process's place.
    pub fn followed(&self) {
        self.followed.store(true, Relaxed);
    }

    /// Sends a last report and ends; gives up after `deadline`.
    pub async fn end(&mut self, deadline: Duration) {
        let Some(Running { stop, ended }) = self.running.take() else { return };
        drop(stop);
        if tokio::time::timeout(deadline, ended).await.is_err() {
            log::warn!("metrics: the last report was not taken within {deadline:?}");
        }
    }
}

struct Task {
    target: Target,
    reports: Reports,
    followed: Arc<AtomicBool>,
    /// Reports missed since one was taken; `None` while all is well.
    missed: Option<u64>,
}

impl Task {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut prefix = name::prefix(&self.reports);
        let interval = self.reports.interval;
        let (to, told) = (self.target.name(), prefix.trim_end_matches('.').to_owned());
        log::info!("metrics: reporting to {to} every {interval:?}, the prefix is \"{told}\"");
        let mut intervals = Intervals::new(&self.reports.percentiles, Instant::now());
        let mut due = Instant::now() + interval;
        let mut followed = false;
        loop {
            let last = wait(stopped, due);
            if self.followed.load(Relaxed) && !mem::replace(&mut followed, true) {
                prefix = name::draining(&prefix);
            }
            let now = Instant::now();
            let series = series::all(&gather(), self.reports.debug);
            intervals.end(&series, now);
            let samples = intervals.samples(&series, now);
            // A report that took long must not be followed by those that were due meanwhile.
            while due <= now {
                due += interval;
            }
            self.deliver(&lines(&prefix, &samples, SystemTime::now()), stopped, due);
            if last {
                return;
            }
        }
    }

    /// Until it is taken, the end is asked for, or another one is due.
    fn deliver(&mut self, report: &str, stopped: &Receiver<()>, due: Instant) {
        let mut pause = FIRST_RETRY;
        loop {
            let Err(error) = self.target.take(report) else {
                METRICS.reports.with_label_values(&[self.target.label(), "taken"]).inc();
                if let Some(missed) = self.missed.take() {
                    log::info!("metrics: {} takes reports again; {missed} were missed", self.target.name());
                }
                return;
            };
            if self.missed.is_none() {
                log::warn!("metrics: {} does not take reports: {error}", self.target.name());
            }
            let missed = self.missed.get_or_insert(0);
            let again = Instant::now() + pause;
            if again >= due || wait(stopped, again) {
                *missed += 1;
                METRICS.reports.with_label_values(&[self.target.label(), "missed"]).inc();
                return;
            }
            pause = (pause * 2).min(LAST_RETRY);
        }
    }
}

impl Target {
    fn label(&self) -> &'static str {
        match self {
            Target::Graphite(_) => "graphite",
            Target::Stdout(_) => "stdout",
        }
    }

    fn name(&self) -> String {
        match self {
            Target::Graphite(graphite) => format!("graphite at {}", graphite.collector()),
            Target::Stdout(_) => "stdout".to_owned(),
        }
    }

    fn take(&mut self, report: &str) -> io::Result<()> {
        match self {
            Target::Graphite(graphite) => graphite.send(report.as_bytes()),
            Target::Stdout(stdout) => stdout.write(report.as_bytes(), &mut |_| {}),
        }
    }
}

/// Waits until then; `true` if the end is asked for.
fn wait(stopped: &Receiver<()>, until: Instant) -> bool {
    let time = until.saturating_duration_since(Instant::now());
    !matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// The report's text. `prefix` ends in a dot, if it is not empty.
fn lines(prefix: &str, samples: &[Sample], now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut lines = String::with_capacity(samples.len() * 96);
    for (path, value) in samples {
        // Nothing is lost by microseconds, and whole numbers stay whole. A String takes everything.
        let value = (value * 1e6).round() / 1e6;
        writeln!(lines, "{prefix}{path} {value} {seconds}").ok();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_path_number_and_time() {
        let samples = [("a.b".to_owned(), 3.0), ("c".to_owned(), 0.012345678), ("d".to_owned(), 1e15)];
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let expected = "p.a.b 3 1700000000\np.c 0.012346 1700000000\np.d 1000000000000000 1700000000\n";
        assert_eq!(lines("p.", &samples, at), expected);
        assert!(lines("", &samples, at).starts_with("a.b 3 "));
    }

    #[test]
    fn waiting_ends_when_the_end_is_asked_for() {
        let (stop, stopped) = mpsc::channel::<()>();
        assert!(!wait(&stopped, Instant::now()));
        drop(stop);
        assert!(wait(&stopped, Instant::now() + Duration::from_secs(60)));
    }
}

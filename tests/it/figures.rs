//! The figures that are promised, measured with the real program and held against their limits.
//!
//! `make figures` runs them optimised, prints one line each and keeps the lines in `load-tests/FIGURES.md`.
//! They want a quiet machine and take minutes, so they are no part of `make test`.

mod health;
mod repair;
mod shelf;
mod writes;

use std::{
    fmt::Display,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{fixture::*, journal::rate};

/// Names the file that the lines are kept in, relative to the repository.
const KEPT_IN: &str = "AKUBRA_FIGURES";
/// Names a part of the groups' names, where not all are to be measured.
const ONLY: &str = "AKUBRA_FIGURES_ONLY";
/// What the gateway logs by default.
const LOGGING: &str = "warn,akubra=info";
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[test]
#[ignore = "takes minutes and a quiet machine: make figures"]
fn all() {
    let mut figures = Figures::default();
    figures.measure("a slow backend that is waited for", writes::a_slow_backend_that_is_waited_for);
    figures.measure("a slow backend that is dropped", writes::a_slow_backend_that_is_dropped);
    figures.measure("a stopped backend", writes::a_stopped_backend);
    figures.measure("connections that close at random", writes::connections_that_close_at_random);
    figures.measure("many large writes at once", writes::many_large_writes_at_once);
    figures.measure("many small writes", writes::many_small_writes);
    figures.measure("idle connections", writes::idle_connections_cost_little);
    figures.measure("a backend that refuses", health::a_backend_that_refuses);
    figures.measure("a backend that hangs", health::a_backend_that_hangs);
    figures.measure("many small repairs", repair::many_small_repairs);
    figures.measure("a huge repair", repair::a_huge_repair);
    figures.measure("a million records in SQLite", rate::sqlite_with_a_million_records);
    figures.measure("a million records in PostgreSQL", rate::postgres_with_a_million_records);
    figures.keep();
    assert_eq!(figures.failed, 0, "figures failed");
}

/// Not a test: the process that is a backend to the others.
#[test]
#[ignore = "a backend for the figures"]
fn backend_process() {
    BackendProcess::serve();
}

/// Not a test either.
#[test]
#[ignore = "a backend for the figures"]
fn shelf_process() {
    shelf::Shelf::serve();
}

fn backend() -> BackendProcess {
    BackendProcess::start("figures::backend_process")
}

/// The lines so far.
#[derive(Debug, Default)]
struct Figures {
    lines: Vec<String>,
    failed: usize,
}

impl Figures {
    /// Measures one group; a panic in it is a failed figure and leaves the others alone.
    fn measure<F: Future<Output = ()>>(&mut self, group: &str, measure: impl FnOnce(Arc<Sheet>) -> F) {
        if std::env::var(ONLY).is_ok_and(|only| !group.contains(&only)) {
            return;
        }
        let sheet = Arc::new(Sheet::default());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(measure(sheet.clone()))));
        if outcome.is_err() {
            sheet.figure(group, "could not be measured", "see above", false);
        }
        self.failed += sheet.failed.load(Relaxed);
        self.lines.append(&mut sheet.lines.lock().unwrap());
    }

    /// Only where all were measured: they are in one file.
    fn keep(&self) {
        let Some(file) = std::env::var_os(KEPT_IN).filter(|_| std::env::var_os(ONLY).is_none()) else {
            return;
        };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let text = format!(
            "# Figures\n\nMeasured by `make figures` on {cores} cores, Linux {}; client, backends and gateway share \
             them.\n\n```text\n{}\n```\n",
            kernel.trim(),
            self.lines.join("\n")
        );
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
}

/// The lines of one group.
#[derive(Debug, Default)]
pub struct Sheet {
    lines: std::sync::Mutex<Vec<String>>,
    failed: AtomicUsize,
}

impl Sheet {
    pub fn figure(&self, what: &str, measured: impl Display, limit: impl Display, kept: bool) {
        self.failed.fetch_add(usize::from(!kept), Relaxed);
        self.line(format!("{} {what}: {measured} (limit: {limit})", if kept { "ok    " } else { "FAILED" }));
    }

    /// A figure without a limit.
    pub fn note(&self, what: &str, measured: impl Display) {
        self.line(format!("       {what}: {measured}"));
    }

    fn line(&self, line: String) {
        println!("{line}");
        self.lines.lock().unwrap().push(line);
    }
}

struct Times {
    median: Duration,
    longest: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Times { median: times[times.len() / 2], longest: times[times.len() - 1] }
    }
}

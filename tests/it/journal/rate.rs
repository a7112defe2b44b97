//! How fast the journal is, empty and with a million open records. A part of `make figures`; alone with
//! `AKUBRA_FIGURES_ONLY="a million records" make figures`. `JOURNAL` names another folder for SQLite's files than `target`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use akubra::journal::{Case, Change, Journal, Lease, Resolution, Sqlite, Wanted};
use tokio::time::Instant;

use super::bench::*;
use crate::figures::Sheet;

const OPEN: i64 = 1_000_000;
const BATCH: i64 = 64;
/// In one go, and how often. The two journals take turns, so that what else the machine does concerns both; a turn is long
/// enough for several checkpoints, and what goes on beside it may end before the next.
const BATCHES: i64 = 60;
const ROUNDS: i64 = 15;
const REST: Duration = Duration::from_millis(300);
/// Of the rate of an empty journal, what a full one must reach.
const SHARE: f64 = 0.7;
const LONG: Duration = Duration::from_secs(600);

/// A journal that is measured, and what it has leased.
struct Measured<'a> {
    journal: &'a dyn Journal,
    gateway: i64,
    written: i64,
    leases: Vec<(Lease, Case)>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append,
    Lease,
    Resolve,
    Counts,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Append => "appends, as a share",
            Step::Lease => "leases, as a share",
            Step::Resolve => "resolutions, as a share",
            Step::Counts => "counts, as a share",
        }
    }
}

/// Per second, of objects or calls; and what each takes of the processors, with all that goes on beside it.
#[derive(Debug, Clone, Copy)]
struct Rate {
    rate: f64,
    micros: f64,
}

impl Measured<'_> {
    async fn new(journal: &dyn Journal) -> Measured<'_> {
        let gateway = journal.enrol("host").await.unwrap();
        Measured { journal, gateway, written: 0, leases: Vec::new() }
    }

    async fn rate(&mut self, step: Step) -> Rate {
        let (since, used) = (Instant::now(), used());
        let count = match step {
            Step::Append => self.append().await,
            Step::Lease => self.lease().await,
            Step::Resolve => self.resolve().await,
            Step::Counts => self.count().await,
        } as f64;
        let rate = count / since.elapsed().as_secs_f64();
        tokio::time::sleep(REST).await;
        Rate { rate, micros: (self::used() - used).as_micros() as f64 / count }
    }

    async fn append(&mut self) -> i64 {
        for _ in 0..BATCHES {
            let changes = (0..BATCH).map(|at| {
                let number = self.written + at;
                diverged(id(self.gateway, number), &object(&format!("new/{number:010}")))
            });
            self.journal.apply(&host(self.gateway), changes.collect(), Duration::ZERO).await.unwrap();
            self.written += BATCH;
        }
        BATCHES * BATCH
    }

    async fn lease(&mut self) -> i64 {
        for _ in 0..BATCHES {
            self.leases
                .extend(self.journal.lease("worker", Wanted::Diverged, 64, LONG, SETTLE).await.unwrap());
        }
        self.leases.len() as i64
    }

    async fn resolve(&mut self) -> i64 {
        let leases = std::mem::take(&mut self.leases);
        for (lease, case) in &leases {
            let seen: Vec<_> = case.records.iter().map(akubra::journal::Record::id).collect();
            assert_eq!(self.journal.resolve(lease, &seen, &[]).await.unwrap(), Resolution::Resolved);
        }
        leases.len() as i64
    }

    async fn count(&self) -> i64 {
        for _ in 0..BATCHES {
            self.journal.counts().await.unwrap();
        }
        BATCHES
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Time of processors that this process has had.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

async fn fill(journal: &dyn Journal) {
    let gateway = host(journal.enrol("host").await.unwrap());
    for start in (0..OPEN).step_by(2000) {
        let changes = (start..start + 2000).map(|number| {
            diverged(id(1, number), &object(&format!("some/longer/path/of/an/object/{number:012}.jpg")))
        });
        journal.apply(&gateway, changes.collect::<Vec<Change>>(), Duration::ZERO).await.unwrap();
    }
}

/// Says how fast each is; a figure is not kept where the full one is too slow.
async fn compare(sheet: &Sheet, name: &str, empty: &dyn Journal, full: &dyn Journal) {
    let since = Instant::now();
    fill(full).await;
    sheet.note(&format!("{name}: a million records"), format!("told in {:.1?}", since.elapsed()));
    let (mut empty, mut full) = (Measured::new(empty).await, Measured::new(full).await);
    let steps = [Step::Append, Step::Lease, Step::Resolve, Step::Counts];
    let mut rates: [[Vec<Rate>; 2]; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (step, rates) in steps.into_iter().zip(&mut rates) {
            rates[0].push(empty.rate(step).await);
            rates[1].push(full.rate(step).await);
        }
    }
    for (step, [empty, full]) in steps.into_iter().zip(rates) {
        let mut shares: Vec<f64> =
            empty.iter().zip(&full).map(|(empty, full)| full.rate / empty.rate).collect();
        shares.sort_by(f64::total_cmp);
        let (least, share, most) = (shares[0], median(shares.clone()), shares[shares.len() - 1]);
        let told = |rates: &[Rate]| {
            let rate = median(rates.iter().map(|rate| rate.rate).collect());
            format!("{rate:.0} ({:.0} µs)", median(rates.iter().map(|rate| rate.micros).collect()))
        };
        let (empty, full) = (told(&empty), told(&full));
        let what = format!("{name} with a million open records: {} of an empty one", step.name());
        let measured = format!(
            "{share:.2} ({least:.2} to {most:.2}; a second, and processor time of each: {full} of {empty})"
        );
        sheet.figure(&what, measured, SHARE, share >= SHARE);
    }
}

pub async fn sqlite_with_a_million_records(sheet: Arc<Sheet>) {
    let folder = tempfile::tempdir_in(std::env::var_os("JOURNAL").map_or("target".into(), PathBuf::from));
    let folder = folder.unwrap();
    let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
    compare(&sheet, "SQLite", &Sqlite::open(&empty).unwrap(), &Sqlite::open(&full).unwrap()).await;
    sheet.note("  its file", format!("{} MiB", std::fs::metadata(&full).unwrap().len() >> 20));
}

pub async fn postgres_with_a_million_records(sheet: Arc<Sheet>) {
    let (empty, full) = (Engine::postgres().await, Engine::postgres().await);
    let (empty, full) = (empty.empty().await, full.empty().await);
    compare(&sheet, "PostgreSQL", &*empty.journal, &*full.journal).await;
}

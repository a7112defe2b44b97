//! How fast the journal is, empty and with a million open records. Not part of the tests: `cargo test --profile demo
//! --test it journal::rate -- --ignored --nocapture`.

use std::{path::PathBuf, time::Duration};

use akubra::journal::{Change, Journal, Sqlite, Wanted};
use tokio::time::Instant;

use super::bench::*;
use crate::fixture::*;

const OPEN: i64 = 1_000_000;
const BATCH: i64 = 64;
const ROUNDS: i64 = 200;
const LONG: Duration = Duration::from_secs(600);

/// Per second: objects appended, leased and resolved, in batches; counts.
async fn rates(journal: &dyn Journal, gateway: i64) -> [f64; 4] {
    let rate = |since: Instant, count: i64| count as f64 / since.elapsed().as_secs_f64();
    let since = Instant::now();
    for round in 0..ROUNDS {
        let changes = (0..BATCH).map(|at| {
            let number = round * BATCH + at;
            diverged(id(gateway, number), &object(&format!("new/{gateway}/{number:010}")))
        });
        journal.apply(changes.collect(), Duration::ZERO).await.unwrap();
    }
    let appended = rate(since, ROUNDS * BATCH);
    let (since, mut leases) = (Instant::now(), Vec::new());
    for _ in 0..ROUNDS {
        leases.extend(journal.lease("worker", Wanted::Diverged, 64, LONG, SETTLE).await.unwrap());
    }
    assert_eq!(leases.len() as i64, ROUNDS * BATCH);
    let leased = rate(since, ROUNDS * BATCH);
    let since = Instant::now();
    for (lease, case) in &leases {
        let seen: Vec<_> = case.records.iter().map(akubra::journal::Record::id).collect();
        journal.resolve(lease, &seen).await.unwrap();
    }
    let resolved = rate(since, ROUNDS * BATCH);
    let since = Instant::now();
    for _ in 0..100 {
        journal.counts().await.unwrap();
    }
    [appended, leased, resolved, rate(since, 100)]
}

async fn fill(journal: &dyn Journal) {
    for start in (0..OPEN).step_by(2000) {
        let changes = (start..start + 2000).map(|number| {
            diverged(id(1, number), &object(&format!("some/longer/path/of/an/object/{number:012}.jpg")))
        });
        journal.apply(changes.collect::<Vec<Change>>(), Duration::ZERO).await.unwrap();
    }
}

async fn report(name: &str, empty: &dyn Journal, full: &dyn Journal) {
    let names = ["append", "lease", "resolve", "counts"];
    let since = Instant::now();
    fill(full).await;
    println!("{name}: filled in {:?}", since.elapsed());
    for gateway in 2..5 {
        let (none, many) = (rates(empty, gateway).await, rates(full, gateway).await);
        for ((what, none), many) in names.iter().zip(none).zip(many) {
            println!("{name} {what}/s: empty {none:.0}, full {many:.0}, share {:.2}", many / none);
        }
    }
}

#[test]
#[ignore = "it takes minutes and measures"]
fn sqlite_with_a_million_records() {
    run_without_limit(async {
        let folder = tempfile::tempdir_in(std::env::var_os("JOURNAL").map_or("target".into(), PathBuf::from));
        let folder = folder.unwrap();
        let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
        report("sqlite", &Sqlite::open(&empty).unwrap(), &Sqlite::open(&full).unwrap()).await;
        println!("bytes: {}", std::fs::metadata(&full).unwrap().len());
    });
}

#[test]
#[ignore = "it takes minutes and measures"]
fn postgres_with_a_million_records() {
    run_without_limit(async {
        let (empty, full) = (Engine::postgres().await, Engine::postgres().await);
        let (empty, full) = (empty.empty().await, full.empty().await);
        report("postgres", &*empty.journal, &*full.journal).await;
    });
}

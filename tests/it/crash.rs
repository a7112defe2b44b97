//! Real crashes: gateways and workers are killed at random moments under traffic, over backends that misbehave. Then
//! everything is repaired, and every object of every backend, bytes and tags, is compared with what its client was told.
//!
//! Each key belongs to one client, which makes one request at a time: so it is known what may be there in the end, the
//! last write that was acknowledged, or one after it whose outcome nobody was told.
//!
//! `make crash-test` runs them; `AKUBRA_KILLS` says how many kills, `AKUBRA_SEED` which moments.
//!
//! | file | |
//! |---|---|
//! | `run.rs` | one run, from its start to what it came to |
//! | `client.rs` | the traffic |
//! | `history.rs` | what may be there |
//! | `doubt.rs` | what may be left to a human |
//! | `scenery.rs` | gateways, workers, and backends that misbehave |
//! | `summary.rs` | what is said of the runs |

mod client;
mod doubt;
mod history;
mod run;
mod scenery;
mod summary;

use self::{
    run::{Plan, survives},
    scenery::over,
};
use crate::fixture::{Behaviour, Phase, Postgres, Scrape, SmallDisk, pair, repaired, run, run_without_limit};

const NO_ROOT: &str = "NOT RUN, because only root may mount a file system that can be full";

#[test]
#[ignore = "takes minutes: make crash-test"]
fn nothing_is_lost_with_the_journal_in_sqlite() {
    let disk = SmallDisk::mount(256);
    let file = disk.as_ref().map_or(String::new(), |disk| format!("File: {}/journal", disk.path().display()));
    let journal = format!("{{SQLite: {{{file}}}, Settle: 2s}}");
    run_without_limit(survives(Plan { name: "SQLite", places: 1, journal, postgres: None, disk }));
}

/// With two gateways and two workers, which is what it is for.
#[test]
#[ignore = "takes minutes: make crash-test"]
fn nothing_is_lost_with_the_journal_in_postgres() {
    run_without_limit(async {
        let postgres = Postgres::start().await;
        postgres.execute("GRANT CREATE ON DATABASE akubra TO akubra").await;
        let journal = format!("{{PostgreSQL: {{{}}}, Settle: 2s}}", postgres.block());
        let plan = Plan { name: "PostgreSQL", places: 2, journal, postgres: Some(postgres), disk: None };
        survives(plan).await;
    });
}

#[test]
#[ignore = "mounts a file system, as root: make crash-test"]
fn a_full_disk_refuses_strong_writes_and_loses_nothing() {
    const RUN: &str = "a full disk";
    let title = format!("{RUN}, {} build", summary::profile());
    let Some(disk) = SmallDisk::mount(64) else {
        return summary::say(RUN, format!("{NO_ROOT}: {title}"));
    };
    summary::begin(RUN, &title);
    run(full_disk(disk));
    summary::say(RUN, format!("ok     {title}: writes are refused while it is full, and nothing is lost"));
}

async fn full_disk(disk: SmallDisk) {
    let (a, b) = pair().await;
    let backends = [a, b];
    let [a, b] = &backends;
    let journal = format!("{{SQLite: {{File: {}/journal}}, Settle: 1s}}", disk.path().display());
    let mut gateway = over(&backends, &journal).with_metrics().start().await;
    let mut held: Vec<(String, &[u8])> = Vec::new();
    for (round, killed) in [false, true].into_iter().enumerate() {
        let target = |name: &str| format!("/bucket/{name}-{round}");
        assert_eq!(gateway.put(&target("before"), b"before").await.status, 200);
        b.wait_for_object(&target("before")).await;
        // One that is under way when there is no more room, and ends while there is none.
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        assert_eq!(gateway.put(&target("during"), b"during").await.status, 200);
        disk.fill();
        gateway.wait_for_records(round + 1).await;
        a.release();
        let asked = [a.requests().len(), b.requests().len()];
        for _ in 0..3 {
            gateway.put(&target("refused"), b"refused").await.assert_error(503, "ServiceUnavailable");
            gateway.delete(&target("before")).await.assert_error(503, "ServiceUnavailable");
        }
        assert_eq!([a.requests().len(), b.requests().len()], asked);
        assert_eq!(gateway.get(&target("before")).await.text(), "before");
        if killed {
            gateway.signal("KILL");
            gateway.exit_status().await;
            gateway = gateway.again().await;
            gateway.put(&target("refused"), b"refused").await.assert_error(503, "ServiceUnavailable");
        }
        disk.make_room();
        let is_back = |scrape: &Scrape| scrape.value("akubra_journal_unavailable", &[]) == 0.0;
        gateway.scrape_until("the journal", is_back).await;
        assert_eq!(gateway.put(&target("after"), b"after").await.status, 200);
        repaired(&gateway).await;
        held.extend([
            (target("before"), &b"before"[..]),
            (target("during"), b"during"),
            (target("after"), b"after"),
        ]);
        assert_eq!(backends.each_ref().map(|backend| backend.stored_bytes(&target("refused"))), [None, None]);
    }
    for (target, body) in held {
        for backend in &backends {
            assert_eq!(backend.stored_bytes(&target).as_deref(), Some(body), "{target}");
        }
    }
    gateway.stop().await;
}

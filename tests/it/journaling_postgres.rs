//! Gateways with their journal in a real PostgreSQL: what one of them records the others know, and what becomes of writes
//! while the database is away.

use std::time::Duration;

use akubra::journal::{Filter, Journal, Postgres as Engine};
use tokio::time::{Instant, sleep};

use crate::fixture::*;

/// By NOTIFY, not by the next look, which is every five seconds.
const SOON: Duration = Duration::from_secs(1);

async fn database() -> Postgres {
    let postgres = Postgres::start().await;
    postgres.execute("GRANT CREATE ON DATABASE akubra TO akubra").await;
    postgres
}

/// Strong, and with all that `akubra sync` needs.
fn over(backends: &[&Misbehaving], postgres: &Postgres) -> Setup {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let credentials = "Credentials: {AccessKey: AKIATEST, SecretKey: test-secret}";
    Setup::new()
        .set_yaml("Clusters", &format!("main: {{Backends: {urls:?}, {credentials}}}"))
        .region(Region::new("region", &[("main", 1.0)]).default_region().set("Consistency", "strong"))
        .set_yaml("Journal", &format!("{{PostgreSQL: {{{}}}, Settle: 1s}}", postgres.block()))
        .set_yaml("Sync", "{BackoffMin: 10ms, BackoffMax: 100ms, ClockBound: 1s}")
        .with_metrics()
}

async fn remembers(gateway: &Gateway, objects: f64) {
    let so = |scrape: &Scrape| scrape.value("akubra_journal_remembered_objects", &[]) == objects;
    gateway.scrape_until("what it remembers", so).await;
}

#[test]
fn what_one_gateway_records_another_knows_at_once_and_a_worker_repairs() {
    run(async {
        let postgres = database().await;
        let (a, b) = pair().await;
        let setup = over(&[&a, &b], &postgres);
        let (mut first, mut second) = (setup.clone().start().await, setup.start().await);
        let journal = connect(&postgres).await;
        for key in 1..4 {
            let target = format!("/bucket/{key}");
            assert_eq!(first.put(&target, b"old").await.status, 200);
            // It would be a record, too, while the next one is under way.
            let settled = async {
                while journal.counts().await.unwrap().intents > 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            soon("the first write to be settled", settled).await;
            a.will(Behaviour::answers(503));
            assert_eq!(first.put(&target, b"new").await.status, 200);
            remembers(&first, key.into()).await;
            a.will(Behaviour::good());
            let since = Instant::now();
            remembers(&second, key.into()).await;
            assert!(since.elapsed() < SOON, "it took {:?}", since.elapsed());
            for gateway in [&first, &second] {
                for _ in 0..8 {
                    assert_eq!(gateway.get(&target).await.text(), "new");
                }
            }
        }
        repaired(&second).await;
        for key in 1..4 {
            for backend in [&a, &b] {
                assert_eq!(backend.stored_bytes(&format!("/bucket/{key}")).as_deref(), Some(&b"new"[..]));
            }
        }
        for gateway in [&first, &second] {
            remembers(gateway, 0.0).await;
        }
        first.stop().await;
        second.stop().await;
    });
}

#[test]
fn while_the_database_is_away_strong_writes_are_refused_and_nothing_is_lost() {
    run(async {
        let mut postgres = database().await;
        let (a, b) = pair().await;
        let setup = over(&[&a, &b], &postgres).set("ResponseHeaderTimeout", "1s");
        let mut gateway = setup.start().await;
        assert_eq!(gateway.put("/bucket/before", b"hello").await.status, 200);
        // One that is under way when the database goes, and ends while it is away.
        a.will_once(Behaviour::hangs(Phase::AfterBody));
        assert_eq!(gateway.put("/bucket/during", b"hello").await.status, 200);
        postgres.stop().await;
        gateway.wait_for_records(1).await;
        let asked = (a.requests().len(), b.requests().len());
        for _ in 0..3 {
            gateway.put("/bucket/refused", b"hello").await.assert_error(503, "ServiceUnavailable");
            gateway.delete("/bucket/before").await.assert_error(503, "ServiceUnavailable");
        }
        assert_eq!((a.requests().len(), b.requests().len()), asked);
        assert_eq!(gateway.get("/bucket/before").await.text(), "hello");
        let refused = gateway.scrape().await.value("akubra_journal_refused_writes_total", &[]);
        assert_eq!(refused, 6.0);
        postgres.go_on().await;
        let is_back = |scrape: &Scrape| scrape.value("akubra_journal_unavailable", &[]) == 0.0;
        gateway.scrape_until("the database", is_back).await;
        assert_eq!(gateway.put("/bucket/after", b"hello").await.status, 200);
        // Of what was refused there is nothing; what ended meanwhile has come.
        let journal = connect(&postgres).await;
        let settled = async {
            loop {
                let counts = journal.counts().await.unwrap();
                let cases = journal.list(&Filter::default(), None, 9).await.unwrap();
                let keys: Vec<Vec<u8>> = cases.into_iter().map(|case| case.object.key).collect();
                if counts.intents == 0 && keys == [b"during"] {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        soon("what the gateway has to say", settled).await;
        repaired(&gateway).await;
        for key in ["before", "during", "after"] {
            for backend in [&a, &b] {
                assert_eq!(backend.stored_bytes(&format!("/bucket/{key}")).as_deref(), Some(&b"hello"[..]));
            }
        }
        gateway.stop().await;
    });
}

async fn connect(postgres: &Postgres) -> Engine {
    Engine::connect(super::journal::bench::settings(postgres)).await.unwrap()
}

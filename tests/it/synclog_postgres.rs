//! The synclog in a real PostgreSQL: delivered in order and once, whatever becomes of the database and the gateway.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::fixture::*;

/// A gateway whose second backend refuses everything, and whose synclog goes to a file and to this database.
async fn over(a: &Misbehaving, b: &Misbehaving, database: &str) -> Gateway {
    Gateway::over(&[a, b]).synclog_database(database).with_metrics().start().await
}

async fn backends() -> (Misbehaving, Misbehaving) {
    let (a, b) = pair().await;
    b.will(Behaviour::answers(503));
    (a, b)
}

async fn put(gateway: &Gateway, count: usize) {
    for number in 0..count {
        assert_eq!(gateway.put(&format!("/bucket/{number}"), b"hello").await.status, 200);
    }
}

fn spool_of(gateway: &Gateway) -> PathBuf {
    gateway.log_file("state/synclog-spool")
}

/// Request ids of a file's records, which come in the order in which the spool gets them.
fn ids(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| record["reqID"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many records are in the spool, or were before they were delivered, and in the file.
async fn wait_for_spool(gateway: &Gateway, count: usize) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut lines = 0;
        for entry in std::fs::read_dir(spool_of(gateway)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "records") {
                lines += std::fs::read(path).unwrap().iter().filter(|byte| **byte == b'\n').count();
            }
        }
        if lines >= count {
            break;
        }
        assert!(Instant::now() < deadline, "{lines} of {count} records are in the spool");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.wait_for_records(count).await;
}

#[test]
fn a_record_becomes_a_row_by_the_default_statement() {
    run(async {
        let postgres = Postgres::start().await;
        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        let (a, b) = backends().await;
        let database = format!("{}, host: localhost, port: {}", postgres.role(), postgres.port().await);
        let gateway = over(&a, &b, &database).await;
        let headers = [("User-Agent", "o'brien\"; --")];
        let target = "/bucket/');DROP%20TABLE%20akubra_synclog;--%F0%9F%92%A5%5C";
        assert_eq!(gateway.request("PUT", target, &headers, b"hello").await.status, 200);
        let id = postgres.wait_for_rows(1).await.remove(0);
        let records = gateway.wait_for_records(1).await;
        assert_eq!(id, records[0]["reqID"]);
        let row = &postgres.query("SELECT * FROM akubra_synclog").await[0];
        for column in
            ["method", "region", "cluster", "failedhost", "successhost", "path", "bucket", "key", "outcome"]
        {
            assert_eq!(row.get::<_, &str>(column), records[0][column].as_str().unwrap(), "{column}");
        }
        assert_eq!(row.get::<_, &str>("key"), "');DROP TABLE akubra_synclog;--\u{1f4a5}\\");
        assert_eq!(row.get::<_, &str>("useragent"), headers[0].1);
        assert_eq!((row.get::<_, i32>("status"), row.get::<_, i64>("content_length")), (503, 5));
        let ts = postgres
            .texts("SELECT to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') FROM akubra_synclog");
        assert!(records[0]["ts"].as_str().unwrap().starts_with(&ts.await[0]));
        let scrape = gateway.scrape_until("the delivery", |scrape| {
            scrape.value("akubra_synclog_records_delivered_total", &[]) == 1.0
        });
        let scrape = scrape.await;
        assert_eq!(scrape.value("akubra_synclog_database_connected", &[]), 1.0);
        assert_eq!(scrape.value("akubra_synclog_spool_owner", &[]), 1.0);
        assert_eq!(scrape.value("akubra_synclog_spool_bytes", &[]), 0.0);
    });
}

#[test]
fn the_originals_template_fills_columns_of_any_type() {
    run(async {
        let postgres = Postgres::start().await;
        postgres
            .execute(
                "CREATE TABLE tablename (action text, path text, successhost text, failedhost text, ts timestamp, \
                 method varchar(8), useragent text, error text, size numeric, status smallint, at timestamptz, id uuid); \
                 GRANT INSERT ON tablename TO akubra",
            )
            .await;
        let (a, b) = backends().await;
        let template = "INSERT INTO tablename VALUES ('new','{{.path}}','{{.successhost}}','{{.failedhost}}', \
            '{{.ts}}'::timestamp, '{{.method}}','s3: {{.useragent}}','{{.error}}', {{.content-length}}, {{.status}}, \
            '{{.ts}}', '{{.id}}');";
        let database = format!("{}, inserttmpl: \"{template}\"", postgres.block());
        let gateway = over(&a, &b, &database).await;
        put(&gateway, 1).await;
        let record = gateway.wait_for_records(1).await.remove(0);
        let row =
            "SELECT concat_ws('|', action, path, failedhost, method, useragent, size, status) FROM tablename";
        let deadline = Instant::now() + DEADLINE;
        while postgres.texts(row).await.is_empty() {
            assert!(Instant::now() < deadline, "no row");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let text = |field: &str| record[field].as_str().unwrap().to_owned();
        let expected = format!("new|/bucket/0|{}|PUT|s3: {}|5|503", text("failedhost"), text("useragent"));
        assert_eq!(postgres.texts(row).await, [expected]);
    });
}

#[test]
fn records_wait_through_an_outage_a_restart_a_crash_and_a_takeover_and_come_in_order_and_once() {
    run(async {
        let mut postgres = Postgres::start().await;
        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        let (a, b) = backends().await;
        let mut gateway = over(&a, &b, &postgres.block()).await;
        put(&gateway, 20).await;
        postgres.wait_for_rows(20).await;

        postgres.stop().await;
        put(&gateway, 30).await;
        gateway.wait_for_log("nothing is delivered to the database akubra@").await;
        let ended = gateway.stop().await;
        assert_eq!(ended.records.len(), 50);
        assert!(!ended.main.contains(PASSWORD), "{}", ended.main);

        // Killed in the middle.
        let mut gateway = gateway.again().await;
        put(&gateway, 10).await;
        wait_for_spool(&gateway, 60).await;
        gateway.signal("KILL");
        gateway.exit_status().await;

        let gateway = gateway.again().await;
        put(&gateway, 10).await;
        wait_for_spool(&gateway, 70).await;
        let mut old = gateway;
        // A request that is under way in the predecessor.
        let mut client = old.client().await;
        client.head("PUT", "/bucket/old", &[("Content-Length", "5")]).await;
        let mut new = old.hand_over().await;
        put(&new, 10).await;
        wait_for_spool(&new, 80).await;
        client.send(b"hello").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        old.ended().await;
        put(&new, 5).await;
        wait_for_spool(&new, 86).await;

        postgres.go_on().await;
        let delivered = postgres.wait_for_rows(86).await;
        let records = new.stop().await.records;
        assert_eq!(records.len(), 86);
        assert_eq!(delivered, ids(&records));
        assert_eq!(postgres.wait_for_rows(86).await.len(), 86);
    });
}

#[test]
fn takeovers_under_load_deliver_every_record_once() {
    run(async {
        let postgres = Postgres::start().await;
        // Nothing hides a record that is delivered twice.
        postgres.execute("ALTER TABLE akubra_synclog DROP CONSTRAINT akubra_synclog_id_key").await;
        postgres.execute("GRANT INSERT ON akubra_synclog TO akubra").await;
        let (a, b) = backends().await;
        let statement = "INSERT INTO akubra_synclog (id, ts, reqid, method, region, cluster, failedhost, successhost, \
            path, bucket, key, version, subresource, status, outcome, error, etag, content_length, useragent) VALUES \
            ('{{.id}}', '{{.ts}}', '{{.reqID}}', '', '', '', '', '', '{{.path}}', '', '', '', '', 0, '', '', '', 0, '')";
        let database = format!("{}, inserttmpl: \"{statement}\"", postgres.block());
        let setup = Gateway::over(&[&a, &b]).synclog_database(&database).logging("akubra=info");
        let mut gateway = setup.start().await;
        let load = Load::begin(gateway.address(), 8);
        let mut done = 0;
        for _ in 0..3 {
            done += 100;
            a.wait_for_requests(done).await;
            let successor = gateway.hand_over().await;
            gateway.ended().await;
            gateway = successor;
            done = a.requests().len();
        }
        let tally = load.end().await;
        assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
        postgres.wait_for_rows(tally.stored.len()).await;
        let mut expected = ids(&gateway.stop().await.records);
        let mut delivered = postgres.wait_for_rows(expected.len()).await;
        expected.sort_unstable();
        delivered.sort_unstable();
        assert_eq!(delivered, expected);
    });
}

#[test]
fn a_successor_delivers_while_its_predecessor_still_serves() {
    run(async {
        let postgres = Postgres::start().await;
        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        let (a, b) = backends().await;
        let mut old = over(&a, &b, &postgres.block()).await;
        let mut client = old.client().await;
        client.head("PUT", "/bucket/old", &[("Content-Length", "5")]).await;
        let mut new = old.hand_over().await;
        new.scrape_until("the spool", |scrape| scrape.value("akubra_synclog_spool_owner", &[]) == 1.0).await;
        put(&new, 1).await;
        postgres.wait_for_rows(1).await;
        // What the predecessor still records comes by way of the successor.
        client.send(b"hello").await;
        assert_eq!(client.reply("PUT").await.status, 200);
        old.ended().await;
        let delivered = postgres.wait_for_rows(2).await;
        assert_eq!(delivered, ids(&new.stop().await.records));
    });
}

#[test]
fn a_database_that_crashes_under_load_gets_every_record_once() {
    run(async {
        let mut postgres = Postgres::start().await;
        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        let (a, b) = backends().await;
        let setup = Gateway::over(&[&a, &b]).synclog_database(&postgres.block()).logging("akubra=info");
        let mut gateway = setup.start().await;
        let load = Load::begin(gateway.address(), 8);
        for _ in 0..2 {
            let done = a.requests().len();
            a.wait_for_requests(done + 100).await;
            postgres.stop().await;
            a.wait_for_requests(done + 150).await;
            postgres.go_on().await;
        }
        let tally = load.end().await;
        assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
        gateway.wait_for_records(tally.stored.len()).await;
        postgres.wait_for_rows(tally.stored.len()).await;
        let records = gateway.stop().await.records;
        assert_eq!(postgres.wait_for_rows(records.len()).await, ids(&records));
    });
}

#[test]
fn a_record_that_the_database_refuses_is_set_aside_and_those_behind_it_come() {
    run(async {
        let mut postgres = Postgres::start().await;
        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        postgres.execute("ALTER TABLE akubra_synclog ALTER COLUMN useragent TYPE varchar(20)").await;
        let (a, b) = backends().await;
        let mut gateway = over(&a, &b, &postgres.block()).await;
        // So that they come in one batch.
        postgres.stop().await;
        let long = [("User-Agent", "longer than the twenty characters of the column")];
        for (number, headers) in [&long[..], &[], &[], &long, &long, &[]].into_iter().enumerate() {
            let target = format!("/bucket/{number}");
            assert_eq!(gateway.request("PUT", &target, headers, b"hello").await.status, 200);
        }
        wait_for_spool(&gateway, 6).await;
        postgres.go_on().await;
        postgres.wait_for_rows(3).await;
        let scrape = gateway.scrape_until("the rejections", |scrape| {
            scrape.value("akubra_synclog_records_rejected_total", &[]) == 3.0
        });
        scrape.await;
        gateway.wait_for_log("the database refuses the record").await;
        let records = gateway.stop().await.records;
        let rejected = std::fs::read_to_string(spool_of(&gateway).join("rejected.jsonl")).unwrap();
        let rejected: Vec<Value> = rejected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rejected.len(), 3);
        for entry in &rejected {
            assert!(entry["error"].as_str().unwrap().contains("(SQLSTATE 22001)"), "{entry}");
            assert!(records.contains(&entry["record"]), "{entry}");
        }
        let paths = postgres.texts("SELECT path FROM akubra_synclog ORDER BY path").await;
        assert_eq!(paths, ["/bucket/1", "/bucket/2", "/bucket/5"]);
    });
}

#[test]
fn a_statement_that_takes_nothing_is_told_and_nothing_is_lost_by_it() {
    run(async {
        let postgres = Postgres::start().await;
        let (a, b) = backends().await;
        // It is tried at the start.
        let mut gateway = over(&a, &b, &postgres.block()).await;
        gateway
            .wait_for_log("permission denied for table akubra_synclog (SQLSTATE 42501); records wait in")
            .await;
        put(&gateway, 3).await;
        assert_eq!(gateway.stop().await.records.len(), 3);

        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        postgres.execute("ALTER TABLE akubra_synclog ADD CONSTRAINT never CHECK (false)").await;
        let mut gateway = gateway.again().await;
        gateway.wait_for_log("the statement takes no record at all: new row for relation").await;
        assert!(!spool_of(&gateway).join("rejected.jsonl").exists());
        postgres.execute("ALTER TABLE akubra_synclog DROP CONSTRAINT never").await;
        let delivered = postgres.wait_for_rows(3).await;
        gateway.wait_for_log("records are delivered to the database again").await;
        assert_eq!(delivered, ids(&gateway.stop().await.records));
    });
}

#[test]
fn a_full_spool_is_told_and_what_it_did_not_take_comes_later() {
    run(async {
        let mut postgres = Postgres::start().await;
        postgres.execute("GRANT INSERT, SELECT (id) ON akubra_synclog TO akubra").await;
        let (a, b) = backends().await;
        let mut gateway = over(&a, &b, &format!("{}, spool: 1MiB", postgres.block())).await;
        put(&gateway, 1).await;
        postgres.wait_for_rows(1).await;
        postgres.stop().await;
        let agent = "x".repeat(20_000);
        for number in 0..80 {
            let reply = gateway
                .request("PUT", &format!("/bucket/{number}"), &[("User-Agent", &agent)], b"hello")
                .await;
            assert_eq!(reply.status, 200);
        }
        gateway.wait_for_log("the spool is full: it holds 1048576 bytes at most; nothing is lost yet").await;
        let scrape = gateway.scrape().await;
        let labels = [("log", "synclog"), ("destination", "database")];
        assert!(scrape.value("akubra_log_write_errors_total", &labels) >= 1.0);
        assert_eq!(scrape.value("akubra_limit", &[("bound", "Logging.Synclog.database.spool")]), 1048576.0);
        postgres.go_on().await;
        let delivered = postgres.wait_for_rows(81).await;
        assert_eq!(delivered, ids(&gateway.stop().await.records));
    });
}

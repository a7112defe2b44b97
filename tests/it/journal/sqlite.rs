//! The file: opened by several, left by a crash, or not what it should be.

use std::{
    collections::HashSet,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use akubra::journal::{Enrolled, Filter, Journal, JournalError, News, Resolution, Sqlite, Wanted};
use rusqlite::Connection;

use super::bench::*;
use crate::fixture::*;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_was_applied_outlives_a_crash() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = at(&path);
        let gateway = journal.enrol("host").await.unwrap();
        let (a, b) = (object("a"), object("b"));
        journal
            .apply(&host(gateway), vec![begin(id(gateway, 1), &a), diverged(id(gateway, 2), &b)], SETTLE)
            .await
            .unwrap();
        let leases = journal.lease("worker", Wanted::Diverged, 9, LONG, SETTLE).await.unwrap();
        for name in ["journal", "journal-wal", "journal-shm"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        // What a process leaves behind that is killed now.
        let left = tempfile::tempdir().unwrap();
        for name in ["journal", "journal-wal"] {
            std::fs::copy(folder.path().join(name), left.path().join(name)).unwrap();
        }
        for journal in [at(&left.path().join("journal")), {
            drop(journal);
            at(&path)
        }] {
            assert_eq!(journal.alive(&host(gateway)).await.unwrap(), Some(0));
            assert_ne!(journal.enrol("host").await.unwrap(), gateway);
            let case = journal.show(&b).await.unwrap().unwrap();
            assert_eq!(case, leases[0].1);
            assert_eq!(journal.counts().await.unwrap().intents, 1);
            assert_eq!(journal.adopt(Duration::ZERO, Duration::ZERO).await.unwrap(), 1);
            assert_eq!(
                journal.lease("other", Wanted::Diverged, 9, LONG, SETTLE).await.unwrap()[0].1.object,
                a
            );
            let seen = [id(gateway, 2)];
            assert_eq!(journal.resolve(&leases[0].0, &seen, &[]).await.unwrap(), Resolution::Resolved);
        }
    });
}

#[test]
fn several_use_one_file() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(folder.path().join("journal"));
        // They make it at the same time, too.
        let open = |_| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || at(&path))
        };
        let mut journals = Vec::new();
        for opening in (0..4).map(open).collect::<Vec<_>>() {
            journals.push(Arc::new(opening.await.unwrap()));
        }
        let working = journals.iter().map(|journal| tokio::spawn(work(journal.clone())));
        let mut leased = HashSet::new();
        for worker in working.collect::<Vec<_>>() {
            for object in worker.await.unwrap() {
                assert!(leased.insert(object));
            }
        }
        let rest = journals[0].lease("last", Wanted::Diverged, 1000, LONG, SETTLE).await.unwrap();
        assert_eq!(leased.len() + rest.len(), 4 * 50);
        assert_eq!(journals[1].counts().await.unwrap().leased, 200);
    });
}

/// A gateway and a worker that are started together: neither takes what the other is making for something else.
#[test]
fn several_make_one_file() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..25 {
            let path = Arc::new(folder.path().join(round.to_string()));
            let open = |_| {
                let path = path.clone();
                tokio::task::spawn_blocking(move || at(&path))
            };
            for opening in (0..4).map(open).collect::<Vec<_>>() {
                opening.await.unwrap();
            }
        }
    });
}

/// Adds objects and leases what there is.
async fn work(journal: Arc<Sqlite>) -> Vec<akubra::journal::Object> {
    let gateway = journal.enrol("host").await.unwrap();
    let mut leased = Vec::new();
    for number in 0..50 {
        let object = object(&format!("{gateway}-{number}"));
        journal.apply(&host(gateway), vec![diverged(id(gateway, number), &object)], SETTLE).await.unwrap();
        let leases = journal.lease("worker", Wanted::Diverged, 1, LONG, SETTLE).await.unwrap();
        leased.extend(leases.into_iter().map(|(lease, _)| lease.object));
    }
    leased
}

#[test]
fn news_come_from_other_processes() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (ours, theirs) = (at(&path), at(&path));
        let mark = ours.unresolved(None, 1).await.unwrap().mark;
        let told = tokio::spawn(async move { ours.news(mark, DEADLINE).await.unwrap() });
        apply(&theirs, vec![diverged(id(1, 1), &object("a"))]).await.unwrap();
        let News::Changed(changed, _) = told.await.unwrap() else { panic!("all is asked for") };
        assert_eq!(changed[0].0, object("a"));
    });
}

/// Locks are the process's: a file that is closed takes those of all its connections along.
#[test]
fn others_that_end_leave_the_log_to_who_has_it_open() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = at(&path);
        let also = at(&path);
        apply(&journal, vec![diverged(id(1, 1), &object("a"))]).await.unwrap();
        let file = std::fs::metadata(&path).unwrap().ino();
        let own = format!(" {} ", std::process::id());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let is_ours = |lock: &&str| lock.contains(&own) && lock.contains(&format!(":{file} "));
        assert!(locks.lines().any(|lock| is_ours(&lock)), "none keeps another from taking it away: {locks}");
        drop(also);
    });
}

/// Restored from a backup, or begun anew, while it is open.
#[test]
fn a_file_that_was_replaced_is_left_alone_and_takes_no_strangers() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = at(&path);
        let (gateway, early) = (host(journal.enrol("host").await.unwrap()), object("early"));
        journal.apply(&gateway, vec![diverged(id(gateway.number, 1), &early)], SETTLE).await.unwrap();
        let backup = folder.path().join("backup");
        Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [backup.to_str()]).unwrap();
        let late = host(journal.enrol("late").await.unwrap()).number;
        std::fs::rename(&backup, &path).unwrap();
        let told = journal.apply(&gateway, vec![diverged(id(gateway.number, 2), &early)], SETTLE).await;
        let is_refused = |error: Option<JournalError>| matches!(error, Some(JournalError::Unavailable(why)) if why.contains("restart what has it open"));
        assert!(is_refused(told.err()) && is_refused(journal.counts().await.err()));
        drop(journal);

        ["journal-wal", "journal-shm"].iter().for_each(|name| {
            std::fs::remove_file(folder.path().join(name)).ok();
        });
        let journal = at(&path);
        assert_eq!(journal.show(&early).await.unwrap().unwrap().records.len(), 1);
        assert_eq!(journal.alive(&gateway).await.unwrap(), Some(0));
        let late = Enrolled { number: late, name: "late".to_owned(), deaths: 0 };
        let refused = journal.apply(&late, vec![begin(id(late.number, 1), &early)], SETTLE).await;
        assert_eq!(refused, Err(JournalError::Stranger(late.number)));
    });
}

/// What is copied beside the commits, and after them.
#[test]
fn the_log_does_not_grow_without_end() {
    run_without_limit(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = at(&path);
        let gateway = host(journal.enrol("host").await.unwrap());
        let mut length = 0;
        for number in 0..60 {
            let of = |at: i64| diverged(id(gateway.number, 500 * number + at), &object(&at.to_string()));
            journal.apply(&gateway, (0..500).map(of).collect(), SETTLE).await.unwrap();
            let log = std::fs::metadata(folder.path().join("journal-wal")).unwrap().len();
            length = length.max(log);
        }
        println!("{length}");
        assert!(length < 80 << 20, "{length}");
        assert!(std::fs::metadata(&path).unwrap().len() > 1 << 20, "nothing is in the file");
    });
}

fn refusal(path: &Path) -> JournalError {
    Sqlite::open(path).map(|_| ()).unwrap_err()
}

#[test]
fn what_is_no_journal_is_left_alone() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text = "no database, but text that is long enough to be one ".repeat(100);
        std::fs::write(&path, &text).unwrap();
        let shown = path.display();
        assert_eq!(refusal(&path), JournalError::Unusable(format!("{shown}: it is no database")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::remove_file(&path).unwrap();
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE customers (name TEXT)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let expected = format!("{shown}: it is a database of something else");
        assert_eq!(refusal(&path), JournalError::Unusable(expected));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_file(&path).unwrap();
        drop(at(&path));
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
        let expected =
            format!("{shown}: it has version 9 of the schema, of a later akubra; this one knows 4");
        assert_eq!(refusal(&path), JournalError::Unusable(expected));
        let nowhere = folder.path().join("nowhere/journal");
        assert!(matches!(refusal(&nowhere), JournalError::Unavailable(_)));
    });
}

#[test]
fn a_file_of_the_first_version_is_brought_to_this_one() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let later = folder.path().join("later");
        let gateway = at(&later).enrol("host").await.unwrap();
        at(&later).apply(&host(gateway), vec![diverged(id(1, 1), &object("k"))], SETTLE).await.unwrap();
        let payload = "SELECT payload FROM records";
        let payload: Vec<u8> =
            Connection::open(&later).unwrap().query_row(payload, [], |row| row.get(0)).unwrap();
        let first = Connection::open(&path).unwrap();
        first.execute_batch(include_str!("../../../src/journal/schema/sqlite-001.sql")).unwrap();
        first
            .execute_batch(
                "PRAGMA application_id = 0x616b624a; PRAGMA user_version = 1;
                INSERT INTO gateways (name, seen, gone) VALUES ('host', 1, 0);
                INSERT INTO objects (id, digest, cluster, bucket, key, standing, diverged, due, calm, replaced,
                    attempts, since, reason, records, appended)
                VALUES (1, zeroblob(32), 'c', x'62', x'6b', 0, 1, 1, 1, 0, 0, 1, '', 1, 1)",
            )
            .unwrap();
        first.execute("INSERT INTO records VALUES (1, 1, 1, 1, ?1)", [payload]).unwrap();
        drop(first);
        let journal = at(&path);
        assert_eq!(journal.alive(&host(1)).await.unwrap(), Some(0));
        let [(_, known)] = &journal.unresolved(None, 9).await.unwrap().objects[..] else {
            panic!("it has one")
        };
        assert!(known.lags("http://b:80") && !known.lags("http://a:80"), "its records are asked");
        assert_eq!(journal.counts().await.unwrap().open, 1);
        journal.leave(&host(1), SETTLE).await.unwrap();
        assert_eq!(at(&path).alive(&host(1)).await.unwrap(), Some(1));
    });
}

#[test]
fn a_row_with_a_damaged_digest_is_in_nobodys_way() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = at(&path);
        apply(&journal, vec![diverged(id(1, 1), &object("damaged"))]).await.unwrap();
        let digest = "UPDATE objects SET digest = substr(digest, 1, 9)";
        Connection::open(&path).unwrap().execute(digest, []).unwrap();
        // Also for who opens it now, and looks where all objects are.
        let journal = at(&path);
        apply(&journal, vec![diverged(id(1, 2), &object("good"))]).await.unwrap();
        let listed = journal.list(&Filter::default(), None, 9).await.unwrap();
        assert_eq!(listed.len(), 2);
        let leases = journal.lease("worker", Wanted::Diverged, 9, SETTLE, SETTLE).await.unwrap();
        let leased: Vec<_> = leases.iter().map(|(lease, _)| &lease.object).collect();
        assert_eq!(leased, [&object("good")]);
        let parked = journal.aside(9).await.unwrap();
        assert_eq!(parked.len(), 1);
        assert!(parked[0].object == object("damaged") && parked[0].reason.contains("another digest"));
    });
}

#[test]
fn a_lock_that_is_not_given_up_makes_it_unavailable() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = at(&path);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let change = || vec![diverged(id(1, 1), &object("a"))];
        let refused = apply(&journal, change()).await;
        let expected = JournalError::Unavailable("database is locked".to_owned());
        assert_eq!(refused, Err(expected));
        // Whoever only reads is not concerned.
        assert_eq!(journal.counts().await.unwrap().open, 0);
        other.execute_batch("COMMIT").unwrap();
        apply(&journal, change()).await.unwrap();
        assert_eq!(journal.counts().await.unwrap().open, 1);
    });
}

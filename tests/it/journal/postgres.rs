//! The database: shared by many, gone and back, or of a later version.

use std::{collections::HashSet, sync::Arc, time::Duration};

use akubra::journal::{
    Change, Filter, Journal, JournalError, Later, News, Object, Postgres, Resolution, Wanted,
    postgres::Settings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    sync::watch,
    time::{Instant, sleep},
};

use super::bench::*;
use crate::fixture::*;

const LONG: Duration = Duration::from_secs(600);

fn server(engine: &mut Engine) -> &mut crate::fixture::Postgres {
    match engine {
        Engine::Postgres(server) => server,
        _ => unreachable!(),
    }
}

#[test]
fn it_goes_on_when_the_database_does() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let journal = Postgres::connect(settings(server)).await.unwrap();
        let change = || vec![diverged(id(1, 1), &object("a"))];
        apply(&journal, change()).await.unwrap();
        let mark = journal.unresolved(None, 9).await.unwrap().mark;
        assert_eq!(journal.news(mark, Duration::ZERO).await.unwrap(), News::Changed(vec![], mark));
        server.stop().await;
        let refused = apply(&journal, change()).await;
        assert!(matches!(refused, Err(JournalError::Unavailable(_))), "{refused:?}");
        assert!(matches!(
            Postgres::connect(settings(server)).await.map(|_| ()),
            Err(JournalError::Unavailable(_))
        ));
        server.go_on().await;
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = apply(&journal, change()).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(journal.counts().await.unwrap().open, 1);
    });
}

#[test]
fn who_lost_the_database_begins_anew() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let journal = Postgres::connect(settings(server)).await.unwrap();
        let mark = journal.unresolved(None, 9).await.unwrap().mark;
        let listens = "SELECT pid::text FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
        let deadline = Instant::now() + DEADLINE;
        while server.texts(listens).await.is_empty() {
            assert!(Instant::now() < deadline);
            journal.news(mark, Duration::from_millis(10)).await.unwrap();
        }
        // With the connection's loss, not with the next look.
        server
            .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            .await;
        assert_eq!(journal.news(mark, DEADLINE).await.unwrap(), News::Reload);
        assert_eq!(journal.news(mark, Duration::ZERO).await.unwrap(), News::Changed(vec![], mark));
    });
}

#[test]
fn news_come_from_other_gateways() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let ours = Postgres::connect(settings(server)).await.unwrap();
        let theirs = Postgres::connect(settings(server)).await.unwrap();
        let mut mark = ours.unresolved(None, 1).await.unwrap().mark;
        for number in 1..4 {
            let object = object(&number.to_string());
            let (told, applied) = tokio::join!(
                ours.news(mark, DEADLINE),
                apply(&theirs, vec![diverged(id(1, number), &object)])
            );
            applied.unwrap();
            let News::Changed(changed, next) = told.unwrap() else { panic!("all is asked for") };
            assert_eq!(changed[0].0, object);
            mark = next;
        }
    });
}

#[test]
fn many_work_at_once() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        // Which is not what they rely on.
        server.execute("ALTER ROLE akubra SET default_transaction_isolation = 'serializable'").await;
        // They make the tables at the same time, too.
        let connect = || tokio::spawn(Postgres::connect(settings(server)));
        let connecting = [connect(), connect()];
        let mut journals = Vec::new();
        for connecting in connecting {
            journals.push(Arc::new(connecting.await.unwrap().unwrap()));
        }
        let mut working = Vec::new();
        for number in 0..8 {
            working.push(tokio::spawn(work(journals[number % 2].clone())));
        }
        for worker in working {
            worker.await.unwrap();
        }
        let left = journals[0].list(&Filter::default(), None, 100).await.unwrap();
        let counts = journals[0].counts().await.unwrap();
        assert_eq!((counts.open, counts.intents, counts.leased), (left.len() as u64, 0, 0));
        for trouble in ["deadlock detected", "could not serialize access"] {
            assert!(!server.log().contains(trouble), "{}", server.log());
        }
        let mut records = HashSet::new();
        assert!(left.iter().flat_map(|case| &case.records).all(|record| records.insert(record.id())));
    });
}

/// Writes to a few objects, and resolves what it gets.
async fn work(journal: Arc<Postgres>) {
    let gateway = journal.enrol("host").await.unwrap();
    for number in 0..40 {
        journal.alive(&host(gateway)).await.unwrap();
        if number % 10 == 0 {
            journal.adopt(Duration::ZERO, Duration::ZERO).await.unwrap();
        }
        let objects: Vec<Object> =
            (0..3).map(|at| object(&((number + at * gateway) % 5).to_string())).collect();
        let ids: Vec<_> = (0..3).map(|at| id(gateway, 3 * number + at)).collect();
        let begun = ids.iter().zip(&objects).map(|(id, object)| begin(*id, object));
        tell(&*journal, &host(gateway), begun.collect(), Duration::ZERO).await;
        let ended = vec![
            diverged(ids[0], &objects[0]),
            settled(ids[1], &objects[1]),
            akubra::journal::Change::Void(ids[2]),
        ];
        tell(&*journal, &host(gateway), ended, Duration::ZERO).await;
        for (lease, case) in journal.lease("worker", Wanted::Diverged, 2, LONG, LONG).await.unwrap() {
            let seen: Vec<_> = case.records.iter().map(akubra::journal::Record::id).collect();
            if journal.resolve(&lease, &seen, &[]).await.unwrap() == Resolution::Changed {
                journal.postpone(&lease, Later::again(Duration::ZERO), "").await.unwrap();
            }
        }
    }
    journal.leave(&host(gateway), Duration::ZERO).await.unwrap();
}

#[test]
fn an_object_is_leased_by_one_of_many() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let journal = Arc::new(Postgres::connect(settings(server)).await.unwrap());
        let changes = (0..200).map(|number| diverged(id(1, number), &object(&number.to_string())));
        apply(&*journal, changes.collect()).await.unwrap();
        let worker = |_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let mut leased = Vec::new();
                for _ in 0..20 {
                    leased.extend(journal.lease("worker", Wanted::Misplaced, 7, LONG, LONG).await.unwrap());
                }
                leased
            })
        };
        let mut objects = HashSet::new();
        for worker in (0..4).map(worker).collect::<Vec<_>>() {
            for (lease, _) in worker.await.unwrap() {
                assert!(objects.insert(lease.object));
            }
        }
        assert_eq!(objects.len(), 200);
    });
}

#[test]
fn a_call_looks_through_the_records_of_few_objects() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let journal = Postgres::connect(settings(server)).await.unwrap();
        let gateway = host(journal.enrol("host").await.unwrap());
        let few = async || {
            let all = journal.list(&Filter::default(), None, 100).await.unwrap();
            all.iter().filter(|case| case.records.len() < 64).count()
        };
        for number in 1..=128 {
            let all =
                (0..40).map(|at| diverged(id(gateway.number, 40 * number + at), &object(&at.to_string())));
            journal.apply(&gateway, all.collect(), SETTLE).await.unwrap();
            if number == 64 {
                assert_eq!(few().await, 32);
            }
        }
        // Those of the others when they were twice as many.
        assert_eq!(few().await, 40);
    });
}

#[test]
fn tables_of_a_later_version_are_left_alone() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        drop(Postgres::connect(settings(server)).await.unwrap());
        server.execute("UPDATE akubra_journal.version SET version = 9").await;
        let refused = Postgres::connect(settings(server)).await.map(|_| ());
        let expected = "its tables have version 9, of a later akubra; this one knows 2";
        assert_eq!(refused, Err(JournalError::Unusable(expected.to_owned())));
    });
}

#[test]
fn tables_of_the_first_version_are_brought_to_this_one() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let journal = Postgres::connect(settings(server)).await.unwrap();
        let gateway = host(journal.enrol("host").await.unwrap());
        let a = object("a");
        apply(&journal, vec![diverged(id(1, 1), &a)]).await.unwrap();
        let known = journal.known(&a).await.unwrap();
        drop(journal);
        let before = "ALTER TABLE akubra_journal.gateways DROP COLUMN deaths;
            ALTER TABLE akubra_journal.objects DROP COLUMN known;
            UPDATE akubra_journal.version SET version = 1";
        server.execute(before).await;
        let journal = Postgres::connect(settings(server)).await.unwrap();
        assert_eq!(journal.alive(&gateway).await.unwrap(), Some(0));
        assert!(known.is_some() && journal.known(&a).await.unwrap() == known, "its records are asked");
        journal.leave(&gateway, SETTLE).await.unwrap();
        assert_eq!(journal.alive(&gateway).await.unwrap(), Some(1));
    });
}

/// A way to the server on which commits stay while it is told so; who asked for them may have gone.
struct Way {
    port: u16,
    /// How many wait on it.
    holding: watch::Receiver<usize>,
    holds: watch::Sender<bool>,
}

impl Way {
    async fn to(server: &crate::fixture::Postgres) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = std::path::Path::new(&server.host()).join(".s.PGSQL.5432");
        let (hold, holds_now) = watch::channel(false);
        let (held, holding) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut from_client, mut to_client) = client.into_split();
                let server = UnixStream::connect(&socket).await.unwrap();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await.ok() });
                let (mut holds, held) = (holds_now.clone(), held.clone());
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                        if *holds.borrow() && bytes[..count].windows(7).any(|part| part == b"COMMIT\0") {
                            held.send_modify(|held| *held += 1);
                            holds.wait_for(|holds| !holds).await.unwrap();
                        }
                        to_server.write_all(&bytes[..count]).await.unwrap();
                    }
                });
            }
        });
        Way { port, holding, holds: hold }
    }
}

#[test]
fn what_is_asked_again_does_not_overtake_what_may_still_be_running() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let mut way = Way::to(server).await;
        let slow = Settings { host: "127.0.0.1".to_owned(), port: way.port, ..settings(server) };
        let slow = Arc::new(Postgres::connect(slow).await.unwrap());
        let journal = Arc::new(Postgres::connect(settings(server)).await.unwrap());
        for (number, again) in (1..).zip(["apply", "leave", "adopt"]) {
            let gateway = journal.enrol("host").await.unwrap();
            let (write, object) = (id(gateway, number), object(again));
            way.holds.send_replace(true);
            let change = vec![begin(write, &object)];
            let first = tokio::spawn({
                let slow = slow.clone();
                async move { slow.apply(&host(gateway), change, SETTLE).await }
            });
            soon("the commit", way.holding.wait_for(|held| *held == number as usize)).await.unwrap();
            // Its answer is waited for no longer.
            first.abort();
            let next = tokio::spawn({
                let journal = journal.clone();
                async move {
                    match again {
                        "apply" => journal.apply(&host(gateway), vec![Change::Void(write)], SETTLE).await,
                        "leave" => journal.leave(&host(gateway), SETTLE).await,
                        _ => journal.adopt(Duration::ZERO, SETTLE).await.map(drop),
                    }
                }
            });
            let waiting = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            let waits = async {
                while server.texts(waiting).await.is_empty() {
                    assert!(!next.is_finished(), "{again} overtook it");
                    sleep(Duration::from_millis(10)).await;
                }
            };
            soon("the other to wait", waits).await;
            way.holds.send_replace(false);
            next.await.unwrap().unwrap();
            // With the word that it came to nothing, or else with a record.
            let records = usize::from(again != "apply");
            assert_eq!(journal.counts().await.unwrap().intents, 0, "{again}");
            let case = journal.show(&object).await.unwrap();
            assert_eq!(case.map_or(0, |case| case.records.len()), records, "{again}");
        }
    });
}

/// Its host lost its power just then: nobody tells the server.
#[test]
fn who_stands_still_before_its_commit_is_not_waited_for_in_vain() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let mut way = Way::to(server).await;
        let slow = Settings { host: "127.0.0.1".to_owned(), port: way.port, ..settings(server) };
        let slow = Postgres::connect(slow).await.unwrap();
        let journal = Postgres::connect(settings(server)).await.unwrap();
        let gateway = host(journal.enrol("host").await.unwrap());
        way.holds.send_replace(true);
        let change = |key| vec![diverged(id(gateway.number, 1), &object(key))];
        let other = host(journal.enrol("host").await.unwrap());
        let never = slow.apply(&gateway, change("a"), SETTLE);
        tokio::select! {
            told = never => panic!("it was told: {told:?}"),
            () = soon("the commit", async { _ = way.holding.wait_for(|held| *held == 1).await }) => {}
        }
        journal.apply(&other, change("b"), SETTLE).await.unwrap();
        assert_eq!(journal.counts().await.unwrap().open, 1);
    });
}

#[test]
fn all_others_wait_for_nothing_but_the_news_and_the_commit() {
    run(async {
        let mut engine = Engine::postgres().await;
        let server = server(&mut engine);
        let journal = Postgres::connect(settings(server)).await.unwrap();
        // What ends writes, or keeps what is unreadable, does not have the lock yet.
        let (body, each) = ("$$", "FOR EACH ROW EXECUTE FUNCTION free()");
        let watch = format!(
            "CREATE FUNCTION free() RETURNS trigger LANGUAGE plpgsql AS {body} BEGIN
                 IF EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) THEN
                     RAISE EXCEPTION '% behind the lock', TG_TABLE_NAME;
                 END IF;
                 RETURN coalesce(NEW, OLD);
             END {body};
             CREATE TRIGGER free BEFORE DELETE ON akubra_journal.intents {each};
             CREATE TRIGGER free BEFORE UPDATE ON akubra_journal.records {each}"
        );
        server.execute(&watch.replace("free()", "public.free()")).await;
        let gateway = host(journal.enrol("host").await.unwrap());
        let (one, other) = (id(gateway.number, 1), id(gateway.number, 2));
        let begun = vec![begin(one, &object("a")), begin(other, &object("b"))];
        journal.apply(&gateway, begun, SETTLE).await.unwrap();
        journal.apply(&gateway, vec![diverged(one, &object("a"))], SETTLE).await.unwrap();
        server.execute("UPDATE akubra_journal.intents SET payload = 'what'").await;
        journal.leave(&gateway, SETTLE).await.unwrap();
        let counts = journal.counts().await.unwrap();
        assert_eq!((counts.open, counts.intents), (2, 0));
        let news = journal.unresolved(None, 9).await.unwrap();
        assert_eq!((news.objects.len(), news.mark), (2, akubra::journal::Mark(2)));
    });
}

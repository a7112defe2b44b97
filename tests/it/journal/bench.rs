//! A journal of any engine with a time that passes when it is told to, and what tests write into it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use akubra::{
    config::Secret,
    journal::{
        Case, Change, Clock, Enrolled, Intent, Journal, JournalError, Known, Lease, Mark, Memory, Object,
        Postgres, Record, Said, Sqlite, Unseen, Wanted, What, WriteId, postgres::Settings,
    },
};
use tempfile::TempDir;

use crate::fixture::{PASSWORD, Postgres as Server};

pub const HOLD: Duration = Duration::from_secs(60);
pub const SETTLE: Duration = Duration::from_secs(30);

pub enum Engine {
    Memory,
    Sqlite,
    Postgres(Server),
}

/// An empty journal.
pub struct Bench<'a> {
    pub journal: Arc<dyn Journal>,
    /// Whose calls have changes of any gateway.
    teller: Enrolled,
    time: Time<'a>,
    folder: Option<TempDir>,
}

enum Time<'a> {
    Clock(Arc<AtomicI64>),
    /// Its clock cannot be set: what is in the tables becomes older instead.
    Tables(&'a Server),
}

impl Engine {
    pub async fn postgres() -> Engine {
        let server = Server::start().await;
        server.execute("GRANT CREATE ON DATABASE akubra TO akubra").await;
        Engine::Postgres(server)
    }

    pub async fn empty(&self) -> Bench<'_> {
        let (clock, time) = clock();
        let (journal, time, folder): (Arc<dyn Journal>, _, _) = match self {
            Engine::Memory => (Arc::new(Memory::new(clock)), Time::Clock(time), None),
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let journal = Sqlite::open_by(&folder.path().join("journal"), clock).unwrap();
                (Arc::new(journal), Time::Clock(time), Some(folder))
            }
            Engine::Postgres(server) => {
                server.execute("DROP SCHEMA IF EXISTS akubra_journal CASCADE").await;
                let journal = Postgres::connect(settings(server)).await.unwrap();
                (Arc::new(journal), Time::Tables(server), None)
            }
        };
        let teller = host(journal.enrol("host").await.unwrap());
        Bench { journal, teller, time, folder }
    }
}

pub fn settings(server: &Server) -> Settings {
    Settings {
        host: server.host(),
        port: 5432,
        user: "akubra".to_owned(),
        password: Some(Secret::new(PASSWORD.to_owned())),
        dbname: "akubra".to_owned(),
    }
}

/// Stands, and what moves it.
pub fn clock() -> (Clock, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(1_700_000_000_000));
    let told = time.clone();
    (Arc::new(move || told.load(Ordering::SeqCst)), time)
}

pub fn at(path: &Path) -> Sqlite {
    Sqlite::open(path).unwrap()
}

impl Bench<'_> {
    pub async fn pass(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).unwrap();
        match &self.time {
            Time::Clock(time) => {
                time.fetch_add(millis, Ordering::SeqCst);
            }
            Time::Tables(server) => {
                let older = format!(
                    "UPDATE akubra_journal.objects SET due = due - {millis}, calm = calm - {millis},
                         held = held - {millis}, since = since - {millis};
                     UPDATE akubra_journal.gateways SET seen = seen - {millis}"
                );
                server.execute(&older).await;
            }
        }
    }

    /// Puts something in place of what is kept of a write, in `intents` or `records`.
    pub async fn spoil(&self, table: &str, number: i64, payload: &[u8]) {
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        match &self.time {
            Time::Clock(_) => {
                let file = self.folder.as_ref().expect("it has tables").path().join("journal");
                let file = rusqlite::Connection::open(file).unwrap();
                let spoil = format!("UPDATE {table} SET payload = x'{hex}' WHERE number = {number}");
                assert_eq!(file.execute(&spoil, []).unwrap(), 1);
            }
            Time::Tables(server) => {
                let table = format!("akubra_journal.{table}");
                server
                    .execute(&format!("UPDATE {table} SET payload = '\\x{hex}' WHERE number = {number}"))
                    .await;
            }
        }
    }

    pub async fn apply(&self, changes: Vec<Change>) {
        tell(&*self.journal, &self.teller, changes, SETTLE).await;
    }

    pub async fn lease(&self) -> Vec<(Lease, Case)> {
        self.lease_some(Wanted::Diverged, 100).await
    }

    pub async fn lease_some(&self, wanted: Wanted, most: usize) -> Vec<(Lease, Case)> {
        let leases = self.journal.lease("worker", wanted, most, HOLD, SETTLE).await.unwrap();
        leases.into_iter().map(|(lease, case)| (lease, without_turns(case))).collect()
    }

    /// The one that is due.
    pub async fn lease_one(&self) -> (Lease, Case) {
        let mut leases = self.lease().await;
        assert_eq!(leases.len(), 1, "{leases:?}");
        leases.remove(0)
    }

    pub async fn case(&self, object: &Object) -> Option<Case> {
        self.journal.show(object).await.unwrap().map(without_turns)
    }

    /// Up to so many objects with what gateways know of them, whether these are all, and the mark.
    pub async fn unresolved(&self, most: usize) -> (Vec<(Object, Known)>, bool, Mark) {
        let mut objects = Vec::new();
        let learn = |page: Vec<(Object, Known)>| {
            assert!(page.len() <= 1000);
            objects.extend(page);
        };
        let (whole, mark) = akubra::journal::unresolved(&*self.journal, most, learn).await.unwrap();
        (objects, whole, mark)
    }

    pub async fn mark(&self) -> Mark {
        self.journal.unresolved(None, 0).await.unwrap().mark
    }

    /// Numbers of the writes that are recorded.
    pub async fn recorded(&self, object: &Object) -> Vec<i64> {
        let case = self.case(object).await;
        case.map_or(Vec::new(), |case| case.records.iter().map(|record| record.id().number).collect())
    }
}

/// Each engine has numbers of its own.
pub fn without_turns(mut case: Case) -> Case {
    clear_turns(&mut case.records);
    case.unseen = case.unseen.map(|_| Unseen { since: 0, until: 0 });
    case
}

pub fn clear_turns(records: &mut [Record]) {
    for record in records {
        (record.intent.turn, record.turn) = (None, None);
    }
}

pub fn object(key: &str) -> Object {
    Object { cluster: "main".to_owned(), bucket: b"bucket".to_vec(), key: key.as_bytes().to_vec() }
}

/// One that is enrolled as "host".
pub fn host(number: i64) -> Enrolled {
    Enrolled { number, name: "host".to_owned(), deaths: 0 }
}

/// By a gateway that knows how often it was taken for dead.
pub async fn tell(journal: &dyn Journal, teller: &Enrolled, changes: Vec<Change>, settle: Duration) {
    let mut teller = teller.clone();
    while let Err(error) = journal.apply(&teller, changes.clone(), settle).await {
        assert_eq!(error, JournalError::TakenForDead(teller.number));
        teller.deaths = journal.alive(&teller).await.unwrap().unwrap();
    }
}

/// By a gateway of its own, whose call has changes of any.
pub async fn apply(journal: &dyn Journal, changes: Vec<Change>) -> Result<(), JournalError> {
    journal.apply(&host(journal.enrol("host").await?), changes, SETTLE).await
}

pub fn id(gateway: i64, number: i64) -> WriteId {
    WriteId { gateway, number }
}

pub fn intent(id: WriteId, object: &Object) -> Intent {
    Intent {
        id,
        object: object.clone(),
        what: What::Put,
        region: "region".to_owned(),
        req_id: format!("request-{}-{}", id.gateway, id.number),
        length: Some(4096),
        begun: 1,
        strong: true,
        turn: None,
    }
}

pub fn good() -> Said {
    Said::Good { etag: Some("0123".to_owned()), version: None }
}

/// Of a region that is not strong. One backend took it; what the other says.
pub fn record(id: WriteId, object: &Object, other: Said) -> Record {
    let replies = vec![("http://a:80".to_owned(), good()), ("http://b:80".to_owned(), other)];
    let intent = Intent { strong: false, ..intent(id, object) };
    Record { intent, commit: Some(id.number), ended: 2, turn: None, replies }
}

pub fn begin(id: WriteId, object: &Object) -> Change {
    Change::Begin(intent(id, object).into())
}

pub fn still(id: WriteId, object: &Object) -> Change {
    Change::Still(intent(id, object).into())
}

pub fn settled(id: WriteId, object: &Object) -> Change {
    Change::Settled(record(id, object, good()))
}

pub fn diverged(id: WriteId, object: &Object) -> Change {
    Change::Diverged(record(id, object, Said::NotApplied))
}

pub fn uncertain(id: WriteId, object: &Object) -> Change {
    Change::Diverged(record(id, object, Said::Unknown))
}

pub fn misplaced(id: WriteId, object: &Object) -> Change {
    let mut record = record(id, object, good());
    record.intent.what = What::Misplaced("other".to_owned());
    Change::Diverged(record)
}

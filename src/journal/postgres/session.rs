//! Connections to the database: a few, made when they are needed, each with the statements prepared on it.
//!
//! Every wait has a deadline. A connection whose call has not ended by then is given up, and the server is asked to stop
//! what it does for it; by itself it gives a statement up sooner. While the database is away most calls fail at once,
//! with what the last one that tried was told.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::Rng;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{
    Client, Config, Connection, NoTls, Row, Socket, Statement, config::SslMode, error::SqlState,
    tls::NoTlsStream, types::ToSql,
};

use super::{JournalError, Settings, migrate::migrate};

/// At one time.
const CONNECTIONS: usize = 4;
const CONNECT: Duration = Duration::from_secs(5);
/// For a connection to be of use.
const OPEN: Duration = Duration::from_secs(15);
/// For a place among those that have a connection, and then for a call.
const DEADLINE: Duration = Duration::from_secs(10);
const CANCEL: Duration = Duration::from_secs(2);
/// Between tries to connect; doubles.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often a transaction is tried that others get in the way of.
const TRIES: usize = 5;
/// All that is asked is of few rows. Where the planner does not know it, because nothing was analysed yet, it would start
/// processes for each call, which take longer than the call.
const SETTINGS: &str = "SET statement_timeout = '8s'; SET idle_in_transaction_session_timeout = '15s';
    SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on;
    SET max_parallel_workers_per_gather = 0;
    SET search_path = akubra_journal, pg_temp";

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub enum Failure {
    Database(tokio_postgres::Error),
    /// It is not, and will not be, what this program can use.
    Unusable(String),
    Late,
    /// Another transaction was in the way.
    Again,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        match error.code() {
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) => Failure::Again,
            _ => Failure::Database(error),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        Failure::Unusable(format!("what is in it cannot be read: {error}"))
    }
}

impl From<Failure> for JournalError {
    fn from(failure: Failure) -> JournalError {
        match failure {
            Failure::Database(error) => JournalError::Unavailable(told(&error)),
            Failure::Unusable(why) => JournalError::Unusable(why),
            Failure::Late => JournalError::Unavailable(format!("it does not answer for {DEADLINE:?}")),
            Failure::Again => JournalError::Unavailable("other transactions are in the way".to_owned()),
        }
    }
}

pub struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    _connection: Abort,
}

impl Session {
    async fn open(settings: &Settings) -> Result<Session> {
        let opened = timeout(OPEN, async {
            let (client, connection) = connect(settings).await?;
            // Its end shows in every call on the client.
            let connection = Abort(tokio::spawn(async move { drop(connection.await) }));
            client.batch_execute(SETTINGS).await?;
            migrate(&client).await?;
            Ok(Session { client, statements: HashMap::new(), _connection: connection })
        });
        opened.await.unwrap_or(Err(Failure::Late))
    }

    /// Statements are few, and their texts are constants.
    async fn statement(&mut self, sql: &'static str) -> Result<Statement> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    pub async fn query(&mut self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, values).await?)
    }

    /// Statements without values, all in one message.
    pub async fn run(&mut self, sql: &str) -> Result<()> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// How many rows it changed.
    pub async fn execute(&mut self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let statement = self.statement(sql).await?;
        Ok(self.client.execute(&statement, values).await?)
    }

    /// The database's time, in milliseconds since 1970, after which the transaction sees everything.
    pub async fn begin(&mut self, how: &str) -> Result<i64> {
        self.run(how).await?;
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let rows = self.query(now, &[]).await?;
        first(&rows)
    }

    pub async fn commit(&mut self) -> Result<()> {
        self.run("COMMIT").await
    }
}

/// The first column of the one row.
pub fn first<T: for<'a> tokio_postgres::types::FromSql<'a>>(rows: &[Row]) -> Result<T> {
    match rows.first() {
        Some(row) => Ok(row.try_get(0)?),
        None => Err(Failure::Unusable("a query that always gives a row gave none".to_owned())),
    }
}

pub async fn connect(settings: &Settings) -> Result<(Client, Connection<Socket, NoTlsStream>)> {
    let mut config = Config::new();
    config
        .host(&settings.host)
        .port(settings.port)
        .user(&settings.user)
        .dbname(&settings.dbname)
        .application_name("akubra journal")
        .ssl_mode(SslMode::Disable)
        .connect_timeout(CONNECT)
        .keepalives_idle(DEADLINE)
        .tcp_user_timeout(DEADLINE);
    if let Some(password) = &settings.password {
        config.password(password.reveal());
    }
    Ok(config.connect(NoTls).await?)
}

/// A task that ends with its value.
pub struct Abort(pub JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub struct Pool {
    settings: Settings,
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Session>,
    /// Since the database was last seen to be away.
    away: Option<Away>,
}

struct Away {
    why: JournalError,
    pause: Duration,
    until: Instant,
}

/// A session for one call.
pub struct Lent<'a> {
    pub session: Session,
    _place: SemaphorePermit<'a>,
}

impl Pool {
    pub fn new(settings: Settings) -> Pool {
        Pool { settings, places: Semaphore::new(CONNECTIONS), state: Mutex::new(State::default()) }
    }

    pub async fn take(&self) -> std::result::Result<Lent<'_>, JournalError> {
        let place = timeout(DEADLINE, self.places.acquire()).await;
        let late = || JournalError::Unavailable(format!("its connections are all in use for {DEADLINE:?}"));
        let _place = place.map_err(|_| late())?.map_err(|_| late())?;
        if let Some(session) = self.idle()? {
            return Ok(Lent { session, _place });
        }
        let opened = Session::open(&self.settings).await.map_err(JournalError::from);
        let mut state = self.state();
        match opened {
            Ok(session) => {
                state.away = None;
                Ok(Lent { session, _place })
            }
            Err(why) => {
                let pause = state.away.as_ref().map_or(PAUSE.0, |away| (2 * away.pause).min(PAUSE.1));
                let until = Instant::now() + pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
                state.away = Some(Away { why: why.clone(), pause, until });
                Err(why)
            }
        }
    }

    /// An error if the database has been away just now.
    fn idle(&self) -> std::result::Result<Option<Session>, JournalError> {
        let mut state = self.state();
        state.idle.retain(|session| !session.client.is_closed());
        if let Some(session) = state.idle.pop() {
            return Ok(Some(session));
        }
        match &state.away {
            Some(away) if Instant::now() < away.until => Err(away.why.clone()),
            _ => Ok(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a call: the session is kept if it can be used again. `None` = the call is to be made once more.
    pub async fn end<T>(&self, lent: Lent<'_>, done: Result<T>, tries: usize) -> Result<Option<T>> {
        let Lent { session, _place } = lent;
        let is_usable = match &done {
            Ok(_) => true,
            Err(Failure::Late) => {
                let cancelled = timeout(CANCEL, session.client.cancel_token().cancel_query(NoTls)).await;
                log::debug!("a call of the journal took too long; cancelled: {}", cancelled.is_ok());
                false
            }
            Err(_) => {
                let rolled_back = timeout(CANCEL, session.client.batch_execute("ROLLBACK")).await;
                matches!(rolled_back, Ok(Ok(())))
            }
        };
        if is_usable {
            self.state().idle.push(session);
        }
        match done {
            Err(Failure::Again) if tries < TRIES => Ok(None),
            done => done.map(Some),
        }
    }
}

/// For a call that has a session.
pub async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(DEADLINE, work).await.unwrap_or(Err(Failure::Late))
}

/// A transaction on a session of the pool: how it begins, and what it is with the session and the time.
macro_rules! transaction {
    ($pool:expr, $how:expr, |$session:ident, $now:pat_param| $work:expr) => {{
        let mut tries = 0;
        loop {
            tries += 1;
            let mut lent = $pool.take().await?;
            let done = $crate::journal::postgres::session::in_time(async {
                let $session = &mut lent.session;
                let $now = $session.begin($how).await?;
                let done = $work.await?;
                $session.commit().await?;
                Ok(done)
            });
            let done = done.await;
            if let Some(done) = $pool.end(lent, done, tries).await? {
                break done;
            }
        }
    }};
}
pub(super) use transaction;

/// An error with its causes. What the database says can hold values, never the password.
pub fn told(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(&format!(": {error}"));
        cause = error.source();
    }
    told
}

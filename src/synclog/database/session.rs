//! A connection to PostgreSQL with the statement prepared on it, and what its errors mean.
//!
//! A batch is one transaction; its inserts are sent without waiting for one another, so a batch costs three round
//! trips. Every wait has a deadline. The server is told of one for each statement, and is asked to give a batch up that
//! takes too long, so that the next one does not wait there for what is left of it; that one is smaller.

use std::{error::Error, sync::Arc, time::Duration};

use chrono::Utc;
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, NoTls, Statement, config::SslMode};

use super::values::{Text, parameters};
use crate::{
    config::{Database, FIELDS},
    synclog::spool::{Stored, new_id},
};

/// For a connection, and for the statement to be prepared on it.
const CONNECT: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(15);
/// For the server to hear that a batch is given up.
const CANCEL: Duration = Duration::from_secs(5);
/// For a batch; more than the server gives a statement.
const BATCH: Duration = Duration::from_secs(25);
const SETTINGS: &str = "SET statement_timeout = '20s'; SET standard_conforming_strings = on";

/// Classes of SQLSTATE that speak of the values that were given: cardinality, data exception, integrity constraint,
/// external routines, check option, limits of a row or an index, what a trigger raises. Everything else (no
/// connection, no table, no permission, no space, a deadlock, a shutdown) speaks of the database.
const OF_THE_RECORD: [&str; 8] = ["21", "22", "23", "38", "39", "44", "54", "P0"];

pub struct Session {
    client: Client,
    statement: Statement,
    database: Arc<Database>,
    _connection: Abort,
    /// The statement has taken the made-up record on this connection.
    fits: bool,
    /// And a real one.
    proven: bool,
    /// Set by whoever saw it fail.
    pub broken: bool,
}

#[derive(Debug)]
pub enum Failure {
    /// The database takes nothing now.
    Broken(String),
    /// It takes too long for so many records.
    Late(String),
    /// It does not take the record with this index, and nothing of the batch.
    Refused { index: usize, error: String },
}

impl Session {
    pub async fn open(database: &Arc<Database>) -> Result<Session, String> {
        match timeout(OPEN, Session::connect(database)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("it does not answer for {OPEN:?}")),
        }
    }

    async fn connect(database: &Arc<Database>) -> Result<Session, String> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&database.login.host)
            .port(database.login.port)
            .user(&database.login.user)
            .dbname(&database.login.dbname)
            .application_name("akubra")
            .ssl_mode(SslMode::Disable)
            .connect_timeout(CONNECT)
            .keepalives_idle(BATCH)
            .tcp_user_timeout(BATCH);
        if let Some(password) = &database.login.password {
            config.password(password.reveal());
        }
        let (client, connection) = config.connect(NoTls).await.map_err(|error| told(&error))?;
        // Its end shows in every call on the client.
        let connection = Abort(tokio::spawn(async move { drop(connection.await) }));
        client.batch_execute(SETTINGS).await.map_err(|error| told(&error))?;
        let statement = client.prepare(&database.insert.sql).await;
        let statement = statement.map_err(|error| format!("the statement is refused: {}", told(&error)))?;
        let database = database.clone();
        let mut session = Session {
            client,
            statement,
            database,
            _connection: connection,
            fits: false,
            proven: false,
            broken: false,
        };
        // Now, and not with the first record, a missing right shows.
        session.takes_a_sample().await?;
        Ok(session)
    }

    /// Whether the statement takes records, as far as a made-up one tells.
    pub fn fits(&self) -> bool {
        self.fits
    }

    /// Whether nothing more can be done with it.
    pub fn is_useless(&self) -> bool {
        self.broken || self.client.is_closed()
    }

    /// Inserts all of these, or none.
    pub async fn insert(&mut self, records: &[Stored]) -> Result<(), Failure> {
        let inserted = match timeout(BATCH, self.transaction(records, "COMMIT")).await {
            Ok(inserted) => inserted,
            Err(_) => {
                self.give_up().await;
                let count = records.len();
                Err(Failure::Late(format!("it takes more than {BATCH:?} for {count} records")))
            }
        };
        self.proven |= inserted.is_ok();
        inserted
    }

    /// Asks the server to stop what it is doing for this session, which is of no use any more.
    async fn give_up(&mut self) {
        self.broken = true;
        let cancelled = timeout(CANCEL, self.client.cancel_token().cancel_query(NoTls)).await;
        if !matches!(cancelled, Ok(Ok(()))) {
            log::debug!("a batch that took too long could not be cancelled");
        }
    }

    /// Whether the statement takes records now, so that one that it refuses is to blame for that itself: it takes one
    /// that is made up, or, where it never took that, has taken a real one.
    pub async fn is_proven(&mut self) -> Result<bool, String> {
        let fitted = self.fits;
        Ok(self.takes_a_sample().await? || (!fitted && self.proven))
    }

    /// Inserts a made-up record and takes that back. An error if the database is at fault.
    async fn takes_a_sample(&mut self) -> Result<bool, String> {
        let sample = [sample()];
        match timeout(BATCH, self.transaction(&sample, "ROLLBACK")).await {
            Ok(Ok(())) => {
                self.fits = true;
                Ok(true)
            }
            Ok(Err(Failure::Refused { .. })) => Ok(false),
            Ok(Err(Failure::Broken(error) | Failure::Late(error))) => Err(error),
            Err(_) => Err(format!("it does not answer for {BATCH:?}")),
        }
    }

    async fn transaction(&self, records: &[Stored], end: &str) -> Result<(), Failure> {
        let mut rows = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let row = parameters(&self.database.insert, record);
            rows.push(row.map_err(|error| Failure::Refused { index, error: error.to_string() })?);
        }
        self.client.batch_execute("BEGIN").await.map_err(|error| Failure::Broken(told(&error)))?;
        // The futures are polled in their order, and each sends at once.
        let inserted = join_all(rows.iter().map(|row| self.execute(row))).await;
        // After the first error the others say that the transaction has failed.
        let failed =
            inserted.into_iter().enumerate().find_map(|(index, inserted)| Some((index, inserted.err()?)));
        if let Some((index, error)) = failed {
            let rolled_back = self.client.batch_execute("ROLLBACK").await;
            rolled_back.map_err(|_| Failure::Broken(told(&error)))?;
            return Err(failure(&error, index));
        }
        // Constraints that are deferred until now name no record: half of the batch is tried next. They are checked
        // for a made-up record, too, whose transaction would end without.
        let ended = self.client.batch_execute(&format!("SET CONSTRAINTS ALL IMMEDIATE; {end}")).await;
        let Err(error) = ended else { return Ok(()) };
        self.client.batch_execute("ROLLBACK").await.map_err(|_| Failure::Broken(told(&error)))?;
        Err(failure(&error, records.len() / 2))
    }

    async fn execute(&self, row: &[Text]) -> Result<u64, tokio_postgres::Error> {
        self.client.execute_raw(&self.statement, row).await
    }
}

/// A task that ends with its value.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failure(error: &tokio_postgres::Error, index: usize) -> Failure {
    let class = error.code().and_then(|code| code.code().get(..2));
    let refused = class.is_some_and(|class| OF_THE_RECORD.contains(&class));
    let error = told(error);
    if refused { Failure::Refused { index, error } } else { Failure::Broken(error) }
}

/// An error with its causes. What the database says can hold values, never the password.
fn told(error: &tokio_postgres::Error) -> String {
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

/// A record as there are many.
fn sample() -> Stored {
    let now = Utc::now();
    let value = |field: &str| match field {
        "method" => "PUT".to_owned(),
        "failedhost" | "successhost" => "http://backend.example".to_owned(),
        "path" => "/bucket/key".to_owned(),
        "content-length" | "status" => "0".to_owned(),
        "ts" => now.to_rfc3339(),
        "outcome" => "not applied".to_owned(),
        other => other.to_owned(),
    };
    let record = FIELDS.iter().map(|field| ((*field).to_owned(), value(field).into()));
    let record = serde_json::Value::Object(record.collect());
    Stored { id: new_id(now), record: record.to_string(), end: 0 }
}

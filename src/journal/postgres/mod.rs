//! The journal in PostgreSQL: for many gateways and many workers.
//!
//! Times are the database's. What a gateway or a worker relies on is on disk when it is told so; a resolution, or an
//! object that is given back, may be forgotten by a server that crashes: then it is leased again later, and found
//! to agree.

mod cases;
mod dropped;
mod leases;
mod listener;
mod migrate;
mod names;
mod orphans;
mod session;
mod tables;

use std::{sync::OnceLock, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use self::{
    leases::Terms,
    listener::Listener,
    session::{Pool, Result as Done, Session, first, transaction},
};
use super::{
    Case, Change, Counts, Dropped, Enrolled, Filter, Journal, JournalError, Known, Later, Lease, Mark, News,
    Object, PAGE, Resolution, Standing, Unresolved, Wanted, WriteId,
    rules::{Batch, millis},
};
use crate::config::Secret;

/// On disk when it is committed.
const DURABLE: &str = "BEGIN";
/// On disk soon after.
const LAZY: &str = "BEGIN; SET LOCAL synchronous_commit = off";
/// Sees one state of the database.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// How often it is looked for news, whatever is heard.
const LOOK: Duration = Duration::from_secs(5);

/// Where the database is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A name, an address, or the directory of a unix socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub dbname: String,
}

pub struct Postgres {
    settings: Settings,
    pool: Pool,
    listener: OnceLock<Listener>,
}

impl Postgres {
    /// Connects with the first call.
    pub fn new(settings: Settings) -> Postgres {
        Postgres { pool: Pool::new(settings.clone()), settings, listener: OnceLock::new() }
    }

    /// Connects now, and makes the tables if there are none.
    pub async fn connect(settings: Settings) -> Result<Postgres, JournalError> {
        let postgres = Postgres::new(settings);
        transaction!(postgres.pool, SNAPSHOT, |session, now| cases::counts(session, now));
        Ok(postgres)
    }
}

#[async_trait]
impl Journal for Postgres {
    async fn enrol(&self, name: &str) -> Result<i64, JournalError> {
        let name = text(name);
        Ok(transaction!(self.pool, DURABLE, |session, now| enrol(session, &name, now)))
    }

    async fn alive(&self, gateway: &Enrolled) -> Result<Option<i64>, JournalError> {
        Ok(transaction!(self.pool, LAZY, |session, now| alive(session, gateway, now)))
    }

    async fn leave(&self, gateway: &Enrolled, settle: Duration) -> Result<(), JournalError> {
        let settle = millis(settle);
        transaction!(self.pool, DURABLE, |session, now| leave(session, gateway, settle, now));
        Ok(())
    }

    async fn adopt(&self, silent: Duration, settle: Duration) -> Result<usize, JournalError> {
        let (silent, settle) = (millis(silent), millis(settle));
        Ok(transaction!(self.pool, DURABLE, |session, now| adopt(session, silent, settle, now)))
    }

    async fn apply(
        &self,
        gateway: &Enrolled,
        changes: Vec<Change>,
        settle: Duration,
    ) -> Result<(), JournalError> {
        let (batch, settle) = (Batch::of(changes), millis(settle));
        transaction!(self.pool, DURABLE, |session, now| {
            tables::apply(session, gateway, &batch, now, settle)
        })
    }

    async fn lease(
        &self,
        worker: &str,
        wanted: Wanted,
        most: usize,
        hold: Duration,
        settle: Duration,
    ) -> Result<Vec<(Lease, Case)>, JournalError> {
        let worker = &text(worker);
        let terms = Terms { worker, wanted, most, hold: millis(hold), settle: millis(settle) };
        Ok(transaction!(self.pool, DURABLE, |session, now| leases::lease(session, &terms, now)))
    }

    async fn renew(&self, lease: &Lease, hold: Duration, settle: Duration) -> Result<bool, JournalError> {
        let (hold, settle) = (millis(hold), millis(settle));
        Ok(transaction!(self.pool, DURABLE, |session, now| leases::renew(session, lease, now, hold, settle)))
    }

    async fn resolve(
        &self,
        lease: &Lease,
        seen: &[WriteId],
        sightings: &[WriteId],
    ) -> Result<Resolution, JournalError> {
        Ok(transaction!(self.pool, LAZY, |session, now| {
            leases::resolve(session, lease, seen, sightings, now)
        }))
    }

    async fn postpone(&self, lease: &Lease, later: Later, why: &str) -> Result<(), JournalError> {
        let why = text(why);
        transaction!(self.pool, LAZY, |session, now| { leases::postpone(session, lease, later, &why, now) });
        Ok(())
    }

    async fn set_aside(
        &self,
        lease: &Lease,
        standing: Standing,
        unsettled: Option<Duration>,
        seen: &[WriteId],
        why: &str,
    ) -> Result<(), JournalError> {
        let why = text(why);
        transaction!(self.pool, LAZY, |session, now| {
            leases::set_aside(session, lease, (standing, unsettled), seen, &why, now)
        });
        Ok(())
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Object>,
        most: usize,
    ) -> Result<Vec<Case>, JournalError> {
        let mut after = after.map_or(Vec::new(), |object| object.digest().to_vec());
        let mut cases = Vec::new();
        while cases.len() < most {
            let rest = most - cases.len();
            let (page, last) = transaction!(self.pool, SNAPSHOT, |session, _| {
                cases::list(session, filter, &after, rest)
            });
            cases.extend(page);
            let Some(last) = last else { break };
            after = last;
        }
        Ok(cases)
    }

    async fn aside(&self, most: usize) -> Result<Vec<Case>, JournalError> {
        Ok(transaction!(self.pool, SNAPSHOT, |session, _| cases::aside(session, most)))
    }

    async fn show(&self, object: &Object) -> Result<Option<Case>, JournalError> {
        Ok(transaction!(self.pool, SNAPSHOT, |session, _| cases::show(session, object)))
    }

    async fn known(&self, object: &Object) -> Result<Option<Known>, JournalError> {
        Ok(transaction!(self.pool, SNAPSHOT, |session, _| cases::known(session, object)))
    }

    async fn retry(&self, object: &Object) -> Result<bool, JournalError> {
        Ok(transaction!(self.pool, DURABLE, |session, now| leases::retry(session, object, now)))
    }

    async fn drop_object(&self, object: &Object, reason: &str) -> Result<bool, JournalError> {
        let reason = text(reason);
        Ok(transaction!(self.pool, DURABLE, |session, now| {
            leases::drop_object(session, object, &reason, now)
        }))
    }

    async fn dropped(&self, before: Option<i64>, most: usize) -> Result<Vec<Dropped>, JournalError> {
        let before = before.unwrap_or(i64::MAX);
        Ok(transaction!(self.pool, SNAPSHOT, |session, _| dropped::list(session, before, most)))
    }

    async fn counts(&self) -> Result<Counts, JournalError> {
        Ok(transaction!(self.pool, SNAPSHOT, |session, now| cases::counts(session, now)))
    }

    async fn unresolved(&self, after: Option<&Object>, most: usize) -> Result<Unresolved, JournalError> {
        let (after, most) = (after.map_or(Vec::new(), |object| object.digest().to_vec()), most.min(PAGE));
        Ok(transaction!(self.pool, SNAPSHOT, |session, _| cases::unresolved(session, &after, most)))
    }

    async fn news(&self, mark: Mark, patience: Duration) -> Result<News, JournalError> {
        let listener = self.listener.get_or_init(|| Listener::spawn(self.settings.clone()));
        let deadline = Instant::now() + patience;
        loop {
            if listener.has_lost() {
                return Ok(News::Reload);
            }
            let news = transaction!(self.pool, SNAPSHOT, |session, _| cases::news(session, mark));
            let rest = deadline.saturating_duration_since(Instant::now());
            match news {
                News::Changed(changed, _) if changed.is_empty() && !rest.is_zero() => {
                    // Whatever is heard, or nothing.
                    timeout(rest.min(LOOK), listener.change()).await.ok();
                }
                news => return Ok(news),
            }
        }
    }
}

async fn enrol(session: &mut Session, name: &str, now: i64) -> Done<i64> {
    let sql = "INSERT INTO gateways (name, seen, gone) VALUES ($1, $2, false) RETURNING id";
    first(&session.query(sql, &[&name, &now]).await?)
}

async fn alive(session: &mut Session, gateway: &Enrolled, now: i64) -> Done<Option<i64>> {
    let sql = "UPDATE gateways SET seen = $3, gone = false WHERE id = $1 AND name = $2 RETURNING deaths";
    let rows = session.query(sql, &[&gateway.number, &text(&gateway.name), &now]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

async fn leave(session: &mut Session, gateway: &Enrolled, settle: i64, now: i64) -> Done<()> {
    if tables::claim(session, gateway, Vec::new()).await?.is_some() {
        orphans::orphan(session, &[gateway.number], now, settle).await?;
    }
    Ok(())
}

async fn adopt(session: &mut Session, silent: i64, settle: i64, now: i64) -> Done<usize> {
    let sql = "SELECT id FROM gateways WHERE seen <= $1
        AND (NOT gone OR EXISTS (SELECT FROM intents WHERE gateway = gateways.id)) ORDER BY id FOR UPDATE";
    let rows = session.query(sql, &[&(now - silent)]).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut gateways = Vec::with_capacity(rows.len());
    for row in &rows {
        gateways.push(row.try_get(0)?);
    }
    orphans::orphan(session, &gateways, now, settle).await
}

/// The database's texts take no NUL.
pub fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

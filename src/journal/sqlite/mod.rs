//! The journal in a file of this machine: SQLite with a write-ahead log.
//!
//! Several processes may have it open: a gateway and its successor, workers, the command line. What changes it is done
//! by one thread and what reads it by another, so that a long list makes no write wait, and the write-ahead log goes
//! into the file by a third. What gateways tell and what is leased is on disk when it is done: what a worker has sent may
//! arrive when its machine has stopped. Resolutions and what is given back survive the processes, and are found out anew
//! after a crash of the machine.

mod cases;
mod checkpoint;
mod dropped;
mod group;
mod index;
mod leases;
mod open;
mod tables;
mod thread;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use rusqlite::params;
use tokio::time::{Instant, sleep};

use self::{
    index::Tables,
    leases::Terms,
    thread::{Safety, Thread, Use},
};
use super::{
    Case, Change, Clock, Counts, Dropped, Enrolled, Filter, Journal, JournalError, Known, Later, Lease, Mark,
    News, Object, PAGE, Resolution, Standing, Unresolved, Wanted, WriteId,
    rules::{Batch, may_tell, millis, system_clock},
};

/// How often it is looked for news of other processes.
const LOOK: Duration = Duration::from_millis(100);

pub struct Sqlite {
    clock: Clock,
    writer: Thread,
    reader: Thread,
}

impl Sqlite {
    /// Makes the file, with mode 0600, if there is none. Blocks while others migrate it.
    pub fn open(path: &Path) -> Result<Sqlite, JournalError> {
        Sqlite::open_by(path, system_clock())
    }

    /// By a clock that all processes which use the file agree on.
    pub fn open_by(path: &Path, clock: Clock) -> Result<Sqlite, JournalError> {
        let writer = Thread::spawn(path, Use::Write)?;
        let reader = Thread::spawn(path, Use::Read)?;
        Ok(Sqlite { clock, writer, reader })
    }

    /// The work gets the time at which it has the lock.
    async fn write<T: Send + 'static>(
        &self,
        safety: Safety,
        work: impl FnOnce(&Tables<'_>, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let clock = self.clock.clone();
        self.writer.change(safety, move |tables| work(tables, clock())).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.reader.read(work).await
    }
}

#[async_trait]
impl Journal for Sqlite {
    async fn enrol(&self, name: &str) -> Result<i64, JournalError> {
        let name = name.to_owned();
        let enrol = move |tables: &Tables<'_>, now| {
            let sql = "INSERT INTO gateways (name, seen, gone) VALUES (?1, ?2, 0)";
            tables.prepare_cached(sql)?.insert(params![name, now])
        };
        self.write(Safety::Disk, enrol).await
    }

    async fn alive(&self, gateway: &Enrolled) -> Result<Option<i64>, JournalError> {
        let gateway = gateway.clone();
        let alive = move |tables: &Tables<'_>, now| {
            let sql = "UPDATE gateways SET seen = ?3, gone = 0 WHERE id = ?1 AND name = ?2";
            tables.prepare_cached(sql)?.execute(params![gateway.number, gateway.name, now])?;
            tables::deaths(tables, &gateway)
        };
        self.write(Safety::Process, alive).await
    }

    async fn leave(&self, gateway: &Enrolled, settle: Duration) -> Result<(), JournalError> {
        let (gateway, settle) = (gateway.clone(), millis(settle));
        let leave = move |tables: &Tables<'_>, now| {
            if tables::deaths(tables, &gateway)?.is_some() {
                tables::orphan(tables, gateway.number, now, settle)?;
            }
            Ok(())
        };
        self.write(Safety::Disk, leave).await
    }

    async fn adopt(&self, silent: Duration, settle: Duration) -> Result<usize, JournalError> {
        let (silent, settle) = (millis(silent), millis(settle));
        let adopt = move |tables: &Tables<'_>, now| {
            let sql = "SELECT id FROM gateways WHERE seen <= ?1
                AND (gone = 0 OR EXISTS (SELECT 1 FROM intents WHERE gateway = gateways.id))";
            let mut statement = tables.prepare_cached(sql)?;
            let gateways = statement.query_map([now - silent], |row| row.get(0))?;
            let gateways = gateways.collect::<rusqlite::Result<Vec<i64>>>()?;
            gateways.into_iter().map(|gateway| tables::orphan(tables, gateway, now, settle)).sum()
        };
        self.write(Safety::Disk, adopt).await
    }

    async fn apply(
        &self,
        gateway: &Enrolled,
        changes: Vec<Change>,
        settle: Duration,
    ) -> Result<(), JournalError> {
        let (teller, batch, settle) = (gateway.clone(), Batch::of(changes), millis(settle));
        let apply = move |tables: &Tables<'_>, now| {
            let may_tell = may_tell(&teller, tables::deaths(tables, &teller)?);
            if may_tell.is_ok() {
                tables::apply(tables, &batch, now, settle)?;
            }
            Ok(may_tell)
        };
        self.write(Safety::Disk, apply).await?
    }

    async fn lease(
        &self,
        worker: &str,
        wanted: Wanted,
        most: usize,
        hold: Duration,
        settle: Duration,
    ) -> Result<Vec<(Lease, Case)>, JournalError> {
        let (worker, hold, settle) = (worker.to_owned(), millis(hold), millis(settle));
        let lease = move |tables: &Tables<'_>, now| {
            leases::lease(tables, &Terms { worker: &worker, wanted, most, now, hold, settle })
        };
        self.write(Safety::Disk, lease).await
    }

    async fn renew(&self, lease: &Lease, hold: Duration, settle: Duration) -> Result<bool, JournalError> {
        let (lease, hold, settle) = (lease.clone(), millis(hold), millis(settle));
        let renew = move |tables: &Tables<'_>, now| leases::renew(tables, &lease, now, hold, settle);
        self.write(Safety::Disk, renew).await
    }

    async fn resolve(
        &self,
        lease: &Lease,
        seen: &[WriteId],
        sightings: &[WriteId],
    ) -> Result<Resolution, JournalError> {
        let (lease, seen, sightings) = (lease.clone(), seen.to_vec(), sightings.to_vec());
        let resolve = move |tables: &Tables<'_>, now| leases::resolve(tables, &lease, &seen, &sightings, now);
        self.write(Safety::Process, resolve).await
    }

    async fn postpone(&self, lease: &Lease, later: Later, why: &str) -> Result<(), JournalError> {
        let (lease, why) = (lease.clone(), why.to_owned());
        let postpone = move |tables: &Tables<'_>, now| leases::postpone(tables, &lease, now, later, &why);
        self.write(Safety::Process, postpone).await
    }

    async fn set_aside(
        &self,
        lease: &Lease,
        standing: Standing,
        unsettled: Option<Duration>,
        seen: &[WriteId],
        why: &str,
    ) -> Result<(), JournalError> {
        let (lease, seen, why) = (lease.clone(), seen.to_vec(), why.to_owned());
        let set_aside = move |tables: &Tables<'_>, now| {
            leases::set_aside(tables, &lease, (standing, unsettled), &seen, &why, now)
        };
        self.write(Safety::Process, set_aside).await
    }

    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Object>,
        most: usize,
    ) -> Result<Vec<Case>, JournalError> {
        let mut after = behind(after);
        let mut cases = Vec::new();
        while cases.len() < most {
            let (filter, from, rest) = (filter.clone(), after, most - cases.len());
            let (page, last) = self.read(move |tables| cases::list(tables, &filter, &from, rest)).await?;
            cases.extend(page);
            let Some(last) = last else { break };
            after = last;
        }
        Ok(cases)
    }

    async fn aside(&self, most: usize) -> Result<Vec<Case>, JournalError> {
        self.read(move |tables| cases::aside(tables, most)).await
    }

    async fn show(&self, object: &Object) -> Result<Option<Case>, JournalError> {
        let digest = object.digest();
        self.read(move |tables| cases::show(tables, &digest)).await
    }

    async fn known(&self, object: &Object) -> Result<Option<Known>, JournalError> {
        let object = object.clone();
        self.read(move |tables| cases::known(tables, &object)).await
    }

    async fn retry(&self, object: &Object) -> Result<bool, JournalError> {
        let object = object.clone();
        self.write(Safety::Disk, move |tables, now| leases::retry(tables, &object, now)).await
    }

    async fn drop_object(&self, object: &Object, reason: &str) -> Result<bool, JournalError> {
        let (object, reason) = (object.clone(), reason.to_owned());
        let drop_object = move |tables: &Tables<'_>, now| leases::drop_object(tables, &object, &reason, now);
        self.write(Safety::Disk, drop_object).await
    }

    async fn dropped(&self, before: Option<i64>, most: usize) -> Result<Vec<Dropped>, JournalError> {
        self.read(move |tables| dropped::list(tables, before.unwrap_or(i64::MAX), most)).await
    }

    async fn counts(&self) -> Result<Counts, JournalError> {
        let clock = self.clock.clone();
        self.read(move |tables| cases::counts(tables, clock())).await
    }

    async fn unresolved(&self, after: Option<&Object>, most: usize) -> Result<Unresolved, JournalError> {
        let (after, most) = (behind(after), most.min(PAGE));
        self.read(move |tables| cases::unresolved(tables, &after, most)).await
    }

    async fn news(&self, mark: Mark, patience: Duration) -> Result<News, JournalError> {
        let deadline = Instant::now() + patience;
        loop {
            let news = self.read(move |tables| cases::news(tables, mark)).await?;
            let rest = deadline.saturating_duration_since(Instant::now());
            match news {
                News::Changed(changed, _) if changed.is_empty() && !rest.is_zero() => {
                    sleep(rest.min(LOOK)).await;
                }
                news => return Ok(news),
            }
        }
    }
}

/// All digests are behind none.
fn behind(object: Option<&Object>) -> Vec<u8> {
    object.map_or(Vec::new(), |object| object.digest().to_vec())
}

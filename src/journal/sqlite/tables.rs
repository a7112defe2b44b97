//! How changes of writes get into the tables.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Result, params, types::Type};

use super::{
    cases::{known_of, records_of},
    index::Tables,
};
use crate::journal::{
    Enrolled, Intent, Object, Record, WriteId,
    row::{self, Orphan, Row},
    rules::{Batch, KEPT_EVENTS, Part, are_many, stamped, superfluous},
};

/// So many events are left to become too old before they are deleted.
const SWEEP: i64 = 512;
/// Milliseconds between signs of life that writes give: each is one more page to put on disk.
const SIGN: i64 = 1000;

/// How often a gateway was taken for dead; `None` = there is none of that number and name.
pub fn deaths(tables: &Tables<'_>, gateway: &Enrolled) -> Result<Option<i64>> {
    let sql = "SELECT deaths FROM gateways WHERE id = ?1 AND name = ?2";
    let known = params![gateway.number, gateway.name];
    tables.prepare_cached(sql)?.query_row(known, |row| row.get(0)).optional()
}

pub fn apply(tables: &Tables<'_>, batch: &Batch, now: i64, settle: i64) -> Result<()> {
    for gateway in batch.gateways() {
        let sql = "UPDATE gateways SET seen = ?2 WHERE id = ?1 AND abs(?2 - seen) >= ?3";
        tables.prepare_cached(sql)?.execute(params![gateway, now, SIGN])?;
    }
    let turn = turn(tables)?;
    for (part, intent) in &batch.begun {
        begin(tables, part, intent, Some(turn))?;
    }
    for (part, intent) in &batch.still {
        if !is_under_way(tables, part)? {
            begin(tables, part, intent, None)?;
        }
    }
    add(tables, batch.diverged.values(), turn, now, settle)?;
    let mut kept = Vec::new();
    for (part, record) in &batch.settled {
        if is_contested(tables, part)? {
            kept.push(record);
        }
    }
    add(tables, kept, turn, now, settle)?;
    for (id, digest) in &batch.ended {
        let sql = match digest {
            Some(_) => "DELETE FROM intents WHERE gateway = ?1 AND number = ?2 AND digest = ?3",
            None => "DELETE FROM intents WHERE gateway = ?1 AND number = ?2 AND ?3 IS NULL",
        };
        tables.prepare_cached(sql)?.execute(params![id.gateway, id.number, digest])?;
    }
    Ok(())
}

fn begin(tables: &Tables<'_>, part: &Part, intent: &Intent, turn: Option<i64>) -> Result<()> {
    let payload = row::intent_payload(intent, turn).map_err(unwritable)?;
    let Object { cluster, bucket, key } = &intent.object;
    let sql = "INSERT OR REPLACE INTO intents (gateway, number, digest, cluster, bucket, key, payload)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let (WriteId { gateway, number }, digest) = part;
    tables.prepare_cached(sql)?.execute(params![gateway, number, digest, cluster, bucket, key, payload])?;
    Ok(())
}

fn is_under_way(tables: &Tables<'_>, (WriteId { gateway, number }, digest): &Part) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM intents WHERE gateway = ?1 AND number = ?2 AND digest = ?3)";
    tables.prepare_cached(sql)?.query_row(params![gateway, number, digest], |row| row.get(0))
}

/// Whether a settled write must be kept as a record.
fn is_contested(tables: &Tables<'_>, (WriteId { gateway, number }, digest): &Part) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM intents WHERE digest = ?1 AND (gateway <> ?2 OR number <> ?3))";
    let is_written: bool =
        tables.prepare_cached(sql)?.query_row(params![digest, gateway, number], |row| row.get(0))?;
    Ok(is_written || tables.find(digest)?.is_some())
}

/// Intents of a gateway become records; how many.
pub fn orphan(tables: &Tables<'_>, gateway: i64, now: i64, settle: i64) -> Result<usize> {
    let (many, orphans) = orphans(tables, gateway, now)?;
    let turn = turn(tables)?;
    add(tables, orphans.iter().map(|orphan| &orphan.record), turn, now, settle)?;
    for Orphan { record, unreadable } in orphans {
        let Some(payload) = unreadable else { continue };
        let Some(id) = tables.find(&record.intent.object.digest())? else { continue };
        let sql = "UPDATE records SET payload = ?4 WHERE object = ?1 AND gateway = ?2 AND number = ?3";
        tables.prepare_cached(sql)?.execute(params![id, gateway, record.id().number, payload])?;
    }
    tables.prepare_cached("DELETE FROM intents WHERE gateway = ?1")?.execute([gateway])?;
    let sql = "UPDATE gateways SET gone = 1, deaths = deaths + 1 WHERE id = ?1";
    tables.prepare_cached(sql)?.execute([gateway])?;
    Ok(many)
}

/// How many intents a gateway has, and what they become.
fn orphans(tables: &Tables<'_>, gateway: i64, now: i64) -> Result<(usize, Vec<Orphan>)> {
    let sql = "SELECT number, cluster, bucket, key, payload FROM intents
        WHERE gateway = ?1 ORDER BY number, digest";
    let (mut many, mut orphans) = (0, Vec::new());
    let mut statement = tables.prepare_cached(sql)?;
    let mut rows = statement.query([gateway])?;
    while let Some(row) = rows.next()? {
        let id = WriteId { gateway, number: row.get(0)? };
        let object = Object { cluster: row.get(1)?, bucket: row.get(2)?, key: row.get(3)? };
        let known = match tables.find(&object.digest())? {
            Some(at) => payload(tables, at, id)?,
            None => None,
        };
        orphans.extend(row::orphan(id, object, row.get_ref(4)?.as_blob()?, known.as_deref(), now));
        many += 1;
    }
    Ok((many, orphans))
}

fn add<'a>(
    tables: &Tables<'_>,
    records: impl IntoIterator<Item = &'a Record>,
    turn: i64,
    now: i64,
    settle: i64,
) -> Result<()> {
    let mut rows: HashMap<&Object, Row> = HashMap::new();
    for record in records {
        let object = &record.intent.object;
        let row = match rows.get_mut(object) {
            Some(row) => row,
            None => {
                let row = load(tables, object, now)?;
                rows.entry(object).or_insert(row)
            }
        };
        let known = known(tables, row.id, record)?;
        let begun = match &known {
            Some(_) => None,
            None => begun(tables, record)?,
        };
        let record = stamped(record, known.as_ref(), begun, turn);
        row.add(&record, known.as_ref(), now, settle);
        let payload = row::record_payload(&record).map_err(unwritable)?;
        let sql =
            "INSERT INTO records (object, gateway, number, position, payload) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET payload = excluded.payload";
        let WriteId { gateway, number } = record.id();
        tables.prepare_cached(sql)?.execute(params![row.id, gateway, number, row.appended, payload])?;
        if known.is_none() && are_many(usize::try_from(row.records).unwrap_or(0)) {
            row.records -= compact(tables, row.id, object)?;
        }
    }
    for (object, mut row) in rows {
        if row.is_to_be_asked() {
            row.known = known_of(tables, row.id, object, None)?;
        }
        store(tables, &row)?;
        tell(tables, object)?;
    }
    Ok(())
}

fn load(tables: &Tables<'_>, object: &Object, now: i64) -> Result<Row> {
    let digest = object.digest();
    if let Some(id) = tables.find(&digest)? {
        return found(tables, object, id);
    }
    let sql = "INSERT INTO objects (digest, cluster, bucket, key, standing, diverged, due, calm, replaced, attempts,
        since, reason, records, appended) VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?5, 0, 0, ?5, '', 0, 0)";
    let Object { cluster, bucket, key } = object;
    let id = tables.prepare_cached(sql)?.insert(params![digest, cluster, bucket, key, now])?;
    tables.added(&digest, id)?;
    Ok(Row { id, ..Row::new(now) })
}

fn found(tables: &Tables<'_>, object: &Object, id: i64) -> Result<Row> {
    let sql = "SELECT standing, diverged, due, calm, token IS NOT NULL, replaced, attempts, records, appended, known
        FROM objects WHERE id = ?1";
    tables.prepare_cached(sql)?.query_row([id], |row| {
        let kept = row.get_ref(9)?.as_blob_or_null()?;
        Ok(Row {
            id,
            standing: row::standing(row.get(0)?),
            diverged: row.get(1)?,
            due: row.get(2)?,
            calm: row.get(3)?,
            leased: row.get(4)?,
            replaced: row.get(5)?,
            attempts: row.get(6)?,
            records: row.get(7)?,
            appended: row.get(8)?,
            known: known_of(tables, id, object, kept)?,
            retold: false,
        })
    })
}

fn store(tables: &Tables<'_>, row: &Row) -> Result<()> {
    let sql =
        "UPDATE objects SET standing = ?2, diverged = ?3, due = ?4, calm = ?5, replaced = ?6, attempts = ?7,
        records = ?8, appended = ?9, known = ?10 WHERE id = ?1";
    let Row { id, diverged, due, calm, replaced, attempts, records, appended, .. } = row;
    let (standing, known) = (row::code(row.standing), row::known_payload(&row.known).map_err(unwritable)?);
    let values = params![id, standing, diverged, due, calm, replaced, attempts, records, appended, known];
    tables.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// What is there of the same write.
fn known(tables: &Tables<'_>, object: i64, record: &Record) -> Result<Option<Record>> {
    let object_of = || record.intent.object.clone();
    let payload = payload(tables, object, record.id())?;
    Ok(payload.map(|payload| row::record_or_stand_in(record.id(), object_of(), &payload)))
}

fn payload(tables: &Tables<'_>, object: i64, write: WriteId) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT payload FROM records WHERE object = ?1 AND gateway = ?2 AND number = ?3";
    let write = params![object, write.gateway, write.number];
    tables.prepare_cached(sql)?.query_row(write, |row| row.get(0)).optional()
}

/// The turn of this transaction. For `RETURNING` SQLite would make a table of its own each time, at ten times the cost.
pub fn turn(tables: &Tables<'_>) -> Result<i64> {
    tables.prepare_cached("UPDATE counters SET tokens = tokens + 1")?.execute([])?;
    tables.prepare_cached("SELECT tokens FROM counters")?.query_row([], |row| row.get(0))
}

/// The turn at which a write began that is still under way; none where the intent cannot be read.
fn begun(tables: &Tables<'_>, record: &Record) -> Result<Option<i64>> {
    let sql = "SELECT payload FROM intents WHERE gateway = ?1 AND number = ?2 AND digest = ?3";
    let object = &record.intent.object;
    let write = params![record.id().gateway, record.id().number, object.digest()];
    let payload = tables.prepare_cached(sql)?.query_row(write, |row| row.get::<_, Vec<u8>>(0));
    let Some(payload) = payload.optional()? else { return Ok(None) };
    Ok(row::intent(record.id(), object.clone(), &payload).ok().and_then(|intent| intent.turn))
}

fn compact(tables: &Tables<'_>, id: i64, object: &Object) -> Result<i64> {
    let superfluous = superfluous(&records_of(tables, id, object, usize::MAX)?.all);
    for write in &superfluous {
        let sql = "DELETE FROM records WHERE object = ?1 AND gateway = ?2 AND number = ?3";
        tables.prepare_cached(sql)?.execute(params![id, write.gateway, write.number])?;
    }
    Ok(superfluous.len() as i64)
}

/// An object, its records or their absence have changed.
pub fn tell(tables: &Tables<'_>, object: &Object) -> Result<()> {
    let sql = "INSERT INTO events (digest, cluster, bucket, key) VALUES (?1, ?2, ?3, ?4)";
    let Object { cluster, bucket, key } = object;
    let id = tables.prepare_cached(sql)?.insert(params![object.digest(), cluster, bucket, key])?;
    if id % SWEEP == 0 {
        tables.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute([id - KEPT_EVENTS - SWEEP])?;
    }
    Ok(())
}

/// An object with its records goes.
pub fn remove(tables: &Tables<'_>, id: i64) -> Result<()> {
    tables.prepare_cached("DELETE FROM records WHERE object = ?1")?.execute([id])?;
    tables.prepare_cached("DELETE FROM objects WHERE id = ?1")?.execute([id])?;
    Ok(())
}

pub fn unwritable(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error.into())
}

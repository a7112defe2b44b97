//! Leases: who repairs which object, and what comes of it.

use std::time::Duration;

use rusqlite::{OptionalExtension, Result, params};

use super::{
    cases::{by_id, known_of, records_of, under_way},
    index::Tables,
    tables::{remove, tell, turn, unwritable},
};
use crate::journal::{
    Case, Later, Lease, Object, RECORDS_MOST, RECORDS_READ, Resolution, Standing, Wanted, WriteId,
    row::{self, Back},
};

pub struct Terms<'a> {
    pub worker: &'a str,
    pub wanted: Wanted,
    pub most: usize,
    pub now: i64,
    pub hold: i64,
    pub settle: i64,
}

/// What nobody could decide is parked, and others are leased instead.
pub fn lease(tables: &Tables<'_>, terms: &Terms<'_>) -> Result<Vec<(Lease, Case)>> {
    loop {
        let due = due(tables, terms)?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let leases = take(tables, terms, due)?;
        if !leases.is_empty() {
            return Ok(leases);
        }
    }
}

fn take(tables: &Tables<'_>, terms: &Terms<'_>, due: Vec<(i64, i64)>) -> Result<Vec<(Lease, Case)>> {
    let token = turn(tables)?;
    let until = terms.now + terms.hold;
    let mut leases = Vec::with_capacity(due.len());
    for (_, id) in due {
        // An earlier lease is there still if it ran out.
        let sql = "UPDATE objects SET worker = ?2, token = ?3, held = ?4, due = ?5, replaced = 0,
            unseen_since = CASE WHEN token IS NULL THEN unseen_since ELSE coalesce(unseen_since, token) END,
            unseen_until = CASE WHEN token IS NOT NULL THEN ?3
                WHEN unseen_since IS NOT NULL THEN coalesce(unseen_until, ?3) END
            WHERE id = ?1";
        let values = params![id, terms.worker, token, until, until + terms.settle];
        tables.prepare_cached(sql)?.execute(values)?;
        let (case, unreadable) = by_id(tables, id)?;
        let lease = Lease { object: case.object.clone(), worker: terms.worker.to_owned(), token };
        match unreadable {
            None => leases.push((lease, case)),
            Some(why) => park(tables, id, &why)?,
        }
    }
    Ok(leases)
}

fn park(tables: &Tables<'_>, id: i64, why: &str) -> Result<()> {
    let sql =
        "UPDATE objects SET standing = ?2, reason = ?3, worker = NULL, token = NULL, held = NULL, due = calm
        WHERE id = ?1";
    tables.prepare_cached(sql)?.execute(params![id, row::code(Standing::Parked), why])?;
    Ok(())
}

/// When they have been due, and ids.
fn due(tables: &Tables<'_>, terms: &Terms<'_>) -> Result<Vec<(i64, i64)>> {
    let lanes: &[i64] = match terms.wanted {
        Wanted::Diverged => &[1],
        Wanted::Misplaced => &[0, 1],
    };
    let most = i64::try_from(terms.most).unwrap_or(i64::MAX);
    let mut due = Vec::new();
    for lane in lanes {
        let sql = "SELECT due, id FROM objects WHERE standing = 0 AND diverged = ?1 AND due <= ?2
            ORDER BY due, id LIMIT ?3";
        let mut statement = tables.prepare_cached(sql)?;
        let rows =
            statement.query_map(params![lane, terms.now, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            due.push(row?);
        }
    }
    due.sort_unstable();
    due.truncate(terms.most);
    Ok(due)
}

/// The object of a lease that has not run out.
struct Leased {
    id: i64,
    calm: i64,
    replaced: bool,
    /// More records than anybody reads.
    has_too_many: bool,
}

fn leased(tables: &Tables<'_>, lease: &Lease, now: i64) -> Result<Option<Leased>> {
    let Some(id) = tables.find(&lease.object.digest())? else { return Ok(None) };
    let sql = "SELECT calm, replaced, records > ?5 FROM objects
        WHERE id = ?1 AND token = ?2 AND worker = ?3 AND held > ?4";
    let values = params![id, lease.token, lease.worker, now, RECORDS_MOST as i64];
    let leased = tables.prepare_cached(sql)?.query_row(values, |row| {
        Ok(Leased { id, calm: row.get(0)?, replaced: row.get(1)?, has_too_many: row.get(2)? })
    });
    leased.optional()
}

impl Leased {
    fn knows_only(&self, tables: &Tables<'_>, seen: &[WriteId]) -> Result<bool> {
        let is_readable = !self.replaced && !self.has_too_many;
        Ok(is_readable && self.records(tables)?.iter().all(|write| seen.contains(write)))
    }

    fn records(&self, tables: &Tables<'_>) -> Result<Vec<WriteId>> {
        let sql = "SELECT gateway, number FROM records WHERE object = ?1";
        let mut statement = tables.prepare_cached(sql)?;
        let rows = statement
            .query_map([self.id], |row| Ok(WriteId { gateway: row.get(0)?, number: row.get(1)? }))?;
        rows.collect()
    }

    /// Gives it back with these records and no others, as if they had just come; false = it has none of them.
    fn keeps_only(
        &self,
        tables: &Tables<'_>,
        object: &Object,
        sightings: &[WriteId],
        now: i64,
    ) -> Result<bool> {
        if sightings.is_empty() {
            return Ok(false);
        }
        let mut kept = 0;
        for write in self.records(tables)? {
            if sightings.contains(&write) {
                kept += 1;
                continue;
            }
            let sql = "DELETE FROM records WHERE object = ?1 AND gateway = ?2 AND number = ?3";
            tables.prepare_cached(sql)?.execute(params![self.id, write.gateway, write.number])?;
        }
        let known = row::known_payload(&known_of(tables, self.id, object, None)?).map_err(unwritable)?;
        let sql = "UPDATE objects SET diverged = 0, records = ?2, attempts = 0, reason = '', since = ?3,
                unseen_since = NULL, unseen_until = NULL, known = ?4 WHERE id = ?1";
        tables.prepare_cached(sql)?.execute(params![self.id, kept, now, known])?;
        self.release(tables, Back::at_once(now))?;
        Ok(kept > 0)
    }

    fn release(&self, tables: &Tables<'_>, back: Back) -> Result<()> {
        let sql = "UPDATE objects SET worker = NULL, token = NULL, held = NULL, due = ?2, calm = ?3,
                unseen_since = CASE WHEN ?4 THEN coalesce(unseen_since, token) ELSE unseen_since END,
                unseen_until = CASE WHEN NOT ?4 THEN unseen_until END
            WHERE id = ?1";
        let calm = self.calm.max(back.calm);
        tables.prepare_cached(sql)?.execute(params![self.id, back.due.max(calm), calm, back.unseen])?;
        Ok(())
    }
}

pub fn renew(tables: &Tables<'_>, lease: &Lease, now: i64, hold: i64, settle: i64) -> Result<bool> {
    let Some(leased) = leased(tables, lease, now)? else { return Ok(false) };
    let due = (now + hold + settle).max(leased.calm);
    let sql = "UPDATE objects SET held = ?2, due = ?3 WHERE id = ?1";
    tables.prepare_cached(sql)?.execute(params![leased.id, now + hold, due])?;
    Ok(true)
}

pub fn resolve(
    tables: &Tables<'_>,
    lease: &Lease,
    seen: &[WriteId],
    sightings: &[WriteId],
    now: i64,
) -> Result<Resolution> {
    let Some(leased) = leased(tables, lease, now)? else { return Ok(Resolution::Lost) };
    if under_way(tables, &lease.object.digest())? > 0 || !leased.knows_only(tables, seen)? {
        return Ok(Resolution::Changed);
    }
    if !leased.keeps_only(tables, &lease.object, sightings, now)? {
        remove(tables, leased.id)?;
    }
    tell(tables, &lease.object)?;
    tables.prepare_cached("UPDATE counters SET resolved = resolved + 1")?.execute([])?;
    Ok(Resolution::Resolved)
}

pub fn postpone(tables: &Tables<'_>, lease: &Lease, now: i64, later: Later, why: &str) -> Result<()> {
    let Some(leased) = leased(tables, lease, now)? else { return Ok(()) };
    let sql = "UPDATE objects SET attempts = attempts + ?2, reason = ?3 WHERE id = ?1";
    tables.prepare_cached(sql)?.execute(params![leased.id, later.failed, why])?;
    leased.release(tables, Back::later(later, now))
}

pub fn set_aside(
    tables: &Tables<'_>,
    lease: &Lease,
    (standing, unsettled): (Standing, Option<Duration>),
    seen: &[WriteId],
    why: &str,
    now: i64,
) -> Result<()> {
    let Some(leased) = leased(tables, lease, now)? else { return Ok(()) };
    if leased.has_too_many || leased.knows_only(tables, seen)? {
        let sql = "UPDATE objects SET standing = ?2, reason = ?3 WHERE id = ?1";
        tables.prepare_cached(sql)?.execute(params![leased.id, row::code(standing), why])?;
    }
    leased.release(tables, Back::aside(unsettled, now))
}

pub fn retry(tables: &Tables<'_>, object: &Object, now: i64) -> Result<bool> {
    let Some(id) = tables.find(&object.digest())? else { return Ok(false) };
    let sql = "UPDATE objects SET
            due = CASE WHEN token IS NOT NULL AND due > ?2 THEN due ELSE max(?2, calm) END,
            worker = CASE WHEN token IS NOT NULL AND due > ?2 THEN worker END,
            token = CASE WHEN token IS NOT NULL AND due > ?2 THEN token END,
            held = CASE WHEN token IS NOT NULL AND due > ?2 THEN held END,
            unseen_since = CASE WHEN token IS NULL OR due > ?2 THEN unseen_since ELSE coalesce(unseen_since, token) END,
            unseen_until = CASE WHEN token IS NULL OR due > ?2 THEN unseen_until END,
            standing = 0, attempts = 0, reason = '' WHERE id = ?1";
    Ok(tables.prepare_cached(sql)?.execute(params![id, now])? > 0)
}

pub fn drop_object(tables: &Tables<'_>, object: &Object, reason: &str, now: i64) -> Result<bool> {
    let Some(id) = tables.find(&object.digest())? else { return Ok(false) };
    let sql = "SELECT token IS NOT NULL AND due > ?2 FROM objects WHERE id = ?1";
    let is_leased: bool = tables.prepare_cached(sql)?.query_row([id, now], |row| row.get(0))?;
    if is_leased || under_way(tables, &object.digest())? > 0 {
        return Ok(false);
    }
    let records =
        row::records_payload(&records_of(tables, id, object, RECORDS_READ)?.all).map_err(unwritable)?;
    let sql =
        "INSERT INTO dropped (cluster, bucket, key, at, reason, records) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Object { cluster, bucket, key } = object;
    tables.prepare_cached(sql)?.execute(params![cluster, bucket, key, now, reason, records])?;
    remove(tables, id)?;
    tell(tables, object)?;
    Ok(true)
}

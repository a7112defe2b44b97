//! What is read from the tables.

use rusqlite::{Result, Row, params};

use super::index::Tables;
use crate::journal::{
    Case, Counts, Filter, Known, Mark, News, Object, RECORDS_READ, Unresolved, WriteId,
    row::{self, Records, standing, unseen},
    rules::KEPT_EVENTS,
};

/// Objects of a page of a list, before the filter's part that is no SQL.
const PAGE: usize = 256;
const COLUMNS: &str = "id, cluster, bucket, key, standing, attempts, since, due, reason, digest, unseen_since, unseen_until, records";

/// An object's row, and its case but for records and writes under way.
struct Found {
    id: i64,
    /// As it is in the row, by which it is listed.
    digest: Vec<u8>,
    case: Case,
}

fn found(row: &Row<'_>) -> Result<Found> {
    let case = Case {
        object: Object { cluster: row.get(1)?, bucket: row.get(2)?, key: row.get(3)? },
        standing: standing(row.get(4)?),
        records: Vec::new(),
        more: number(row, 12)?,
        under_way: 0,
        unseen: unseen(row.get(10)?, row.get(11)?),
        attempts: row.get(5)?,
        since: row.get(6)?,
        due: row.get(7)?,
        reason: row.get(8)?,
    };
    Ok(Found { id: row.get(0)?, digest: row.get(9)?, case })
}

/// With what cannot be read of it, which is its reason then.
fn complete(tables: &Tables<'_>, found: Found) -> Result<(Case, Option<String>)> {
    let Found { id, digest, mut case } = found;
    let own = case.object.digest();
    let Records { all, unreadable } = records_of(tables, id, &case.object, RECORDS_READ)?;
    case.more = case.more.saturating_sub(all.len() as u64);
    case.records = all;
    case.under_way = under_way(tables, &own)?;
    let is_hidden = digest[..] != own;
    let hidden = is_hidden
        .then(|| "its row has another digest, so that nobody finds it by its name: mend the row".to_owned());
    let why = hidden.or(unreadable.map(|unreadable| unreadable.to_string()));
    if let Some(why) = &why {
        case.reason.clone_from(why);
    }
    Ok((case, why))
}

/// Those with the least numbers, where there are more than `most`: as they lie in the table, so that no others are read.
pub fn records_of(tables: &Tables<'_>, id: i64, object: &Object, most: usize) -> Result<Records> {
    let sql = "SELECT position, gateway, number, payload FROM records WHERE object = ?1
        ORDER BY gateway, number LIMIT ?2";
    let mut statement = tables.prepare_cached(sql)?;
    let rows = statement.query_map(params![id, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        Ok((row.get(0)?, WriteId { gateway: row.get(1)?, number: row.get(2)? }, row.get(3)?))
    })?;
    Ok(Records::of(rows.collect::<Result<_>>()?, object))
}

/// What its records say to gateways, which is kept in the object's row.
pub fn known_of(tables: &Tables<'_>, id: i64, object: &Object, kept: Option<&[u8]>) -> Result<Known> {
    match row::known(kept) {
        Some(known) => Ok(known),
        None => Ok(Known::of(&records_of(tables, id, object, RECORDS_READ)?.all)),
    }
}

/// How many writes to an object are.
pub fn under_way(tables: &Tables<'_>, digest: &[u8; 32]) -> Result<usize> {
    let sql = "SELECT count(*) FROM intents WHERE digest = ?1";
    let count: u32 = tables.prepare_cached(sql)?.query_row([digest], |row| row.get(0))?;
    Ok(count as usize)
}

pub fn by_id(tables: &Tables<'_>, id: i64) -> Result<(Case, Option<String>)> {
    complete(tables, found_by(tables, id)?)
}

fn found_by(tables: &Tables<'_>, id: i64) -> Result<Found> {
    let sql = format!("SELECT {COLUMNS} FROM objects WHERE id = ?1");
    tables.prepare_cached(&sql)?.query_row([id], found)
}

pub fn show(tables: &Tables<'_>, digest: &[u8; 32]) -> Result<Option<Case>> {
    let Some(id) = tables.find(digest)? else { return Ok(None) };
    Ok(Some(by_id(tables, id)?.0))
}

/// One page of objects behind a digest, with the last digest that was looked at if there may be more. What the
/// filter asks of object and standing is seen before records are read.
pub fn list(
    tables: &Tables<'_>,
    filter: &Filter,
    after: &[u8],
    most: usize,
) -> Result<(Vec<Case>, Option<Vec<u8>>)> {
    let rows = tables.behind(after, PAGE)?.into_iter().map(|id| found_by(tables, id));
    let rows = rows.collect::<Result<Vec<Found>>>()?;
    let mut last = rows.last().map(|found| found.digest.clone()).filter(|_| rows.len() == PAGE);
    let mut cases = Vec::new();
    let names = Filter { backend: None, ..filter.clone() };
    for found in rows.into_iter().filter(|found| names.takes(&found.case)) {
        let digest = found.digest.clone();
        let (case, _) = complete(tables, found)?;
        if filter.takes(&case) {
            cases.push(case);
        }
        if cases.len() == most {
            last = Some(digest);
            break;
        }
    }
    Ok((cases, last))
}

/// Those that are not open, the last first.
pub fn aside(tables: &Tables<'_>, most: usize) -> Result<Vec<Case>> {
    let sql = format!("SELECT {COLUMNS} FROM objects WHERE standing <> 0 ORDER BY id DESC LIMIT ?1");
    let mut statement = tables.prepare_cached(&sql)?;
    let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], found)?;
    rows.map(|found| Ok(complete(tables, found?)?.0)).collect()
}

pub fn counts(tables: &Tables<'_>, now: i64) -> Result<Counts> {
    let sql = "SELECT open, parked, dead, resolved,
        (SELECT count(*) FROM objects WHERE token IS NOT NULL AND held > ?1),
        (SELECT count(*) FROM intents),
        (SELECT min(since) FROM objects WHERE standing = 0) FROM counters";
    tables.prepare_cached(sql)?.query_row([now], |row| {
        Ok(Counts {
            open: number(row, 0)?,
            parked: number(row, 1)?,
            dead: number(row, 2)?,
            resolved: number(row, 3)?,
            leased: number(row, 4)?,
            intents: number(row, 5)?,
            oldest: row.get(6)?,
        })
    })
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// Objects behind a digest.
pub fn unresolved(tables: &Tables<'_>, after: &[u8], most: usize) -> Result<Unresolved> {
    let mark = newest(tables)?;
    let objects = tables.behind(after, most)?.into_iter().map(|id| {
        let sql = "SELECT cluster, bucket, key, known FROM objects WHERE id = ?1";
        tables.prepare_cached(sql)?.query_row([id], |row| {
            let object = Object { cluster: row.get(0)?, bucket: row.get(1)?, key: row.get(2)? };
            let known = known_of(tables, id, &object, row.get_ref(3)?.as_blob_or_null()?)?;
            Ok((object, known))
        })
    });
    let objects = objects.collect::<Result<Vec<_>>>()?;
    Ok(Unresolved { is_last: objects.len() < most, objects, mark })
}

pub fn known(tables: &Tables<'_>, object: &Object) -> Result<Option<Known>> {
    let Some(id) = tables.find(&object.digest())? else { return Ok(None) };
    let sql = "SELECT known FROM objects WHERE id = ?1";
    let known = tables
        .prepare_cached(sql)?
        .query_row([id], |row| known_of(tables, id, object, row.get_ref(0)?.as_blob_or_null()?));
    known.map(Some)
}

/// The number of the newest event that there ever was.
pub fn newest(tables: &Tables<'_>) -> Result<Mark> {
    let sql = "SELECT coalesce(max(id), 0) FROM events";
    tables.prepare_cached(sql)?.query_row([], |row| row.get(0)).map(Mark)
}

pub fn news(tables: &Tables<'_>, mark: Mark) -> Result<News> {
    let newest = newest(tables)?;
    if mark == newest {
        return Ok(News::Changed(Vec::new(), mark));
    }
    if mark.0 > newest.0 || newest.0 - mark.0 > KEPT_EVENTS {
        return Ok(News::Reload);
    }
    let sql = "SELECT DISTINCT digest, cluster, bucket, key FROM events WHERE id > ?1 ORDER BY digest";
    let mut statement = tables.prepare_cached(sql)?;
    let mut rows = statement.query([mark.0])?;
    let mut changed = Vec::new();
    while let Some(row) = rows.next()? {
        let object = Object { cluster: row.get(1)?, bucket: row.get(2)?, key: row.get(3)? };
        let known = known(tables, &object)?;
        changed.push((object, known));
    }
    Ok(News::Changed(changed, newest))
}

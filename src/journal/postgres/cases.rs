//! What is read from the tables.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::session::{Result, Session, first};
use crate::journal::{
    Case, Counts, Filter, Known, Mark, News, Object, RECORDS_READ, Unresolved, WriteId,
    row::{self, Records, Unreadable, standing, unseen},
    rules::KEPT_EVENTS,
};

/// Objects of a page of a list, before the filter's part that is no SQL.
const PAGE: i64 = 256;
/// Of those, objects whose records are read at once.
const CHUNK: usize = 32;

/// An object's row, and its case but for records and writes under way.
pub struct Found {
    id: i64,
    digest: Vec<u8>,
    case: Case,
}

/// From a row of `id, cluster, bucket, key, standing, attempts, since, due, reason, digest, unseen_since, unseen_until,
/// records`.
pub fn found(row: &Row) -> Result<Found> {
    let case = Case {
        object: Object { cluster: row.try_get(1)?, bucket: row.try_get(2)?, key: row.try_get(3)? },
        standing: standing(row.try_get::<_, i16>(4)?.into()),
        records: Vec::new(),
        more: number(row, 12)?,
        under_way: 0,
        unseen: unseen(row.try_get(10)?, row.try_get(11)?),
        attempts: u32::try_from(row.try_get::<_, i64>(5)?).unwrap_or(u32::MAX),
        since: row.try_get(6)?,
        due: row.try_get(7)?,
        reason: row.try_get(8)?,
    };
    Ok(Found { id: row.try_get(0)?, digest: row.try_get(9)?, case })
}

/// Each with what cannot be read of it, which is its reason then.
pub async fn complete(session: &mut Session, found: Vec<Found>) -> Result<Vec<(Case, Option<Unreadable>)>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<(i64, &Object)> = found.iter().map(|found| (found.id, &found.case.object)).collect();
    let mut records = records_of(session, &names, RECORDS_READ).await?;
    let digests: Vec<&[u8]> = found.iter().map(|found| found.digest.as_slice()).collect();
    let sql = "SELECT digest, count(*) FROM intents WHERE digest = ANY($1) GROUP BY digest";
    let mut under_way: HashMap<Vec<u8>, i64> = HashMap::new();
    for row in &session.query(sql, &[&digests]).await? {
        under_way.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let cases = found.into_iter().map(|Found { id, digest, mut case }| {
        let Records { all, unreadable } = records.remove(&id).unwrap_or_default();
        case.more = case.more.saturating_sub(all.len() as u64);
        case.records = all;
        case.under_way = under_way.get(&digest).map_or(0, |count| usize::try_from(*count).unwrap_or(0));
        if let Some(unreadable) = &unreadable {
            case.reason = unreadable.to_string();
        }
        (case, unreadable)
    });
    Ok(cases.collect())
}

/// Of each object those with the least numbers, where there are more than `most`: as they lie in the index, so that no
/// others are read.
pub async fn records_of(
    session: &mut Session,
    objects: &[(i64, &Object)],
    most: usize,
) -> Result<HashMap<i64, Records>> {
    let ids: Vec<i64> = objects.iter().map(|(id, _)| *id).collect();
    let sql = "SELECT o.id, r.position, r.gateway, r.number, r.payload FROM unnest($1::bigint[]) AS o (id)
        CROSS JOIN LATERAL (SELECT position, gateway, number, payload FROM records WHERE object = o.id
            ORDER BY object, gateway, number LIMIT $2) AS r";
    let mut rows: HashMap<i64, Vec<(i64, WriteId, Vec<u8>)>> = HashMap::with_capacity(ids.len());
    for row in &session.query(sql, &[&ids, &i64::try_from(most).unwrap_or(i64::MAX)]).await? {
        let id = WriteId { gateway: row.try_get(2)?, number: row.try_get(3)? };
        rows.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, id, row.try_get(4)?));
    }
    let records =
        |(id, object): &(i64, &Object)| (*id, Records::of(rows.remove(id).unwrap_or_default(), object));
    Ok(objects.iter().map(records).collect())
}

/// What its records say to gateways, which is kept in the object's row.
pub async fn known_of(session: &mut Session, id: i64, object: &Object, kept: Option<&[u8]>) -> Result<Known> {
    if let Some(known) = row::known(kept) {
        return Ok(known);
    }
    let records = records_of(session, &[(id, object)], RECORDS_READ).await?;
    Ok(Known::of(records.get(&id).map_or(&[][..], |records| &records.all)))
}

/// How many writes to an object are.
pub async fn under_way(session: &mut Session, digest: &[u8]) -> Result<i64> {
    first(&session.query("SELECT count(*) FROM intents WHERE digest = $1", &[&digest]).await?)
}

pub async fn show(session: &mut Session, object: &Object) -> Result<Option<Case>> {
    let sql = "SELECT id, cluster, bucket, key, standing, attempts, since, due, reason, digest,
            unseen_since, unseen_until, records FROM objects
        WHERE digest = $1";
    let rows = session.query(sql, &[&object.digest().as_slice()]).await?;
    let found = rows.iter().map(found).collect::<Result<Vec<Found>>>()?;
    Ok(complete(session, found).await?.pop().map(|(case, _)| case))
}

/// One page of objects behind a digest, with the last digest that was looked at if there may be more. What the
/// filter asks of object and standing is seen before records are read.
pub async fn list(
    session: &mut Session,
    filter: &Filter,
    after: &[u8],
    most: usize,
) -> Result<(Vec<Case>, Option<Vec<u8>>)> {
    let sql = "SELECT id, cluster, bucket, key, standing, attempts, since, due, reason, digest,
            unseen_since, unseen_until, records FROM objects
        WHERE digest > $1 ORDER BY digest LIMIT $2";
    let rows = session.query(sql, &[&after, &PAGE]).await?;
    let rows = rows.iter().map(found).collect::<Result<Vec<Found>>>()?;
    let mut last = rows.last().map(|found| found.digest.clone()).filter(|_| rows.len() as i64 == PAGE);
    let names = Filter { backend: None, ..filter.clone() };
    let mut named = rows.into_iter().filter(|found| names.takes(&found.case)).peekable();
    let mut cases: Vec<Case> = Vec::new();
    while cases.len() < most && named.peek().is_some() {
        let some = named.by_ref().take(CHUNK).collect();
        let completed = complete(session, some).await?.into_iter().map(|(case, _)| case);
        cases.extend(completed.filter(|case| filter.takes(case)));
    }
    cases.truncate(most);
    if cases.len() == most {
        last = cases.last().map(|case| case.object.digest().to_vec());
    }
    Ok((cases, last))
}

/// Those that are not open, the last first.
pub async fn aside(session: &mut Session, most: usize) -> Result<Vec<Case>> {
    let sql = "SELECT id, cluster, bucket, key, standing, attempts, since, due, reason, digest,
            unseen_since, unseen_until, records FROM objects
        WHERE standing <> 0 ORDER BY id DESC LIMIT $1";
    let rows = session.query(sql, &[&i64::try_from(most).unwrap_or(i64::MAX)]).await?;
    let found = rows.iter().map(found).collect::<Result<Vec<Found>>>()?;
    Ok(complete(session, found).await?.into_iter().map(|(case, _)| case).collect())
}

pub async fn counts(session: &mut Session, now: i64) -> Result<Counts> {
    let sql = "SELECT sum(open)::bigint, sum(parked)::bigint, sum(dead)::bigint, sum(resolved)::bigint,
        (SELECT count(*) FROM objects WHERE token IS NOT NULL AND held > $1),
        (SELECT count(*) FROM intents),
        (SELECT min(since) FROM objects WHERE standing = 0) FROM counters";
    let rows = session.query(sql, &[&now]).await?;
    let Some(row) = rows.first() else { return Ok(Counts::default()) };
    Ok(Counts {
        open: number(row, 0)?,
        parked: number(row, 1)?,
        dead: number(row, 2)?,
        resolved: number(row, 3)?,
        leased: number(row, 4)?,
        intents: number(row, 5)?,
        oldest: row.try_get(6)?,
    })
}

fn number(row: &Row, column: usize) -> Result<u64> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or(0))
}

/// Objects behind a digest. In a transaction that sees one state of the database.
pub async fn unresolved(session: &mut Session, after: &[u8], most: usize) -> Result<Unresolved> {
    let mark = newest(session).await?;
    let sql =
        "SELECT id, cluster, bucket, key, known FROM objects WHERE digest > $1 ORDER BY digest LIMIT $2";
    let rows = session.query(sql, &[&after, &i64::try_from(most).unwrap_or(i64::MAX)]).await?;
    let mut objects = Vec::with_capacity(rows.len());
    for row in &rows {
        let object = Object { cluster: row.try_get(1)?, bucket: row.try_get(2)?, key: row.try_get(3)? };
        let known = known_of(session, row.try_get(0)?, &object, row.try_get(4)?).await?;
        objects.push((object, known));
    }
    Ok(Unresolved { is_last: objects.len() < most, objects, mark })
}

pub async fn known(session: &mut Session, object: &Object) -> Result<Option<Known>> {
    let sql = "SELECT id, known FROM objects WHERE digest = $1";
    let rows = session.query(sql, &[&object.digest().as_slice()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    known_of(session, row.try_get(0)?, object, row.try_get(1)?).await.map(Some)
}

/// The number of the newest event that there ever was.
pub async fn newest(session: &mut Session) -> Result<Mark> {
    Ok(Mark(first(&session.query("SELECT coalesce(max(id), 0) FROM events", &[]).await?)?))
}

/// In a transaction that sees one state of the database.
pub async fn news(session: &mut Session, mark: Mark) -> Result<News> {
    let newest = newest(session).await?;
    if mark == newest {
        return Ok(News::Changed(Vec::new(), mark));
    }
    if mark.0 > newest.0 || newest.0 - mark.0 > KEPT_EVENTS {
        return Ok(News::Reload);
    }
    let sql = "SELECT DISTINCT e.digest, e.cluster, e.bucket, e.key, o.id, o.known FROM events e
        LEFT JOIN objects o ON o.digest = e.digest WHERE e.id > $1 ORDER BY e.digest";
    let rows = session.query(sql, &[&mark.0]).await?;
    let mut changed = Vec::with_capacity(rows.len());
    for row in &rows {
        let object = Object { cluster: row.try_get(1)?, bucket: row.try_get(2)?, key: row.try_get(3)? };
        let known = match row.try_get(4)? {
            Some(id) => Some(known_of(session, id, &object, row.try_get(5)?).await?),
            None => None,
        };
        changed.push((object, known));
    }
    Ok(News::Changed(changed, newest))
}

//! Leases: who repairs which object, and what comes of it.

use std::time::Duration;

use super::{
    cases::{Found, complete, found, known_of, records_of, under_way},
    session::{Result, Session, first},
    tables::tell,
};
use crate::journal::{
    Case, Later, Lease, Object, RECORDS_MOST, RECORDS_READ, Resolution, Standing, Wanted, WriteId,
    row::{self, Back, Unreadable},
};

pub struct Terms<'a> {
    pub worker: &'a str,
    pub wanted: Wanted,
    pub most: usize,
    pub hold: i64,
    pub settle: i64,
}

/// What nobody could decide is parked, and others are leased instead.
pub async fn lease(session: &mut Session, terms: &Terms<'_>, now: i64) -> Result<Vec<(Lease, Case)>> {
    loop {
        let taken = take(session, terms, now).await?;
        let is_all = taken.is_empty();
        let mut leases = Vec::with_capacity(taken.len());
        for (lease, case, unreadable) in taken {
            match unreadable {
                None => leases.push((lease, case)),
                Some(why) => park(session, &lease.object, &why).await?,
            }
        }
        if is_all || !leases.is_empty() {
            return Ok(leases);
        }
    }
}

async fn park(session: &mut Session, object: &Object, why: &Unreadable) -> Result<()> {
    let sql =
        "UPDATE objects SET standing = $2, reason = $3, worker = NULL, token = NULL, held = NULL, due = calm
        WHERE digest = $1";
    let digest = object.digest();
    session.execute(sql, &[&digest.as_slice(), &row::code(Standing::Parked), &why.to_string()]).await?;
    Ok(())
}

async fn take(
    session: &mut Session,
    terms: &Terms<'_>,
    now: i64,
) -> Result<Vec<(Lease, Case, Option<Unreadable>)>> {
    // Each half finds its objects in the index, in their order; what others have locked is not waited for.
    let sql = "WITH diverged AS (
            SELECT id, due FROM objects WHERE standing = 0 AND diverged AND due <= $1
            ORDER BY due, id LIMIT $2 FOR UPDATE SKIP LOCKED
        ), misplaced AS (
            SELECT id, due FROM objects WHERE $3 AND standing = 0 AND NOT diverged AND due <= $1
            ORDER BY due, id LIMIT $2 FOR UPDATE SKIP LOCKED
        ), due AS (
            SELECT id, due FROM diverged UNION ALL SELECT id, due FROM misplaced ORDER BY due, id LIMIT $2
        ), token AS MATERIALIZED (SELECT nextval('akubra_journal.tokens') AS token)
        UPDATE objects o SET worker = $4, token = token.token, held = $5, due = $6, replaced = false,
            unseen_since = CASE WHEN o.token IS NULL THEN unseen_since ELSE coalesce(unseen_since, o.token) END,
            unseen_until = CASE WHEN o.token IS NOT NULL THEN token.token
                WHEN unseen_since IS NOT NULL THEN coalesce(unseen_until, token.token) END
        FROM due, token WHERE o.id = due.id
        RETURNING o.id, o.cluster, o.bucket, o.key, o.standing, o.attempts, o.since, o.due, o.reason, o.digest,
            o.unseen_since, o.unseen_until, o.records, o.token, due.due";
    let most = i64::try_from(terms.most).unwrap_or(i64::MAX);
    let is_misplaced_wanted = terms.wanted == Wanted::Misplaced;
    let until = now + terms.hold;
    let due = until + terms.settle;
    let rows = session.query(sql, &[&now, &most, &is_misplaced_wanted, &terms.worker, &until, &due]).await?;
    let mut leased = Vec::with_capacity(rows.len());
    for row in &rows {
        let order: (i64, i64) = (row.try_get(14)?, row.try_get(0)?);
        let token: i64 = row.try_get(13)?;
        leased.push((order, token, found(row)?));
    }
    leased.sort_by_key(|(order, _, _)| *order);
    let (tokens, found): (Vec<i64>, Vec<Found>) =
        leased.into_iter().map(|(_, token, found)| (token, found)).unzip();
    let cases = complete(session, found).await?;
    let leases = tokens.into_iter().zip(cases).map(|(token, (case, unreadable))| {
        (Lease { object: case.object.clone(), worker: terms.worker.to_owned(), token }, case, unreadable)
    });
    Ok(leases.collect())
}

/// The object of a lease that has not run out.
struct Leased {
    id: i64,
    calm: i64,
    replaced: bool,
    /// More records than anybody reads.
    has_too_many: bool,
}

async fn leased(session: &mut Session, lease: &Lease, now: i64) -> Result<Option<Leased>> {
    let sql = "SELECT id, calm, replaced, records > $5 FROM objects
        WHERE digest = $1 AND token = $2 AND worker = $3 AND held > $4 FOR UPDATE";
    let digest = lease.object.digest();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&digest.as_slice(), &lease.token, &lease.worker, &now, &(RECORDS_MOST as i64)];
    let rows = session.query(sql, &values).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (id, calm, replaced, has_too_many) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    Ok(Some(Leased { id, calm, replaced, has_too_many }))
}

impl Leased {
    async fn knows_only(&self, session: &mut Session, seen: &[WriteId]) -> Result<bool> {
        if self.has_too_many {
            return Ok(false);
        }
        let sql = "SELECT gateway, number FROM records WHERE object = $1";
        for row in &session.query(sql, &[&self.id]).await? {
            if !seen.contains(&WriteId { gateway: row.try_get(0)?, number: row.try_get(1)? }) {
                return Ok(false);
            }
        }
        Ok(!self.replaced)
    }

    /// Gives it back with these records and no others, as if they had just come; false = it has none of them.
    async fn keeps_only(
        &self,
        session: &mut Session,
        object: &Object,
        sightings: &[WriteId],
        now: i64,
    ) -> Result<bool> {
        if sightings.is_empty() {
            return Ok(false);
        }
        let (gateways, numbers): (Vec<i64>, Vec<i64>) =
            sightings.iter().map(|write| (write.gateway, write.number)).unzip();
        let sql = "DELETE FROM records WHERE object = $1
            AND (gateway, number) NOT IN (SELECT * FROM unnest($2::bigint[], $3::bigint[]))";
        session.execute(sql, &[&self.id, &gateways, &numbers]).await?;
        let kept: i64 =
            first(&session.query("SELECT count(*) FROM records WHERE object = $1", &[&self.id]).await?)?;
        let known = row::known_payload(&known_of(session, self.id, object, None).await?)?;
        let sql = "UPDATE objects SET diverged = false, records = $2, attempts = 0, reason = '', since = $3,
                unseen_since = NULL, unseen_until = NULL, known = $4 WHERE id = $1";
        session.execute(sql, &[&self.id, &kept, &now, &known]).await?;
        self.release(session, Back::at_once(now)).await?;
        Ok(kept > 0)
    }

    async fn release(&self, session: &mut Session, back: Back) -> Result<()> {
        let sql = "UPDATE objects SET worker = NULL, token = NULL, held = NULL, due = $2, calm = $3,
                unseen_since = CASE WHEN $4 THEN coalesce(unseen_since, token) ELSE unseen_since END,
                unseen_until = CASE WHEN NOT $4 THEN unseen_until END
            WHERE id = $1";
        let calm = self.calm.max(back.calm);
        session.execute(sql, &[&self.id, &back.due.max(calm), &calm, &back.unseen]).await?;
        Ok(())
    }
}

pub async fn renew(session: &mut Session, lease: &Lease, now: i64, hold: i64, settle: i64) -> Result<bool> {
    let Some(leased) = leased(session, lease, now).await? else { return Ok(false) };
    let (held, due) = (now + hold, (now + hold + settle).max(leased.calm));
    let sql = "UPDATE objects SET held = $2, due = $3 WHERE id = $1";
    session.execute(sql, &[&leased.id, &held, &due]).await?;
    Ok(true)
}

pub async fn resolve(
    session: &mut Session,
    lease: &Lease,
    seen: &[WriteId],
    sightings: &[WriteId],
    now: i64,
) -> Result<Resolution> {
    // While its row is locked no record can come. Intents are counted before records are: a write that ends
    // in between is seen among those.
    let Some(leased) = leased(session, lease, now).await? else { return Ok(Resolution::Lost) };
    let digest = lease.object.digest();
    if under_way(session, &digest).await? > 0 || !leased.knows_only(session, seen).await? {
        return Ok(Resolution::Changed);
    }
    if !leased.keeps_only(session, &lease.object, sightings, now).await? {
        remove(session, leased.id).await?;
    }
    let sql = "UPDATE counters SET resolved = resolved + 1 WHERE slot = pg_backend_pid() % 32";
    session.execute(sql, &[]).await?;
    tell(session, std::iter::once(&lease.object)).await?;
    Ok(Resolution::Resolved)
}

async fn remove(session: &mut Session, id: i64) -> Result<()> {
    session.execute("DELETE FROM records WHERE object = $1", &[&id]).await?;
    session.execute("DELETE FROM objects WHERE id = $1", &[&id]).await?;
    Ok(())
}

pub async fn postpone(session: &mut Session, lease: &Lease, later: Later, why: &str, now: i64) -> Result<()> {
    let Some(leased) = leased(session, lease, now).await? else { return Ok(()) };
    let sql = "UPDATE objects SET attempts = attempts + $2, reason = $3 WHERE id = $1";
    session.execute(sql, &[&leased.id, &i64::from(later.failed), &why]).await?;
    leased.release(session, Back::later(later, now)).await
}

pub async fn set_aside(
    session: &mut Session,
    lease: &Lease,
    (standing, unsettled): (Standing, Option<Duration>),
    seen: &[WriteId],
    why: &str,
    now: i64,
) -> Result<()> {
    let Some(leased) = leased(session, lease, now).await? else { return Ok(()) };
    if leased.has_too_many || leased.knows_only(session, seen).await? {
        let sql = "UPDATE objects SET standing = $2, reason = $3 WHERE id = $1";
        session.execute(sql, &[&leased.id, &row::code(standing), &why]).await?;
    }
    leased.release(session, Back::aside(unsettled, now)).await
}

pub async fn retry(session: &mut Session, object: &Object, now: i64) -> Result<bool> {
    let sql = "UPDATE objects SET
            due = CASE WHEN token IS NOT NULL AND due > $2 THEN due ELSE greatest($2, calm) END,
            worker = CASE WHEN token IS NOT NULL AND due > $2 THEN worker END,
            token = CASE WHEN token IS NOT NULL AND due > $2 THEN token END,
            held = CASE WHEN token IS NOT NULL AND due > $2 THEN held END,
            unseen_since = CASE WHEN token IS NULL OR due > $2 THEN unseen_since ELSE coalesce(unseen_since, token) END,
            unseen_until = CASE WHEN token IS NULL OR due > $2 THEN unseen_until END,
            standing = 0, attempts = 0, reason = '' WHERE digest = $1";
    Ok(session.execute(sql, &[&object.digest().as_slice(), &now]).await? > 0)
}

pub async fn drop_object(session: &mut Session, object: &Object, reason: &str, now: i64) -> Result<bool> {
    let sql = "SELECT id FROM objects WHERE digest = $1 AND NOT (token IS NOT NULL AND due > $2) FOR UPDATE";
    let digest = object.digest();
    let rows = session.query(sql, &[&digest.as_slice(), &now]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let id: i64 = row.try_get(0)?;
    if under_way(session, &digest).await? > 0 {
        return Ok(false);
    }
    let records = records_of(session, &[(id, object)], RECORDS_READ).await?.remove(&id).unwrap_or_default();
    let records = row::records_payload(&records.all)?;
    let sql =
        "INSERT INTO dropped (cluster, bucket, key, at, reason, records) VALUES ($1, $2, $3, $4, $5, $6)";
    let Object { cluster, bucket, key } = object;
    session.execute(sql, &[cluster, bucket, key, &now, &reason, &records]).await?;
    remove(session, id).await?;
    tell(session, std::iter::once(object)).await?;
    Ok(true)
}

//! How changes of writes get into the tables: a few statements for all changes of a call, whatever their number.
//!
//! Rows are locked in one order, so that no two transactions wait for one another: of gateways, by their numbers; of
//! objects that are there, by their digests; of those that are made, likewise; at last what all share, the counters and
//! the events' order. What belongs to a gateway (its intents) is only changed by who has its row: so a call that is made
//! again, because nobody knows what became of it, does not overtake the transaction that may still be running.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    cases::{known_of, records_of},
    names::Names,
    session::{Failure, Result, Session, first},
    text,
};
use crate::journal::{
    Enrolled, Intent, JournalError, Object, Record, WriteId,
    row::{self, Row},
    rules::{Batch, Digest, KEPT_EVENTS, Part, are_many, may_tell, stamped, superfluous},
};

/// Events are numbered by one transaction at a time, until its commit: whoever has seen a number has seen all before. All
/// others wait for it: where its host is gone it is not waited for as long as they have.
const LOCK: &str = "SET LOCAL idle_in_transaction_session_timeout = '2s';
    SELECT pg_advisory_xact_lock(7021801284412172043)";
/// Of so many objects at most a call looks for records that say nothing any more: it has a time in which to end. Those of
/// the others are looked through when they are twice as many.
const COMPACTED: usize = 32;
/// So many events are left to become too old before they are deleted.
const SWEEP: i64 = 512;

/// Does nothing for a gateway that may not tell.
pub async fn apply(
    session: &mut Session,
    gateway: &Enrolled,
    batch: &Batch,
    now: i64,
    settle: i64,
) -> Result<std::result::Result<(), JournalError>> {
    let mut gateways = batch.gateways();
    gateways.extend(batch.ended.iter().map(|(id, _)| id.gateway));
    let may_tell = may_tell(gateway, claim(session, gateway, gateways.into_iter().collect()).await?);
    if may_tell.is_err() {
        return Ok(may_tell);
    }
    begin(session, batch, now).await?;
    let contested = contested(session, batch).await?;
    let kept = contested.iter().filter_map(|part| batch.settled.get(part));
    let changed = add(session, batch.diverged.values().chain(kept), now, settle).await?;
    end(session, &batch.ended.iter().copied().collect::<Vec<_>>()).await?;
    tell(session, changed.into_iter()).await?;
    Ok(may_tell)
}

/// Waits for who has these gateways, up to the time that a statement has; how often the one that asks was taken for dead,
/// `None` = it is not known.
pub async fn claim(session: &mut Session, asks: &Enrolled, mut gateways: Vec<i64>) -> Result<Option<i64>> {
    gateways.push(asks.number);
    let sql = "SELECT id, name, deaths FROM gateways WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let name = text(&asks.name);
    for row in &session.query(sql, &[&gateways]).await? {
        if row.try_get::<_, i64>(0)? == asks.number && row.try_get::<_, &str>(1)? == name {
            return Ok(Some(row.try_get(2)?));
        }
    }
    Ok(None)
}

async fn begin(session: &mut Session, batch: &Batch, now: i64) -> Result<()> {
    let gateways: Vec<i64> = batch.gateways().into_iter().collect();
    if gateways.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE gateways SET seen = $2 WHERE id = ANY($1)";
    session.execute(sql, &[&gateways, &now]).await?;
    let sql = "INSERT INTO intents (gateway, number, digest, cluster, bucket, key, payload)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::text[], $5::bytea[], $6::bytea[],
            $7::bytea[])
        ON CONFLICT (gateway, number, digest) DO UPDATE SET payload = excluded.payload";
    let turn = turn(session).await?;
    begin_as(session, sql, batch.begun.values(), Some(turn)).await?;
    let sql = "INSERT INTO intents (gateway, number, digest, cluster, bucket, key, payload)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::text[], $5::bytea[], $6::bytea[],
            $7::bytea[])
        ON CONFLICT (gateway, number, digest) DO NOTHING";
    begin_as(session, sql, batch.still.values(), None).await
}

async fn begin_as(
    session: &mut Session,
    sql: &'static str,
    intents: impl Iterator<Item = &Arc<Intent>>,
    turn: Option<i64>,
) -> Result<()> {
    let intents: Vec<_> = intents.collect();
    if intents.is_empty() {
        return Ok(());
    }
    let gateways: Vec<i64> = intents.iter().map(|intent| intent.id.gateway).collect();
    let numbers: Vec<i64> = intents.iter().map(|intent| intent.id.number).collect();
    let names = Names::of(intents.iter().map(|intent| &intent.object));
    let payloads = intents.iter().map(|intent| row::intent_payload(intent, turn));
    let payloads = payloads.collect::<std::result::Result<Vec<Vec<u8>>, serde_json::Error>>()?;
    let Names { digests, clusters, buckets, keys } = &names;
    session.execute(sql, &[&gateways, &numbers, digests, clusters, buckets, keys, &payloads]).await?;
    Ok(())
}

/// On one object, or on all.
pub async fn end(session: &mut Session, ended: &[(WriteId, Option<Digest>)]) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let (gateways, numbers): (Vec<i64>, Vec<i64>) =
        ended.iter().map(|(id, _)| (id.gateway, id.number)).unzip();
    let digests: Vec<Option<&[u8]>> =
        ended.iter().map(|(_, digest)| digest.as_ref().map(<[u8; 32]>::as_slice)).collect();
    let sql = "DELETE FROM intents i
        USING unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS e (gateway, number, digest)
        WHERE i.gateway = e.gateway AND i.number = e.number AND (e.digest IS NULL OR i.digest = e.digest)";
    session.execute(sql, &[&gateways, &numbers, &digests]).await?;
    Ok(())
}

/// Settled writes that must be kept as records. One statement, which sees a write of another gateway either under way
/// or recorded.
async fn contested(session: &mut Session, batch: &Batch) -> Result<Vec<Part>> {
    if batch.settled.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<Part> = batch.settled.keys().copied().collect();
    let diverged: HashSet<Digest> = batch.diverged.keys().map(|(_, digest)| *digest).collect();
    let digests: Vec<&[u8]> = parts.iter().map(|(_, digest)| digest.as_slice()).collect();
    let gateways: Vec<i64> = parts.iter().map(|(id, _)| id.gateway).collect();
    let numbers: Vec<i64> = parts.iter().map(|(id, _)| id.number).collect();
    let sql = "SELECT place FROM unnest($1::bytea[], $2::bigint[], $3::bigint[])
            WITH ORDINALITY AS s (digest, gateway, number, place)
        WHERE EXISTS (SELECT FROM objects o WHERE o.digest = s.digest)
            OR EXISTS (SELECT FROM intents i WHERE i.digest = s.digest
                AND (i.gateway <> s.gateway OR i.number <> s.number))";
    let rows = session.query(sql, &[&digests, &gateways, &numbers]).await?;
    let mut contested: BTreeSet<Part> = BTreeSet::new();
    for row in &rows {
        let place: i64 = row.try_get(0)?;
        let at = usize::try_from(place - 1).ok();
        contested.extend(at.and_then(|at| parts.get(at)));
    }
    contested.extend(parts.iter().filter(|(_, digest)| diverged.contains(digest)));
    Ok(contested.into_iter().collect())
}

/// An object whose records change.
struct Changing<'a> {
    object: &'a Object,
    row: Row,
    records: Vec<&'a Record>,
    is_many: bool,
}

/// Gives the objects of which the caller has to [`tell`].
pub async fn add<'a>(
    session: &mut Session,
    records: impl Iterator<Item = &'a Record>,
    now: i64,
    settle: i64,
) -> Result<Vec<&'a Object>> {
    let mut objects: BTreeMap<Digest, Changing<'a>> = BTreeMap::new();
    for record in records {
        let object = &record.intent.object;
        let new = || Changing { object, row: Row::new(now), records: Vec::new(), is_many: false };
        objects.entry(object.digest()).or_insert_with(new).records.push(record);
    }
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    lock(session, &mut objects, now).await?;
    // After the locks: a lease with a greater number has seen what is written here.
    let turn = turn(session).await?;
    let known = known(session, &objects).await?;
    let begun = begun(session, &objects).await?;
    let mut written: Vec<(i64, Record, i64)> = Vec::new();
    for (digest, changing) in &mut objects {
        for record in &changing.records {
            let known = known.get(&(changing.row.id, record.id()));
            let begun = begun.get(&(record.id(), *digest)).copied().flatten();
            let record = stamped(record, known, begun, turn);
            changing.row.add(&record, known, now, settle);
            changing.is_many |=
                known.is_none() && are_many(usize::try_from(changing.row.records).unwrap_or(0));
            written.push((changing.row.id, record, changing.row.appended));
        }
    }
    write(session, &written).await?;
    for changing in objects.values_mut().filter(|changing| changing.is_many).take(COMPACTED) {
        changing.row.records -= compact(session, changing.row.id, changing.object).await?;
    }
    for changing in objects.values_mut().filter(|changing| changing.row.is_to_be_asked()) {
        changing.row.known = known_of(session, changing.row.id, changing.object, None).await?;
    }
    store(session, objects.values().map(|changing| &changing.row)).await?;
    Ok(objects.into_values().map(|changing| changing.object).collect())
}

/// Locks the rows that are there, and makes those that are missing.
async fn lock(session: &mut Session, objects: &mut BTreeMap<Digest, Changing<'_>>, now: i64) -> Result<()> {
    let digests: Vec<&[u8]> = objects.keys().map(<[u8; 32]>::as_slice).collect();
    let sql =
        "SELECT digest, id, standing, diverged, due, calm, token IS NOT NULL, replaced, attempts, records,
        appended, known FROM objects WHERE digest = ANY($1) ORDER BY digest FOR UPDATE";
    for row in &session.query(sql, &[&digests]).await? {
        let digest: &[u8] = row.try_get(0)?;
        let Some(changing) = objects.get_mut(digest) else { continue };
        let known = known_of(session, row.try_get(1)?, changing.object, row.try_get(11)?).await?;
        changing.row = Row {
            id: row.try_get(1)?,
            standing: row::standing(row.try_get::<_, i16>(2)?.into()),
            diverged: row.try_get(3)?,
            due: row.try_get(4)?,
            calm: row.try_get(5)?,
            leased: row.try_get(6)?,
            replaced: row.try_get(7)?,
            attempts: u32::try_from(row.try_get::<_, i64>(8)?).unwrap_or(u32::MAX),
            records: row.try_get(9)?,
            appended: row.try_get(10)?,
            known,
            retold: false,
        };
    }
    make(session, objects, now).await
}

async fn make(session: &mut Session, objects: &mut BTreeMap<Digest, Changing<'_>>, now: i64) -> Result<()> {
    let missing: Vec<&Object> =
        objects.values().filter(|changing| changing.row.id == 0).map(|changing| changing.object).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Names { digests, clusters, buckets, keys } = Names::of(missing.iter().copied());
    let sql = "INSERT INTO objects (digest, cluster, bucket, key, standing, diverged, due, calm, replaced, attempts,
            since, reason, records, appended)
        SELECT digest, cluster, bucket, key, 0, false, $5, $5, false, 0, $5, '', 0, 0
        FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::bytea[]) AS n (digest, cluster, bucket, key)
        ORDER BY digest ON CONFLICT (digest) DO NOTHING RETURNING digest, id";
    let rows = session.query(sql, &[&digests, &clusters, &buckets, &keys, &now]).await?;
    if rows.len() < missing.len() {
        // Another has made one meanwhile.
        return Err(Failure::Again);
    }
    for row in &rows {
        let digest: &[u8] = row.try_get(0)?;
        if let Some(changing) = objects.get_mut(digest) {
            changing.row.id = row.try_get(1)?;
        }
    }
    Ok(())
}

/// What is there of the same writes.
async fn known(
    session: &mut Session,
    objects: &BTreeMap<Digest, Changing<'_>>,
) -> Result<HashMap<(i64, WriteId), Record>> {
    let mut names = HashMap::new();
    let (mut ids, mut gateways, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for changing in objects.values() {
        names.insert(changing.row.id, changing.object);
        for record in &changing.records {
            ids.push(changing.row.id);
            gateways.push(record.id().gateway);
            numbers.push(record.id().number);
        }
    }
    let sql = "SELECT r.object, r.gateway, r.number, r.payload FROM records r
        JOIN unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS n (object, gateway, number)
            ON r.object = n.object AND r.gateway = n.gateway AND r.number = n.number";
    let mut known = HashMap::new();
    for row in &session.query(sql, &[&ids, &gateways, &numbers]).await? {
        let object: i64 = row.try_get(0)?;
        let id = WriteId { gateway: row.try_get(1)?, number: row.try_get(2)? };
        if let Some(name) = names.get(&object) {
            known.insert((object, id), row::record_or_stand_in(id, (*name).clone(), row.try_get(3)?));
        }
    }
    Ok(known)
}

/// A turn: not the order of commits, but whatever had a smaller one was asked for earlier.
async fn turn(session: &mut Session) -> Result<i64> {
    first(&session.query("SELECT nextval('akubra_journal.tokens')", &[]).await?)
}

/// The turns at which writes began that are still under way; none where the intent cannot be read.
async fn begun(
    session: &mut Session,
    objects: &BTreeMap<Digest, Changing<'_>>,
) -> Result<HashMap<Part, Option<i64>>> {
    let all = || objects.iter().flat_map(|(digest, c)| c.records.iter().map(move |record| (digest, record)));
    let digests: Vec<&[u8]> = all().map(|(digest, _)| digest.as_slice()).collect();
    let gateways: Vec<i64> = all().map(|(_, record)| record.id().gateway).collect();
    let numbers: Vec<i64> = all().map(|(_, record)| record.id().number).collect();
    let sql = "SELECT place, payload FROM intents i
        JOIN unnest($1::bigint[], $2::bigint[], $3::bytea[]) WITH ORDINALITY AS n (gateway, number, digest, place)
            ON i.gateway = n.gateway AND i.number = n.number AND i.digest = n.digest";
    let parts: Vec<(&Digest, &&Record)> = all().collect();
    let mut begun = HashMap::new();
    for row in &session.query(sql, &[&gateways, &numbers, &digests]).await? {
        let place: i64 = row.try_get(0)?;
        let Some((digest, record)) = usize::try_from(place - 1).ok().and_then(|at| parts.get(at)) else {
            continue;
        };
        let intent = row::intent(record.id(), record.intent.object.clone(), row.try_get(1)?);
        begun.insert((record.id(), **digest), intent.ok().and_then(|intent| intent.turn));
    }
    Ok(begun)
}

/// Records with the objects that they belong to, and their places there.
async fn write(session: &mut Session, records: &[(i64, Record, i64)]) -> Result<()> {
    let objects: Vec<i64> = records.iter().map(|(object, _, _)| *object).collect();
    let gateways: Vec<i64> = records.iter().map(|(_, record, _)| record.id().gateway).collect();
    let numbers: Vec<i64> = records.iter().map(|(_, record, _)| record.id().number).collect();
    let places: Vec<i64> = records.iter().map(|(_, _, place)| *place).collect();
    let payloads = records.iter().map(|(_, record, _)| row::record_payload(record));
    let payloads = payloads.collect::<std::result::Result<Vec<Vec<u8>>, serde_json::Error>>()?;
    let sql = "INSERT INTO records (object, gateway, number, position, payload)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
        ON CONFLICT (object, gateway, number) DO UPDATE SET payload = excluded.payload";
    session.execute(sql, &[&objects, &gateways, &numbers, &places, &payloads]).await?;
    Ok(())
}

async fn store(session: &mut Session, rows: impl Iterator<Item = &Row> + Clone) -> Result<()> {
    let ids: Vec<i64> = rows.clone().map(|row| row.id).collect();
    let standings: Vec<i16> = rows.clone().map(|row| row::code(row.standing)).collect();
    let diverged: Vec<bool> = rows.clone().map(|row| row.diverged).collect();
    let due: Vec<i64> = rows.clone().map(|row| row.due).collect();
    let calm: Vec<i64> = rows.clone().map(|row| row.calm).collect();
    let replaced: Vec<bool> = rows.clone().map(|row| row.replaced).collect();
    let attempts: Vec<i64> = rows.clone().map(|row| row.attempts.into()).collect();
    let records: Vec<i64> = rows.clone().map(|row| row.records).collect();
    let appended: Vec<i64> = rows.clone().map(|row| row.appended).collect();
    let known = rows.map(|row| row::known_payload(&row.known));
    let known = known.collect::<std::result::Result<Vec<Vec<u8>>, serde_json::Error>>()?;
    let sql = "UPDATE objects o SET standing = n.standing, diverged = n.diverged, due = n.due, calm = n.calm,
            replaced = n.replaced, attempts = n.attempts, records = n.records, appended = n.appended,
            known = n.known
        FROM unnest($1::bigint[], $2::smallint[], $3::boolean[], $4::bigint[], $5::bigint[], $6::boolean[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[])
            AS n (id, standing, diverged, due, calm, replaced, attempts, records, appended, known)
        WHERE o.id = n.id";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
        [&ids, &standings, &diverged, &due, &calm, &replaced, &attempts, &records, &appended, &known];
    session.execute(sql, &values).await?;
    Ok(())
}

async fn compact(session: &mut Session, id: i64, object: &Object) -> Result<i64> {
    let records = records_of(session, &[(id, object)], usize::MAX).await?;
    let superfluous = records.get(&id).map_or(Vec::new(), |records| superfluous(&records.all));
    let (gateways, numbers): (Vec<i64>, Vec<i64>) =
        superfluous.iter().map(|write| (write.gateway, write.number)).unzip();
    let sql = "DELETE FROM records r USING unnest($2::bigint[], $3::bigint[]) AS e (gateway, number)
        WHERE r.object = $1 AND r.gateway = e.gateway AND r.number = e.number";
    session.execute(sql, &[&id, &gateways, &numbers]).await?;
    Ok(superfluous.len() as i64)
}

/// Objects, their records or their absence have changed, if any have. The last that a transaction does before its commit:
/// all others wait meanwhile.
pub async fn tell(session: &mut Session, objects: impl Iterator<Item = &Object> + Clone) -> Result<()> {
    let Names { digests, clusters, buckets, keys } = Names::of(objects);
    if digests.is_empty() {
        return Ok(());
    }
    session.run(LOCK).await?;
    let sql = "INSERT INTO events (digest, cluster, bucket, key)
        SELECT * FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::bytea[])";
    session.execute(sql, &[&digests, &clusters, &buckets, &keys]).await?;
    let sql = "SELECT coalesce(max(id), 0) FROM events";
    let newest: i64 = first(&session.query(sql, &[]).await?)?;
    if newest % SWEEP < digests.len() as i64 {
        let sql = "DELETE FROM events WHERE id <= $1";
        session.execute(sql, &[&(newest - KEPT_EVENTS - SWEEP)]).await?;
    }
    session.query("SELECT pg_notify('akubra_journal', '')", &[]).await?;
    Ok(())
}

//! What gateways leave behind.

use super::{
    session::{Result, Session},
    tables::{add, end},
};
use crate::journal::{Object, Record, WriteId, row, rules::Digest};

/// Intents of gateways become records; how many. Writes that are recorded already stay so. The caller has the gateways'
/// rows.
pub async fn orphan(session: &mut Session, gateways: &[i64], now: i64, settle: i64) -> Result<usize> {
    // First: what they begin meanwhile waits for this.
    let sql = "UPDATE gateways SET gone = true, deaths = deaths + 1 WHERE id = ANY($1)";
    session.execute(sql, &[&gateways]).await?;
    let sql = "SELECT i.gateway, i.number, i.cluster, i.bucket, i.key, i.payload, EXISTS (
            SELECT FROM objects o JOIN records r ON r.object = o.id
            WHERE o.digest = i.digest AND r.gateway = i.gateway AND r.number = i.number)
        FROM intents i WHERE i.gateway = ANY($1) ORDER BY i.gateway, i.number, i.digest FOR UPDATE OF i";
    let rows = session.query(sql, &[&gateways]).await?;
    let (mut ended, mut unknown) = (Vec::with_capacity(rows.len()), Vec::new());
    let mut unreadable: Vec<(WriteId, Digest, &[u8])> = Vec::new();
    for row in &rows {
        let id = WriteId { gateway: row.try_get(0)?, number: row.try_get(1)? };
        let object = Object { cluster: row.try_get(2)?, bucket: row.try_get(3)?, key: row.try_get(4)? };
        let (digest, payload) = (object.digest(), row.try_get(5)?);
        ended.push((id, Some(digest)));
        if row.try_get::<_, bool>(6)? {
            continue;
        }
        match row::intent(id, object.clone(), payload) {
            Ok(intent) => unknown.push(Record::orphaned(intent, now)),
            Err(why) => {
                unknown.push(why.stand_in(object));
                unreadable.push((id, digest, payload));
            }
        }
    }
    add(session, unknown.iter(), now, settle).await?;
    keep(session, &unreadable).await?;
    end(session, &ended).await?;
    Ok(ended.len())
}

/// What cannot be read stays as it was found, in place of what stands for it.
async fn keep(session: &mut Session, unreadable: &[(WriteId, Digest, &[u8])]) -> Result<()> {
    let sql = "UPDATE records r SET payload = $4 FROM objects o
        WHERE o.digest = $1 AND r.object = o.id AND r.gateway = $2 AND r.number = $3";
    for (id, digest, payload) in unreadable {
        session.execute(sql, &[&digest.as_slice(), &id.gateway, &id.number, payload]).await?;
    }
    Ok(())
}

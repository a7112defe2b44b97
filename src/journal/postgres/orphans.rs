//! What gateways leave behind.

use super::{
    session::{Result, Session},
    tables::{add, end, tell},
};
use crate::journal::{
    Object, WriteId,
    row::{self, Orphan},
};

/// Intents of gateways become records; how many. The caller has the gateways' rows.
pub async fn orphan(session: &mut Session, gateways: &[i64], now: i64, settle: i64) -> Result<usize> {
    // First: what they begin meanwhile waits for this.
    let sql = "UPDATE gateways SET gone = true, deaths = deaths + 1 WHERE id = ANY($1)";
    session.execute(sql, &[&gateways]).await?;
    let sql = "SELECT i.gateway, i.number, i.cluster, i.bucket, i.key, i.payload, r.payload FROM intents i
        LEFT JOIN objects o ON o.digest = i.digest
        LEFT JOIN records r ON r.object = o.id AND r.gateway = i.gateway AND r.number = i.number
        WHERE i.gateway = ANY($1) ORDER BY i.gateway, i.number, i.digest FOR UPDATE OF i";
    let rows = session.query(sql, &[&gateways]).await?;
    let (mut ended, mut orphans) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let id = WriteId { gateway: row.try_get(0)?, number: row.try_get(1)? };
        let object = Object { cluster: row.try_get(2)?, bucket: row.try_get(3)?, key: row.try_get(4)? };
        ended.push((id, Some(object.digest())));
        orphans.extend(row::orphan(id, object, row.try_get(5)?, row.try_get(6)?, now));
    }
    let changed = add(session, orphans.iter().map(|orphan| &orphan.record), now, settle).await?;
    keep(session, &orphans).await?;
    end(session, &ended).await?;
    tell(session, changed.into_iter()).await?;
    Ok(ended.len())
}

/// What cannot be read stays as it was found.
async fn keep(session: &mut Session, orphans: &[Orphan]) -> Result<()> {
    let sql = "UPDATE records r SET payload = $4 FROM objects o
        WHERE o.digest = $1 AND r.object = o.id AND r.gateway = $2 AND r.number = $3";
    for Orphan { record, unreadable } in orphans {
        let Some(payload) = unreadable else { continue };
        let (id, digest) = (record.id(), record.intent.object.digest());
        session.execute(sql, &[&digest.as_slice(), &id.gateway, &id.number, payload]).await?;
    }
    Ok(())
}

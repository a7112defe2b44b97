//! What humans have dropped.

use super::session::{Result, Session};
use crate::journal::{Object, dropped, dropped::Dropped};

/// The last first, those with smaller numbers than this.
pub async fn list(session: &mut Session, before: i64, most: usize) -> Result<Vec<Dropped>> {
    let sql = "SELECT id, cluster, bucket, key, at, reason, records FROM dropped
        WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let rows = session.query(sql, &[&before, &i64::try_from(most).unwrap_or(i64::MAX)]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push(Dropped {
            number: row.try_get(0)?,
            object: Object { cluster: row.try_get(1)?, bucket: row.try_get(2)?, key: row.try_get(3)? },
            at: row.try_get(4)?,
            reason: row.try_get(5)?,
            records: dropped::records(row.try_get(6)?),
        });
    }
    Ok(found)
}

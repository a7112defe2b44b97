//! What humans have dropped.

use rusqlite::{Result, params};

use super::index::Tables;
use crate::journal::{Object, dropped, dropped::Dropped};

/// The last first, those with smaller numbers than this.
pub fn list(tables: &Tables<'_>, before: i64, most: usize) -> Result<Vec<Dropped>> {
    let sql = "SELECT id, cluster, bucket, key, at, reason, records FROM dropped
        WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
    let mut statement = tables.prepare_cached(sql)?;
    let rows = statement.query_map(params![before, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        Ok(Dropped {
            number: row.get(0)?,
            object: Object { cluster: row.get(1)?, bucket: row.get(2)?, key: row.get(3)? },
            at: row.get(4)?,
            reason: row.get(5)?,
            records: dropped::records(row.get_ref(6)?.as_blob()?),
        })
    })?;
    rows.collect()
}

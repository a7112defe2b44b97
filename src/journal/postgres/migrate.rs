//! The tables, in the schema `akubra_journal`: made, or brought to this version, by whoever connects first.

use tokio_postgres::Client;

use super::session::{Failure, Result, first};

/// The first makes version 1, and so on.
const MIGRATIONS: [&str; 2] =
    [include_str!("../schema/postgres-001.sql"), include_str!("../schema/postgres-002.sql")];
/// Whoever migrates has this advisory lock.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7021801284412172042)";
/// The role may have no right to make schemas: then an administrator has made it.
const PREPARE: &str = "DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'akubra_journal') THEN
            CREATE SCHEMA akubra_journal;
        END IF;
    END $$;
    CREATE TABLE IF NOT EXISTS akubra_journal.version (version BIGINT NOT NULL)";

pub async fn migrate(client: &Client) -> Result<()> {
    if version(client).await? == MIGRATIONS.len() {
        return Ok(());
    }
    client.batch_execute(&format!("BEGIN; {LOCK}; {PREPARE}")).await?;
    // Another may have done it meanwhile.
    let from = version(client).await?;
    for migration in MIGRATIONS.iter().skip(from) {
        client.batch_execute(migration).await?;
    }
    let to = MIGRATIONS.len();
    let set = "DELETE FROM akubra_journal.version; INSERT INTO akubra_journal.version VALUES";
    client.batch_execute(&format!("{set} ({to}); COMMIT")).await?;
    Ok(())
}

/// 0 = there are no tables yet.
async fn version(client: &Client) -> Result<usize> {
    let rows = client.query("SELECT to_regclass('akubra_journal.version') IS NOT NULL", &[]).await?;
    if !first::<bool>(&rows)? {
        return Ok(0);
    }
    let rows = client.query("SELECT coalesce(max(version), 0) FROM akubra_journal.version", &[]).await?;
    let version: i64 = first(&rows)?;
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(Failure::Unusable(format!(
            "its tables have version {version}, of a later akubra; this one knows {}",
            MIGRATIONS.len()
        ))),
    }
}

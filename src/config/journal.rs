//! `Journal`: where what backends may not agree on is kept until they do, and how long.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Consistency, JournalConfig, JournalEngine,
    database::login,
    load::directory,
    reader::{At, MapReader},
};

/// In the state directory.
const FILE: &str = "journal.sqlite";
const REMEMBERED_OBJECTS: usize = 100_000;
/// Longer than what a request that its gateway has given up may still wait for anywhere.
const SETTLE: Duration = Duration::from_secs(120);

pub const CONSISTENCIES: [(&str, Consistency); 3] =
    [("none", Consistency::None), ("weak", Consistency::Weak), ("strong", Consistency::Strong)];

/// `None` = there is no journal.
pub fn read(top: &mut MapReader, state_directory: &Path) -> Option<JournalConfig> {
    let mut map = top.get("Journal")?.map()?;
    let zero = "0 would remember nothing, so that each read asks the journal; write a positive number";
    let (file, database) = (map.get("SQLite"), map.get("PostgreSQL"));
    let engine = match (&file, &database) {
        (Some(_), Some(at)) => at.error("beside SQLite; a journal has one engine, keep one of them"),
        (None, Some(at)) => at.map().and_then(|mut map| {
            let login = login(&mut map);
            map.finish();
            login.map(JournalEngine::Postgres)
        }),
        (Some(at), None) => sqlite(at, state_directory),
        (None, None) => Some(JournalEngine::Sqlite(state_directory.join(FILE))),
    };
    let remembered_objects = map.read("RememberedObjects", REMEMBERED_OBJECTS, |at| at.positive(zero));
    let settle = map.read("Settle", SETTLE, At::timeout);
    map.finish();
    Some(JournalConfig { engine: engine?, remembered_objects, settle })
}

fn sqlite(at: &At, state_directory: &Path) -> Option<JournalEngine> {
    let mut map = at.map()?;
    let file: PathBuf = map.read("File", state_directory.join(FILE), directory);
    map.finish();
    Some(JournalEngine::Sqlite(file))
}

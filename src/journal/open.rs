//! The engine that the configuration names.

use std::{path::Path, sync::Arc};

use tokio::task::spawn_blocking;

use super::{Journal, JournalError, Postgres, Sqlite, postgres::Settings, writer::Opener};
use crate::config::{JournalEngine, Login};

/// Opens the journal; the directory of its file is made if there is none.
pub async fn open(engine: &JournalEngine) -> Result<Arc<dyn Journal>, JournalError> {
    match engine {
        JournalEngine::Sqlite(file) => {
            let file = file.clone();
            let opened = spawn_blocking(move || open_file(&file)).await;
            opened.map_err(|error| JournalError::Unavailable(error.to_string()))?
        }
        JournalEngine::Postgres(login) => {
            let Login { user, password, dbname, host, port } = login.clone();
            let settings = Settings { host, port, user, password, dbname };
            Ok(Arc::new(Postgres::connect(settings).await?))
        }
    }
}

fn open_file(file: &Path) -> Result<Arc<dyn Journal>, JournalError> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| JournalError::Unavailable(format!("{}: {error}", directory.display())))?;
    }
    Ok(Arc::new(Sqlite::open(file)?))
}

/// What opens it as often as it is asked to.
pub fn opener(engine: JournalEngine) -> Opener {
    Box::new(move || {
        let engine = engine.clone();
        Box::pin(async move { open(&engine).await })
    })
}

//! Which backends get nothing now: by the configuration, and by what operators changed at run time.
//!
//! That is a file of the state directory, which the gateway writes: what is changed at a gateway of another machine is not
//! known here.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    cli::serve::runtime::{Changes, Store},
    sync::job::Shop,
    telemetry::report::Report,
    topology::Topology,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

pub struct Maintenance {
    directory: PathBuf,
    topology: Topology,
    shop: Arc<Shop>,
    trouble: Trouble,
}

/// With the file.
struct Trouble {
    report: Report,
    is_there: AtomicBool,
}

impl Maintenance {
    pub fn new(directory: &Path, topology: Topology, shop: Arc<Shop>) -> Maintenance {
        let trouble = Trouble { report: Report::new("sync"), is_there: AtomicBool::new(false) };
        Maintenance { directory: directory.to_path_buf(), topology, shop, trouble }
    }

    /// Where the file cannot be read what was in force stays so.
    pub fn look(&self) {
        let read = Store::at(&self.directory).read();
        let Some(changes) = self.trouble.tell(read) else { return };
        self.shop.places.maintain(maintained(&self.topology, &changes));
    }

    /// Looks for ever.
    pub async fn keep_looking(self) {
        let shared = Arc::new(self);
        loop {
            sleep(EVERY).await;
            let maintenance = shared.clone();
            tokio::task::spawn_blocking(move || maintenance.look()).await.unwrap_or_default();
        }
    }
}

impl Trouble {
    /// What was read. It is looked at every second: of what is wrong a line now and then is enough.
    fn tell<E: std::fmt::Display>(&self, read: Result<Changes, E>) -> Option<Changes> {
        match read {
            Ok(changes) => {
                if self.is_there.swap(false, Relaxed) {
                    self.report.over(format_args!("what operators changed at run time can be read again"));
                }
                Some(changes)
            }
            Err(error) => {
                self.is_there.store(true, Relaxed);
                self.report.at(
                    log::Level::Warn,
                    format_args!("backends under maintenance stay as they were: {error}"),
                );
                None
            }
        }
    }
}

/// By endpoint.
fn maintained(topology: &Topology, changes: &Changes) -> HashSet<String> {
    let is_on = |endpoint: &String, by_configuration| {
        changes.maintenance.get(endpoint).map_or(by_configuration, |change| change.on)
    };
    let backends = topology.backends.iter();
    let backends = backends.map(|backend| (backend.endpoint(), backend.maintained));
    backends
        .filter(|(endpoint, maintained)| is_on(endpoint, *maintained))
        .map(|(endpoint, _)| endpoint)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sync::fixture::{B, World};

    #[tokio::test]
    async fn a_file_that_cannot_be_read_changes_nothing_and_is_told_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runtime.json");
        let world = World::new();
        let shop = world.worker(true).shop;
        let maintenance = Maintenance::new(folder.path(), world.topology, shop.clone());
        let is_maintained = || shop.places.maintained(shop.places.get("main").unwrap()).is_some();
        maintenance.look();
        assert!(!is_maintained());
        let on = format!(r#"{{"maintenance":{{"{B}":{{"on":true,"since":"2026-01-02T03:04:05Z"}}}}}}"#);
        fs::write(&file, &on).unwrap();
        maintenance.look();
        assert!(is_maintained());

        fs::write(&file, "{").unwrap();
        maintenance.look();
        maintenance.look();
        assert!(is_maintained() && maintenance.trouble.is_there.load(Relaxed));
        fs::write(&file, "{}").unwrap();
        maintenance.look();
        assert!(!is_maintained() && !maintenance.trouble.is_there.load(Relaxed));
    }
}

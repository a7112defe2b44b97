//! `akubra sync pause` and `resume`: a file in the state directory, which every sync process of the machine looks at.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{sync::watch, time::interval};

use crate::{config::Config, telemetry::metrics::SyncMetrics};

const FILE: &str = "sync.paused";
const EVERY: Duration = Duration::from_secs(1);

pub fn file(config: &Config) -> PathBuf {
    config.state_directory.join(FILE)
}

/// Pauses all sync processes that have this state directory, or lets them go on.
pub fn set(config: &Config, paused: bool) -> anyhow::Result<()> {
    let (directory, file) = (config.state_directory.display(), file(config));
    let done = match paused {
        true => fs::File::create(&file).map(drop),
        false => fs::remove_file(&file).or_else(|error| missing(&error).then_some(()).ok_or(error)),
    };
    match done {
        // Made here, it might belong to the wrong user, and the service could not write there.
        Err(error) if missing(&error) => {
            bail!(
                "there is no StateDirectory {directory} yet: start the gateway, or make it for the service's user"
            )
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("{}: {error}; run this as the service's user, or as root", file.display())
        }
        done => done.with_context(|| format!("{}", file.display())),
    }
}

fn missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Whether to begin paused. Who cannot look does not know that nobody said so.
pub fn is_set(config: &Config) -> bool {
    let file = file(config);
    file.try_exists().unwrap_or_else(|error| {
        log::warn!("{}: {error}: paused, until it can be looked at", file.display());
        true
    })
}

/// Looks at the file for ever, and tells what changes. What cannot be looked at changes nothing.
pub async fn watch(file: PathBuf, paused: watch::Sender<bool>, metrics: SyncMetrics) {
    let mut ticks = interval(EVERY);
    loop {
        ticks.tick().await;
        match tokio::fs::try_exists(&file).await {
            Ok(is_there) => tell(&file, &paused, is_there, &metrics),
            Err(error) => log::debug!("{}: {error}", file.display()),
        }
    }
}

fn tell(file: &Path, paused: &watch::Sender<bool>, is_there: bool, metrics: &SyncMetrics) {
    let changed = paused.send_if_modified(|paused| std::mem::replace(paused, is_there) != is_there);
    metrics.paused.set(i64::from(is_there));
    match (changed, is_there) {
        (true, true) => {
            log::warn!("paused, because there is {}: what is being repaired ends", file.display())
        }
        (true, false) => log::info!("resumed"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(state_directory: PathBuf) -> Config {
        let text = "Listen: ':1'\nClusters: {c: {Backends: [http://a, http://b]}}\n\
                    Regions: {r: {Clusters: [{Cluster: c, Weight: 1}], Default: true}}\n";
        Config { state_directory, ..Config::parse(text, &|_| None).unwrap() }
    }

    #[test]
    fn a_pause_lasts_until_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path().into());
        for paused in [false, true, true, false, false] {
            set(&config, paused).unwrap();
            assert_eq!(is_set(&config), paused);
        }
    }

    #[test]
    fn the_directory_is_left_to_whoever_it_shall_belong_to() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path().join("state"));
        let error = set(&config, true).unwrap_err().to_string();
        assert!(error.contains("there is no StateDirectory"), "{error}");
        assert!(!config.state_directory.exists() && !is_set(&config));
        set(&config, false).unwrap();
    }

    #[test]
    fn who_cannot_look_begins_paused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(is_set(&config(file)));
    }
}

//! `akubra sync pause` and `resume`: a file in the state directory, which every sync process of the machine looks at.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tokio::{sync::watch, time::interval};

use crate::{config::Config, telemetry::metrics::SyncMetrics};

const FILE: &str = "sync.paused";
const EVERY: Duration = Duration::from_secs(1);

pub fn file(config: &Config) -> PathBuf {
    config.state_directory.join(FILE)
}

/// Pauses all sync processes that have this state directory, or lets them go on.
pub fn set(config: &Config, paused: bool) -> anyhow::Result<()> {
    let file = file(config);
    let done = match paused {
        true => fs::create_dir_all(&config.state_directory).and_then(|()| fs::File::create(&file).map(drop)),
        false => fs::remove_file(&file).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
    };
    done.with_context(|| format!("{}", file.display()))
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

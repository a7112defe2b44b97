//! What operators see of the journal: looked at every few seconds by one task, however many ask.
//!
//! A look costs the same whatever the journal holds. What there is by standing the engines count themselves. Who is
//! behind is seen in a sample: the first objects in the order of digests, which is as good as drawing them by lot, so
//! that the numbers are in proportion where there are more.

mod look;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::{sync::Notify, time::Instant};

pub use self::look::{Look, Pace, WINDOW};
use self::look::{Past, behind};
use super::{Case, Counts, Filter, Journal, JournalError};
use crate::telemetry::metrics::JournalMetrics;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);
/// Objects of the sample, and of one question for some of them: others ask in between.
pub const SAMPLE: usize = 1000;
const PAGE: usize = 250;
/// Parked and dead objects that are shown.
pub const ASIDE: usize = 20;

/// A cluster, and its backends.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: String,
    pub backends: Vec<Backend>,
}

/// A backend by its endpoint, as records have it, and its URL, as operators have it.
#[derive(Debug, Clone)]
pub struct Backend {
    pub endpoint: String,
    pub url: String,
}

/// The engine, once it could be opened.
pub type Engine = Box<dyn Fn() -> Option<Arc<dyn Journal>> + Send + Sync>;
/// The clusters as they are now.
pub type Clusters = Box<dyn Fn() -> Vec<Cluster> + Send + Sync>;

/// The task, and what it saw last.
pub struct Survey {
    engine: Engine,
    clusters: Clusters,
    known: Mutex<Known>,
    again: Notify,
    /// The write-ahead log, where the journal is a file.
    log: Option<PathBuf>,
    metrics: JournalMetrics,
}

/// What is known of the journal.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last look that succeeded.
    pub look: Option<Arc<Look>>,
    /// Why there was none after it.
    pub trouble: Option<String>,
}

impl Survey {
    pub fn new(engine: Engine, clusters: Clusters) -> Survey {
        let metrics = JournalMetrics::of_process();
        Survey { engine, clusters, known: Mutex::default(), again: Notify::new(), log: None, metrics }
    }

    /// The journal is this file.
    pub fn of_file(mut self, file: &Path) -> Survey {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        self.log = Some(log.into());
        self
    }

    /// What was seen last. Waits for nothing.
    pub fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has it looked at soon: a human has changed something.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    /// Looks for as long as it is polled.
    pub async fn run(&self) {
        let mut past = Past::default();
        loop {
            let looked = match (self.engine)() {
                Some(engine) => self.look(&*engine, &mut past).await,
                None => Err(JournalError::Unavailable("it could not be opened yet".to_owned())),
            };
            self.keep(looked);
            self.measure().await;
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = self.again.notified() => {}
            }
        }
    }

    /// How long the log is, also while the journal is away: that may be why.
    async fn measure(&self) {
        let Some(log) = &self.log else { return };
        match tokio::fs::metadata(log).await {
            Ok(found) => self.metrics.log_bytes.set(i64::try_from(found.len()).unwrap_or(i64::MAX)),
            // Whoever had it open last has put all of it into the file.
            Err(error) if error.kind() == ErrorKind::NotFound => self.metrics.log_bytes.set(0),
            Err(error) => log::debug!("{}: {error}", log.display()),
        }
    }

    async fn look(&self, journal: &dyn Journal, past: &mut Past) -> Result<Look, JournalError> {
        let counts = journal.counts().await?;
        let (behind, sampled) = behind_in(journal, &counts, &(self.clusters)()).await?;
        let aside = match counts.parked + counts.dead {
            0 => Vec::new(),
            _ => journal.aside(ASIDE).await?,
        };
        let pace = past.pace(Instant::now().into_std(), &counts);
        Ok(Look { at: Utc::now(), counts, pace, behind, sampled, aside })
    }

    fn keep(&self, looked: Result<Look, JournalError>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(look) => {
                let before = known.look.as_ref().map(|look| &look.behind);
                self.tell(&look, before.unwrap_or(&BTreeMap::new()));
                *known = Known { look: Some(Arc::new(look)), trouble: None };
            }
            Err(error) => known.trouble = Some(error.to_string()),
        }
    }

    /// As metrics.
    fn tell(&self, look: &Look, before: &BTreeMap<String, u64>) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (metrics, counts) = (&self.metrics, &look.counts);
        metrics.open.set(gauge(counts.open));
        metrics.parked.set(gauge(counts.parked));
        metrics.dead.set(gauge(counts.dead));
        metrics.leased.set(gauge(counts.leased));
        metrics.intents.set(gauge(counts.intents));
        metrics.resolved.set(gauge(counts.resolved));
        metrics.oldest.set(gauge(look.oldest_seconds().unwrap_or(0)));
        for gone in before.keys().filter(|url| !look.behind.contains_key(*url)) {
            metrics.forget_backend(gone);
        }
        for (url, count) in &look.behind {
            metrics.behind(url, gauge(*count));
        }
    }
}

/// How many open objects each backend is behind in, by URL, and from how many objects that is known where it is not from
/// all.
pub async fn behind_in(
    journal: &dyn Journal,
    counts: &Counts,
    clusters: &[Cluster],
) -> Result<(BTreeMap<String, u64>, Option<usize>), JournalError> {
    let sample = sample(journal, counts).await?;
    let sampled = Some(sample.len()).filter(|seen| counts.open > 0 && (*seen as u64) < counts.unresolved());
    Ok((behind(clusters, &sample, counts), sampled))
}

/// Some objects, whatever their standing; nearly all if there are only a few.
async fn sample(journal: &dyn Journal, counts: &Counts) -> Result<Vec<Case>, JournalError> {
    let mut sample: Vec<Case> = Vec::new();
    if counts.open == 0 {
        return Ok(sample);
    }
    while sample.len() < SAMPLE {
        let after = sample.last().map(|case| &case.object);
        let page = journal.list(&Filter::default(), after, PAGE).await?;
        let is_last = page.len() < PAGE;
        sample.extend(page);
        if is_last {
            break;
        }
    }
    Ok(sample)
}

#[cfg(test)]
mod tests;

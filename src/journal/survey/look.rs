//! What a look at the journal comes to: pure, from what the engine said.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{Case, Cluster, Counts};
use crate::journal::Standing;

/// What rates are of.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The journal at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    pub at: DateTime<Utc>,
    pub counts: Counts,
    /// `None` = there was only one look so far.
    pub pace: Option<Pace>,
    /// Of each backend, by URL, the open objects of which it is not known to have taken all writes.
    pub behind: BTreeMap<String, u64>,
    /// Of so many objects that is known; `None` = of all.
    pub sampled: Option<usize>,
    /// Some of the parked and dead objects, those that came last first.
    pub aside: Vec<Case>,
}

impl Look {
    /// The age of the oldest open object.
    pub fn oldest_seconds(&self) -> Option<u64> {
        let since = self.counts.oldest?;
        Some(u64::try_from((self.at.timestamp_millis() - since) / 1000).unwrap_or(0))
    }
}

/// How the journal's objects come and go, of all gateways and workers together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    pub new_per_second: f64,
    pub resolved_per_second: f64,
    /// Below 0 where there are less and less.
    pub open_per_second: f64,
    /// Until none is open, if it goes on so; `None` = it would take for ever.
    pub seconds_to_drain: Option<u64>,
}

/// Counts of the last [`WINDOW`], the oldest first.
#[derive(Debug, Default)]
pub struct Past(VecDeque<(Instant, Counts)>);

impl Past {
    /// From the oldest counts that are remembered to these.
    pub fn pace(&mut self, now: Instant, counts: &Counts) -> Option<Pace> {
        while self.0.len() > 1 && self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
        let pace = self.0.front().and_then(|(at, before)| Pace::of(now.duration_since(*at), before, counts));
        self.0.push_back((now, counts.clone()));
        pace
    }
}

impl Pace {
    fn of(time: Duration, before: &Counts, now: &Counts) -> Option<Pace> {
        if time.is_zero() {
            return None;
        }
        let rate = |before: u64, now: u64| (now as f64 - before as f64) / time.as_secs_f64();
        let open = rate(before.open, now.open);
        let resolved = rate(before.resolved, now.resolved).max(0.0);
        // What has come is what is there more, and what went meanwhile.
        let new = (rate(before.unresolved(), now.unresolved()) + resolved).max(0.0);
        let seconds_to_drain = match now.open {
            0 => Some(0),
            left if open < 0.0 => Some((left as f64 / -open).ceil() as u64),
            _ => None,
        };
        Some(Pace {
            new_per_second: new,
            resolved_per_second: resolved,
            open_per_second: open,
            seconds_to_drain,
        })
    }
}

/// How many open objects each backend is behind in, by URL: as many as in the sample, in proportion.
pub fn behind(clusters: &[Cluster], sample: &[Case], counts: &Counts) -> BTreeMap<String, u64> {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for cluster in clusters {
        let cases = || {
            let open = sample.iter().filter(|case| case.standing == Standing::Open);
            open.filter(|case| case.object.cluster == cluster.name)
        };
        for backend in &cluster.backends {
            let count = cases().filter(|case| case.is_behind(&backend.endpoint)).count() as u64;
            *seen.entry(backend.url.clone()).or_default() += count;
        }
    }
    let (all, looked) = (counts.unresolved(), sample.len() as u64);
    for count in seen.values_mut() {
        if looked < all && looked > 0 {
            *count = (*count as f64 / looked as f64 * all as f64).round() as u64;
        }
        // Some have come or gone between two questions.
        *count = counts.open.min(*count);
    }
    seen
}

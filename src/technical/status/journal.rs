//! The journal's part of the status: what there is to be repaired, and how this gateway gets on with it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::report::{Span, moment, rounded, rounded_some};
use crate::telemetry::metrics::reading;

/// What the installation knows of its journal. Numbers are of all gateways and workers that share it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Seen {
    /// When it was looked at; `None` = not yet.
    #[serde(serialize_with = "moment")]
    pub looked: Option<DateTime<Utc>>,
    /// Why it was not looked at again; empty if nothing is wrong.
    pub trouble: String,
    pub open: u64,
    pub parked: u64,
    pub dead: u64,
    /// Of the open ones, those that a worker repairs, or will next.
    pub leased: u64,
    pub intents: u64,
    pub resolved: u64,
    /// Of the oldest open object.
    pub oldest_seconds: Option<u64>,
    /// What the next three are of.
    pub window_seconds: u64,
    #[serde(serialize_with = "rounded_some")]
    pub new_per_second: Option<f64>,
    #[serde(serialize_with = "rounded_some")]
    pub resolved_per_second: Option<f64>,
    /// Below 0 where there are less and less.
    #[serde(serialize_with = "rounded_some")]
    pub open_per_second: Option<f64>,
    /// Until nothing is open; `None` = for ever, as it goes now, or nobody knows yet.
    pub seconds_to_drain: Option<u64>,
    /// In the order of the configuration.
    pub behind: Vec<Behind>,
    /// The last are estimates from so many objects; `None` = they are exact.
    pub sampled: Option<u64>,
    /// Parked and dead, the last first.
    pub aside: Vec<Aside>,
    pub remembered_most: u64,
    /// How to look at it from a command line: `akubra journal -c FILE`.
    pub command: String,
    /// Whether something can be decided here, with the token.
    pub decides: bool,
}

/// A backend, by URL, and the open objects of which it has not taken a write.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Behind {
    pub backend: String,
    pub open: u64,
}

/// An object that waits for a human.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aside {
    pub cluster: String,
    /// Percent-encoded, as `akubra journal` takes it.
    pub path: String,
    /// `parked` or `dead`.
    pub standing: &'static str,
    #[serde(serialize_with = "moment")]
    pub since: Option<DateTime<Utc>>,
    pub tries: u32,
    /// May have words of backends in it.
    pub reason: String,
}

/// All of it: with what this process counts itself.
#[derive(Debug, Clone, Serialize)]
pub struct Journal {
    #[serde(flatten)]
    pub seen: Seen,
    /// This process can put something into it, as far as its last try tells.
    pub available: bool,
    /// Steps of writes that wait for it, and how many may.
    pub waiting: u64,
    pub waiting_most: u64,
    /// Those that found no place, since the start.
    pub dropped: u64,
    /// Writes that were answered 503 because of it, since the start.
    pub refused: u64,
    /// Of this process.
    #[serde(serialize_with = "rounded")]
    pub records_per_second: f64,
    /// Objects that this process has in memory, and whether these are all.
    pub remembered: u64,
    pub remembered_whole: bool,
}

impl Span<'_> {
    pub fn journal(&self, seen: Seen) -> Journal {
        let reading::Journal { unavailable, waiting, waiting_most, dropped, refused, .. } = self.now.journal;
        Journal {
            seen,
            available: !unavailable,
            waiting,
            waiting_most,
            dropped,
            refused,
            records_per_second: self.rate(self.earlier.journal.records, self.now.journal.records),
            remembered: self.now.journal.remembered,
            remembered_whole: self.now.journal.remembered_whole,
        }
    }
}

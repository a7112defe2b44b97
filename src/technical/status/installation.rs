//! What the status page has to be told, because no metric says it: what belongs to what, and in which state it is.
//!
//! The page asks anew for each sample, since all of it may change while the process runs, and keeps nothing of the
//! answer. Backends are known by their URLs, as in the metrics.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::journal::Seen;

/// What is installed here. Asked every few seconds, so it must not wait for anything.
pub trait Installation: Send + Sync + 'static {
    /// In the order of the configuration.
    fn regions(&self) -> Vec<Region>;

    /// Each backend once, in the order of the configuration.
    fn backends(&self) -> Vec<Backend>;

    /// What was seen last of the journal; `None` = there is none.
    fn journal(&self) -> Option<Seen>;

    /// The configuration in force, without secrets.
    fn configuration(&self) -> Arc<str>;
}

#[derive(Debug, Clone, Serialize)]
pub struct Region {
    pub name: String,
    /// Takes what no domain matches.
    pub default: bool,
    pub domains: Vec<String>,
    pub clusters: Vec<Cluster>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cluster {
    pub name: String,
    /// 0 to 1, as configured.
    pub weight: f64,
    /// The part of the ring that is its own, 0 to 1.
    pub share: f64,
    /// URLs.
    pub backends: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Backend {
    pub url: String,
    pub condition: Condition,
}

/// Whether a backend gets requests, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    pub state: State,
    /// For people; empty where there is nothing to say.
    pub reason: String,
    /// `None`: the page says when it saw it first.
    #[serde(serialize_with = "super::report::moment")]
    pub since: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Healthy,
    /// Gets nothing, because an operator said so.
    Maintenance,
    /// Has no address.
    Unresolved,
    /// Gets nothing, because it failed.
    Ejected,
    /// Is tried again.
    Probation,
}

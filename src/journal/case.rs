//! An object that is not resolved, as who looks at it or works on it has it.

use std::time::Duration;

use super::{Object, Record, Said, Unseen, WriteId};

/// Where an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// To be repaired when it is due.
    Open,
    /// Waits for a human: no rule decides.
    Parked,
    /// Was tried too often.
    Dead,
}

/// So many records of an object can be put in order. Where there are more, one more than these are read: they tell as
/// much as all of them.
pub const RECORDS_MOST: usize = 2_000;
pub(super) const RECORDS_READ: usize = RECORDS_MOST + 1;

/// An object with its records, in the order in which they came.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub object: Object,
    pub standing: Standing,
    /// No more than one more than [`RECORDS_MOST`].
    pub records: Vec<Record>,
    /// How many more there are.
    pub more: u64,
    /// Intents of writes that are under way.
    pub under_way: usize,
    /// What workers did that nobody has seen the end of.
    pub unseen: Option<Unseen>,
    /// Failed tries so far.
    pub attempts: u32,
    /// Since when it is here, and when it is due, in milliseconds since 1970.
    pub since: i64,
    pub due: i64,
    /// Why it is parked or dead, or what went wrong last; empty if nothing did.
    pub reason: String,
}

/// When an object is to be looked at again, and why not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    pub pause: Duration,
    /// It counts as a try.
    pub failed: bool,
    /// Something may still happen: nothing that comes meanwhile makes the object due sooner.
    pub calm: bool,
    /// What the worker sent may be among that.
    pub unseen: bool,
}

impl Later {
    /// Nothing was tried, nothing is under way.
    pub fn waits(pause: Duration) -> Later {
        Later { pause, failed: false, calm: false, unseen: false }
    }

    /// It was too early.
    pub fn again(pause: Duration) -> Later {
        Later { pause, failed: false, calm: true, unseen: false }
    }

    /// It was given up in the middle.
    pub fn broken_off(pause: Duration) -> Later {
        Later { pause, failed: false, calm: true, unseen: true }
    }

    pub fn failed(pause: Duration) -> Later {
        Later { pause, failed: true, calm: false, unseen: false }
    }

    /// What failed may have been done, or be done yet.
    pub fn unsettled(pause: Duration) -> Later {
        Later { pause, failed: true, calm: true, unseen: true }
    }
}

impl Case {
    /// Of its records.
    pub fn ids(&self) -> Vec<WriteId> {
        self.records.iter().map(Record::id).collect()
    }

    /// Whether a backend of the object's cluster, by its endpoint, is not known to have taken one of the writes.
    pub fn is_behind(&self, backend: &str) -> bool {
        self.records.iter().any(|record| !matches!(record.said(backend), Said::Good { .. }))
    }
}

/// The right to repair one object for a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    pub object: Object,
    pub worker: String,
    /// Changes with every lease: one that has run out and been taken by another is worth nothing.
    pub token: i64,
}

/// Which objects to lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those whose backends do not agree.
    Diverged,
    /// Those as well that lie on another cluster than their home.
    Misplaced,
}

/// What became of a resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The object has no record any more, but for sightings that stay.
    Resolved,
    /// Records or intents have come meanwhile: it stays open, with all its records.
    Changed,
    /// The lease had run out.
    Lost,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub standing: Option<Standing>,
    /// Of one of these clusters.
    pub clusters: Option<Vec<String>>,
    pub bucket: Option<Vec<u8>>,
    /// A prefix of the key.
    pub prefix: Option<Vec<u8>>,
    /// A backend that has not taken a write, by its endpoint, as far as the records of a case tell. Objects of clusters without it are not told apart:
    /// `clusters` says which have it.
    pub backend: Option<String>,
}

impl Filter {
    pub fn takes(&self, case: &Case) -> bool {
        self.standing.is_none_or(|standing| standing == case.standing)
            && self.clusters.as_ref().is_none_or(|clusters| clusters.contains(&case.object.cluster))
            && self.bucket.as_ref().is_none_or(|bucket| *bucket == case.object.bucket)
            && self.prefix.as_ref().is_none_or(|prefix| case.object.key.starts_with(prefix))
            && self.backend.as_ref().is_none_or(|backend| case.is_behind(backend))
    }
}

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub open: u64,
    pub parked: u64,
    pub dead: u64,
    /// Of the open ones, those that are leased.
    pub leased: u64,
    pub intents: u64,
    /// Since when the oldest open object is here, in milliseconds since 1970.
    pub oldest: Option<i64>,
    /// Resolved since the journal began.
    pub resolved: u64,
}

impl Counts {
    /// Objects with records, whatever their standing.
    pub fn unresolved(&self) -> u64 {
        self.open + self.parked + self.dead
    }
}

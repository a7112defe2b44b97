//! The journal: what is known of objects whose backends may not agree, and survives crashes.
//!
//! A record names an object, not an action: it says which write it was, and what each backend answered. Who repairs
//! ([`crate::sync`]) asks the backends what they hold and decides by that and the records. `docs/journal.md` has the
//! invariants, the tables and what a crash can lose.
//!
//! ```text
//! gateway: begin (strong: durable before the first byte) -> the write -> clear, or record
//! worker:  lease an object -> ask, decide, copy, ask again -> resolve, postpone or park
//! ```

mod batch;
mod dropped;
mod ends;
#[cfg(test)]
pub(crate) mod fixture;
mod live;
mod memory;
mod open;
pub mod postgres;
mod presence;
pub mod record;
mod remembered;
mod row;
mod rules;
mod sqlite;
pub mod survey;
mod trouble;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::{
    batch::{Batch, Waiting},
    dropped::Dropped,
    ends::{Changes, Ended, Outcome, Overview},
    live::Live,
    memory::Memory,
    open::{open, opener},
    postgres::Postgres,
    presence::Presence,
    record::{Intent, Object, Record, Said, Unseen, What, WriteId},
    remembered::Known,
    rules::{Clock, system_clock},
    sqlite::Sqlite,
    writer::{Opener, Refused, Writer},
};

/// Why the journal could not do what it was asked. Nothing of it was done then; only where an answer did not come in
/// time it may have been, or be done yet. Everything can be asked for again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It may work later: the database is away, the disk is full, another process holds the lock.
    #[error("the journal is unavailable: {0}")]
    Unavailable(String),
    /// It will not: the file is no journal, or one of a later version.
    #[error("the journal cannot be used: {0}")]
    Unusable(String),
    /// It does not know the gateway that tells it of writes: it is not the one in which the gateway is enrolled.
    #[error("the journal does not know gateway {0}: it was replaced, or restored from a backup")]
    Stranger(i64),
    /// It took the gateway for dead since the gateway last asked how often: what that had under way are records, which
    /// may have been resolved, and what it tells may rest on intents that are gone.
    #[error("the journal took gateway {0} for dead")]
    TakenForDead(i64),
}

/// One step in the life of a write.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is about to begin. Shared with its request, which needs it to the end.
    Begin(Arc<Intent>),
    /// It is under way still, and the journal may have lost its intent. One that is there stays as it is; one that is not
    /// says nothing of when the write began.
    Still(Arc<Intent>),
    /// All backends are good: the intent goes. If the object has other records, or intents of other writes, the record is
    /// kept with them, because the order of all of them must be known to whoever repairs.
    Settled(Record),
    /// Backends do not agree, or may not. The record takes the place of the intent, if there is one; a parked
    /// object is open again.
    Diverged(Record),
    /// No backend took it: the intent goes. Were there several of this id, on different objects, all would.
    Void(WriteId),
}

impl Change {
    /// The write that it is about.
    pub fn id(&self) -> WriteId {
        match self {
            Change::Begin(intent) | Change::Still(intent) => intent.id,
            Change::Settled(record) | Change::Diverged(record) => record.id(),
            Change::Void(id) => *id,
        }
    }
}

/// A gateway process as a journal has enrolled it. One that is restored from a backup gives a number once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    pub number: i64,
    /// Of no other process.
    pub name: String,
    /// How often the journal has taken it for dead, as far as it knows.
    pub deaths: i64,
}

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
const RECORDS_READ: usize = RECORDS_MOST + 1;

/// Unresolved objects that are read at once.
const PAGE: usize = 1000;

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

/// A place in the stream of changes; opaque.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(pub i64);

/// What has changed since a mark.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// These objects, each once, with what is known of them now; `None` = resolved.
    Changed(Vec<(Object, Option<Known>)>, Mark),
    /// Too much, or nobody knows: ask for all that is unresolved.
    Reload,
}

/// A part of what a gateway has to know at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Unresolved {
    pub objects: Vec<(Object, Known)>,
    /// Nothing is behind them.
    pub is_last: bool,
    pub mark: Mark,
}

/// Hands on up to `most` unresolved objects, as they come from the journal: no more than a page of them is held at a
/// time. Returns whether these are all, and since when changes are news.
pub async fn unresolved(
    journal: &dyn Journal,
    most: usize,
    mut learn: impl FnMut(Vec<(Object, Known)>) + Send,
) -> Result<(bool, Mark), JournalError> {
    let (mut left, mut after, mut mark) = (most, None, None);
    loop {
        // One more tells whether there are more.
        let mut page = journal.unresolved(after.as_ref(), left.saturating_add(1)).await?;
        let mark = *mark.get_or_insert(page.mark);
        let is_over = page.objects.len() > left;
        page.objects.truncate(left);
        left -= page.objects.len();
        after = page.objects.last().map(|(object, _)| object.clone());
        learn(page.objects);
        if is_over || page.is_last {
            return Ok((!is_over, mark));
        }
    }
}

/// An engine. Every method is one transaction, but for lists of many objects, which are read in parts, and has a deadline
/// of its own; times are by the engine's clock.
/// Dropping a future does not undo what it began.
#[async_trait]
pub trait Journal: Send + Sync {
    /// A new gateway process, by a name that no other has; its number is unique as long as the journal is not replaced.
    async fn enrol(&self, name: &str) -> Result<i64, JournalError>;

    /// The gateway lives, whatever was thought of it. It keeps its number: by that the order of its writes is known.
    /// Returns how often it was taken for dead, and records were made of what it had under way; `None` = there is none of
    /// that number and name.
    async fn alive(&self, gateway: &Enrolled) -> Result<Option<i64>, JournalError>;

    /// The gateway ends: intents that it leaves behind become records at once, due after `settle`. One that is not known
    /// leaves none.
    async fn leave(&self, gateway: &Enrolled, settle: Duration) -> Result<(), JournalError>;

    /// Intents of gateways that have not been alive for `silent` become records without replies, due after `settle`.
    /// Returns how many.
    async fn adopt(&self, silent: Duration, settle: Duration) -> Result<usize, JournalError>;

    /// All of the changes or none, on disk when this returns. A record with unknown replies makes its object due
    /// after `settle`, another at once, but no sooner than those before it allow; a record whose write is known
    /// already replaces it. All changes happen at one moment: of two records of one write the last counts, and an
    /// intent of another gateway that goes in the same call still makes a settled record be kept.
    /// For a gateway that is not known nothing is done ([`Stranger`](JournalError::Stranger)): its writes may have the
    /// names of another's. Nor for one that was taken for dead more often than it knows
    /// ([`TakenForDead`](JournalError::TakenForDead)): when it does, it may still bring what it has.
    async fn apply(
        &self,
        gateway: &Enrolled,
        changes: Vec<Change>,
        settle: Duration,
    ) -> Result<(), JournalError>;

    /// Up to `most` open objects that are due, longest due first, each for `hold`. Nobody else gets them before
    /// that has passed, nor before `settle` after it if the lease was not given back: its worker may be dead, and
    /// what it sent still on its way.
    async fn lease(
        &self,
        worker: &str,
        wanted: Wanted,
        most: usize,
        hold: Duration,
        settle: Duration,
    ) -> Result<Vec<(Lease, Case)>, JournalError>;

    /// Holds a lease from now on for `hold`; false = it is lost.
    async fn renew(&self, lease: &Lease, hold: Duration, settle: Duration) -> Result<bool, JournalError>;

    /// All backends agree, and these writes are all that the worker knew: the object goes, if it has no other
    /// record and no intent. If it has, the lease goes on. Of those seen `sightings` only say that the object is
    /// elsewhere, too: if there are any, it is kept with them, as if they had just come, and is given back.
    async fn resolve(
        &self,
        lease: &Lease,
        seen: &[WriteId],
        sightings: &[WriteId],
    ) -> Result<Resolution, JournalError>;

    /// Gives the object back, due after a pause. Without effect if the lease is lost.
    async fn postpone(&self, lease: &Lease, later: Later, why: &str) -> Result<(), JournalError>;

    /// Sets the object aside, if no record but those `seen` has come, or it has more than can be read; a later record opens
    /// it again. If one has come, gives it back, due at once. `unsettled`: for so long may happen what the worker sent. Without effect if the
    /// lease is lost.
    async fn set_aside(
        &self,
        lease: &Lease,
        standing: Standing,
        unsettled: Option<Duration>,
        seen: &[WriteId],
        why: &str,
    ) -> Result<(), JournalError>;

    /// Objects in a stable order, those behind `after`.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<&Object>,
        most: usize,
    ) -> Result<Vec<Case>, JournalError>;

    /// Up to `most` objects that are parked or dead, those that came last first. Costs as much as it returns, however
    /// many are open.
    async fn aside(&self, most: usize) -> Result<Vec<Case>, JournalError>;

    async fn show(&self, object: &Object) -> Result<Option<Case>, JournalError>;

    /// What a gateway has to know of an object. Costs the same, however many records there are.
    async fn known(&self, object: &Object) -> Result<Option<Known>, JournalError>;

    /// Makes an object open and due now, or as soon as records of unknown outcome and a lease allow, with no tries;
    /// false = there is none.
    async fn retry(&self, object: &Object) -> Result<bool, JournalError>;

    /// Forgets an object, for a reason that is kept; false = there is none, or a write to it is under way, or it is
    /// leased.
    async fn drop_object(&self, object: &Object, reason: &str) -> Result<bool, JournalError>;

    /// Up to `most` objects that were dropped, the last first; those before the one of this number.
    async fn dropped(&self, before: Option<i64>, most: usize) -> Result<Vec<Dropped>, JournalError>;

    async fn counts(&self) -> Result<Counts, JournalError>;

    /// Up to `most` objects with records behind `after`, whatever their standing, or a thousand of them. What changes
    /// afterwards is news since the mark.
    async fn unresolved(&self, after: Option<&Object>, most: usize) -> Result<Unresolved, JournalError>;

    /// What has changed since `mark`; waits up to `patience` for something, then says that nothing has.
    async fn news(&self, mark: Mark, patience: Duration) -> Result<News, JournalError>;
}

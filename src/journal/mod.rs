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
mod case;
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

use self::case::RECORDS_READ;
pub use self::{
    batch::{Batch, Waiting},
    case::{Case, Counts, Filter, Later, Lease, RECORDS_MOST, Resolution, Standing, Wanted},
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

/// Unresolved objects that are read at once.
const PAGE: usize = 1000;

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

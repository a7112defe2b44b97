//! What makes backends agree: `akubra sync`, a process of its own.
//!
//! For an object of the journal it asks all backends of the home cluster what they hold ([`Stores`]), decides by a pure
//! function of that and the records ([`decide`]), copies or deletes, asks again, and only then forgets the records
//! ([`repair`]). It never guesses: what no rule decides is parked with the reason.

pub mod backoff;
mod circuit;
mod copies;
pub mod decide;
#[cfg(test)]
pub(crate) mod fixture;
mod hold;
pub mod job;
pub mod limits;
pub mod misplaced;
pub mod places;
pub mod repair;
mod slots;
pub mod worker;

pub mod sign;
pub mod stores;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::journal::Object;

/// The MD5 of an object's bytes.
pub type Md5 = [u8; 16];

/// What a backend says that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Absent,
    Present(Held),
    /// It did not answer, or not as a storage does: why.
    Unknown(String),
    /// What it answers about this object is of no use, and why: that does not get better by itself.
    Refused(String),
    /// It does not let the account ask: about this object, or about any.
    Denied(String),
}

impl State {
    /// Why nobody knows what the backend holds; `None` = it is known.
    pub fn why_unknown(&self) -> Option<&str> {
        match self {
            State::Unknown(why) | State::Refused(why) | State::Denied(why) => Some(why),
            State::Absent | State::Present(_) => None,
        }
    }
}

/// An object that a backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// As it was answered, without quotes.
    pub etag: String,
    pub version: Option<String>,
    /// `Last-Modified`, in milliseconds since 1970 (it is told in whole seconds).
    pub modified: i64,
    pub length: u64,
    /// The object's version in its metadata (`ObjectVersionHeaderName`), where it is a number.
    pub object_version: Option<u64>,
    /// Of the bytes, where it is known: the ETag is one, or all bytes were read.
    pub md5: Option<Md5>,
    /// Content headers and `x-amz-meta-*`, names in lower case, sorted.
    pub metadata: Vec<(String, String)>,
}

/// Why a change of a backend failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What source or target hold is not what it was: nothing was done.
    #[error("{0}")]
    Changed(String),
    /// It was not done, and may be done later.
    #[error("{0}")]
    Failed(String),
    /// Nobody knows whether it was done; it may still happen.
    #[error("{0}")]
    Unknown(String),
    /// It will not be done, however often it is tried: too large, not supported.
    #[error("{0}")]
    Refused(String),
    /// This backend does not let the account do it: with this object, or with any.
    #[error("{why}")]
    Denied { by: String, why: String },
    /// The copy is there, under this ETag if that is known, and what was to follow failed: it may lack tags, or not be
    /// right.
    #[error("{why}")]
    Unfinished { etag: Option<String>, why: Box<StoreError> },
}

impl StoreError {
    /// Whether something was changed, or may have been.
    pub fn may_be_done(&self) -> bool {
        matches!(self, StoreError::Unknown(_) | StoreError::Unfinished { .. })
    }

    /// Whether something may still happen: the change, or what was to follow it.
    pub fn may_happen_yet(&self) -> bool {
        match self {
            StoreError::Unknown(_) => true,
            StoreError::Unfinished { why, .. } => why.may_happen_yet(),
            _ => false,
        }
    }
}

/// A copy that was verified at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What the target answered, without quotes.
    pub etag: String,
    pub version: Option<String>,
    /// Of the bytes that went from the one to the other.
    pub md5: Md5,
}

/// Asked before the bytes that complete a change are sent: false = it must not happen any more.
#[async_trait]
pub trait Gate: Send + Sync {
    async fn may_go_on(&self) -> bool;
}

/// The backends as a worker needs them, each by its endpoint. Each step of a method has a deadline, and what moves
/// bytes has a least rate.
#[async_trait]
pub trait Stores: Send + Sync {
    /// HeadObject.
    async fn state(&self, backend: &str, object: &Object) -> State;

    /// Reads all bytes of what a backend holds.
    async fn md5(&self, backend: &str, object: &Object, held: &Held) -> Result<Md5, StoreError>;

    /// Brings what `from` holds to `to`, which was seen to hold that then: body, content headers, metadata, tags.
    async fn copy(
        &self,
        object: &Object,
        from: (&str, &Held),
        to: (&str, &State, Instant),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError>;

    /// Deletes what a backend holds.
    async fn delete(
        &self,
        object: &Object,
        backend: (&str, &Held),
        gate: &dyn Gate,
    ) -> Result<(), StoreError>;

    /// The text of a sub-resource; `None` = there is none.
    async fn attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a sub-resource, or deletes it.
    async fn set_attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError>;
}

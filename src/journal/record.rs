//! What the journal knows of one write, in a form that outlives processes and configurations.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An object as the backends of one cluster hold it. A bucket has an empty key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    pub cluster: String,
    /// Percent-decoded bytes.
    pub bucket: Vec<u8>,
    pub key: Vec<u8>,
}

impl Object {
    /// For indexes: the same in all versions of the program. No two objects share it.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [self.cluster.as_bytes(), &self.bucket, &self.key] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// Its beginning. Different objects may share it.
    pub fn hash(&self) -> i64 {
        let digest = self.digest();
        i64::from_be_bytes(std::array::from_fn(|at| digest[at]))
    }
}

/// `cluster:/bucket/key`, for messages: what is no text, or would spoil a line, is escaped.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:/{}/{}", self.cluster, self.bucket.escape_ascii(), self.key.escape_ascii())
    }
}

/// One write to one object on one cluster, unique for ever: the gateway that made it and its number there. A request that
/// names several objects, or is for several clusters, is as many writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteId {
    pub gateway: i64,
    pub number: i64,
}

/// What was done to the object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was written whole: PutObject, CopyObject, CompleteMultipartUpload.
    Put,
    /// It was deleted.
    Delete,
    /// A sub-resource was written or deleted: `acl`, `tagging`, ...
    Attribute(String),
    /// One version was written to or deleted; ids of versions differ between backends.
    Version(String),
    /// A bucket was written to, or several of its objects deleted: `PUT`, `POST delete`, ...
    Bucket(String),
    /// A read found that a backend has it and another does not.
    Seen,
    /// A read found it on this cluster, which is not its home.
    Misplaced(String),
}

/// A write that is about to begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    pub id: WriteId,
    pub object: Object,
    pub what: What,
    pub region: String,
    /// The request, as logs name it.
    pub req_id: String,
    /// Of the body, where it is known beforehand.
    pub length: Option<u64>,
    /// In milliseconds since 1970, by the gateway's clock.
    pub begun: i64,
    /// Every write to the object that may have reached a backend is in the journal (`Consistency: strong`).
    pub strong: bool,
    /// The journal's turn at which it was on disk, before anything was sent (`Consistency: strong`). The journal
    /// itself numbers its turns: one of a smaller number was over before the other began.
    #[serde(default)]
    pub turn: Option<i64>,
}

/// What a backend said of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It took the write, and holds this now.
    Good { etag: Option<String>, version: Option<String> },
    /// It did not take it.
    NotApplied,
    /// Nobody knows, or it has not been asked as far as is known.
    Unknown,
}

/// A write and what backends said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    #[serde(flatten)]
    pub intent: Intent,
    /// Its place among the writes that its gateway has committed: of two to one object, the one with the smaller
    /// number took effect first on every backend. `None` = it is not known to have been committed.
    pub commit: Option<i64>,
    /// When the last reply was in, or the gateway was found dead; in milliseconds since 1970.
    pub ended: i64,
    /// The journal's turn at which it became a record. Not under the name that the intent's has beside it.
    #[serde(default, rename = "ended_turn")]
    pub turn: Option<i64>,
    /// By the backends' endpoints ([`crate::config::BackendUrl`]); one that is not named has said [`Said::Unknown`]. One
    /// that was sent the write twice is named twice: what it said first, then [`Said::Unknown`], for what may come.
    pub replies: Vec<(String, Said)>,
}

impl Record {
    /// A write whose gateway died: whatever it asked for may have happened anywhere.
    pub fn orphaned(intent: Intent, now: i64) -> Record {
        Record { ended: now.max(intent.begun), intent, commit: None, turn: None, replies: Vec::new() }
    }

    pub fn id(&self) -> WriteId {
        self.intent.id
    }

    /// What a backend said, by its endpoint.
    pub fn said(&self, backend: &str) -> &Said {
        let known = self.replies.iter().find(|(name, _)| name == backend);
        known.map_or(&Said::Unknown, |(_, said)| said)
    }

    /// Whether something may still happen on a backend because of it, or may have since it answered.
    pub fn may_come(&self, backend: &str) -> bool {
        let mut own = self.replies.iter().filter(|(name, _)| name == backend).peekable();
        own.peek().is_none() || own.any(|(_, said)| *said == Said::Unknown)
    }

    /// Whether something may still happen because of it.
    pub fn is_uncertain(&self) -> bool {
        self.replies.is_empty() || self.replies.iter().any(|(_, said)| *said == Said::Unknown)
    }
}

/// Workers have sent changes of an object whose outcome they do not know, or had its lease run out: what clients wrote
/// in this time may have been overwritten by what came late. In turns of the journal, which are numbered as leases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen {
    /// The first such lease: it knew all writes that had ended by then.
    pub since: i64,
    /// The first lease after the last one, by when all had come; none yet = `i64::MAX`.
    pub until: i64,
}

impl Unseen {
    /// Whether something that was sent for an older write may have come over this one.
    pub fn may_be_over(&self, record: &Record) -> bool {
        record.turn.is_none_or(|ended| ended > self.since)
            && record.intent.turn.is_none_or(|begun| begun < self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(cluster: &str, bucket: &[u8], key: &[u8]) -> Object {
        Object { cluster: cluster.into(), bucket: bucket.into(), key: key.into() }
    }

    #[test]
    fn the_hash_is_the_same_for_ever_and_tells_parts_apart() {
        assert_eq!(object("main", b"bucket", b"key").hash(), HASH);
        assert_ne!(object("c", b"ab", b"c").hash(), object("c", b"a", b"bc").hash());
    }
    const HASH: i64 = 1983709777836977451;

    #[test]
    fn names_of_objects_cannot_spoil_a_line() {
        assert_eq!(object("main", b"b", b"a\n\xff\"").to_string(), "main:/b/a\\n\\xff\\\"");
    }
}

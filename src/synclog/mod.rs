//! The synclog: what diverged, one JSON object per failed backend and line.

pub mod record;

pub use record::{Misplacement, Record};

/// The handle that requests write through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SyncLog {}

impl SyncLog {
    /// Hands a record to the synclog's task. Returns at once while the channel has room, else waits for room:
    /// a record is never dropped. Call it after the client has its answer.
    pub async fn record(&self, record: Record) {
        let _ = record;
        todo!()
    }

    /// The same for ClusterSyncLog.
    pub async fn misplaced(&self, misplacement: Misplacement) {
        let _ = misplacement;
        todo!()
    }
}

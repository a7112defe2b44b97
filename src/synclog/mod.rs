//! The synclog: what diverged, one JSON object per failed backend and line; and ClusterSyncLog, what lies on
//! another cluster than its home.
//!
//! Whatever makes diverged objects agree again reads these lines, so none is lost silently:
//! - Handing a record over costs a request nothing while the channel has room, and never waits for a disk.
//! - **Full channel**: the request waits for room, after its client has its answer. Counted in
//!   `akubra_log_waits_total`, and an error in the main log. A request that is cancelled in that wait leaves
//!   its record behind, and it is written.
//! - **Failing or hanging destination** (disk full, pipe without a reader): nothing is skipped, the write is
//!   tried again from the byte where it stopped, after 100 ms, doubling to 5 s. Counted in
//!   `akubra_log_write_errors_total`, and an error in the main log. Other destinations of the same log go on;
//!   once 8 MiB wait for the failing one, lines go to the others only (`akubra_log_lines_missed_total`, and an
//!   error). Where there is no other, the channel fills.
//! - **Shutdown**: everything is written, at most until the deadline. What no destination has taken by then
//!   goes to stderr (`akubra_log_lines_rescued_total`, and an error), lines that were under way perhaps twice.
//! - A log without any destination is off.
//! - **A database** is behind a spool on disk ([`spool`], [`database`]), and that is the destination all of this speaks
//!   of: while the database is away records wait there.
//!
//! "Written" means that the kernel has the line: it survives this process, not a power cut. What is in the spool
//! survives that, too.
//!
//! What is handed over is shown to who watches as well: [`feed`].

mod database;
pub mod feed;
pub mod record;
mod spool;

use std::{io, path::Path, sync::Arc};

use http::Method;
use tokio::time::Instant;

pub use record::{Misplacement, Outcome, Record};

use self::{
    database::Delivery,
    feed::Feed,
    spool::{Appender, Spool},
};
use crate::{
    config::Logging,
    telemetry::{
        SYNCLOG,
        backlog::Limits,
        channel::LogChannel,
        destination::{Destination, OpenError},
        line,
    },
};

const CLUSTERSYNCLOG: &str = "clustersynclog";
/// Records of about a kilobyte.
const CAPACITY: usize = 8 * 1024;

/// The handle that requests write through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SyncLog {
    records: LogChannel<Record>,
    misplacements: LogChannel<Misplacement>,
    database: Option<Arc<Delivery>>,
    feed: Feed,
}

impl SyncLog {
    /// Opens the files of both logs. Records of other methods than `methods` are not printed; `None` = all are.
    /// `state` is where a spool is.
    pub fn open(logging: &Logging, methods: Option<Vec<Method>>, state: &Path) -> Result<SyncLog, OpenError> {
        let mut records = Destination::open_all(SYNCLOG, &logging.synclog)?;
        let misplacements = Destination::open_all(CLUSTERSYNCLOG, &logging.clustersynclog)?;
        let database = logging.synclog.database.as_ref().map(|database| {
            let spool = Arc::new(Spool::new(state.join(spool::FOLDER), database.spool));
            records.push(Destination::Sink(Box::new(Appender::new(spool.clone()))));
            Arc::new(Delivery::new(spool, database.clone()))
        });
        Ok(SyncLog { database, ..SyncLog::to(records, misplacements, methods, CAPACITY, Limits::default()) })
    }

    /// Makes the place of the spool, if there is to be one: what is wrong with it shows.
    pub fn prepare(logging: &Logging, state: &Path) -> Result<(), OpenError> {
        let Some(database) = &logging.synclog.database else { return Ok(()) };
        let spool = Spool::new(state.join(spool::FOLDER), database.spool);
        let path = spool.folder().to_owned();
        spool.create().map_err(|source| OpenError { log: SYNCLOG, path, source })
    }

    /// A synclog that goes nowhere.
    pub fn off() -> SyncLog {
        SyncLog::to(Vec::new(), Vec::new(), None, 1, Limits::default())
    }

    fn to(
        records: Vec<Destination>,
        misplacements: Vec<Destination>,
        methods: Option<Vec<Method>>,
        capacity: usize,
        limits: Limits,
    ) -> SyncLog {
        // The filter stands here and not before the channel: what is known is more than what is printed.
        let print_record = move |record: &Record, buffer: &mut Vec<u8>| match &methods {
            Some(methods) if !methods.iter().any(|method| method.as_str() == record.method) => Ok(()),
            _ => line::push_json(record, buffer),
        };
        let print_misplacement = |found: &Misplacement, buffer: &mut Vec<u8>| line::push_json(found, buffer);
        SyncLog {
            records: LogChannel::new(SYNCLOG, records, capacity, limits, Arc::new(print_record)),
            misplacements: LogChannel::new(
                CLUSTERSYNCLOG,
                misplacements,
                capacity,
                limits,
                Arc::new(print_misplacement),
            ),
            database: None,
            feed: Feed::default(),
        }
    }

    /// Starts writing; what came before waits in the channels. Warns if divergences go nowhere.
    pub fn start(&self) -> io::Result<()> {
        if self.records.is_off() {
            log::warn!("Logging.Synclog names no destination: what backends miss is written nowhere");
        }
        self.records.start()?;
        self.misplacements.start()?;
        self.database.as_ref().map_or(Ok(()), |database| database.start())
    }

    /// A successor serves: it delivers the spool from now on, also what this process still puts into it.
    pub fn leave_to_successor(&self) {
        if let Some(database) = &self.database {
            database.leave_to_successor();
        }
    }

    /// Opens the files of both logs anew.
    pub fn reopen(&self) {
        self.records.reopen();
        self.misplacements.reopen();
    }

    /// The last of what was handed over, whatever the logs print.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Hands a record to the synclog's task. Returns at once while the channel has room, else waits for room:
    /// a record is never dropped. Call it after the client has its answer.
    pub async fn record(&self, record: Record) {
        self.feed.diverged(&record);
        self.records.send(record).await;
    }

    /// The same for ClusterSyncLog.
    pub async fn misplaced(&self, misplacement: Misplacement) {
        self.feed.misplaced(&misplacement);
        self.misplacements.send(misplacement).await;
    }

    /// Waits until everything is written, at most until `deadline`; what is left then goes to stderr, as does
    /// what comes later. Takes up to a second past the deadline when destinations fail. What the database has not
    /// taken by then stays in the spool.
    pub async fn flush(&self, deadline: Instant) {
        tokio::join!(self.records.flush_or_rescue(deadline), self.misplacements.flush_or_rescue(deadline));
        if let Some(database) = &self.database {
            database.finish(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests;

//! What the program tells of itself: metrics, access log, main log, and what all logs are written with.
//!
//! A log is a bounded [`channel`] with a thread that formats, and a [`backlog`] with a thread per
//! [`destination`] that writes. Files are opened by [`Logs::open`], so that errors show at the start; threads
//! are started by [`Logs::start`], because becoming a daemon forks, and threads do not survive that.
//!
//! [`tracing`] makes spans for OpenTelemetry; [`metrics`] are counted anywhere, and leave by [`export`]. What serves them over HTTP, [`endpoint`], serves the
//! technical endpoint as well.

pub mod access_log;
pub mod backlog;
pub mod channel;
pub mod destination;
pub mod endpoint;
pub mod export;
pub mod line;
pub mod main_log;
pub mod metrics;
pub mod report;
#[cfg(test)]
pub(crate) mod scripted;
mod syslog;
pub mod tracing;

use std::{io, time::Duration};

use tokio::time::Instant;

pub use self::{
    access_log::{AccessEntry, AccessLog},
    destination::OpenError,
    main_log::MainLog,
    tracing::Tracing,
};
use crate::{config::Config, synclog::SyncLog};

/// Name of the main log.
pub(crate) const MAINLOG: &str = "mainlog";
/// And of the synclog.
pub(crate) const SYNCLOG: &str = "synclog";
/// What the main log gets at shutdown even if the others have used up the time.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The four logs of the configuration.
#[derive(Debug, Clone)]
pub struct Logs {
    pub synclog: SyncLog,
    pub access: AccessLog,
    pub tracing: Tracing,
    main: MainLog,
}

impl Logs {
    /// Opens all files and installs the main log as the `log` crate's logger. Until [`Logs::start`] the main
    /// log goes to stderr, and the other logs keep in their channels what they are given.
    pub fn open(config: &Config) -> Result<Logs, OpenError> {
        let main = MainLog::open(&config.logging.mainlog)?;
        let synclog =
            SyncLog::open(&config.logging, config.sync_log_methods.clone(), &config.state_directory)?;
        if config.server.user.is_none() {
            // Else it has to be made by that user, once the process is that.
            SyncLog::prepare(&config.logging, &config.state_directory)?;
        }
        let access = AccessLog::open(&config.logging.accesslog)?;
        main.install();
        let tracing = Tracing::new(config.tracing.as_ref());
        Ok(Logs { synclog, access, tracing, main })
    }

    /// Starts writing. To be called once the process has forked for the last time.
    pub fn start(&self) -> io::Result<()> {
        self.main.start()?;
        self.tracing.start();
        self.synclog.start()?;
        self.access.start()
    }

    /// Opens all files anew, as after their rotation. What is being written goes to the old ones; a file that cannot
    /// be opened is written on, with an error. Returns at once.
    pub fn reopen(&self) {
        self.synclog.reopen();
        self.access.reopen();
        self.main.reopen();
    }

    /// Changes the main log's level from now on; `false`, with a warning, where `RUST_LOG` stands instead.
    pub fn set_main_level(&self, level: log::LevelFilter) -> bool {
        self.main.set_level(level)
    }

    /// At shutdown: waits until everything is written, at most `deadline`. What then is left of the synclog
    /// goes to stderr, what is left of the others is lost. Takes up to two seconds longer when destinations
    /// fail.
    pub async fn flush(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        tokio::join!(self.synclog.flush(until), self.access.flush(until), self.tracing.flush(deadline));
        self.main.flush(until.max(Instant::now() + LAST_WORDS)).await;
    }
}

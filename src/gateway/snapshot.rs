//! What requests are served by: a configuration and its topology, put in place at once.
//!
//! A request pins the snapshot that is in force when its head has come and keeps it to its end, so that a reload
//! never changes the rules under it. Whoever puts a new one in place sees to it that the state of its backends is
//! there before, and that of backends which are none any more until no request has the old one.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use http::header;

use crate::{config::Config, topology::Topology};

#[derive(Debug)]
pub struct Snapshot {
    pub config: Arc<Config>,
    pub topology: Arc<Topology>,
    /// Whether AdditionalResponseHeaders answers preflight requests.
    pub answers_cors: bool,
    /// Keys of the file that need another process to be in force.
    pub postponed: Vec<&'static str>,
}

impl Snapshot {
    pub fn new(config: Arc<Config>, topology: Arc<Topology>) -> Snapshot {
        let mut headers = config.additional_response_headers.iter();
        let answers_cors = headers.any(|(name, _)| *name == header::ACCESS_CONTROL_ALLOW_ORIGIN);
        Snapshot { config, topology, answers_cors, postponed: Vec::new() }
    }
}

/// The snapshot in force.
#[derive(Debug)]
pub struct Current(ArcSwap<Snapshot>);

impl Current {
    pub fn new(snapshot: Snapshot) -> Current {
        Current(ArcSwap::from_pointee(snapshot))
    }

    /// For more than a moment.
    pub fn pin(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// For a moment: not across a wait.
    pub fn look(&self) -> Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// Puts a snapshot in place and gives the one that was.
    pub fn replace(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.0.swap(Arc::new(snapshot))
    }
}

//! What happens to a connection in the accept loop itself, before there is a task for it: it is counted, or closed
//! because there are too many.
//!
//! Each connection is an open file. If clients could use up all that the process may have, no backend could be
//! connected to: every write would fail, or be recorded as missing somewhere.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use pingora_core::listeners::ConnectionFilter;

use crate::{
    gateway::{drain::Activity, snapshot::Current},
    telemetry::{metrics::METRICS, report::Report},
};

/// Client connections that are open, and how many may be.
#[derive(Debug)]
pub struct Room {
    open: AtomicUsize,
    current: Arc<Current>,
    /// Half of the files that the process may have open.
    half: usize,
    full: Report,
}

impl Room {
    /// `files` are those that the process may have open; `None` = there is no limit.
    pub fn new(current: Arc<Current>, files: Option<u64>) -> Arc<Room> {
        let half = files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX));
        let room = Room { open: AtomicUsize::new(0), current, half, full: Report::new("connections") };
        room.tell_limit();
        Arc::new(room)
    }

    /// `MaxClientConnections`, where 0 leaves half of the files to others.
    fn most(&self) -> usize {
        match self.current.look().config.max_client_connections {
            0 => self.half,
            most => most,
        }
    }

    /// Tells how many there may be.
    pub fn tell_limit(&self) {
        let most = Some(self.most()).filter(|most| *most != usize::MAX);
        METRICS.limit_if("MaxClientConnections", most.map(|most| most as u64));
    }

    /// Whether there is a place for one more beside those on their way to theirs; if not, it is to be closed.
    fn is_left(&self, on_their_way: usize) -> bool {
        let (most, full) = (self.most(), &self.full);
        let left = self.open.load(Relaxed) + on_their_way < most;
        if !left {
            METRICS.client_connections_refused.inc();
            full.at(log::Level::Warn, format_args!("clients have {most} connections: more are closed"));
        }
        left
    }

    /// A connection takes its place. `let_in` = the accept loop has found that there is one.
    pub(super) fn enter(self: &Arc<Self>, let_in: bool) -> Option<Open> {
        if !let_in && !self.is_left(0) {
            return None;
        }
        self.open.fetch_add(1, Relaxed);
        METRICS.client_connections.inc();
        Some(Open(self.clone()))
    }
}

/// An open connection, until it is dropped.
pub(super) struct Open(Arc<Room>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        METRICS.client_connections.dec();
    }
}

/// The accept loop's part.
#[derive(Debug)]
pub struct AcceptFilter {
    pub activity: Arc<Activity>,
    pub room: Arc<Room>,
}

#[async_trait]
impl ConnectionFilter for AcceptFilter {
    async fn should_accept(&self, _: Option<&std::net::SocketAddr>) -> bool {
        let left = self.room.is_left(self.activity.not_taken_over());
        if left {
            self.activity.accepted();
        }
        left
    }
}

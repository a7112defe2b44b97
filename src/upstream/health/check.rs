//! One health check, on the road that all requests take, and the rest of what a monitor must know of the world.
//!
//! A check has a connection of its own, never a pooled one: it finds out whether the backend still accepts, and a
//! backend whose connections are all in use, be it that it hangs, is asked all the same. The connection is counted by
//! no limit and closed afterwards.

use std::sync::{Arc, atomic::AtomicBool};

use async_trait::async_trait;
use pingora_http::RequestHeader;
use tokio::time::timeout;

use super::{
    super::{Upstream, exchange::Connection, failure::Failure, peer::Peer},
    monitor::{Checked, Surroundings},
};
use crate::{
    config::{CheckKind, HealthCheck},
    upstream::{Cause, Framing, Head, Phase, Sent},
};

/// How much of an answer is read, so that the backend sees its end.
const ANSWER_MOST: usize = 64 * 1024;

/// A backend among the others.
pub struct Watched {
    pub upstream: Arc<Upstream>,
    pub peer: Arc<Peer>,
}

#[async_trait]
impl Surroundings for Watched {
    async fn check(&self, check: &HealthCheck) -> Checked {
        if !self.upstream.is_reachable(&self.peer) {
            return Checked::Skipped;
        }
        match timeout(check.timeout, self.ask(check)).await {
            Ok(Ok(())) => Checked::Good,
            Ok(Err(why)) => Checked::Failed(why),
            Err(_) => Checked::Failed(format!("it took longer than {:?}", check.timeout)),
        }
    }

    fn eject(&self, most: f64, take_out: &mut (dyn FnMut() + Send)) -> Result<(), String> {
        let is_out = |other: &Peer| !self.upstream.is_of_use(other);
        self.upstream.wards.eject(&self.peer.health, most, is_out, take_out)
    }

    fn is_needed(&self) -> bool {
        let is_of_use = |other: &Peer| self.upstream.is_of_use(other) && !other.health.is_kept_in();
        self.upstream.wards.needs(&self.peer.health, is_of_use)
    }
}

impl Watched {
    async fn ask(&self, check: &HealthCheck) -> Result<(), String> {
        let text = |failure: Failure| format!("{} while {}", failure.cause, failure.phase);
        let wire = self.upstream.dial(&self.peer).await.map_err(text)?;
        if check.kind != CheckKind::Http {
            return Ok(());
        }
        let head = self.head(&check.path).map_err(|cause| cause.to_string())?;
        let lease = self.peer.lease_for_check();
        let mut connection = Connection::new(Box::new(wire), lease, self.upstream.limits.load_full(), &head);
        let detached = AtomicBool::new(false);
        let answer = match connection.send().await.map_err(text)? {
            Sent::All => connection.answer(Phase::Await, &detached).await,
            Sent::Answering => connection.early_answer(&detached).await,
        };
        let answer = answer.map_err(text)?;
        let status = answer.head.status;
        if status.is_server_error() {
            return Err(format!("answered {status}"));
        }
        // The head is what was asked for; how the rest of it ends says nothing more.
        drop(answer.body.collect(ANSWER_MOST).await);
        Ok(())
    }

    fn head(&self, path: &str) -> Result<Head, Cause> {
        let unsendable = |error: Box<pingora_error::Error>| Cause::Unsendable(error.to_string());
        let authority = self.peer.backend.url.trim_start_matches("http://");
        let mut header = RequestHeader::build("GET", path.as_bytes(), Some(3)).map_err(unsendable)?;
        let agent = concat!("akubra/", env!("CARGO_PKG_VERSION"), " (health check)");
        for (name, value) in [("Host", authority), ("User-Agent", agent), ("Connection", "close")] {
            header.insert_header(name, value).map_err(unsendable)?;
        }
        Head::new(&header, Framing::Length(0))
    }
}

//! Lets a client that still sends hear the answer that it already has.
//!
//! Closing at once would reset the connection, and the reset takes the answer with it (RFC 9112, 9.6). So our side is
//! shut down, and what comes is read and discarded for a while. The gateway does so too, also where no session was begun.

use std::{future::Future, time::Duration};

use pingora_core::protocols::http::ServerSession;
use pingora_timeout::timeout;

use crate::telemetry::metrics::Linger;

/// How much of a client's rest is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For our side to be shut down.
    pub half_close: Duration,
    pub longest: Duration,
    pub most_bytes: usize,
}

/// A connection on which everything was answered that will be.
pub trait Answered {
    /// Shuts our side down.
    fn shut_down(&mut self) -> impl Future<Output = ()> + Send;

    /// Discards what comes next: how many bytes; `None` = nothing more comes.
    fn discard(&mut self) -> impl Future<Output = Option<usize>> + Send;
}

impl Answered for ServerSession {
    async fn shut_down(&mut self) {
        self.shutdown().await;
    }

    async fn discard(&mut self) -> Option<usize> {
        Some(self.read_request_body().await.ok()??.len())
    }
}

/// Discards what the client still sends, and says how that ended; its connection is to be closed behind this.
pub async fn linger(client: &mut impl Answered, patience: Patience) -> Linger {
    if timeout(patience.half_close, client.shut_down()).await.is_err() {
        return Linger::Time;
    }
    let discard = async {
        let mut left = patience.most_bytes;
        while let Some(count) = client.discard().await {
            left = left.saturating_sub(count);
            if left == 0 {
                return Linger::Bytes;
            }
        }
        Linger::Ended
    };
    let end = tokio::time::timeout(patience.longest, discard).await.unwrap_or(Linger::Time);
    if end != Linger::Ended {
        log::debug!("a client that was answered still sent ({end:?} of {patience:?})");
    }
    end
}

//! A backend's answer as it comes in: the receiving half of an exchange.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{Version, header};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;

use super::{
    exchange::Limits,
    failure::{Cause, Failure, Phase, cause_of},
    peer::Lease,
    wire::{READ_AHEAD, Wire},
};

/// Bodies up to this size are joined, as far as they are here: a copy costs less than another write to the client.
const JOINED_MOST: usize = 128 * 1024;

/// A backend's final answer.
pub struct Answer {
    pub head: Box<ResponseHeader>,
    pub body: Incoming,
}

/// The body of an answer as it comes in: the receiving half of an exchange.
pub struct Incoming {
    pub(super) session: Box<HttpSession>,
    pub(super) lease: Lease,
    pub(super) limits: Arc<Limits>,
    pub(super) started: Instant,
    /// The answer to HEAD, which has no body whatever its head says; whether the connection may go on after it.
    pub(super) bodiless: Option<bool>,
    /// Not after an early answer, or one that turned a body down: the backend may wait for the rest of it.
    pub(super) reusable: bool,
    /// See [`joined`].
    pub(super) joined: Option<usize>,
    /// How long the head was waited for.
    pub(super) wait: Duration,
    /// What is wrong behind the piece that was given last.
    pub(super) failed: Option<Failure>,
}

impl Incoming {
    /// The next piece of the body, `None` at its proper end. What came together is one piece: Pingora's session
    /// parts it where its buffer for heads ends.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        let Some(piece) = self.next().await? else { return Ok(None) };
        let joined = self.joined.filter(|length| piece.len() < *length);
        if joined.is_none() && !self.has_read_ahead() {
            return Ok(Some(piece));
        }
        let mut whole = BytesMut::with_capacity(joined.unwrap_or(READ_AHEAD));
        whole.extend_from_slice(&piece);
        while joined.is_some_and(|length| whole.len() < length) || self.has_read_ahead() {
            let next = tokio::select! {
                biased;
                next = self.next() => next.unwrap_or_else(|failure| {
                    self.failed = Some(failure);
                    None
                }),
                // Not here yet; or a part of a chunk's head was all that was left.
                () = std::future::ready(()) => None,
            };
            let Some(piece) = next else { break };
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.is_done() {
            return Ok(None);
        }
        match timeout(self.limits.stall, self.session.read_body_bytes()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(self.failure(cause_of(&error))),
            Err(_) => Err(self.failure(Cause::Deadline)),
        }
    }

    fn has_read_ahead(&self) -> bool {
        self.session.stream().as_any().downcast_ref::<Wire>().is_some_and(Wire::has_read_ahead)
    }

    /// Whether the body has been read to its end.
    pub fn is_done(&mut self) -> bool {
        self.failed.is_none() && (self.bodiless.is_some() || self.session.is_body_done())
    }

    /// Reads the body whole if it is no longer than `limit` bytes, and returns the connection to its pool.
    pub async fn collect(mut self, limit: usize) -> Body {
        let mut whole = BytesMut::new();
        loop {
            match self.chunk().await {
                Ok(None) => {
                    self.release().await;
                    return Body::Whole(whole.freeze());
                }
                Ok(Some(piece)) => whole.extend_from_slice(&piece),
                Err(failure) => return Body::Broken(whole.freeze(), failure),
            }
            if whole.len() > limit {
                self.lease.peer.metrics.long_answers.inc();
                return Body::Long(whole.freeze(), Box::new(self));
            }
        }
    }

    /// Returns the connection to its pool, if the exchange ended so that it can carry another.
    pub async fn release(mut self) {
        if !self.is_done() {
            return;
        }
        self.lease.answered(self.session.get_status(), self.wait);
        if !self.reusable {
            return;
        }
        let wire = match self.bodiless {
            None => {
                self.session.respect_keepalive();
                self.session.reuse().await
            }
            // The session does not know that the answer to HEAD has no body.
            Some(keep_alive) => {
                let exact = self.delivered() == self.session.get_headers_raw_bytes().len() as u64;
                (exact && keep_alive).then(|| self.session.into_inner())
            }
        };
        if let Some(wire) = wire.and_then(|stream| stream.into_any().downcast::<Wire>().ok()) {
            self.lease.peer.keep(wire, &self.limits.transport);
        }
    }

    /// Bytes that the session has read, informational answers included.
    fn delivered(&self) -> u64 {
        self.session.stream().as_any().downcast_ref::<Wire>().map_or(0, Wire::delivered)
    }

    fn failure(&self, cause: Cause) -> Failure {
        let failure = Failure::new(&self.lease.peer.backend, Phase::Receive, cause, self.started.elapsed());
        self.lease.failed(failure)
    }
}

/// The body of an answer, as far as [`Incoming::collect`] read it.
pub enum Body {
    Whole(Bytes),
    /// Longer than the limit: what was read, and the rest to be read.
    Long(Bytes, Box<Incoming>),
    /// The answer broke off after these bytes.
    Broken(Bytes, Failure),
}

/// Length of a body that is given in one piece if it comes in one.
pub(super) fn joined(head: &ResponseHeader) -> Option<usize> {
    let length: usize = head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(length).filter(|length| *length <= JOINED_MOST)
}

/// Whether the connection may go on after this answer.
pub(super) fn says_keep_alive(head: &ResponseHeader) -> bool {
    let close = head.headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close")))
    });
    head.version == Version::HTTP_11 && !close
}

//! One request to one backend and its answer.
//!
//! [`Connection`] is the sending half of an exchange, [`Incoming`] the receiving half. A connection goes back to
//! its pool only after a complete exchange on which both sides agreed; dropping either half closes it, so that
//! a request which was not finished is never completed by accident.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use pingora_core::protocols::{Stream, UniqueID, http::v1::client::HttpSession};
use pingora_timeout::timeout;

use super::{
    failure::{Cause, Failure, Phase, cause_of},
    head::{Framing, Head},
    incoming::{Answer, Incoming, joined, says_keep_alive},
    peer::Lease,
    probe::Probe,
    wire::{Sent, Step, Wire},
};
use crate::{
    config::{Config, Transport},
    topology::Backend,
};

/// Deadlines and limits of exchanges.
pub(super) struct Limits {
    pub transport: Transport,
    /// Longest time without any progress in sending or receiving.
    pub stall: Duration,
}

impl Limits {
    pub fn of(config: &Config) -> Limits {
        Limits { transport: config.transport.clone(), stall: config.mirror.background_timeout }
    }
}

/// A connection that is lent out for one exchange: its sending half.
pub struct Connection {
    wire: Box<Wire>,
    lease: Lease,
    limits: Arc<Limits>,
    started: Instant,
    framing: Framing,
    is_head: bool,
    /// Something has been sent.
    begun: bool,
}

impl Connection {
    pub(super) fn new(wire: Box<Wire>, lease: Lease, limits: Arc<Limits>, head: &Head) -> Self {
        let mut connection = Connection {
            wire,
            lease,
            limits,
            started: Instant::now(),
            framing: head.framing,
            is_head: head.is_head,
            begun: false,
        };
        let reused = connection.wire.is_reused();
        connection.lease.observed = head.observed(connection.backend(), connection.started, reused);
        connection.wire.push(head.wire.clone());
        connection
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.lease.peer.backend
    }

    /// Whether the connection has carried an exchange before, and so may be stale.
    pub fn is_reused(&self) -> bool {
        self.wire.is_reused()
    }

    /// For logs.
    pub fn age(&self) -> &'static str {
        if self.is_reused() { "reused" } else { "fresh" }
    }

    /// Queues a piece of the body, framed. Empty pieces are skipped: in a chunked body they would end it.
    pub fn push_body(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match self.framing {
            Framing::Length(_) => self.wire.push(piece),
            Framing::Chunked => {
                self.wire.push(Bytes::from(format!("{:x}\r\n", piece.len())));
                self.wire.push(piece);
                self.wire.push(Bytes::from_static(b"\r\n"));
            }
        }
    }

    /// Bytes that are queued and not yet with the kernel.
    pub fn queued(&self) -> usize {
        self.wire.queued()
    }

    /// Queues the end of the body.
    pub fn push_end(&mut self) {
        if self.framing == Framing::Chunked {
            self.wire.push(Bytes::from_static(b"0\r\n\r\n"));
        }
    }

    /// Sends what is queued, until it is with the kernel or the backend begins to answer. May be cancelled.
    pub async fn send(&mut self) -> Result<Sent, Failure> {
        self.begun = true;
        loop {
            match timeout(self.limits.stall, poll_fn(|cx| self.wire.poll_send(cx))).await {
                Ok(Ok(Step::Progress)) => {}
                Ok(Ok(Step::Finished(sent))) => return Ok(sent),
                Ok(Err(error)) => return Err(self.failure(Phase::Send, error.into())),
                Err(_) => return Err(self.failure(Phase::Send, Cause::Deadline)),
            }
        }
    }

    /// Waits until the backend begins its final answer, with nothing left to send for now. May be cancelled.
    pub async fn answering(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.wire.poll_answering(cx))
            .await
            .map_err(|error| self.failure(Phase::Send, error.into()))
    }

    /// Whether the backend began its final answer before the request is complete. To be asked before the bytes
    /// that complete it are sent; an answer that comes later than that is one to the whole request.
    pub async fn answers_early(&mut self) -> Result<bool, Failure> {
        /// For the reactor to hand over what the kernel has.
        const HAND_OVER: Duration = Duration::from_millis(50);
        // When nothing has been sent yet there is nothing to answer.
        if !self.begun || !self.wire.has_unread_answer() {
            return Ok(false);
        }
        match tokio::time::timeout(HAND_OVER, self.answering()).await {
            Ok(answering) => answering.map(|()| true),
            // It was an informational one.
            Err(_) => Ok(false),
        }
    }

    /// Waits until the peer's acknowledgements show that it reads this exchange, or the backend answers. The kernel
    /// tells nobody when that happens, so it is asked, ever less often.
    pub async fn acknowledged(&mut self) -> Result<Sent, Failure> {
        let deadline = Instant::now() + self.limits.stall;
        let mut pause = Duration::from_millis(1);
        while !self.wire.has_been_acknowledged() {
            if Instant::now() >= deadline {
                return Err(self.failure(Phase::Send, Cause::Deadline));
            }
            if let Ok(result) = tokio::time::timeout(pause, self.answering()).await {
                return result.map(|()| Sent::Answering);
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(Sent::All)
    }

    /// Reads the final answer's head; informational ones are passed over.
    ///
    /// `phase` is what a failure means: [`Phase::Await`] once the whole request was sent, [`Phase::Send`] for an
    /// early answer. `detached` may be set at any time: from then on nobody waits, and the shorter of
    /// `ResponseHeaderTimeout` and the stall time applies.
    pub async fn answer(self, phase: Phase, detached: &AtomicBool) -> Result<Answer, Failure> {
        let Connection { wire, lease, limits, started, framing, is_head, .. } = self;
        let has_body = framing != Framing::Length(0);
        let reused = wire.is_reused();
        let asked = Instant::now();
        let mut probe = Probe::new(UniqueID::id(&*wire));
        let mut session = HttpSession::new(wire as Stream);
        let failure = |session: &HttpSession, cause: Cause| {
            let alive = session.stream().as_any().downcast_ref::<Wire>().is_none_or(Wire::has_shown_life);
            let stale = reused && !alive && matches!(cause, Cause::Closed(_));
            let failure = Failure::new(&lease.peer.backend, phase, cause, started.elapsed());
            lease.failed(Failure { stale, ..failure })
        };
        let header = limits.transport.response_header_timeout;
        let mut look_at = asked + header.min(limits.stall);
        loop {
            let patience = look_at.saturating_duration_since(Instant::now());
            match timeout(patience, session.read_response()).await {
                Ok(Ok(_)) => match session.get_status() {
                    Some(status)
                        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
                    Some(StatusCode::SWITCHING_PROTOCOLS) => {
                        return Err(failure(&session, Cause::Invalid("an upgrade nobody asked for".into())));
                    }
                    _ => break,
                },
                Ok(Err(error)) => return Err(failure(&session, cause_of(&error))),
                Err(_) => match probe.patience(&limits, detached.load(Relaxed)) {
                    Some(more) => look_at = Instant::now() + more,
                    None => return Err(failure(&session, Cause::Deadline)),
                },
            }
        }
        let head = session.resp_header().cloned().map(Box::new);
        let head = head.ok_or_else(|| failure(&session, Cause::Invalid("no head".into())))?;
        let wait = asked.elapsed();
        lease.answered_with(head.status, (phase == Phase::Await).then_some(wait));
        // A backend that turns a body down may have left it unread: the next request would wait behind it.
        let turned_down = has_body && !head.status.is_success();
        let reusable = phase == Phase::Await && !turned_down && lease.is_for_requests();
        let bodiless = is_head.then(|| says_keep_alive(&head));
        let body = Incoming {
            session: Box::new(session),
            lease,
            limits,
            started,
            bodiless,
            reusable,
            joined: joined(&head),
            wait,
            failed: None,
        };
        Ok(Answer { head, body })
    }

    /// Reads the answer that a backend began before the request was complete. On a reused connection one that came
    /// before anything was sent is not to this request: the connection is of no use, as if it had been closed.
    pub async fn early_answer(self, detached: &AtomicBool) -> Result<Answer, Failure> {
        if self.wire.is_reused() && !self.wire.has_sent() {
            let cause = Cause::Invalid("an answer that nobody asked for".into());
            return Err(Failure { stale: true, ..self.failure(Phase::Send, cause) });
        }
        self.answer(Phase::Send, detached).await
    }

    fn failure(&self, phase: Phase, cause: Cause) -> Failure {
        let stale = self.wire.is_reused() && !self.wire.has_shown_life() && matches!(cause, Cause::Closed(_));
        let failure = Failure::new(self.backend(), phase, cause, self.started.elapsed());
        self.lease.failed(Failure { stale, ..failure })
    }
}

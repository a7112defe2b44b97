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

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version, header};
use pingora_core::protocols::{
    Stream, http::v1::client::HttpSession, http::v1::client::http_req_header_to_wire,
};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::timeout;

use super::{
    failure::{Cause, Failure, Phase, cause_of},
    observer::{Observed, Observer},
    peer::Lease,
    probe::Probe,
    wire::{READ_AHEAD, Sent, Step, Wire},
};
use crate::{
    config::{Config, Transport},
    topology::Backend,
};

/// Bodies up to this size are joined, as far as they are here: a copy costs less than another write to the client.
const JOINED_MOST: usize = 128 * 1024;

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, or one of this many bytes.
    Length(u64),
    Chunked,
}

/// A request's head in the form in which it is sent, shared by all sub-requests of one client request.
#[derive(Debug, Clone)]
pub struct Head {
    wire: Bytes,
    pub framing: Framing,
    /// HEAD: the answer has no body whatever its headers say.
    is_head: bool,
    observer: Option<Arc<dyn Observer>>,
}

impl Head {
    /// Serialises a head. `header` carries the framing headers that `framing` says.
    pub fn new(header: &RequestHeader, framing: Framing) -> Result<Head, Cause> {
        let length = header.headers.get(header::CONTENT_LENGTH).map(|value| value.as_bytes());
        let consistent = match framing {
            Framing::Length(0) => length.is_none_or(|length| length == b"0"),
            Framing::Length(expected) => {
                length.is_some_and(|length| length == expected.to_string().as_bytes())
            }
            Framing::Chunked => length.is_none(),
        };
        if !consistent {
            // The backend would take the next request for this one's body.
            return Err(Cause::Unsendable("its Content-Length is not that of its body".into()));
        }
        let wire = http_req_header_to_wire(header)
            .ok_or_else(|| Cause::Unsendable("the request target holds forbidden bytes".into()))?;
        Ok(Head {
            wire: wire.freeze(),
            framing,
            is_head: header.method == http::Method::HEAD,
            observer: None,
        })
    }

    /// The same, with somebody who is told of each exchange.
    pub fn observed_by(self, observer: Option<Arc<dyn Observer>>) -> Head {
        Head { observer, ..self }
    }

    /// Who is told of an exchange with this backend, if anybody is.
    pub(super) fn observed(&self, backend: &Backend, started: Instant, reused: bool) -> Option<Observed> {
        let observer = self.observer.as_ref()?;
        Some(Observed::new(observer, &backend.url, started, reused))
    }

    /// Whether the request is complete with its head.
    pub fn has_no_body(&self) -> bool {
        self.framing == Framing::Length(0)
    }
}

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
        let mut probe = Probe::new(pingora_core::protocols::UniqueID::id(&*wire));
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
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length: Option<usize> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let joined = length.filter(|length| *length <= JOINED_MOST);
        let body = Incoming {
            session: Box::new(session),
            lease,
            limits,
            started,
            bodiless,
            reusable,
            joined,
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

/// A backend's final answer.
pub struct Answer {
    pub head: Box<ResponseHeader>,
    pub body: Incoming,
}

/// The body of an answer as it comes in: the receiving half of an exchange.
pub struct Incoming {
    session: Box<HttpSession>,
    lease: Lease,
    limits: Arc<Limits>,
    started: Instant,
    /// The answer to HEAD, which has no body whatever its head says; whether the connection may go on after it.
    bodiless: Option<bool>,
    /// Not after an early answer, or one that turned a body down: the backend may wait for the rest of it.
    reusable: bool,
    /// Length of a body that is given in one piece if it comes in one.
    joined: Option<usize>,
    /// How long the head was waited for.
    wait: Duration,
    /// What is wrong behind the piece that was given last.
    failed: Option<Failure>,
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

fn says_keep_alive(head: &ResponseHeader) -> bool {
    let close = head.headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close")))
    });
    head.version == Version::HTTP_11 && !close
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_whose_length_is_not_its_bodys_is_not_sent() {
        let head = |length: Option<&str>, framing| {
            let mut header = RequestHeader::build("PUT", b"/b/k", None).unwrap();
            if let Some(length) = length {
                header.insert_header("Content-Length", length).unwrap();
            }
            Head::new(&header, framing).is_ok()
        };
        assert!(head(Some("5"), Framing::Length(5)));
        assert!(head(Some("0"), Framing::Length(0)) && head(None, Framing::Length(0)));
        assert!(!head(Some("36"), Framing::Length(0)));
        assert!(!head(None, Framing::Length(5)));
        assert!(!head(Some("5"), Framing::Chunked));
    }
}

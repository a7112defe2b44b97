//! The mirror: one client request becomes one sub-request per backend, fed from the same body, and one verdict.
//!
//! ```text
//!              pieces                 queue 0 ── sub-request 0 ── backend 0
//! client body ────────> tee (body) ─<                                       >── replies ── verdict ── decision
//!              pauses                 queue 1 ── sub-request 1 ── backend 1
//! ```
//!
//! [`Mirror::run`] reads the body once and hands it out as reference-counted pieces. It returns as soon as the
//! [`verdict`] says what the client gets; the [`Rest`] is then driven to its end in the background, and yields
//! the reply of every backend. The mirror knows nothing of logs: records are made of the replies by its caller.
//!
//! What holds at every moment:
//! - no backend gets the bytes that complete its request before the client's body has ended properly;
//! - memory is bounded by backends x `ReplicaBuffer` and the replay buffer;
//! - every wait has a deadline: a sub-request ends by itself when nothing moves for `BackgroundTimeout`;
//! - each sub-request ends in exactly one reply.

mod background;
mod body;
mod latch;
mod order;
mod pace;
mod reply;
mod rest;
mod subrequest;
mod subs;
pub mod verdict;

use std::{future::Future, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use pingora_http::{RequestHeader, ResponseHeader};

use self::{
    background::Background,
    body::Queue,
    pace::Pace,
    reply::{End, Progress},
    subrequest::SubRequest,
    subs::{Happened, Sub, Subs},
    verdict::{Event, Verdict},
};
pub use self::{
    body::LARGEST_PIECE,
    latch::Latch,
    order::{Lagging, MISSED_MOST, Object, Order},
    reply::{Judge, Reply},
    rest::Rest,
    verdict::{Decision, Kind, Rule},
};
use crate::{
    config::MirrorConfig,
    telemetry::metrics::Cut,
    topology::{Backend, BackendId},
    upstream::{Body, Framing, Head, Reuse, Upstream},
};

/// Bytes of the body, and pieces, that are taken at once before the sub-requests get their turn to send.
const GATHERED_MOST: u64 = 128 * 1024;
const PIECES_MOST: usize = 64;

/// The body of a client's request.
pub trait Source: Send {
    type Error: Send;

    /// The next piece, at most [`LARGEST_PIECE`] bytes, but for one that is the whole body; `None` at the proper end.
    /// May be cancelled.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;
}

/// One client request, ready to be mirrored.
pub struct Job {
    /// Its name in logs.
    pub id: Arc<str>,
    /// The head to send, hop-by-hop headers removed, framing headers as `head.framing` says.
    pub header: Arc<RequestHeader>,
    pub head: Head,
    /// Backends with the index of their cluster among the request's.
    pub targets: Vec<(usize, Arc<Backend>)>,
    pub rule: Rule,
    pub judge: Judge,
    /// The object that is written, if it is one: its writes are kept in order.
    pub object: Option<Object>,
    /// Whether a good reply means that the backend has the object's last version: not for sub-resources.
    pub whole_object: bool,
    pub reuse: Reuse,
    pub config: MirrorConfig,
}

/// What is known when the client can be answered.
pub struct Outcome {
    /// The chosen answer; `None` = unavailable.
    pub answer: Option<(Box<ResponseHeader>, Body)>,
    /// Whose it is.
    pub answered_by: Option<BackendId>,
    /// Whether the client's body has been read to its end.
    pub body_read: bool,
    pub rest: Rest,
}

/// The client's body did not end properly.
pub struct BrokenOff<E> {
    pub error: E,
    /// Of all backends, as far as they are known. None has seen the end of the request, but one may have answered before.
    pub replies: Vec<Reply>,
}

pub struct Mirror {
    upstream: Arc<Upstream>,
    order: Arc<Order>,
    background: Arc<Background>,
    /// Set when the process must end: what still runs is cut off.
    stop: Arc<Latch>,
}

impl Mirror {
    pub fn new(upstream: Arc<Upstream>, backends: &[Arc<Backend>], stop: Arc<Latch>) -> Self {
        let mirror = Mirror { upstream, order: Order::new(), background: Arc::default(), stop };
        mirror.hold(backends);
        mirror
    }

    /// Who the backends are, each named once. Not to be called by two at once.
    pub fn hold(&self, backends: &[Arc<Backend>]) {
        self.background.hold(backends);
    }

    /// Who missed which write.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Mirrors a request until its client can be answered. An error of the body aborts every sub-request.
    pub async fn run<S: Source>(&self, job: Job, body: &mut S) -> Result<Outcome, BrokenOff<S::Error>> {
        let verdict = Verdict::new(job.rule, job.targets.iter().map(|(cluster, _)| *cluster).collect());
        let pace = Pace::new(job.targets.len(), job.config.slow_backend_timeout);
        let config = job.config.clone();
        let length = match job.head.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        let subs = self.begin(job);
        let replies = subs.all.iter().map(|_| None).collect();
        let run = Run {
            mirror: self,
            config,
            subs,
            verdict,
            pace,
            replies,
            answers: Vec::new(),
            length,
            received: 0,
        };
        run.until_decided(body).await
    }

    fn begin(&self, job: Job) -> Subs {
        let config = &job.config;
        let all = job
            .targets
            .into_iter()
            .map(|(cluster, backend)| {
                let waiting = self.background.waiting_bytes(&backend);
                let (queue, feed) = Queue::new(config.replica_buffer, waiting);
                let progress = Arc::new(Progress::default());
                let object = job.object.clone();
                let earlier = object.as_ref().and_then(|object| self.order.under_way(object, backend.id));
                let sub_request = SubRequest {
                    id: job.id.clone(),
                    upstream: self.upstream.clone(),
                    order: self.order.clone(),
                    backend: backend.clone(),
                    cluster,
                    header: job.header.clone(),
                    head: job.head.clone(),
                    reuse: job.reuse,
                    judge: job.judge,
                    object,
                    whole_object: job.whole_object,
                    earlier,
                    feed,
                    progress: progress.clone(),
                    replay_buffer: config.replay_buffer,
                    patience: config.slow_backend_timeout,
                };
                let future = Box::pin(sub_request.run());
                Sub { backend, cluster, queue, progress, future: Some(future), refusal_noted: false }
            })
            .collect();
        let (order, upstream) = (self.order.clone(), self.upstream.clone());
        Subs { all, order, upstream, object: job.object, committed: None }
    }
}

/// A request that is being mirrored.
struct Run<'a> {
    mirror: &'a Mirror,
    config: MirrorConfig,
    subs: Subs,
    verdict: Verdict,
    pace: Pace,
    replies: Vec<Option<Reply>>,
    /// Answers that may yet be chosen.
    answers: Vec<(usize, (Box<ResponseHeader>, Body))>,
    /// Length of the body, if it is known beforehand.
    length: Option<u64>,
    received: u64,
}

impl Run<'_> {
    async fn until_decided<S: Source>(mut self, body: &mut S) -> Result<Outcome, BrokenOff<S::Error>> {
        let mut body_read = self.length == Some(0);
        let decision = match self.decide(body, &mut body_read).await {
            Ok(decision) => decision,
            Err(error) => return Err(BrokenOff { error, replies: self.break_off() }),
        };
        let chosen = match decision {
            Decision::Answer(sub) => Some(sub),
            Decision::Unavailable => None,
        };
        let answer = chosen.and_then(|sub| self.take_answer(sub));
        let answered_by = chosen.map(|sub| self.subs.all[sub].backend.id);
        Ok(Outcome { answer, answered_by, body_read, rest: self.into_rest() })
    }

    async fn decide<S: Source>(&mut self, body: &mut S, body_read: &mut bool) -> Result<Decision, S::Error> {
        let mut decision = if *body_read { self.commit() } else { None };
        let stop = self.mirror.stop.clone();
        let mut stopped = std::pin::pin!(stop.wait());
        // What is here already is taken before anybody connects, so that head and body leave together.
        let mut taken = true;
        loop {
            if decision.is_none() && taken && !*body_read {
                decision = self.gather(body, body_read).await?;
            }
            if let Some(decision) = decision {
                return Ok(decision);
            }
            let may_read = !*body_read && self.subs.all_have_room();
            self.pace.observe(Instant::now(), self.subs.rooms());
            let paused = !*body_read && !may_read;
            let check = self.pace.next_check().filter(|_| paused);
            taken = false;
            decision = tokio::select! {
                biased;
                () = &mut stopped => self.cut_all(),
                happened = self.subs.next(paused.then(|| self.pace.rooms())) => self.happened(happened),
                piece = body.next(), if may_read => {
                    taken = true;
                    self.take(piece?, body_read)
                }
                () = sleep(check), if check.is_some() => self.drop_overdue(),
            };
        }
    }

    /// Gives up all that is under way, when what has been answered by now is heard.
    fn break_off(mut self) -> Vec<Reply> {
        while let Some(Happened::Ended(sub, end)) = self.subs.next(None).now_or_never() {
            self.replies[sub] = Some(end.reply);
        }
        for sub in self.subs.pending() {
            self.replies[sub] = Some(self.subs.abandon(sub));
        }
        self.replies.into_iter().flatten().collect()
    }

    /// Takes what has come of the body, as far as it has and at most [`GATHERED_MOST`]: backends get it in few
    /// large writes, each of which costs more than the bytes in it.
    async fn gather<S: Source>(
        &mut self,
        body: &mut S,
        body_read: &mut bool,
    ) -> Result<Option<Decision>, S::Error> {
        let most = self.received + GATHERED_MOST;
        for _ in 0..PIECES_MOST {
            if *body_read || self.received >= most || !self.subs.all_have_room() {
                break;
            }
            let decision = tokio::select! {
                biased;
                piece = body.next() => self.take(piece?, body_read),
                () = std::future::ready(()) => break,
            };
            if decision.is_some() {
                return Ok(decision);
            }
        }
        Ok(None)
    }

    /// Hands a piece to all sub-requests; at the end of the body, opens the gate.
    fn take(&mut self, piece: Option<Bytes>, body_read: &mut bool) -> Option<Decision> {
        if let Some(piece) = piece {
            self.received += piece.len() as u64;
            let last = self.length.is_some_and(|length| self.received >= length);
            // Zero bytes would be the end of a chunked body.
            if !piece.is_empty() {
                for sub in self.subs.live() {
                    sub.queue.push(piece.clone(), last);
                }
            }
            if !last {
                return None;
            }
        }
        *body_read = true;
        self.commit()
    }

    fn commit(&mut self) -> Option<Decision> {
        self.subs.commit(&self.replies);
        self.verdict.on(Event::BodyEnded)
    }

    fn happened(&mut self, happened: Happened) -> Option<Decision> {
        match happened {
            Happened::Room => None,
            Happened::Ended(sub, end) => self.ended(sub, *end),
        }
    }

    fn ended(&mut self, sub: usize, end: End) -> Option<Decision> {
        self.replies[sub] = Some(end.reply);
        self.subs.note_refusals(&self.replies);
        self.answers.extend(end.answer.map(|answer| (sub, answer)));
        self.verdict.on(Event::Reply(sub, end.seen))
    }

    fn drop_overdue(&mut self) -> Option<Decision> {
        self.pace.observe(Instant::now(), self.subs.rooms());
        let overdue = self.pace.overdue()?;
        let end = self.subs.cut(overdue, Cut::Slow);
        self.ended(overdue, end)
    }

    fn cut_all(&mut self) -> Option<Decision> {
        let mut decision = None;
        for sub in self.subs.pending() {
            let end = self.subs.cut(sub, Cut::Stopping);
            decision = decision.or(self.ended(sub, end));
        }
        decision
    }

    fn take_answer(&mut self, sub: usize) -> Option<(Box<ResponseHeader>, Body)> {
        let at = self.answers.iter().position(|(index, _)| *index == sub)?;
        Some(self.answers.swap_remove(at).1)
    }

    fn into_rest(self) -> Rest {
        Rest {
            subs: self.subs,
            replies: self.replies,
            background: self.mirror.background.clone(),
            config: self.config,
            stop: self.mirror.stop.clone(),
        }
    }
}

async fn sleep(duration: Option<std::time::Duration>) {
    tokio::time::sleep(duration.unwrap_or_default()).await;
}

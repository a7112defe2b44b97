//! One backend's copy of a client's request, from connection to reply.
//!
//! A sub-request is a future that owns all it needs: dropping it closes its connection, and the backend has then
//! seen an unfinished request. It takes the body from its [`Feed`], watches for an early answer while it sends,
//! holds the completing bytes back until the gate is open and its turn has come, and gives an [`End`].
//!
//! **Stale pooled connections.** On a reused connection the pieces sent so far are kept (they are
//! reference-counted) up to `ReplayBuffer`, and nothing beyond is sent until the peer's kernel has acknowledged
//! bytes of this exchange. If the connection dies before any byte of an answer, everything is sent once more on a
//! fresh one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use pingora_http::RequestHeader;

use super::{
    body::{Feed, PIECE_OVERHEAD, Piece},
    order::{Earlier, Object, Order, Ticket},
    reply::{End, Judge, Progress, Reply},
    verdict::Kind,
};
use crate::{
    telemetry::metrics::Cut,
    topology::Backend,
    upstream::{Answer, Connection, Failure, Head, Phase, Reuse, Sent, Upstream},
};

/// Answers to writes are read whole up to this size before they are judged, so that their connection is free and
/// a broken one is known; longer ones are passed on as they come.
const ANSWER_MOST: usize = 64 * 1024;
/// The same where the body is part of the judgement: DeleteObjects lists up to a thousand keys of a kilobyte.
const JUDGED_MOST: usize = 4 * 1024 * 1024;
/// Bytes that are queued on a connection before they are sent.
const BATCH: usize = 128 * 1024;

pub(super) struct SubRequest {
    /// The request's, for the main log.
    pub id: Arc<str>,
    pub upstream: Arc<Upstream>,
    pub order: Arc<Order>,
    pub backend: Arc<Backend>,
    pub cluster: usize,
    pub header: Arc<RequestHeader>,
    pub head: Head,
    pub reuse: Reuse,
    pub judge: Judge,
    pub object: Option<Object>,
    /// Whether a good reply means that the backend has the object's last version.
    pub whole_object: bool,
    /// The write to the same object that this one must not overtake.
    pub earlier: Option<Earlier>,
    pub feed: Feed,
    pub progress: Arc<Progress>,
    pub replay_buffer: usize,
    /// `SlowBackendTimeout`: how long an earlier write to the same object is waited for.
    pub patience: Duration,
}

/// What has been taken from the feed and may have to be sent again.
#[derive(Default)]
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
    /// More was sent than is kept: there is no second try.
    gone: bool,
    /// The end of the body, once it is known.
    last: Option<Bytes>,
    ticket: Option<Ticket>,
    /// An attempt failed after the whole request had been sent.
    maybe_applied: bool,
}

impl SubRequest {
    pub async fn run(mut self) -> End {
        let (backend, cluster) = (self.backend.clone(), self.cluster);
        let out = match backend.maintained {
            true => Some("under maintenance".to_owned()),
            false => self.upstream.ejected(backend.id),
        };
        if let Some(why) = out {
            let error = format!("{}: {why}", backend.url);
            let end = End::without_answer(backend, cluster, Kind::NotApplied, error);
            // It comes back, and lacks this then.
            self.note(&end.reply);
            return end;
        }
        let (aborted, progress) = (self.progress.aborted.clone(), self.progress.clone());
        let mut kept = Kept::default();
        let end = tokio::select! {
            biased;
            () = async {
                aborted.wait().await;
                if progress.settled().is_some() {
                    // It took effect before it could be told to give way.
                    std::future::pending::<()>().await;
                }
            } => {
                let kind = progress.kind();
                self.upstream.cut(backend.id, Cut::Superseded, kind == Kind::Unknown);
                let error = format!("{}: gave way to a later write after {:?}", backend.url, self.patience);
                End::without_answer(backend, cluster, kind, error)
            }
            end = self.until_end(&mut kept) => end,
        };
        if self.progress.settled().is_none() {
            self.note(&end.reply);
        }
        // Only now may the next write in line begin.
        drop(kept);
        end
    }

    async fn until_end(&mut self, kept: &mut Kept) -> End {
        let (backend, cluster, judge) = (self.backend.clone(), self.cluster, self.judge);
        if let Some(earlier) = &self.earlier {
            earlier.ended(self.patience).await;
        }
        let (answer, early) = match self.exchange(kept).await {
            Ok(answered) => answered,
            Err(failure) => return End::failed(backend, cluster, &failure, kept.maybe_applied),
        };
        let Answer { head, body } = answer;
        if head.status.is_success() && early {
            self.progress.may_apply();
        }
        let body = if judge.reads_body() {
            body.collect(JUDGED_MOST).await
        } else {
            if head.status.is_success() && !early {
                // The write has taken effect: the next one need not wait for the rest of the answer.
                let reply = Reply::taken(backend.clone(), cluster, &head);
                self.progress.settle(Reply { sent_twice: kept.maybe_applied, ..reply });
                self.note_good();
                kept.ticket = None;
            }
            body.collect(ANSWER_MOST).await
        };
        let mut end = End::answered(backend, cluster, head, body, judge, early);
        end.reply.sent_twice = kept.maybe_applied;
        if kept.maybe_applied && end.reply.kind == Kind::NotApplied {
            // The first try may have been taken, whatever the second one is told.
            (end.reply.kind, end.seen.kind, end.seen.refused) = (Kind::Unknown, Kind::Unknown, false);
        }
        end
    }

    /// Remembers whether the backend has the object's last write.
    fn note(&self, reply: &Reply) {
        match (&self.object, self.progress.committed()) {
            _ if reply.kind == Kind::Good => self.note_good(),
            // Whether a refusal is a miss depends on the other backends' replies.
            // Before the body's end there is nothing to miss; see `Subs::commit`.
            (Some(object), Some(number)) if !reply.is_refusal() => {
                self.order.missed(object, self.backend.id, number)
            }
            _ => {}
        }
    }

    fn note_good(&self) {
        if let (Some(object), Some(number), true) =
            (&self.object, self.progress.committed(), self.whole_object)
        {
            self.order.took(object, self.backend.id, number);
        }
    }

    /// The exchange, with a second try where the first one met a stale connection.
    async fn exchange(&mut self, kept: &mut Kept) -> Result<(Answer, bool), Failure> {
        match self.attempt(kept, self.reuse).await {
            Err(failure) if failure.stale && !kept.gone => {
                log::debug!("request {}: {failure}; trying once more on a fresh connection", self.id);
                kept.maybe_applied |= failure.phase >= Phase::Await;
                self.upstream.count_retry(&self.backend);
                self.attempt(kept, Reuse::Fresh).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(&mut self, kept: &mut Kept, reuse: Reuse) -> Result<(Answer, bool), Failure> {
        let head = self.upstream.head(&self.backend, &self.header, &self.head)?;
        let patience = self.upstream.dial_timeout();
        let mut connection = self.upstream.connect(&self.backend, &head, reuse, patience).await?;
        log::debug!(
            "request {}: {}: sending on a {} connection",
            self.id,
            self.backend.url,
            connection.age()
        );
        for piece in &kept.pieces {
            connection.push_body(piece.clone());
        }
        if let Sent::Answering = self.send_body(&mut connection, kept).await? {
            return Ok((connection.early_answer(&self.progress.detached).await?, true));
        }
        self.complete(connection, kept).await
    }

    /// Sends the body as it comes, up to the bytes that complete it.
    async fn send_body(&mut self, connection: &mut Connection, kept: &mut Kept) -> Result<Sent, Failure> {
        while kept.last.is_none() {
            match self.feed.try_next() {
                Some(Piece::Last(bytes, ticket)) => {
                    kept.last = Some(bytes);
                    kept.ticket = ticket;
                    // What completes the request leaves together with what is still queued.
                    return Ok(Sent::All);
                }
                Some(Piece::Data(piece)) => {
                    if let Sent::Answering = self.keep(connection, kept, &piece).await? {
                        return Ok(Sent::Answering);
                    }
                    connection.push_body(piece);
                    if connection.queued() < BATCH {
                        continue;
                    }
                }
                None => {
                    tokio::select! {
                        biased;
                        () = self.feed.ready(), if connection.queued() == 0 => continue,
                        sent = connection.send() => if let Sent::Answering = sent? { return Ok(Sent::Answering) },
                    }
                    tokio::select! {
                        biased;
                        () = self.feed.ready() => continue,
                        answering = connection.answering() => return answering.map(|()| Sent::Answering),
                    }
                }
            }
            if let Sent::Answering = connection.send().await? {
                return Ok(Sent::Answering);
            }
        }
        Ok(Sent::All)
    }

    /// Keeps a piece for a second try, or makes sure that none will be needed.
    async fn keep(
        &self,
        connection: &mut Connection,
        kept: &mut Kept,
        piece: &Bytes,
    ) -> Result<Sent, Failure> {
        if kept.gone {
            return Ok(Sent::All);
        }
        if connection.is_reused() {
            // Kept in any case: if the connection turns out to be dead below, the second try needs this one too.
            kept.bytes += piece.len() + PIECE_OVERHEAD;
            kept.pieces.push(piece.clone());
            if kept.bytes <= self.replay_buffer {
                return Ok(Sent::All);
            }
            if let Sent::Answering = connection.send().await? {
                return Ok(Sent::Answering);
            }
            if let Some(metrics) = self.upstream.metrics(self.backend.id) {
                metrics.replay_waits.inc();
            }
            if let Sent::Answering = connection.acknowledged().await? {
                return Ok(Sent::Answering);
            }
        }
        *kept = Kept { gone: true, maybe_applied: kept.maybe_applied, ..Kept::default() };
        Ok(Sent::All)
    }

    /// Waits for this write's turn, sends the bytes that complete the request, and waits for the answer. The place
    /// in line stays in `kept`: a second try needs it, and it must outlive the connection.
    async fn complete(&self, mut connection: Connection, kept: &mut Kept) -> Result<(Answer, bool), Failure> {
        let detached = &self.progress.detached;
        if let Some(ticket) = &mut kept.ticket {
            ticket.turn(self.patience, self.earlier.as_ref()).await;
        }
        if connection.answers_early().await? {
            return Ok((connection.early_answer(detached).await?, true));
        }
        if let Some(last) = &kept.last {
            connection.push_body(last.clone());
        }
        connection.push_end();
        self.progress.may_apply();
        match connection.send().await? {
            Sent::All => Ok((connection.answer(Phase::Await, detached).await?, false)),
            Sent::Answering => Ok((connection.early_answer(detached).await?, true)),
        }
    }
}

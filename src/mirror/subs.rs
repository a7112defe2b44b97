//! The sub-requests of one client request, polled together.
//!
//! They are futures of the request's own task, not tasks: a piece of the body reaches all backends without a
//! wake-up between threads. When the client has its answer, what is left moves to a task of its own.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    Kind,
    body::Queue,
    order::{Commit, Object, Order},
    pace::Room,
    reply::{End, Progress, Reply},
};
use crate::{telemetry::metrics::Cut, topology::Backend, upstream::Upstream};

pub(super) struct Sub {
    pub backend: Arc<Backend>,
    pub cluster: usize,
    pub queue: Arc<Queue>,
    pub progress: Arc<Progress>,
    /// `None` once it has ended.
    pub future: Option<Pin<Box<dyn Future<Output = End> + Send>>>,
    /// That it refused what another backend took is noted, once: a later write may have made up for it since.
    pub refusal_noted: bool,
}

pub(super) struct Subs {
    pub all: Vec<Sub>,
    pub order: Arc<Order>,
    pub upstream: Arc<Upstream>,
    pub object: Option<Object>,
    /// The place of the write among those to its object, once its body has ended.
    pub committed: Option<Commit>,
}

/// What happened among the sub-requests.
pub(super) enum Happened {
    Ended(usize, Box<End>),
    /// A queue has filled up, or has room again.
    Room,
}

impl Subs {
    pub fn live(&self) -> impl Iterator<Item = &Sub> {
        self.all.iter().filter(|sub| sub.future.is_some())
    }

    pub fn all_have_room(&self) -> bool {
        self.live().all(|sub| sub.queue.has_room())
    }

    pub fn rooms(&self) -> impl Iterator<Item = Room> {
        self.all.iter().map(|sub| match &sub.future {
            None => Room::Gone,
            Some(_) if sub.queue.has_room() => Room::Free,
            Some(_) => Room::Full,
        })
    }

    /// Drives all sub-requests until one ends, or until the queues' state is no longer `known` (while nothing is
    /// read from the client, any change matters: who holds up the upload is judged by it). May be cancelled.
    pub async fn next(&mut self, known: Option<&[Room]>) -> Happened {
        poll_fn(|cx| self.poll_next(cx, known)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, known: Option<&[Room]>) -> Poll<Happened> {
        for (index, sub) in self.all.iter_mut().enumerate() {
            let Some(future) = &mut sub.future else { continue };
            if let Poll::Ready(end) = future.as_mut().poll(cx) {
                sub.future = None;
                return Poll::Ready(Happened::Ended(index, Box::new(end)));
            }
        }
        match known {
            Some(known) if !self.rooms().eq(known.iter().copied()) => Poll::Ready(Happened::Room),
            _ => Poll::Pending,
        }
    }

    /// Ends a sub-request from outside; its connection is closed.
    pub fn cut(&mut self, index: usize, reason: Cut) -> End {
        let why = match reason {
            Cut::Slow => "too slow: its queue alone held up the upload",
            Cut::Background => "too much work for it waits in the background",
            Cut::Superseded => "gave way to a later write",
            Cut::Stopping => "the gateway is stopping",
        };
        let sub = &mut self.all[index];
        let (kind, backend) = (sub.progress.kind(), sub.backend.clone());
        let end = match sub.progress.settled() {
            Some(reply) => End::cut_off(reply.clone()),
            None => {
                let error = format!("{}: {why}", backend.url);
                End::without_answer(backend.clone(), sub.cluster, kind, error)
            }
        };
        if let (Some(object), Some(number), false) =
            (&self.object, sub.progress.committed(), kind == Kind::Good)
        {
            self.order.missed(object, backend.id, number);
        }
        // Only now: its place in line goes with it.
        sub.future = None;
        self.upstream.cut(backend.id, reason, kind == Kind::Unknown);
        end
    }

    /// Ends a sub-request because its client has broken off the body: that is nobody's fault, and nothing is counted.
    pub fn abandon(&mut self, index: usize) -> Reply {
        let sub = &mut self.all[index];
        sub.future = None;
        let error = format!("{}: the client broke off the request", sub.backend.url);
        Reply::without_answer(sub.backend.clone(), sub.cluster, sub.progress.kind(), error)
    }

    /// The client's body has ended: the gate opens, and who failed before has missed the write.
    pub fn commit(&mut self, replies: &[Option<Reply>]) {
        let Some(object) = &self.object else {
            return self.live().for_each(|sub| sub.queue.commit(None));
        };
        let places = self.live().map(|sub| (sub.backend.id, sub.progress.aborted.clone()));
        let (commit, tickets) = self.order.enter(object, places.collect());
        let number = commit.number();
        for (sub, reply) in self.all.iter().zip(replies) {
            match reply {
                None => sub.progress.commit(number),
                Some(reply) if !reply.is_refusal() => self.order.missed(object, sub.backend.id, number),
                Some(_) => {}
            }
        }
        for (sub, ticket) in self.live().zip(tickets) {
            sub.queue.commit(Some(ticket));
        }
        self.committed = Some(commit);
    }

    /// Notes who missed the write although it was not theirs to refuse: those that refused while another reply is
    /// good. To be called with all replies so far, whenever one has come.
    pub fn note_refusals(&mut self, replies: &[Option<Reply>]) {
        let (Some(object), Some(commit)) = (&self.object, &self.committed) else { return };
        let good = replies.iter().flatten().any(|reply| reply.kind == Kind::Good);
        for (sub, reply) in self.all.iter_mut().zip(replies) {
            if good && !sub.refusal_noted && reply.as_ref().is_some_and(Reply::is_refusal) {
                sub.refusal_noted = true;
                self.order.missed(object, sub.backend.id, commit.number());
            }
        }
    }

    /// Indices of the sub-requests that have not ended.
    pub fn pending(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|index| self.all[*index].future.is_some()).collect()
    }
}

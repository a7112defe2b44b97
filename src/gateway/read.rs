//! Reads: choice of backend, failover within the cluster, backtracking to older clusters.
//!
//! Of a cluster's backends the less busy of two is asked first; those that missed the object's last write, or
//! have not finished it, are asked last. Answers that send the search on are read whole (they are short), so that
//! their connection is used again; the final one is streamed to the client with back-pressure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::StatusCode;
use pingora_http::ResponseHeader;

use super::{
    Gateway,
    search::{Finding, Search},
};
use crate::{
    config::ReadPolicy,
    journal::Known,
    s3::Target,
    telemetry::metrics::{METRICS, ReplyOutcome},
    topology::{Backend, BackendId, Cluster},
    upstream::{Answer, Body, Failure, Head, Phase},
};

/// Error answers are kept up to this size, to be passed on if nothing better is found.
const KEPT_MOST: usize = 64 * 1024;

/// A read, ready to be sent.
pub struct Read<'a> {
    pub gateway: &'a Gateway,
    pub target: &'a Target,
    pub header: &'a pingora_http::RequestHeader,
    pub head: &'a Head,
    /// The request's, for the main log.
    pub id: &'a str,
    pub policy: ReadPolicy,
}

/// How a read ended.
pub struct Found {
    /// What to answer; `None` = no backend answered.
    pub answer: Option<(Box<ResponseHeader>, Body)>,
    /// Index among the clusters asked, and backend, of a final answer.
    pub by: Option<(usize, Arc<Backend>)>,
    pub good: bool,
    /// Backends of the first cluster that said 404.
    pub absent_at_home: Vec<Arc<Backend>>,
    /// What the journal said of the object there.
    pub known_at_home: Option<Known>,
    pub asked: usize,
    /// The last failure, for the access log.
    pub error: String,
}

impl Read<'_> {
    /// Asks the clusters one after another, home first.
    pub async fn run(&self, clusters: &[Arc<Cluster>]) -> Found {
        let mut state = State::default();
        for (index, cluster) in clusters.iter().enumerate() {
            state.search.enter_cluster();
            state.absent_here = false;
            let known = self.look_up(cluster, &mut state).await;
            if index == 0 {
                state.known_at_home = known;
            }
            let backends = self.in_order(cluster, &state.lagging);
            if backends.is_empty() {
                state.failed(format!("cluster {}: no backend can be asked", cluster.name));
            } else if index > 0 {
                METRICS.backtracks.inc();
            }
            let ended = match self.policy {
                ReadPolicy::One => self.one_by_one(index, &backends, &mut state).await,
                ReadPolicy::Race => self.all_at_once(index, &backends, &mut state).await,
            };
            if let Some(answer) = ended {
                return state.found(index, answer);
            }
        }
        state.not_found()
    }

    /// The backends of a cluster in the order in which to ask them: power of two choices by exchanges in flight.
    fn in_order(&self, cluster: &Cluster, lagging: &[BackendId]) -> Vec<Arc<Backend>> {
        let upstream = &self.gateway.upstream;
        let usable = cluster.backends.iter().filter(|backend| upstream.is_usable(backend));
        let mut backends: Vec<_> = usable.cloned().collect();
        if backends.len() > 1 {
            let one = rand::random::<usize>() % backends.len();
            let other = (one + 1 + rand::random::<usize>() % (backends.len() - 1)) % backends.len();
            let busy = |at: usize| upstream.in_flight(backends[at].id);
            let first = if busy(other) < busy(one) { other } else { one };
            backends.swap(0, first);
        }
        backends.sort_by_key(|backend| lagging.contains(&backend.id));
        backends
    }

    async fn one_by_one(
        &self,
        cluster: usize,
        backends: &[Arc<Backend>],
        state: &mut State,
    ) -> Option<Answer> {
        for (at, backend) in backends.iter().enumerate() {
            if state.is_answered_by_up_to_date(backend) {
                break;
            }
            // At its connection limit a backend is passed over while there is another that can stand in for it.
            let patience = match backends.get(at + 1).is_some_and(|next| state.can_stand_in(next, backend)) {
                true => Duration::ZERO,
                false => self.gateway.upstream.dial_timeout(),
            };
            if patience.is_zero() && self.gateway.upstream.is_full(backend) {
                state.failed(format!("{}: all its connections are in use", backend.url));
                continue;
            }
            let outcome = self.ask(backend, patience).await;
            if let Some(answer) = state.take(self, cluster, backend, outcome).await {
                return Some(answer);
            }
        }
        None
    }

    async fn all_at_once(
        &self,
        cluster: usize,
        backends: &[Arc<Backend>],
        state: &mut State,
    ) -> Option<Answer> {
        let patience = self.gateway.upstream.dial_timeout();
        let mut asked: FuturesUnordered<_> = backends
            .iter()
            .map(|backend| async move { (backend, self.ask(backend, patience).await) })
            .collect();
        // A slow backend must not win with an old version because it missed the last write.
        let mut late = Vec::new();
        while let Some((backend, outcome)) = asked.next().await {
            if state.is_answered_by_up_to_date(backend) {
                continue;
            }
            if state.lagging.contains(&backend.id) && !asked.is_empty() {
                late.push((backend, outcome));
                continue;
            }
            if let Some(answer) = state.take(self, cluster, backend, outcome).await {
                return Some(answer);
            }
        }
        for (backend, outcome) in late {
            if state.is_answered_by_up_to_date(backend) {
                break;
            }
            if let Some(answer) = state.take(self, cluster, backend, outcome).await {
                return Some(answer);
            }
        }
        None
    }

    /// Finds out which backends of a cluster missed the object's last write, and what the journal says of it there: each
    /// cluster has records of its own, above all of DELETEs. Where none has the last write they are all alike.
    async fn look_up(&self, cluster: &Cluster, state: &mut State) -> Option<Known> {
        let (lagging, word) = self.gateway.lagging(self.target, cluster).await;
        let ids = cluster.backends.iter().map(|backend| backend.id);
        let here: Vec<_> = ids.filter(|id| lagging.contains(id)).collect();
        state.lagging = if here.len() == cluster.backends.len() { Vec::new() } else { here };
        word.known()
    }

    async fn ask(&self, backend: &Backend, patience: Duration) -> Result<Answer, Failure> {
        let upstream = &self.gateway.upstream;
        let head = upstream.head(backend, self.header, self.head)?;
        let outcome = upstream.ask(backend, &head, patience).await;
        let reply = match &outcome {
            Ok(answer) if is_good(answer.head.status) => ReplyOutcome::Good,
            Err(failure) if failure.phase >= Phase::Await => ReplyOutcome::Unknown,
            _ => ReplyOutcome::NotApplied,
        };
        let status = outcome.as_ref().ok().map(|answer| answer.head.status);
        upstream.count_reply(backend.id, &self.header.method, status, reply);
        outcome
    }
}

/// For reads 3xx is good, too: "not modified" is what was asked for.
fn is_good(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// What a search has come to.
#[derive(Default)]
struct State {
    search: Search,
    asked: usize,
    /// The most telling failure's answer, and the first "not found".
    telling: Option<(Box<ResponseHeader>, Body)>,
    absent: Option<(Box<ResponseHeader>, Body)>,
    absent_at_home: Vec<Arc<Backend>>,
    known_at_home: Option<Known>,
    /// A backend of the current cluster that has all writes said 404.
    absent_here: bool,
    /// Backends of the current cluster that missed the object's last write.
    lagging: Vec<BackendId>,
    by: Option<Arc<Backend>>,
    error: String,
}

impl State {
    fn failed(&mut self, error: String) {
        if self.search.note(Finding::Broken) {
            self.telling = None;
        }
        self.error = error;
    }

    /// Takes a backend's outcome; returns the answer if it ends the search.
    async fn take(
        &mut self,
        read: &Read<'_>,
        cluster: usize,
        backend: &Arc<Backend>,
        outcome: Result<Answer, Failure>,
    ) -> Option<Answer> {
        self.asked += 1;
        let answer = match outcome {
            Ok(answer) => answer,
            Err(failure) => {
                log::info!("request {}: read: {failure}", read.id);
                self.failed(failure.to_string());
                return None;
            }
        };
        let finding = Finding::of(answer.head.status);
        if finding == Finding::Final {
            self.by = Some(backend.clone());
            return Some(answer);
        }
        self.error = format!("{}: answered {}", backend.url, answer.head.status);
        if finding == Finding::Absent && self.lagging.contains(&backend.id) {
            // It missed the last write, which may have made the object: it does not know.
            self.failed(format!("{}: answered 404, but missed the object's last write", backend.url));
            return None;
        }
        if finding == Finding::Absent && cluster == 0 {
            self.absent_at_home.push(backend.clone());
        }
        self.absent_here |= finding == Finding::Absent;
        let telling = self.search.note(finding);
        let kept = keep(answer, read.gateway.upstream.response_header_timeout()).await;
        match finding {
            Finding::Absent if self.absent.is_none() => self.absent = Some(kept),
            Finding::Absent => {}
            _ if telling => self.telling = Some(kept),
            _ => {}
        }
        None
    }

    /// Whether a backend that has all writes says that the object is gone: one that missed the last write, which
    /// may have been a DELETE, has nothing to add.
    fn is_answered_by_up_to_date(&self, next: &Backend) -> bool {
        self.absent_here && self.lagging.contains(&next.id)
    }

    /// Whether the next backend has what this one has: not if it alone missed the object's last write.
    fn can_stand_in(&self, next: &Backend, backend: &Backend) -> bool {
        !self.lagging.contains(&next.id) || self.lagging.contains(&backend.id)
    }

    fn found(self, cluster: usize, answer: Answer) -> Found {
        let good = is_good(answer.head.status);
        Found {
            answer: Some((answer.head, Body::Long(Bytes::new(), Box::new(answer.body)))),
            by: self.by.map(|backend| (cluster, backend)),
            good,
            absent_at_home: self.absent_at_home,
            known_at_home: self.known_at_home,
            asked: self.asked,
            error: String::new(),
        }
    }

    fn not_found(self) -> Found {
        let absent = self.search.is_absent();
        // "Not found" by some clusters while others were not heard is no answer.
        let answer = if absent { self.absent } else { self.telling };
        Found {
            answer,
            by: None,
            good: false,
            absent_at_home: Vec::new(),
            known_at_home: self.known_at_home,
            asked: self.asked,
            error: self.error,
        }
    }
}

/// Reads an error answer whole, so that it can be passed on later and its connection used again. Its status is
/// what matters: a body that is long or slow is not worth waiting for.
async fn keep(answer: Answer, patience: Duration) -> (Box<ResponseHeader>, Body) {
    let Answer { mut head, body } = answer;
    match tokio::time::timeout(patience, body.collect(KEPT_MOST)).await {
        Ok(Body::Whole(bytes)) => (head, Body::Whole(bytes)),
        _ => {
            head.remove_header(&http::header::CONTENT_LENGTH);
            (head, Body::Whole(Bytes::new()))
        }
    }
}

//! The one road to backends: every byte that goes to a backend goes through an exchange of this module.
//!
//! Built on Pingora's transport connector and HTTP/1 client session, with a pool per backend of ours: reads,
//! mirror and all that is to come share its connections, its limits and its counts. An exchange knows in which
//! [`Phase`] it failed, since that decides what the backend may have done.
//!
//! ```text
//! Upstream::connect -> Connection: push_body, send ... push_end, send -> answer -> Incoming: chunk ... release
//! ```

mod exchange;
mod failure;
mod head;
mod health;
mod incoming;
mod observer;
mod peer;
mod probe;
pub mod resolve;
mod wire;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use pingora_core::{connectors::TransportConnector, upstreams::peer::BasicPeer};
use pingora_error::{ErrorType, OrErr};

pub use self::{
    exchange::Connection,
    failure::{Cause, Failure, Phase},
    head::{Framing, Head},
    health::{HealthPolicy, State, Status},
    incoming::{Answer, Body, Incoming},
    observer::{Exchange, Observer},
    peer::Peer,
    wire::Sent,
};
use self::{
    exchange::Limits,
    health::{SharedPolicy, Wards},
    wire::Wire,
};
use crate::{
    config::Config,
    telemetry::metrics::{BackendMetrics, ReplyOutcome},
    topology::{Backend, BackendId, ByBackend, Topology},
};
use resolve::Resolver;

/// Whether a connection that has been used before will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Allowed,
    /// For requests that must not be sent twice.
    Fresh,
}

/// Changes a request's head for one backend before it is sent: the place for signatures.
pub trait Signer: Send + Sync {
    fn sign(&self, backend: &Backend, header: &mut pingora_http::RequestHeader) -> Result<(), Cause>;
}

/// The road to all backends. What it knows of them outlives reloads.
pub struct Upstream {
    peers: ByBackend<Peer>,
    wards: Wards,
    policy: SharedPolicy,
    idle_in_all: Arc<AtomicUsize>,
    connector: TransportConnector,
    limits: ArcSwap<Limits>,
    resolver: Arc<Resolver>,
    signer: Option<Arc<dyn Signer>>,
}

impl Upstream {
    pub fn new(config: &Config, topology: &Topology, resolver: Arc<Resolver>) -> Self {
        let upstream = Upstream {
            peers: ByBackend::default(),
            wards: Wards::new(),
            policy: SharedPolicy::new(ArcSwap::from_pointee(HealthPolicy::of(config))),
            idle_in_all: Arc::default(),
            connector: TransportConnector::new(None),
            limits: ArcSwap::from_pointee(Limits::of(config)),
            resolver,
            signer: None,
        };
        upstream.apply(config, topology, &topology.backends);
        upstream
    }

    /// Takes over what a configuration says of limits, health and clusters. `backends` are those of its topology and
    /// those that a request may still name, each once; exchanges that are under way go on. Not to be called by two at
    /// once. New backends are watched by the next [`Upstream::run_health`].
    pub fn apply(&self, config: &Config, topology: &Topology, backends: &[Arc<Backend>]) {
        let limits = Arc::new(Limits::of(config));
        let most = limits.transport.max_conns_per_backend;
        self.limits.store(limits);
        self.set_health_policy(HealthPolicy::of(config));
        let (idle, policy) = (&self.idle_in_all, &self.policy);
        let peer = |backend: &Arc<Backend>| Peer::new(backend.clone(), most, idle.clone(), policy.clone());
        let change = self.peers.hold(backends, peer);
        for peer in change.dropped {
            self.unwatch(&peer);
            peer.retire();
        }
        for peer in self.peers.all() {
            peer.set_limit(most);
        }
        for backend in backends {
            self.peers.with(backend.id, |peer| peer.set_maintained(backend.maintained)).unwrap_or_default();
        }
        self.wards.set(topology, |id| self.peers.get(id));
    }

    /// The same road with a signer for every request.
    pub fn signing(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Exchanges under way with a backend.
    pub fn in_flight(&self, backend: BackendId) -> usize {
        self.peers.with(backend, |peer| peer.in_flight()).unwrap_or(0)
    }

    /// Whether all connections that a backend may have are in use.
    pub fn is_full(&self, backend: &Backend) -> bool {
        self.peers.with(backend.id, |peer| peer.is_full()).unwrap_or(false)
    }

    /// Whether requests may be sent to a backend: it can be reached, and is healthy as far as is known.
    pub fn is_usable(&self, backend: &Backend) -> bool {
        self.peers.with(backend.id, |peer| peer.health.is_in()).unwrap_or(false)
            && !backend.maintained
            && self.has_address(backend)
    }

    /// Whether a backend's name has an address.
    pub fn has_address(&self, backend: &Backend) -> bool {
        self.resolver.knows(backend.id)
    }

    /// The same by what is known now, whatever snapshot a request has.
    fn is_of_use(&self, peer: &Peer) -> bool {
        peer.health.is_in() && self.is_reachable(peer)
    }

    /// Whether a backend may be asked at all: it has an address and is not under maintenance.
    fn is_reachable(&self, peer: &Peer) -> bool {
        !peer.is_maintained() && self.has_address(&peer.backend)
    }

    /// The longest wait for a connection: `DialTimeout`.
    pub fn dial_timeout(&self) -> Duration {
        self.limits.load().transport.dial_timeout
    }

    /// `ResponseHeaderTimeout`
    pub fn response_header_timeout(&self) -> Duration {
        self.limits.load().transport.response_header_timeout
    }

    /// A request's heads: one serialised form for all backends, or one for each where a signer changes it.
    pub fn head(
        &self,
        backend: &Backend,
        header: &pingora_http::RequestHeader,
        shared: &Head,
    ) -> Result<Head, Failure> {
        let Some(signer) = &self.signer else { return Ok(shared.clone()) };
        let mut own = header.clone();
        signer
            .sign(backend, &mut own)
            .and_then(|()| Head::new(&own, shared.framing))
            .map_err(|cause| Failure::new(backend, Phase::Send, cause, Duration::ZERO))
    }

    /// What is counted of a backend.
    pub fn metrics(&self, backend: BackendId) -> Option<Arc<BackendMetrics>> {
        self.peers.with(backend, |peer| peer.metrics.clone())
    }

    /// Counts a backend's reply; `status` is that of its answer, if there was one.
    pub fn count_reply(
        &self,
        backend: BackendId,
        method: &Method,
        status: Option<StatusCode>,
        outcome: ReplyOutcome,
    ) {
        self.peers.with(backend, |peer| peer.replies.count(method, status, outcome)).unwrap_or_default();
    }

    /// Counts that a backend does not agree with its cluster.
    pub fn count_divergence(&self, backend: BackendId, method: &Method) {
        self.peers.with(backend, |peer| peer.replies.diverged(method)).unwrap_or_default();
    }

    /// Obtains a connection, waiting at most `patience` for a free slot, and queues the head on it.
    pub async fn connect(
        &self,
        backend: &Backend,
        head: &Head,
        reuse: Reuse,
        patience: Duration,
    ) -> Result<Connection, Failure> {
        let Some(peer) = self.peers.get(backend.id) else {
            return Err(Failure::new(backend, Phase::Resolve, Cause::Unresolved, Duration::ZERO));
        };
        let begun = Instant::now();
        let connected = self.connect_to(&peer, head, reuse, patience).await;
        connected.map_err(|failure| {
            head.observed(backend, begun, false).iter().for_each(|observed| observed.failed(&failure));
            if failure.phase == Phase::Limit && !patience.is_zero() {
                self.too_many_connections(&peer, patience);
            }
            peer.failed(failure, begun)
        })
    }

    async fn connect_to(
        &self,
        peer: &Arc<Peer>,
        head: &Head,
        reuse: Reuse,
        patience: Duration,
    ) -> Result<Connection, Failure> {
        let lease = peer.lease(patience).await?;
        if !peer.health.is_in() {
            // While this one waited.
            return Err(Failure::new(&peer.backend, Phase::Dial, Cause::Ejected, Duration::ZERO));
        }
        let limits = self.limits.load_full();
        let idle = match reuse {
            Reuse::Allowed => peer.take_idle(&limits.transport),
            Reuse::Fresh => {
                peer.close_one_idle();
                None
            }
        };
        let wire = match idle {
            Some(wire) => wire,
            None => Box::new(self.dial(peer).await?),
        };
        Ok(Connection::new(wire, lease, limits, head))
    }

    /// Connects to the first of the backend's addresses that accepts, beginning with the one that worked last;
    /// all together have `DialTimeout`, shared out so that none can use it up.
    async fn dial(&self, peer: &Peer) -> Result<Wire, Failure> {
        let started = Instant::now();
        let failure = |phase, cause| Failure::new(&peer.backend, phase, cause, started.elapsed());
        let addresses = self.resolver.addrs(peer.backend.id);
        let mut last = failure(Phase::Resolve, Cause::Unresolved);
        let first = peer.address.load(Relaxed);
        for tried in 0..addresses.len() {
            let at = (first + tried) % addresses.len();
            let left = self.dial_timeout().saturating_sub(started.elapsed());
            let share = left / (addresses.len() - tried) as u32;
            match tokio::time::timeout(share, self.connector.new_stream(&peer_at(addresses[at]))).await {
                Ok(Ok(stream)) => {
                    peer.address.store(at, Relaxed);
                    peer.metrics.connections_opened.inc();
                    return Ok(Wire::new(stream, peer.metrics.clone()));
                }
                Ok(Err(error)) => last = failure(Phase::Dial, failure::cause_of(&error)),
                Err(_) => last = failure(Phase::Dial, Cause::Deadline),
            }
        }
        Err(last)
    }

    /// A request without body, from connection to the answer's head; sent once more on a fresh connection if a
    /// pooled one turns out to be dead.
    pub async fn ask(&self, backend: &Backend, head: &Head, patience: Duration) -> Result<Answer, Failure> {
        match self.ask_once(backend, head, Reuse::Allowed, patience).await {
            Err(failure) if failure.stale => {
                self.count_retry(backend);
                self.ask_once(backend, head, Reuse::Fresh, patience).await
            }
            outcome => outcome,
        }
    }

    /// A request is sent once more because the pooled connection was dead.
    pub fn count_retry(&self, backend: &Backend) {
        if let Some(metrics) = self.metrics(backend.id) {
            metrics.retries.inc();
        }
    }

    async fn ask_once(
        &self,
        backend: &Backend,
        head: &Head,
        reuse: Reuse,
        patience: Duration,
    ) -> Result<Answer, Failure> {
        let mut connection = self.connect(backend, head, reuse, patience).await?;
        let detached = AtomicBool::new(false);
        match connection.send().await? {
            Sent::All => connection.answer(Phase::Await, &detached).await,
            Sent::Answering => connection.early_answer(&detached).await,
        }
    }

    /// Closes idle connections that have aged out or died, for ever.
    pub async fn run_sweeper(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            let limits = self.limits.load_full();
            for peer in self.peers.all() {
                peer.sweep(&limits.transport);
            }
        }
    }
}

/// A peer whose connections are reset when they are closed. Whatever is closed is either complete, and then there
/// is nothing to lose, or given up: then the bytes that still wait in our socket must not reach the backend, which
/// could otherwise complete a write after a later one.
fn peer_at(address: SocketAddr) -> BasicPeer {
    let mut peer = BasicPeer::new("127.0.0.1:0");
    peer._address = pingora_core::protocols::l4::socket::SocketAddr::Inet(address);
    peer.options.upstream_tcp_sock_tweak_hook = Some(Arc::new(|socket: &tokio::net::TcpSocket| {
        socket.set_zero_linger().or_err(ErrorType::SocketError, "cannot set SO_LINGER")
    }));
    peer
}

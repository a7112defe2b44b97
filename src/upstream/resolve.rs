//! The addresses of backends, resolved in the background.
//!
//! No request ever waits for DNS: it takes the addresses that are known, and a backend without any is
//! unhealthy. Names are looked up again every [`REFRESH`]; while that fails, the last good addresses stay in
//! use, because a name server that is down says nothing about the storage. Failed lookups are tried again
//! with growing pauses that chance spreads, so that many gateways do not ask at the same moment.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use rand::Rng;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    telemetry::metrics::BackendMetrics,
    topology::{Backend, BackendId, ByBackend},
};

/// Between two lookups of a name that resolves.
pub const REFRESH: Duration = Duration::from_secs(30);
/// Longest wait for one lookup.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// First and longest pause after a failed lookup.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), REFRESH);

/// How a name becomes addresses; tests bring their own.
#[async_trait]
pub trait Lookup: Send + Sync {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver (getaddrinfo).
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// The current addresses of every backend.
pub struct Resolver {
    names: ByBackend<Name>,
    lookup: Arc<dyn Lookup>,
    /// Names that have not been looked up once.
    pending: watch::Sender<usize>,
}

struct Name {
    url: String,
    host: String,
    port: u16,
    /// The host is an address: there is nothing to look up.
    literal: bool,
    addrs: RwLock<Arc<[SocketAddr]>>,
    metrics: Arc<BackendMetrics>,
    /// What keeps it resolved, once something does.
    task: OnceLock<AbortHandle>,
    first_look_taken: AtomicBool,
}

impl Resolver {
    /// Addresses in URLs resolve at once, names when [`Resolver::start`] has been called.
    pub fn new(backends: &[Arc<Backend>]) -> Resolver {
        Self::with_lookup(backends, Arc::new(SystemLookup))
    }

    pub fn with_lookup(backends: &[Arc<Backend>], lookup: Arc<dyn Lookup>) -> Resolver {
        let resolver = Resolver { names: ByBackend::default(), lookup, pending: watch::Sender::new(0) };
        resolver.hold(backends);
        resolver
    }

    /// Who the backends are, each named once. Names that are new are looked up once [`Resolver::start`] is called.
    /// Not to be called by two at once.
    pub fn hold(&self, backends: &[Arc<Backend>]) {
        let change = self.names.hold(backends, |backend| Arc::new(Name::new(backend)));
        let unresolved = change.added.iter().filter(|name| !name.literal).count();
        self.pending.send_modify(|pending| *pending += unresolved);
        for name in change.dropped {
            name.task.get().into_iter().for_each(AbortHandle::abort);
            if !name.first_look_taken.swap(true, Relaxed) && !name.literal {
                self.pending.send_modify(|pending| *pending = pending.saturating_sub(1));
            }
        }
    }

    /// The addresses to connect to, best first; none while the name has never resolved: the backend is unhealthy.
    pub fn addrs(&self, id: BackendId) -> Arc<[SocketAddr]> {
        self.names.with(id, |name| name.addrs()).unwrap_or_else(|| Arc::from([]))
    }

    /// Whether a backend has any address.
    pub fn knows(&self, id: BackendId) -> bool {
        self.names.with(id, |name| !name.addrs().is_empty()).unwrap_or(false)
    }

    /// Waits until every name has been looked up once, whatever came of it, so that a start does not refuse its
    /// first requests. Bounded by [`LOOKUP_DEADLINE`] once [`Resolver::start`] has been called.
    pub async fn looked_up_once(&self) {
        // An error means that the sender is gone, but it is ours.
        self.pending.subscribe().wait_for(|pending| *pending == 0).await.map(drop).unwrap_or_default();
    }

    /// Keeps all names resolved that have no task yet, in tasks of the runtime that this is called in.
    pub fn start(self: &Arc<Self>) {
        for name in self.names.all() {
            if name.literal || name.task.get().is_some() {
                continue;
            }
            let (resolver, kept) = (Arc::clone(self), Arc::clone(&name));
            let task = tokio::spawn(async move { resolver.keep(&kept).await });
            name.task.get_or_init(|| task.abort_handle());
        }
    }

    /// Looks one name up again and again.
    async fn keep(&self, name: &Name) {
        let mut failures = 0u32;
        loop {
            let pause = match self.look_up(name).await {
                Ok(addrs) => {
                    name.store(addrs, failures);
                    failures = 0;
                    REFRESH
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    name.metrics.lookup_failures.inc();
                    let pause = retry_pause(failures);
                    let kept = name.addrs().len();
                    log::warn!(
                        "{}: lookup of {} failed ({error}), failure {failures} in a row, {kept} known addresses \
                         stay in use, next try in {:.1} s",
                        name.url,
                        name.host,
                        pause.as_secs_f64()
                    );
                    pause
                }
            };
            if !name.first_look_taken.swap(true, Relaxed) {
                self.pending.send_modify(|pending| *pending = pending.saturating_sub(1));
            }
            sleep(pause).await;
        }
    }

    async fn look_up(&self, name: &Name) -> io::Result<Vec<SocketAddr>> {
        let addrs = timeout(LOOKUP_DEADLINE, self.lookup.lookup(&name.host, name.port))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s"))??;
        if addrs.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no addresses"));
        }
        Ok(addrs)
    }
}

impl Name {
    fn new(backend: &Backend) -> Name {
        let host = backend.host.trim_start_matches('[').trim_end_matches(']');
        let literal = host.parse::<IpAddr>().ok();
        let addrs: Vec<SocketAddr> =
            literal.map(|ip| SocketAddr::new(ip, backend.port)).into_iter().collect();
        let metrics = BackendMetrics::of(&backend.url);
        metrics.addresses.set(addrs.len() as i64);
        Name {
            metrics,
            task: OnceLock::new(),
            first_look_taken: AtomicBool::new(false),
            url: backend.url.clone(),
            host: host.to_owned(),
            port: backend.port,
            literal: literal.is_some(),
            addrs: RwLock::new(addrs.into()),
        }
    }

    fn addrs(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.addrs.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what a lookup found. The order is the resolver's preference (RFC 6724), but name servers
    /// rotate their answers: only another set of addresses is worth a line in the log.
    fn store(&self, addrs: Vec<SocketAddr>, failures: u32) {
        let old = self.addrs();
        if sorted(&old) != sorted(&addrs) {
            log::info!("{}: {} resolves to {addrs:?} (before: {old:?})", self.url, self.host);
        } else if failures > 0 {
            log::info!("{}: {} resolves again, to the same addresses", self.url, self.host);
        }
        self.metrics.addresses.set(addrs.len() as i64);
        *self.addrs.write().unwrap_or_else(PoisonError::into_inner) = addrs.into();
    }
}

fn sorted(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addrs = addrs.to_vec();
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// The pause after so many failures in a row: doubled each time up to the longest, and of that between a half
/// and all, but never less than the first.
fn retry_pause(failures: u32) -> Duration {
    let (first, longest) = RETRY;
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let full = first.saturating_mul(doubled).min(longest);
    full.mul_f64(rand::thread_rng().gen_range(0.5..=1.0)).max(first)
}

#[cfg(test)]
mod tests;

//! `akubra -c FILE`: the gateway as a process.
//!
//! Pingora's server owns listeners, threads, daemonizing and signals; the end of the process is ours, since
//! Pingora would sleep its whole grace period and then cancel what still runs. Threads and tasks start with the
//! service and not before: a daemon forks first.

use std::{net::TcpListener, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, ReusedHttpStream},
    protocols::{http::ServerSession, l4::socket::SocketAddr},
    server::{Fds, ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch},
    services::{Service, listening},
};
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    config::{Config, Exporter, Listen},
    gateway::{Gateway, drain::Activity},
    technical,
    telemetry::{
        Logs,
        endpoint::{self, Draining, Endpoint},
        export::{prometheus, tell_limits},
        metrics::METRICS,
    },
    topology::Topology,
    upstream::{Upstream, resolve::Resolver},
};

/// `grace_period_seconds` when the file says nothing; Pingora's own default.
const GRACE_PERIOD: Duration = Duration::from_secs(300);
/// For the logs to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// For backends' names to be resolved before the first request; then the gateway starts all the same.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
pub fn run(mut config: Config, daemon: bool) -> anyhow::Result<()> {
    let logs = Logs::open(&config)?;
    for warning in config.remarks() {
        log::warn!("{warning}");
    }
    probe(&config.listen)?;
    let technical = config.technical.as_ref().map(|technical| &technical.listen);
    let metrics = config.metrics.as_ref().map(|Exporter::Prometheus { listen }| listen);
    for listen in [technical, metrics].into_iter().flatten() {
        probe(listen)?;
    }
    tell_limits(&config);
    let mut server_conf = Arc::try_unwrap(std::mem::take(&mut config.server))
        .map_err(|_| anyhow::anyhow!("the server's configuration is in use"))?;
    server_conf.daemon |= daemon;
    let grace = server_conf.grace_period_seconds.map_or(GRACE_PERIOD, Duration::from_secs);

    let config = Arc::new(config);
    let topology = Arc::new(Topology::new(&config));
    let resolver = Arc::new(Resolver::new(&topology.backends));
    let upstream = Arc::new(Upstream::new(&config, &topology, resolver.clone()));
    let activity = Arc::new(Activity::default());
    let gateway = Gateway::new(config.clone(), topology, upstream.clone(), logs.clone(), activity.clone());

    let mut server = Server::new_with_opt_and_conf(None, server_conf);
    server.bootstrap();
    let app = App(Arc::new(http_proxy(&server.configuration, gateway)));
    let mut listening = listening::Service::new("gateway".to_owned(), app);
    match &config.listen {
        Listen::Tcp(address) => listening.add_tcp(&address.to_string()),
        Listen::Unix(path) => listening.add_uds(&path.to_string_lossy(), None),
    }
    let (close, closing) = watch::channel(false);
    let (hear, heard) = watch::channel(false);
    let draining: Draining = {
        let activity = activity.clone();
        Arc::new(move || activity.is_draining())
    };
    let operators = |at: &'static str, path: &'static str| Announced {
        at,
        path,
        signals_are_heard: heard.clone(),
        logs: logs.clone(),
    };
    if let Some((listening, listen)) = technical::service(&config, draining.clone()) {
        let announced = operators("technical endpoint on", "");
        server.add_service(OperatorsService { listening, listen, announced });
    }
    if let Some((listening, listen)) = prometheus::service(&config, draining) {
        let announced = operators("metrics on", prometheus::PATH);
        server.add_service(OperatorsService { listening, listen, announced });
    }
    server.add_service(GatewayService {
        listening,
        closing,
        signals_are_heard: heard,
        listen: config.listen.clone(),
        logs: logs.clone(),
        upstream,
        resolver,
    });
    let signals = Signals { activity, close, logs, grace, hear };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    Ok(())
}

/// Says at once and clearly that an address cannot be had: Pingora would find out in a task of its own.
fn probe(listen: &Listen) -> anyhow::Result<()> {
    if let Listen::Tcp(address) = listen {
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    }
    Ok(())
}

/// Pingora's proxy, but for the end: Pingora would cut open connections when the listeners close, while ours are
/// served until the process ends, and told so (503 on the health path, `Connection: close`).
struct App(Arc<HttpProxy<Gateway>>);

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // From one request to the next the connection is in here.
        let _open = OpenConnection::new();
        self.0.process_new_http(session, shutdown).await
    }
}

/// Counts a client's connection until it is dropped.
struct OpenConnection;

impl OpenConnection {
    fn new() -> Self {
        METRICS.client_connections.inc();
        OpenConnection
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        METRICS.client_connections.dec();
    }
}

/// An endpoint for operators. It answers until the process ends, also while the gateway drains: Pingora's own watch
/// is told only then.
struct OperatorsService<E> {
    listening: listening::Service<endpoint::App<E>>,
    listen: Listen,
    announced: Announced,
}

/// What is needed to announce an endpoint for operators.
struct Announced {
    at: &'static str,
    path: &'static str,
    signals_are_heard: watch::Receiver<bool>,
    logs: Logs,
}

#[async_trait]
impl<E: Endpoint> Service for OperatorsService<E> {
    async fn start_service(
        &mut self,
        _: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        let Announced { at, path, signals_are_heard, logs } = &mut self.announced;
        if let Err(error) = logs.start() {
            log::error!("the logs cannot be written: {error}");
        }
        METRICS.watch_tasks(self.listening.name(), Handle::current());
        if signals_are_heard.wait_for(|heard| *heard).await.is_err() {
            return;
        }
        // A table of its own: the gateway's may have the same address in it, if both have port 0.
        let sockets = ListenFds::new(Fds::new().into());
        let announced = announce(self.listen.clone(), Some(sockets.clone()), at, path);
        tokio::join!(self.listening.start_service(Some(sockets), shutdown, listeners_per_fd), announced);
    }

    fn name(&self) -> &str {
        self.listening.name()
    }

    fn threads(&self) -> Option<usize> {
        self.listening.threads()
    }
}

/// Pingora's listening service, with listeners that close when we say so, and the gateway's own tasks.
struct GatewayService {
    listening: listening::Service<App>,
    closing: ShutdownWatch,
    /// Until signals are heard, SIGTERM would end the process on the spot.
    signals_are_heard: watch::Receiver<bool>,
    listen: Listen,
    logs: Logs,
    upstream: Arc<Upstream>,
    resolver: Arc<Resolver>,
}

#[async_trait]
impl Service for GatewayService {
    async fn start_service(&mut self, fds: Option<ListenFds>, _: ShutdownWatch, listeners_per_fd: usize) {
        if let Err(error) = self.logs.start() {
            log::error!("the logs cannot be written: {error}");
        }
        METRICS.watch_tasks("gateway", Handle::current());
        tokio::spawn(self.resolver.clone().run());
        tokio::spawn(self.upstream.clone().run_sweeper());
        let looked_up = tokio::time::timeout(FIRST_LOOKUP, self.resolver.looked_up_once()).await;
        if looked_up.is_err() {
            log::warn!("starting although not all backends' names are resolved after {FIRST_LOOKUP:?}");
        }
        if self.signals_are_heard.wait_for(|heard| *heard).await.is_err() {
            log::error!("not listening: signals cannot be received");
            return;
        }
        let announced = announce(self.listen.clone(), fds.clone(), "listening on", "");
        let closing = self.closing.clone();
        tokio::join!(self.listening.start_service(fds, closing, listeners_per_fd), announced);
    }

    fn name(&self) -> &str {
        "gateway"
    }
}

/// Logs where something listens once it does; with port 0 only the system knows.
async fn announce(listen: Listen, fds: Option<ListenFds>, at: &str, path: &str) {
    const TRIES: usize = 1000;
    let key = match &listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => path.to_string_lossy().into_owned(),
    };
    for _ in 0..TRIES {
        let bound = fds.as_ref().and_then(|fds| fds.lock().get(&key).copied());
        if let Some(fd) = bound {
            match SocketAddr::from_raw_fd(fd, false) {
                Some(SocketAddr::Inet(address)) => log::info!("{at} http://{address}{path}"),
                _ => log::info!("{at} unix:{key}"),
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log::error!("{at} {key}: it does not open");
}

/// What the process does on signals, and how it ends.
struct Signals {
    activity: Arc<Activity>,
    /// Closes the listeners.
    close: watch::Sender<bool>,
    logs: Logs,
    grace: Duration,
    /// Tells that signals are heard from now on.
    hear: watch::Sender<bool>,
}

/// Streams of the signals that are waited for.
struct Waiting {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user: Signal,
}

impl Waiting {
    fn new() -> std::io::Result<Self> {
        Ok(Waiting {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// The grace for what still runs, once a signal asks for the end.
    async fn end(&mut self, grace: Duration) -> Duration {
        loop {
            let refused = tokio::select! {
                _ = self.terminate.recv() => return grace,
                _ = self.interrupt.recv() => return Duration::ZERO,
                _ = self.quit.recv() => "SIGQUIT: handing over to a successor",
                _ = self.hangup.recv() => "SIGHUP: reloading the configuration",
                _ = self.user.recv() => "SIGUSR1: reopening the logs",
            };
            log::error!("{refused} is not supported yet; the gateway goes on as it is");
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let mut waiting = match Waiting::new() {
            Ok(waiting) => waiting,
            Err(error) => {
                log::error!("ending: signals cannot be received: {error}");
                self.logs.flush(FLUSH).await;
                return ShutdownSignal::FastShutdown;
            }
        };
        if self.hear.send(true).is_err() {
            log::error!("the gateway did not start");
        }
        let mut grace = waiting.end(self.grace).await;
        log::info!("ending: no new connections, {} requests under way", self.activity.requests());
        self.activity.begin_draining();
        if self.close.send(true).is_err() {
            log::debug!("the listeners are closed already");
        }
        // A second signal may shorten the wait.
        let left = loop {
            tokio::select! {
                left = self.activity.drain(grace) => break left,
                shorter = waiting.end(Duration::ZERO) => grace = shorter,
            }
        };
        match left {
            0 => log::info!("ended with nothing left under way"),
            left => log::warn!("{left} requests did not end in time and were cut off"),
        }
        self.logs.flush(FLUSH).await;
        ShutdownSignal::FastShutdown
    }
}

//! `akubra -c FILE`: the gateway as a process.
//!
//! Pingora's server owns listeners, threads, daemonizing and signals; the end of the process is ours, since
//! Pingora would sleep its whole grace period and then cancel what still runs. Threads and tasks start with the
//! service and not before: a daemon forks first.

use std::{net::TcpListener, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use pingora_core::{
    listeners::ListenerConfig,
    protocols::l4::{socket::SocketAddr, stream::L4BufferSettings},
    server::{ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch},
    services::{Service, listening},
};
use pingora_proxy::http_proxy;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    config::{Config, Listen},
    gateway::{
        Gateway,
        connection::{Connections, CountAccepted},
        drain::Activity,
    },
    telemetry::Logs,
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
    for warning in super::warnings(&config) {
        log::warn!("{warning}");
    }
    probe(&config.listen)?;
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
    let proxy = http_proxy(&server.configuration, gateway);
    let connections = Connections::new(proxy, config.clone(), logs.clone(), activity.clone());
    let mut listening = listening::Service::new("gateway".to_owned(), connections);
    listening.set_connection_filter(Arc::new(CountAccepted(activity.clone())));
    let listener = match &config.listen {
        Listen::Tcp(address) => ListenerConfig::tcp(address.to_string()),
        Listen::Unix(path) => ListenerConfig::uds(path.to_string_lossy()),
    };
    // Without a read buffer: heads are read as they come, and bodies in pieces as large as it would be.
    listening.add_listener(listener.l4_buffer(L4BufferSettings::default().read(0)));
    let (close, closing) = watch::channel(false);
    let (hear, heard) = watch::channel(false);
    server.add_service(GatewayService {
        listening,
        closing,
        signals_are_heard: heard,
        listen: config.listen.clone(),
        activity: activity.clone(),
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

/// Pingora's listening service, with listeners that close when we say so, and the gateway's own tasks.
struct GatewayService {
    listening: listening::Service<Connections>,
    closing: ShutdownWatch,
    /// Until signals are heard, SIGTERM would end the process on the spot.
    signals_are_heard: watch::Receiver<bool>,
    listen: Listen,
    activity: Arc<Activity>,
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
        let announced = announce(self.listen.clone(), fds.clone());
        let closing = self.closing.clone();
        let listening = async {
            self.listening.start_service(fds, closing, listeners_per_fd).await;
            self.activity.listeners_closed();
        };
        tokio::join!(listening, announced);
    }

    fn name(&self) -> &str {
        "gateway"
    }
}

/// Logs where the gateway listens once it does; with port 0 only the system knows.
async fn announce(listen: Listen, fds: Option<ListenFds>) {
    const TRIES: usize = 1000;
    let key = match &listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => path.to_string_lossy().into_owned(),
    };
    for _ in 0..TRIES {
        let bound = fds.as_ref().and_then(|fds| fds.lock().get(&key).copied());
        if let Some(fd) = bound {
            match SocketAddr::from_raw_fd(fd, false) {
                Some(SocketAddr::Inet(address)) => log::info!("listening on http://{address}"),
                _ => log::info!("listening on unix:{key}"),
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log::error!("not listening on {key}");
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

//! `akubra -c FILE`: the gateway as a process.
//!
//! Pingora's server owns threads and daemonizing, its services accept connections; beginning and end are ours
//! ([`life`]), and so are the sockets ([`socket`], [`listener`]) and the way they go to a successor
//! ([`handover`]). Threads and tasks start with the life and not before: a daemon forks first.

mod daemon;
mod differences;
mod handover;
mod installation;
mod journal;
mod life;
pub mod listener;
mod reload;
pub(super) mod runtime;
mod signals;
mod socket;
mod supervisor;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context;
use pingora_core::{
    protocols::l4::stream::L4BufferSettings,
    server::{RunArgs, Server, configuration::ServerConf},
    services::listening,
};
use pingora_proxy::http_proxy;

use self::{
    daemon::{PidFile, Starter},
    installation::Installed,
    journal::Office,
    life::{Life, Patience, Watch},
    listener::{Listeners, Until},
    reload::{Beginning, Calls, Parts, Reloader},
    supervisor::Supervisor,
};
use crate::{
    config::{Config, Listen},
    gateway::{
        Gateway,
        connection::{AcceptFilter, Connections, Room},
        drain::Activity,
        journaling::Journaling,
        snapshot::{Current, Snapshot},
    },
    mirror::Mirror,
    technical::{self, Made, decisions::Desk, maintenance::Switch},
    telemetry::{
        Logs,
        endpoint::Draining,
        export::{expvar, prometheus, reporter::Reporter, tell_limits},
    },
    topology::Topology,
    upstream::{Upstream, resolve::Resolver},
};

/// `grace_period_seconds` when the file says nothing; Pingora's own default.
const GRACE_PERIOD: Duration = Duration::from_secs(300);
/// For backends' names to be resolved before the first request; then the gateway starts all the same.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);
/// `daemon_ready_timeout_seconds` when the file says nothing; Pingora's own default.
const DAEMON_PATIENCE: Duration = Duration::from_secs(600);

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the configuration was read, and is read again when SIGHUP comes.
    pub file: Option<PathBuf>,
    /// In the background.
    pub daemon: bool,
    /// With the sockets of the running instance.
    pub upgrade: bool,
}

/// Serves until a signal ends it.
pub fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let starter = Starter::of_this_process().context("nobody can be told that this process serves")?;
    if (options.daemon || config.server.daemon) && starter.is_none() {
        let patience = config.server.daemon_ready_timeout_seconds;
        return daemon::start(patience.map_or(DAEMON_PATIENCE, |count| Duration::from_secs(count.get())));
    }
    let logs = Logs::open(&config)?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let files = super::files::raise_limit();
    tell_limits(&config);
    // Pingora's type knows no other way to be copied. Ours stays what the file says, to be compared with it.
    let mut server_conf: ServerConf = serde_yaml::to_value(&*config.server)
        .and_then(serde_yaml::from_value)
        .context("the server's configuration cannot be copied")?;
    prepare_server_conf(&mut server_conf, &options)?;

    let mut server = Server::new_with_opt_and_conf(None, server_conf);
    let conf = server.configuration.clone();
    let activity = Arc::new(Activity::default());
    let mut listeners = Listeners::default();
    let config = Arc::new(config);
    let file =
        options.file.map(std::path::absolute).transpose().context("cannot use the configuration's path")?;
    let (beginning, topology) = Beginning::new(&config, file.clone())?;
    let journaling =
        config.journal.as_ref().map(|journal| Arc::new(Journaling::of(journal, &config.state_directory)));
    let (service, parts) =
        gateway_over(&server, &config, topology, &logs, &activity, files, journaling.clone());
    server.add_service(listeners.add("gateway", &config.listen, Until::Asked, service));
    let tasks = run_tasks(parts.resolver.clone(), parts.upstream.clone());
    let calls = Arc::new(Calls::default());
    let upstream = parts.upstream.clone();
    let (reloader, orders) = Reloader::new(beginning, parts, calls.clone());
    let office = journaling.clone().map(|journaling| Arc::new(Office::new(journaling, orders.clone(), file)));
    let operators = Operators {
        installed: Arc::new(Installed::new(orders.clone(), upstream, office.clone())),
        switch: orders,
        desk: office.clone().map(|office| office as Arc<dyn Desk>),
    };
    let watching = add_endpoints(&mut server, &mut listeners, &config, &logs, &activity, operators);
    if !options.upgrade {
        // Before the process becomes a daemon and another user: errors show at once, and any port can be had.
        // A unix socket's file must belong to that user.
        listeners.bind(|listen| matches!(listen, Listen::Tcp(_)))?;
    }
    let starting = journaling.clone();
    let (watch, outcome) = Watch::over(Life {
        activity,
        journaling,
        listeners,
        logs,
        reporter: Reporter::new(&config),
        tasks: Box::pin(async {
            tokio::spawn(reloader.run());
            watching();
            let journal = async {
                if let Some(office) = office {
                    tokio::spawn(async move { office.run().await });
                }
                if let Some(journaling) = starting {
                    journaling.start().await;
                }
            };
            tokio::join!(tasks, journal);
        }),
        calls,
        grace: conf.grace_period_seconds.map_or(GRACE_PERIOD, Duration::from_secs),
        upgrade_sock: conf.upgrade_sock.clone().into(),
        patience: Patience::of(&conf),
        succeeds: options.upgrade,
        supervisor: Supervisor::from_environment(),
        starter,
        pid_file: conf.daemon.then(|| PidFile::new(Path::new(&conf.pid_file))),
    });
    server.run(RunArgs { shutdown_signal: Box::new(watch) });
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *outcome, Ok(()))
}

/// The service that clients talk to, and the parts of it that a reload changes.
fn gateway_over(
    server: &Server,
    config: &Arc<Config>,
    topology: Topology,
    logs: &Logs,
    activity: &Arc<Activity>,
    files: Option<u64>,
    journaling: Option<Arc<Journaling>>,
) -> (listening::Service<Connections>, Parts) {
    let resolver = Arc::new(Resolver::new(&topology.backends));
    let upstream = Arc::new(Upstream::new(config, &topology, resolver.clone()));
    let mirror = Arc::new(Mirror::new(upstream.clone(), &topology.backends, activity.stop.clone()));
    let current = Arc::new(Current::new(Snapshot::new(config.clone(), Arc::new(topology))));
    let gateway = Gateway::new(
        current.clone(),
        upstream.clone(),
        mirror.clone(),
        logs.clone(),
        activity.clone(),
        journaling,
    );
    let proxy = http_proxy(&server.configuration, gateway);
    let room = Room::new(current.clone(), files);
    let connections = Connections::new(proxy, current.clone(), logs.clone(), activity.clone(), room.clone());
    let mut service = listening::Service::new("gateway".to_owned(), connections);
    service.set_connection_filter(Arc::new(AcceptFilter { activity: activity.clone(), room: room.clone() }));
    // Without a read buffer: heads are read as they come, and bodies in pieces as large as it would be.
    let buffer = L4BufferSettings::default().read(0);
    service.add_listener(listener::endpoint(&config.listen).l4_buffer(buffer));
    (service, Parts { current, resolver, upstream, mirror, room, logs: logs.clone() })
}

/// What operators ask, and change.
struct Operators {
    installed: Arc<Installed>,
    switch: Arc<dyn Switch>,
    desk: Option<Arc<dyn Desk>>,
}

/// Those that operators talk to, as far as the configuration has them; returns what starts the task behind them.
fn add_endpoints(
    server: &mut Server,
    listeners: &mut Listeners,
    config: &Arc<Config>,
    logs: &Logs,
    activity: &Arc<Activity>,
    operators: Operators,
) -> impl FnOnce() + Send + use<> {
    let Operators { installed, switch, desk } = operators;
    let drains = activity.clone();
    let draining: Draining = Arc::new(move || drains.is_draining());
    let feed = logs.synclog.feed().clone();
    let technical = technical::make(config, draining.clone(), installed, feed, switch, desk);
    let sampler = technical.map(|Made { service, listen, sampler }| {
        server.add_service(listeners.add("technical endpoint", &listen, Until::Gone, service));
        sampler
    });
    if let Some((service, listen)) = prometheus::service(config, draining.clone()) {
        server.add_service(listeners.add("metrics", &listen, Until::Gone, service));
    }
    if let Some((service, listen)) = expvar::service(config, draining) {
        server.add_service(listeners.add("metrics", &listen, Until::Gone, service));
    }
    let stop = activity.stop.clone();
    move || {
        if let Some(sampler) = sampler {
            sampler.start(async move { stop.wait().await });
        }
    }
}

fn prepare_server_conf(conf: &mut ServerConf, options: &Options) -> anyhow::Result<()> {
    conf.daemon |= options.daemon;
    // Whoever starts a daemon waits in our own way.
    conf.daemon_wait_for_ready = false;
    // A daemon changes its directory, and predecessor and successor must mean the same.
    for path in [&mut conf.upgrade_sock, &mut conf.pid_file] {
        let absolute =
            std::path::absolute(&*path).with_context(|| format!("cannot use the path {path:?}"))?;
        *path = absolute.to_string_lossy().into_owned();
    }
    Ok(())
}

/// The gateway's own tasks, and a first look at where its backends are.
async fn run_tasks(resolver: Arc<Resolver>, upstream: Arc<Upstream>) {
    resolver.start();
    upstream.run_health();
    tokio::spawn(upstream.run_sweeper());
    if tokio::time::timeout(FIRST_LOOKUP, resolver.looked_up_once()).await.is_err() {
        log::warn!("starting although not all backends' names are resolved after {FIRST_LOOKUP:?}");
    }
}

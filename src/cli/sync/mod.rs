//! `akubra sync`: the process that makes backends agree, beside the gateway or on another machine.
//!
//! It reads the gateway's configuration, works through the journal that this names, and signs its own requests. SIGTERM
//! and SIGINT let it end what it is doing; SIGUSR1 has the main log's file opened anew. `docs/sync.md` is for whoever
//! runs it.

mod endpoint;
mod maintenance;
mod pause;
mod progress;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use self::{maintenance::Maintenance, progress::Progress};
use super::Unusable;
use crate::{
    config::{Config, JournalConfig},
    journal::{self, Journal, JournalError, Wanted},
    sync::{
        backoff::Backoff,
        job::Shop,
        limits::Limited,
        places::Places,
        repair::Rules,
        sign::ServiceSigner,
        stores::{S3Stores, Settings},
        worker::{Ended, Trouble, Wishes, Worker},
    },
    telemetry::{
        MainLog,
        metrics::{METRICS, SyncMetrics},
    },
    topology::Topology,
    upstream::{Upstream, resolve::Resolver},
};

/// For backends' names to be resolved before the first question.
const FIRST_LOOKUP: Duration = Duration::from_secs(2);
/// For the main log's last lines.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For uploads to be aborted that copies have left.
const ABORTING: Duration = Duration::from_secs(5);
/// Between tries to open the journal.
const OPENING: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// The gateway's configuration file
    #[arg(short, long, value_name = "FILE", required = true)]
    conf: Option<String>,
    /// End when nothing is due any more; code 1 if something is left open or parked. Sync.Listen is left to the service
    #[arg(long)]
    once: bool,
    /// Move objects to their home that were found on another cluster, too
    #[arg(long)]
    misplaced: bool,
    /// Objects that are repaired at once, instead of Sync.Concurrency
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
}

#[derive(Subcommand)]
enum Action {
    /// Let the sync processes of this machine end what they are doing and begin nothing
    Pause(Conf),
    /// Let them go on
    Resume(Conf),
}

#[derive(clap::Args)]
struct Conf {
    /// The gateway's configuration file
    #[arg(short, long, value_name = "FILE")]
    conf: String,
}

impl Arguments {
    pub fn conf(&self) -> &str {
        match &self.action {
            Some(Action::Pause(at) | Action::Resume(at)) => &at.conf,
            None => self.conf.as_deref().unwrap_or_default(),
        }
    }
}

pub fn run(config: Config, arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.action {
        Some(Action::Pause(_)) => return pause::set(&config, true),
        Some(Action::Resume(_)) => return pause::set(&config, false),
        None => {}
    }
    let journal = journal_of(&config)?.clone();
    let topology = Topology::new(&config);
    let signer = Arc::new(ServiceSigner::new(&config, &topology));
    let places = places(&topology, &signer)?;
    let main = MainLog::open(&config.logging.mainlog)?;
    main.install();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    super::files::raise_limit();
    METRICS.limit("Sync.ConcurrencyPerBackend", config.sync.concurrency_per_backend as u64);
    main.start()?;
    let threads = config.server.threads.max(2);
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let outcome = runtime.block_on(async {
        METRICS.watch_tasks("sync", runtime::Handle::current());
        let outcome = work(config, &journal, topology, signer, places, arguments, &main).await;
        main.flush(Instant::now() + LAST_WORDS).await;
        outcome
    });
    runtime.shutdown_timeout(LAST_WORDS);
    outcome
}

/// The journal that the configuration names; that it names one.
pub fn journal_of(config: &Config) -> anyhow::Result<&JournalConfig> {
    let none = "the configuration has no Journal: nothing is kept of what backends may not agree on";
    config.journal.as_ref().ok_or_else(|| Unusable(none.into()).into())
}

/// The clusters; says which of them cannot be compared.
fn places(topology: &Topology, signer: &ServiceSigner) -> anyhow::Result<Places> {
    let places = Places::new(topology, |backend| signer.knows(backend));
    if !topology.backends.iter().any(|backend| signer.knows(backend)) {
        let none =
            "no backend has credentials: nobody can ask them what they hold; write Clusters.NAME.Credentials";
        return Err(Unusable(none.into()).into());
    }
    Ok(places)
}

fn tell_closed(places: &Places) {
    for (name, place) in places.all() {
        if !place.closed.is_empty() {
            let closed = place.closed.join(", ");
            log::warn!(
                "cluster {name}: no credentials for {closed}: its objects wait, for nobody can compare them"
            );
        }
    }
}

async fn work(
    config: Config,
    journal: &JournalConfig,
    topology: Topology,
    signer: Arc<ServiceSigner>,
    places: Places,
    arguments: &Arguments,
    main: &MainLog,
) -> anyhow::Result<()> {
    tell_closed(&places);
    let (stop, stopped) = watch::channel(false);
    let (paused, is_paused) = watch::channel(pause::is_set(&config));
    let (_ended, ended) = watch::channel(false);
    listen_to_signals(stop, main.clone())?;
    // Whoever ends when nothing is due runs beside the service, which has the address.
    if let Some(listen) = config.sync.listen.as_ref().filter(|_| !arguments.once) {
        endpoint::start(listen, stopped.clone(), ended)?;
    }
    let Some(engine) = open(journal, stopped.clone()).await? else { return Ok(()) };
    let stores = stores(&config, &topology, signer).await;
    let progress = Progress::start()?;
    let metrics = SyncMetrics::of_process();
    tokio::spawn(pause::watch(pause::file(&config), paused, metrics.clone()));
    tokio::spawn(progress.clone().run(engine.clone()));
    let parts =
        Parts { journal: engine.clone(), settle: journal.settle, stores: stores.clone(), places, metrics };
    let shop = Arc::new(shop(&config, &topology, arguments, parts, progress.clone()));
    let concurrency = arguments.concurrency.map_or(config.sync.concurrency, usize::from);
    let maintenance = Maintenance::new(&config.state_directory, topology, shop.clone());
    maintenance.look();
    tokio::spawn(maintenance.keep_looking());
    METRICS.limit("Sync.Concurrency", concurrency as u64);
    log::info!("{} works through the journal, {concurrency} objects at once", shop.name);
    let wishes = Wishes { stop: stopped, paused: is_paused };
    let outcome = Worker { shop, wishes, concurrency, once: arguments.once }.run().await;
    stores.end(ABORTING).await;
    progress.end(&*engine).await;
    conclude(outcome)
}

/// What a worker works with.
struct Parts {
    journal: Arc<dyn Journal>,
    settle: Duration,
    stores: Arc<S3Stores>,
    places: Places,
    metrics: SyncMetrics,
}

fn shop(
    config: &Config,
    topology: &Topology,
    arguments: &Arguments,
    parts: Parts,
    progress: Progress,
) -> Shop {
    let sync = &config.sync;
    let Parts { journal, settle, stores, places, metrics } = parts;
    let endpoints: Vec<String> = topology.backends.iter().map(|backend| backend.endpoint()).collect();
    let names = endpoints.iter().map(String::as_str);
    Shop {
        name: worker_name(),
        journal,
        stores: Limited::new(stores, names, sync.concurrency_per_backend, &metrics),
        places,
        rules: Rules { clock_bound: sync.clock_bound, settle, copy_acl: sync.copy_acl },
        wanted: if arguments.misplaced { Wanted::Misplaced } else { Wanted::Diverged },
        hold: sync.hold,
        backoff: Backoff { min: sync.backoff_min, max: sync.backoff_max },
        max_attempts: sync.max_attempts,
        metrics,
        tell: Box::new(move |one| progress.tell(one)),
        given_up: watch::Sender::new(false),
        trouble: Trouble::default(),
    }
}

/// What the end means to whoever started the process.
fn conclude(outcome: Result<Ended, JournalError>) -> anyhow::Result<()> {
    match outcome? {
        Ended::Stopped | Ended::Done { left: false } => Ok(()),
        Ended::Done { left: true } => {
            Err(anyhow!("something is left: akubra journal list shows what is open, parked or dead, and why"))
        }
        Ended::Paused => Err(anyhow!("paused: akubra sync resume lets it go on")),
    }
}

fn worker_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}:{:08x}", std::process::id(), rand::random::<u32>())
}

/// Opens the journal, as often as it takes; `None` = the process was told to end.
async fn open(
    config: &JournalConfig,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Option<Arc<dyn Journal>>> {
    let trouble = Trouble::default();
    loop {
        match journal::open(&config.engine).await {
            Ok(engine) => {
                trouble.is_over();
                return Ok(Some(engine));
            }
            Err(JournalError::Unavailable(why)) => trouble.tell(&why),
            Err(unusable) => return Err(unusable.into()),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = sleep(OPENING) => {}
        }
    }
}

/// The road to backends, as the gateway has it, with our signatures.
async fn stores(config: &Config, topology: &Topology, signer: Arc<ServiceSigner>) -> Arc<S3Stores> {
    let resolver = Arc::new(Resolver::new(&topology.backends));
    let upstream = Arc::new(Upstream::new(config, topology, resolver.clone()).signing(signer));
    resolver.start();
    upstream.run_health();
    tokio::spawn(upstream.clone().run_sweeper());
    if timeout(FIRST_LOOKUP, resolver.looked_up_once()).await.is_err() {
        log::warn!("starting although not all backends' names are resolved after {FIRST_LOOKUP:?}");
    }
    let sync = &config.sync;
    let default = Settings::default();
    let settings = Settings {
        object_version_header: Some(sync.object_version_header.clone()),
        copy_acl: sync.copy_acl,
        multipart_threshold: sync.multipart_threshold,
        part_size: sync.part_size,
        bandwidth: sync.bandwidth_per_backend.unwrap_or(0),
        least_rate: sync.least_rate.unwrap_or(0),
        settle: config.journal.as_ref().map_or(default.settle, |journal| journal.settle),
        ..default
    };
    Arc::new(S3Stores::new(&upstream, topology, settings))
}

/// The backends for a few questions, and who signs them.
pub async fn asking(config: &Config, topology: &Topology) -> (Arc<S3Stores>, Arc<ServiceSigner>) {
    let signer = Arc::new(ServiceSigner::new(config, topology));
    (stores(config, topology, signer.clone()).await, signer)
}

fn listen_to_signals(stop: watch::Sender<bool>, main: MainLog) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("signals cannot be heard");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (mut hangup, mut user) = (listen(SignalKind::hangup())?, listen(SignalKind::user_defined1())?);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => "SIGHUP",
                _ = user.recv() => {
                    log::info!("SIGUSR1: opening the main log's file anew");
                    main.reopen();
                    continue;
                }
            };
            log::info!("{name}: ending when what is being repaired has ended");
            stop.send_replace(true);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::worker::ENDING;

    #[test]
    fn the_service_has_the_time_that_the_end_may_take() {
        let unit = include_str!("../../../systemd/akubra-sync.service");
        let has: u64 =
            unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap().parse().unwrap();
        // The main log is flushed, and then the runtime is ended.
        let told = progress::COUNTING + progress::LAST_WORDS;
        let takes = ENDING + ABORTING + told + 2 * LAST_WORDS;
        // What is left is for a busy machine.
        assert!(Duration::from_secs(has) >= takes + Duration::from_secs(10), "{has} s for {takes:?}");
    }
}

//! The life of the process: it begins to serve, hears signals, hands over or ends.
//!
//! Pingora's server waits for one thing, the signal to stop; this is what it waits for. All decisions about the
//! process as a whole are made here, in one task: when listeners open and close, who is told, what is waited for.
//! Pingora itself would sleep its whole grace period and then cancel what still runs.

use std::{
    future::Future,
    path::PathBuf,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, configuration::ServerConf};
use tokio::time::{Instant, timeout};

use super::{
    daemon::{PidFile, Starter},
    handover::{self, Expecting, Predecessor},
    listener::{Listeners, Until},
    reload::Calls,
    signals::{Asked, Signals},
    supervisor::Supervisor,
};
use crate::{
    gateway::{drain::Activity, journaling::Journaling},
    telemetry::{Logs, export::reporter::Reporter},
};

/// For the last report of metrics.
const LAST_REPORT: Duration = Duration::from_secs(2);
/// For the journal, and for the logs, to be written at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// A predecessor that was told before its successor was started is there at once. Then whoever started the
/// successor as a daemon learns how the takeover ended; else only that it waits.
const IS_THERE: Duration = Duration::from_secs(1);

/// What a life consists of.
pub struct Life {
    pub activity: Arc<Activity>,
    pub listeners: Listeners,
    pub logs: Logs,
    /// If there is a journal.
    pub journaling: Option<Arc<Journaling>>,
    /// Tells metrics, from serving to the end.
    pub reporter: Reporter,
    /// Starts the gateway's own tasks, once there is a runtime, and waits for what requests need.
    pub tasks: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The longest that running requests are waited for.
    pub grace: Duration,
    /// Where a successor waits, and how long for.
    pub upgrade_sock: PathBuf,
    pub patience: Patience,
    /// Whether this process is to take over from another one.
    pub succeeds: bool,
    /// Told of SIGHUP, and when this process serves.
    pub calls: Arc<Calls>,
    pub supervisor: Supervisor,
    pub starter: Option<Starter>,
    pub pid_file: Option<PidFile>,
}

/// How long each side of a takeover waits for the other to come.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub for_predecessor: Duration,
    pub for_successor: Duration,
}

impl Patience {
    pub fn of(conf: &ServerConf) -> Patience {
        match conf.upgrade_sock_connect_accept_max_retries {
            Some(seconds) => {
                let patience = Duration::from_secs(seconds.try_into().unwrap_or(u64::MAX));
                Patience { for_predecessor: patience, for_successor: patience }
            }
            // A successor may have been started by hand, with SIGQUIT to be sent by hand, too.
            None => {
                Patience { for_predecessor: Duration::from_secs(60), for_successor: Duration::from_secs(5) }
            }
        }
    }
}

/// A life as Pingora waits for its end, and how it ended.
pub struct Watch {
    life: Mutex<Option<Life>>,
    outcome: Outcome,
}

pub type Outcome = Arc<Mutex<anyhow::Result<()>>>;

impl Watch {
    pub fn over(life: Life) -> (Watch, Outcome) {
        let outcome = Outcome::new(Mutex::new(Ok(())));
        (Watch { life: Mutex::new(Some(life)), outcome: outcome.clone() }, outcome)
    }
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut life) = life {
            let outcome = life.live().await;
            if let Err(error) = &outcome {
                log::error!("ending: {error:#}");
            }
            if let Some(journaling) = &life.journaling {
                journaling.writer().leave(FLUSH).await;
            }
            life.reporter.end(LAST_REPORT).await;
            life.logs.flush(FLUSH).await;
            *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        }
        ShutdownSignal::FastShutdown
    }
}

impl Life {
    async fn live(&mut self) -> anyhow::Result<()> {
        let signals = Signals::listen(self.calls.clone(), self.logs.clone());
        let mut signals = signals.context("signals cannot be received")?;
        if let Err(error) = self.logs.start() {
            log::error!("the logs cannot be written: {error}");
        }
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            asked = signals.next_end("this process does not serve yet") => {
                log::info!("ending: {asked} came before this process served");
                self.pid_file.iter().for_each(PidFile::give_back);
                return Ok(());
            }
        };
        // From here on there may be requests: nothing is cut short.
        let begun = match prepared {
            Ok(predecessor) => self.begin(predecessor, &mut signals).await,
            Err(error) => Err(error),
        };
        if begun.is_err() {
            self.pid_file.iter().for_each(PidFile::give_back);
            return begun;
        }
        let ended = self.serve(&mut signals).await;
        self.pid_file.iter().for_each(PidFile::remove);
        ended
    }

    /// From nothing to the moment before serving. Cancelled, it leaves a predecessor as it was.
    async fn prepare(&mut self) -> anyhow::Result<Option<Predecessor>> {
        if !self.succeeds {
            self.get_ready(None).await?;
            return Ok(None);
        }
        let mut predecessor = self.meet_predecessor().await?;
        match self.get_ready(Some(&mut predecessor)).await {
            Ok(()) => Ok(Some(predecessor)),
            Err(error) => {
                predecessor.failed(&format!("{error:#}")).await;
                Err(error)
            }
        }
    }

    async fn begin(&mut self, predecessor: Option<Predecessor>, signals: &mut Signals) -> anyhow::Result<()> {
        if let Err(error) = self.listeners.start().await {
            if let Some(predecessor) = predecessor {
                predecessor.failed(&format!("{error:#}")).await;
            }
            // Some may accept already. The supervisor is told nothing: a predecessor goes on.
            self.accept_no_more().await;
            self.drain(signals, self.grace, false).await;
            return Err(error);
        }
        self.supervisor.serving();
        if let Err(error) = self.reporter.start() {
            log::error!("metrics cannot be reported: {error}");
        }
        if let Some(predecessor) = predecessor {
            predecessor.taken().await;
            log::info!("took over");
        }
        self.calls.serving.notify_one();
        self.starter.iter_mut().for_each(Starter::release);
        Ok(())
    }

    /// Does all that can fail; then the predecessor lets this process accept.
    async fn get_ready(&mut self, mut predecessor: Option<&mut Predecessor>) -> anyhow::Result<()> {
        if let Some(predecessor) = &mut predecessor {
            self.listeners.adopt(std::mem::take(&mut predecessor.sockets))?;
        }
        self.listeners.bind(|_| true)?;
        self.tasks.as_mut().await;
        match predecessor {
            Some(predecessor) => predecessor.ready().await,
            None => Ok(()),
        }
    }

    async fn meet_predecessor(&mut self) -> anyhow::Result<Predecessor> {
        let expecting = Expecting::bind(&self.upgrade_sock)?;
        let (at, patience) = (self.upgrade_sock.display(), self.patience.for_predecessor);
        log::info!("waiting at {at} for the running instance, which hands over when it gets SIGQUIT");
        // One wait, in two parts: an offer may be half read when the first ends.
        let mut coming = pin!(expecting.predecessor());
        let mut met = timeout(IS_THERE.min(patience), &mut coming).await;
        if met.is_err() && patience > IS_THERE {
            self.starter.iter_mut().for_each(Starter::release);
            met = timeout(patience - IS_THERE, coming).await;
        }
        let predecessor = met.with_context(|| {
            format!("no running instance came to {at} within {patience:?}: it must get SIGQUIT, and have the same upgrade_sock")
        })??;
        log::info!("process {} offers {} sockets", predecessor.pid, predecessor.sockets.len());
        Ok(predecessor)
    }

    /// From serving to the end.
    async fn serve(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        loop {
            let asked = tokio::select! {
                asked = signals.next() => asked,
                role = self.listeners.broken() => {
                    self.stop(signals, self.grace).await;
                    return Err(anyhow!("the {role} does not accept any more"));
                }
            };
            let asked = match asked {
                Asked::HandOver => match self.hand_over(signals).await {
                    Handed::Over(successor) => {
                        self.follow(signals, successor).await;
                        return Ok(());
                    }
                    Handed::NotOver => continue,
                    Handed::Interrupted(asked) => asked,
                },
                asked => asked,
            };
            let grace = if asked == Asked::Interrupt { Duration::ZERO } else { self.grace };
            self.stop(signals, grace).await;
            return Ok(());
        }
    }

    /// Looks for a successor and gives it the sockets. Nothing changes here before it accepts on them.
    async fn hand_over(&mut self, signals: &mut Signals) -> Handed {
        log::info!("SIGQUIT: handing over to a successor at {}", self.upgrade_sock.display());
        self.supervisor.handing_over();
        let sockets = self.listeners.offer();
        let offering = handover::offer(&self.upgrade_sock, &sockets, self.patience.for_successor);
        let offered = tokio::select! {
            offered = offering => offered,
            asked = signals.next_end("it was heard already") => return Handed::Interrupted(asked),
        };
        let handed = match offered {
            // From here on the successor may serve. Which of the two does is known in a moment, and until then
            // signals wait: whoever said now that the service ends might be wrong.
            Ok(successor) => successor.hand_over().await,
            Err(error) => Err(error),
        };
        match handed {
            Ok(successor) => Handed::Over(successor),
            Err(error) => {
                log::error!("SIGQUIT: not handed over, the gateway goes on as it is: {error:#}");
                self.supervisor.still_serving();
                self.pid_file.iter().for_each(PidFile::reclaim);
                Handed::NotOver
            }
        }
    }

    /// Ends behind a successor, a process that accepts on the same sockets.
    async fn follow(&mut self, signals: &mut Signals, successor: u32) {
        self.calls.handed_over.store(true, Relaxed);
        self.reporter.followed();
        self.accept_no_more().await;
        self.logs.synclog.leave_to_successor();
        log::info!("process {successor} took over; {} requests under way here", self.activity.requests());
        self.drain(signals, self.grace, false).await;
    }

    /// Leaves the sockets to another process.
    async fn accept_no_more(&mut self) {
        self.listeners.close(None).await;
        self.activity.listeners_closed();
        self.activity.begin_draining();
    }

    /// Ends without a successor.
    async fn stop(&mut self, signals: &mut Signals, grace: Duration) {
        self.supervisor.stopping();
        self.activity.begin_draining();
        self.listeners.accept_queued(Some(Until::Asked)).await;
        self.listeners.close(Some(Until::Asked)).await;
        self.activity.listeners_closed();
        log::info!("ending: no new connections, {} requests under way", self.activity.requests());
        self.drain(signals, grace, true).await;
        // Operators have seen the end; Pingora would call it an error if these were just dropped.
        self.listeners.close(None).await;
    }

    /// Waits for what is under way. A SIGTERM more than needed shortens that, as SIGINT does.
    async fn drain(&mut self, signals: &mut Signals, grace: Duration, mut terminated: bool) {
        let mut deadline = Instant::now() + grace;
        let left = loop {
            let grace = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                left = self.activity.drain(grace) => break left,
                asked = signals.next_end("the gateway is ending") => match asked {
                    Asked::Terminate if !terminated => terminated = true,
                    _ => deadline = Instant::now(),
                },
            }
        };
        match left {
            0 => log::info!("ended with nothing left under way"),
            left => log::warn!("{left} requests did not end in time and were cut off"),
        }
    }
}

/// What came of a try to hand over.
enum Handed {
    /// To this process.
    Over(u32),
    NotOver,
    /// By a signal that asks for the end.
    Interrupted(Asked),
}

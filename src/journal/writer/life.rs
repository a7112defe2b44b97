//! The gateway as the journal knows it: it enrols, says that it lives, looks after what the dead have left, and leaves.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use super::Writer;
use crate::journal::{Journal, JournalError, Life, Presence};

/// Between two signs of life.
const ALIVE: Duration = Duration::from_secs(5);
/// A gateway that gave none for so long is dead, and every so many signs others look for such.
const SILENT: Duration = Duration::from_secs(60);
const ADOPT_EVERY: u32 = 6;

impl Writer {
    pub(super) async fn enrol(&self, engine: &Arc<dyn Journal>) -> Result<(), JournalError> {
        // Before a write of this process begins, so that theirs are known to be before it.
        for dead in self.aside(Presence::dead).await.unwrap_or_default() {
            engine.leave(dead.gateway, self.settle).await?;
            log::warn!("journal: gateway {} died; its writes are to be looked at", dead.gateway);
            self.aside(move |_| dead.forget()).await.unwrap_or_default();
        }
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let gateway = engine.enrol(&name).await?;
        self.aside(move |presence| presence.tell(gateway)).await.unwrap_or_default();
        self.gateway.store(gateway, Relaxed);
        self.enrolled.notify_waiters();
        log::info!("journal: this is gateway {gateway}");
        Ok(())
    }

    /// Something that waits for a disk; what goes wrong is told here.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Presence) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let presence = self.presence.clone();
        let done = spawn_blocking(move || work(&presence)).await.map_err(io::Error::other);
        done.flatten()
            .inspect_err(|error| log::warn!("journal: others on this host cannot see that it lives: {error}"))
            .ok()
    }

    pub(super) async fn is_alive(&self, engine: &Arc<dyn Journal>) -> Result<(), JournalError> {
        let life = engine.alive(self.gateway.load(Relaxed)).await?;
        if life != Life::Alive {
            self.orphaned.store(self.numbers.load(Relaxed), Relaxed);
        }
        match life {
            Life::Alive => Ok(()),
            Life::TakenForDead => {
                log::warn!("journal: this gateway was taken for dead; its writes are to be looked at");
                Ok(())
            }
            Life::Unknown => {
                log::warn!("journal: this gateway is not known there; it goes on under another number");
                self.enrol(engine).await
            }
        }
    }

    /// Says that the process lives, and looks after intents of those that do not; for as long as it is polled.
    pub async fn keep(&self) {
        self.known().await;
        let mut ticks = interval(ALIVE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0_u32.. {
            ticks.tick().await;
            let Some(engine) = self.engine() else { continue };
            if let Err(error) = self.look_after(engine, tick).await {
                self.trouble.error(format_args!("{error}"));
            }
        }
    }

    async fn look_after(&self, engine: &Arc<dyn Journal>, tick: u32) -> Result<(), JournalError> {
        if !self.closing.load(Relaxed) {
            self.is_alive(engine).await?;
        }
        if tick.is_multiple_of(ADOPT_EVERY) {
            match engine.adopt(SILENT, self.settle).await? {
                0 => {}
                many => log::warn!("journal: {many} writes of a gateway that died are to be looked at"),
            }
        }
        Ok(())
    }

    /// Puts what still waits into the journal, and takes leave of it: intents that are left become records.
    pub async fn leave(&self, patience: Duration) {
        let emptied = async {
            loop {
                let drained = self.drained.notified();
                if self.queue().waiting.is_empty() {
                    return;
                }
                self.closing.store(true, Relaxed);
                self.wake.notify_one();
                drained.await;
            }
        };
        if timeout(patience, emptied).await.is_err() {
            let left = self.queue().waiting.len();
            log::error!("journal: ending although it has not taken {left} steps of writes");
        }
        self.closing.store(true, Relaxed);
        let gateway = self.gateway.load(Relaxed);
        let Some(engine) = self.engine().filter(|_| gateway != 0) else { return };
        match timeout(patience, engine.leave(gateway, self.settle)).await {
            Ok(Ok(())) => self.aside(Presence::end).await.unwrap_or_default(),
            Ok(Err(error)) => log::error!("{error}"),
            Err(_) => log::error!("journal: it took no leave within {patience:?}"),
        }
    }
}

//! The gateway as the journal knows it: it enrols, says that it lives, looks after what the dead have left, and leaves.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use super::Writer;
use crate::journal::{Changes, Enrolled, Journal, JournalError, Presence};

/// Between two signs of life.
const ALIVE: Duration = Duration::from_secs(5);
/// A gateway that gave none for so long is dead, and every so many signs others look for such.
const SILENT: Duration = Duration::from_secs(60);
const ADOPT_EVERY: u32 = 6;

/// Of this process, and no other: of its host, and by chance.
pub(super) fn name() -> String {
    let host = rustix::system::uname();
    format!("{} {:016x}", host.nodename().to_string_lossy(), rand::random::<u64>())
}

/// As what the process is known to the journal. Another journal may give it the same number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Enrolment {
    /// 0 while it is not known there.
    pub(super) number: i64,
    times: u64,
    /// How often it was taken for dead there.
    deaths: i64,
}

impl Enrolment {
    /// Whether the journal is the same, as far as is known.
    pub fn is_in_that_of(&self, other: Enrolment) -> bool {
        (self.number, self.times) == (other.number, other.times)
    }
}

impl Writer {
    pub fn enrolment(&self) -> Enrolment {
        *self.enrolment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn itself(&self, enrolment: Enrolment) -> Enrolled {
        Enrolled { number: enrolment.number, name: self.name.clone(), deaths: enrolment.deaths }
    }

    /// Waits until the process is known to the journal.
    pub async fn known(&self) {
        loop {
            let enrolled = self.enrolled.notified();
            if self.gateway() != 0 {
                return;
            }
            enrolled.await;
        }
    }

    pub(super) async fn enrol(&self, engine: &Arc<dyn Journal>) -> Result<(), JournalError> {
        // Before a write of this process begins, so that theirs are known to be before it.
        for dead in self.aside(Presence::dead).await.unwrap_or_default() {
            engine.leave(&dead.gateway, self.settle).await?;
            log::warn!("journal: gateway {} died; its writes are to be looked at", dead.gateway.number);
            self.aside(move |_| dead.forget()).await.unwrap_or_default();
        }
        let number = engine.enrol(&self.name).await?;
        let itself = Enrolled { number, name: self.name.clone(), deaths: 0 };
        self.aside(move |presence| presence.tell(&itself)).await.unwrap_or_default();
        {
            let mut enrolment = self.enrolment.lock().unwrap_or_else(PoisonError::into_inner);
            *enrolment = Enrolment { number, times: enrolment.times + 1, deaths: 0 };
        }
        self.enrolled.notify_waiters();
        log::info!("journal: this is gateway {number}, {}", self.name);
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

    pub(super) async fn is_alive(
        &self,
        engine: &Arc<dyn Journal>,
        enrolment: Enrolment,
    ) -> Result<(), JournalError> {
        match engine.alive(&self.itself(enrolment)).await? {
            Some(deaths) => self.has_died(enrolment, deaths),
            None => self.is_stranger(enrolment),
        }
        Ok(())
    }

    /// The journal took this process for dead so often. What it had under way has become records, and the ends of those
    /// writes are records, too, from now on, whatever the journal has beside them by now.
    fn has_died(&self, enrolment: Enrolment, deaths: i64) {
        {
            let mut current = self.enrolment.lock().unwrap_or_else(PoisonError::into_inner);
            // Fewer are of a backup of the journal, or of an answer that others have overtaken: it asks again then.
            if !current.is_in_that_of(enrolment) || current.deaths == deaths {
                return;
            }
            // Before anything is told by who knows.
            self.orphaned.store(self.numbers.load(Relaxed), Relaxed);
            current.deaths = deaths;
        }
        self.live.repeat(|intent| self.still(intent));
        log::warn!("journal: this gateway was taken for dead; its writes are to be looked at");
    }

    /// The journal is not the one in which this process enrolled so. It enrols once more, and says what waits and what is
    /// under way under its new number. Of what is under way the journal may have had no intents for a while: each becomes a
    /// record when it ends.
    pub(super) fn is_stranger(&self, enrolment: Enrolment) {
        {
            let mut current = self.enrolment.lock().unwrap_or_else(PoisonError::into_inner);
            if !current.is_in_that_of(enrolment) || enrolment.number == 0 {
                return;
            }
            self.orphaned.store(self.numbers.load(Relaxed), Relaxed);
            self.is_away();
            // Whoever sees that it is not enrolled so any more finds all of that done.
            (self.replaced)();
            current.number = 0;
        }
        self.metrics.replaced.inc();
        self.live.repeat(|intent| self.still(intent));
        log::error!(
            "{}; this process goes on under another number. What the journal was told since, and what it was told \
             of writes under way, is not there any more",
            JournalError::Stranger(enrolment.number)
        );
        self.wake.notify_one();
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
        let enrolment = self.enrolment();
        if !self.closing.load(Relaxed) && enrolment.number != 0 {
            self.is_alive(engine, enrolment).await?;
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
        let itself = self.itself(self.enrolment());
        let Some(engine) = self.engine().filter(|_| itself.number != 0) else { return };
        match timeout(patience, engine.leave(&itself, self.settle)).await {
            Ok(Ok(())) => self.aside(Presence::end).await.unwrap_or_default(),
            Ok(Err(error)) => log::error!("{error}"),
            Err(_) => log::error!("journal: it took no leave within {patience:?}"),
        }
    }
}

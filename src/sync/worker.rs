//! The loop of `akubra sync`: leases objects and repairs many at a time, until it is stopped or nothing is due.
//!
//! A few more are leased than are repaired at once, so that nobody waits for the journal. What each object needs from
//! lease to hand-over is in [`job`](super::job); here is who comes when.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    hold::Asked,
    job::{Job, Shop},
    slots::Slots,
};
use crate::{
    journal::{Filter, JournalError, Standing, Wanted, What},
    telemetry::report::Report,
};

/// Between two looks for objects that have become due.
const IDLE: Duration = Duration::from_secs(1);
/// First and longest pause when the journal cannot be asked.
const JOURNAL_AWAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Objects that are leased ahead for each that is repaired at once, at least and at most. A lease is put on disk, and costs
/// the same for many: where objects take little time there are more of them, where they take long the others are left to
/// other processes.
const AHEAD: (usize, usize) = (2, 16);
/// Of a batch of leases: it took little time, or long.
const QUICK: Duration = Duration::from_millis(100);
const SLOW: Duration = Duration::from_secs(1);
/// For leases that the journal has been asked for when the process is to end. Those that come later run out.
const ASKED: Duration = Duration::from_secs(5);
/// For repairs that run then.
pub const GRACE: Duration = Duration::from_secs(30);
/// For leases to be given back after that.
const LAST: Duration = Duration::from_secs(5);
/// The most from the word to end to the end of [`Worker::run`].
pub const ENDING: Duration = Duration::from_secs(ASKED.as_secs() + GRACE.as_secs() + LAST.as_secs());
/// A gateway that has not been alive for so long is dead, as gateways too say of each other.
const SILENT: Duration = Duration::from_secs(60);
const ADOPT_EVERY: Duration = Duration::from_secs(20);
/// Objects of one look through the journal.
const PAGE: usize = 500;

/// What is asked of the process from outside.
#[derive(Debug, Clone)]
pub struct Wishes {
    pub stop: watch::Receiver<bool>,
    pub paused: watch::Receiver<bool>,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Nothing is due any more; whether anything is left open or waits for a human.
    Done { left: bool },
    /// There is nothing to be done while it is paused.
    Paused,
}

pub struct Worker {
    pub shop: Arc<Shop>,
    pub wishes: Wishes,
    /// Objects at once.
    pub concurrency: usize,
    /// Ends when nothing is due.
    pub once: bool,
}

/// When to do what next, and how much of it.
struct Pace {
    look: Instant,
    adopt: Instant,
    journal_pause: Duration,
    /// See [`AHEAD`].
    ahead: usize,
    leased: Instant,
}

impl Pace {
    /// A batch of leases is there, as many as there was room for, or all that were due.
    fn has_leased(&mut self, is_full: bool) {
        let since = self.leased.elapsed();
        self.leased = Instant::now();
        if is_full && since < QUICK {
            self.ahead = (self.ahead * 2).min(AHEAD.1);
        } else if since > SLOW {
            self.ahead = (self.ahead / 2).max(AHEAD.0);
        }
    }
}

impl Worker {
    pub async fn run(self) -> Result<Ended, JournalError> {
        let slots = Arc::new(Slots::new(self.concurrency, self.shop.metrics.running.clone()));
        let mut jobs = JoinSet::new();
        let outcome = self.work(&slots, &mut jobs).await;
        self.finish(jobs).await;
        match outcome {
            Ok(Ended::Done { .. }) => self.left().await.map(|left| Ended::Done { left }),
            outcome => outcome,
        }
    }

    async fn work(&self, slots: &Arc<Slots>, jobs: &mut JoinSet<()>) -> Result<Ended, JournalError> {
        let now = Instant::now();
        let journal_pause = JOURNAL_AWAY.0;
        let mut pace = Pace { look: now, adopt: now, journal_pause, ahead: AHEAD.0, leased: now };
        let (mut stop, mut paused) = (self.wishes.stop.clone(), self.wishes.paused.clone());
        loop {
            while jobs.try_join_next().is_some() {}
            if *stop.borrow_and_update() {
                return Ok(Ended::Stopped);
            }
            let is_paused = *paused.borrow_and_update();
            if self.once && is_paused && jobs.is_empty() {
                return Ok(Ended::Paused);
            }
            let wants = slots.room(jobs.len(), pace.ahead) >= self.concurrency.saturating_mul(pace.ahead) / 2;
            let hurries = self.once && jobs.is_empty();
            if !is_paused && wants && (hurries || Instant::now() >= pace.look) {
                let found = tokio::select! {
                    found = self.lease(slots, jobs, &mut pace) => found?,
                    () = self.stopped_for(ASKED) => return Ok(Ended::Stopped),
                };
                if self.once && found == Some(0) && jobs.is_empty() {
                    return Ok(Ended::Done { left: false });
                }
            }
            let waits = is_paused || wants;
            tokio::select! {
                Ok(()) = stop.changed() => {}
                Ok(()) = paused.changed() => {}
                Some(_) = jobs.join_next() => {}
                () = slots.left() => {}
                () = sleep_until(if is_paused { Instant::now() + IDLE } else { pace.look }), if waits => {}
            }
        }
    }

    /// Leases what is due and begins with it; how many, `None` = the journal cannot be asked now.
    async fn lease(
        &self,
        slots: &Arc<Slots>,
        jobs: &mut JoinSet<()>,
        pace: &mut Pace,
    ) -> Result<Option<usize>, JournalError> {
        let shop = &self.shop;
        let room = slots.room(jobs.len(), pace.ahead);
        let asked = Asked::now();
        let leased = async {
            if Instant::now() >= pace.adopt {
                shop.journal.adopt(SILENT, shop.rules.settle).await?;
                pace.adopt = Instant::now() + ADOPT_EVERY;
            }
            shop.journal.lease(&shop.name, shop.wanted, room, shop.hold, shop.rules.settle).await
        };
        let leases = match leased.await {
            Ok(leases) => leases,
            Err(JournalError::Unavailable(why)) => {
                shop.trouble(&why);
                pace.look = Instant::now() + pace.journal_pause;
                pace.journal_pause = (pace.journal_pause * 2).min(JOURNAL_AWAY.1);
                if self.once && jobs.is_empty() {
                    self.wait_until(pace.look).await;
                }
                return Ok(None);
            }
            Err(unusable) => return Err(unusable),
        };
        shop.well();
        pace.journal_pause = JOURNAL_AWAY.0;
        let found = leases.len();
        pace.has_leased(found == room);
        pace.look = Instant::now() + if found < room { IDLE } else { Duration::ZERO };
        for (lease, case) in leases {
            let job = Job::new(shop.clone(), lease, case, asked);
            jobs.spawn(job.run(slots.clone(), self.wishes.clone()));
        }
        Ok(Some(found))
    }

    /// Until the process has been told to end for so long.
    async fn stopped_for(&self, time: Duration) {
        let mut stop = self.wishes.stop.clone();
        if stop.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could tell it.
            return pending().await;
        }
        sleep(time).await;
    }

    /// Waits until then, or until the process is to end.
    async fn wait_until(&self, then: Instant) {
        let mut stop = self.wishes.stop.clone();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = sleep_until(then) => {}
        }
    }

    /// Lets what runs end, then gives up what is left.
    async fn finish(&self, mut jobs: JoinSet<()>) {
        let ended = async { while jobs.join_next().await.is_some() {} };
        if timeout(GRACE, ended).await.is_ok() {
            return;
        }
        log::warn!("{} repairs have not ended within {GRACE:?}: they are given up", jobs.len());
        self.shop.given_up.send_replace(true);
        let ended = async { while jobs.join_next().await.is_some() {} };
        if timeout(LAST, ended).await.is_err() {
            log::warn!("{} leases are not given back: they run out", jobs.len());
        }
    }

    /// Whether the journal still has an object that this worker is there for.
    async fn left(&self) -> Result<bool, JournalError> {
        let journal = &self.shop.journal;
        let counts = journal.counts().await?;
        if counts.parked + counts.dead > 0 {
            return Ok(true);
        }
        let filter = Filter { standing: Some(Standing::Open), ..Filter::default() };
        let mut after = None;
        loop {
            let cases = journal.list(&filter, after.as_ref(), PAGE).await?;
            let is_ours =
                |what: &What| self.shop.wanted == Wanted::Misplaced || !matches!(what, What::Misplaced(_));
            if cases.iter().any(|case| case.records.iter().any(|record| is_ours(&record.intent.what))) {
                return Ok(true);
            }
            match cases.last() {
                Some(last) => after = Some(last.object.clone()),
                None => return Ok(false),
            }
        }
    }
}

/// Tells of the journal's trouble once, and of its end.
#[derive(Debug)]
pub struct Trouble {
    report: Report,
    is_there: AtomicBool,
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble { report: Report::new("sync"), is_there: AtomicBool::new(false) }
    }
}

impl Trouble {
    pub fn tell(&self, why: &str) {
        self.is_there.store(true, Relaxed);
        self.report.error(format_args!("the journal cannot be asked, it is tried again: {why}"));
    }

    pub fn is_over(&self) {
        if self.is_there.swap(false, Relaxed) {
            self.report.over(format_args!("the journal can be asked again"));
        }
    }
}

#[cfg(test)]
mod tests;

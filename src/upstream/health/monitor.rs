//! The states of a backend, one async function each: whoever runs in `ejected` is ejected.
//!
//! The monitor is the only one that changes the state. It hears the bell that requests and its own checks ring, asks
//! whether the clusters can spare the backend, and lets checks decide about the return. All it knows of the world is
//! [`Surroundings`], so that tests script it under paused time.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use rand::Rng;
use tokio::time::{Instant, sleep};

use super::{Health, HealthPolicy, Rule, State, Trip, UNKNOWN, escalation::Escalation};
use crate::config::{CheckKind, HealthCheck};

/// Longest sleep without a look at what may have changed: the policy, and what the clusters can spare.
const NAP: Duration = Duration::from_secs(1);

/// What a health check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    Good,
    Failed(String),
    /// There is nothing to ask: maintenance, or no address.
    Skipped,
}

/// The world around a backend.
#[async_trait]
pub trait Surroundings: Send + Sync {
    /// Asks the backend for its health; takes no longer than the check's timeout.
    async fn check(&self, check: &HealthCheck) -> Checked;
    /// Takes the backend out by `take_out`; the error names a cluster that cannot spare it.
    fn eject(&self, most: f64, take_out: &mut (dyn FnMut() + Send)) -> Result<(), String>;
    /// Whether one of its clusters has nobody else that is well.
    fn is_needed(&self) -> bool;
}

pub struct Monitor<S> {
    health: Arc<Health>,
    surroundings: S,
}

impl<S: Surroundings> Monitor<S> {
    pub fn new(health: Arc<Health>, surroundings: S) -> Self {
        Monitor { health, surroundings }
    }

    /// For as long as the backend is one.
    pub async fn run(self) -> Infallible {
        let mut escalation = Escalation::default();
        if !self.health.is_in() {
            // An earlier monitor was ended in the middle of it.
            self.health.enter(State::Healthy, UNKNOWN.to_owned());
        }
        loop {
            let begun = Instant::now();
            let mut trip = self.healthy().await;
            escalation.was_healthy(begun.elapsed(), &self.policy().ejection);
            let back = loop {
                let time = escalation.next(&self.policy().ejection, rand::thread_rng().r#gen());
                self.ejected(&trip, time).await;
                match self.probation().await {
                    Ok(back) => break back,
                    Err(failed) => trip = failed,
                }
                self.health.enter(State::Ejected, trip.reason.clone());
            };
            self.health.enter(State::Healthy, back.clone());
            log::info!("{}: healthy again: {back}", self.health.url);
        }
    }

    /// Until there is a reason to take the backend out, and its clusters can spare it.
    async fn healthy(&self) -> Trip {
        let mut checks = pin!(self.keep_checking());
        let mut kept_in: Option<Trip> = None;
        loop {
            let trip = tokio::select! {
                biased;
                trip = self.health.rung(), if kept_in.is_none() => trip,
                never = &mut checks => match never {},
                () = sleep(NAP), if kept_in.is_some() => match self.still_sick(kept_in.take()) {
                    Some(trip) => trip,
                    None => {
                        self.got_well();
                        continue;
                    }
                },
            };
            let policy = self.policy();
            if !policy.ejection.enabled {
                continue;
            }
            let mut take_out = || self.health.enter(State::Ejected, trip.reason.clone());
            match self.surroundings.eject(policy.ejection.max_ejected, &mut take_out) {
                Ok(()) => return trip,
                Err(cluster) => {
                    self.is_kept_in(&trip, &cluster);
                    kept_in = Some(trip);
                }
            }
        }
    }

    /// Told once for as long as it lasts.
    fn is_kept_in(&self, trip: &Trip, cluster: &str) {
        if !self.health.kept_in.swap(true, Relaxed) {
            self.health.metrics.refused.inc();
            let why = format!(
                "{}; it stays in use, because cluster {cluster} can spare no more backends",
                trip.reason
            );
            log::error!("{}: {why}", self.health.url);
            self.health.tell(why);
        }
    }

    /// Why a backend that was kept in should be taken out, if it still should.
    fn still_sick(&self, kept_in: Option<Trip>) -> Option<Trip> {
        let rung_again = self.health.take_trip();
        rung_again.or_else(|| kept_in.filter(|_| self.health.is_sick(&self.policy())))
    }

    fn got_well(&self) {
        self.health.kept_in.store(false, Relaxed);
        let why = "not sick any more; it was in use all the time";
        log::info!("{}: {why}", self.health.url);
        self.health.tell(why.to_owned());
    }

    /// Checks at every interval. Too many failures in a row ring the bell.
    async fn keep_checking(&self) -> Infallible {
        // Chance spreads the checks of many backends, and those of many gateways.
        let mut pause = self.policy().check.interval.mul_f64(rand::thread_rng().r#gen());
        loop {
            sleep(pause).await;
            let begun = Instant::now();
            let policy = self.policy();
            if policy.check.kind != CheckKind::None {
                match self.check(&policy.check).await {
                    Checked::Good => self.health.checks_failed.store(0, Relaxed),
                    Checked::Failed(why) => {
                        let failed = self.health.checks_failed.fetch_add(1, Relaxed) + 1;
                        if failed >= policy.check.unhealthy && policy.ejection.enabled {
                            let reason =
                                || format!("{failed} health checks failed in a row, the last: {why}");
                            self.health.raise(Rule::HealthCheck, reason);
                        }
                    }
                    Checked::Skipped => {}
                }
            }
            pause = policy.check.interval.saturating_sub(begun.elapsed());
        }
    }

    /// Until its time is over. A backend without which a cluster has nobody is given a chance at every interval.
    async fn ejected(&self, trip: &Trip, time: Duration) {
        self.health.metrics.ejected(trip.rule as usize);
        log::error!("{}: ejected for {time:.1?}: {}", self.health.url, trip.reason);
        let begun = Instant::now();
        loop {
            let policy = self.policy();
            let left = time.saturating_sub(begun.elapsed());
            let needed = begun.elapsed() >= policy.check.interval && self.surroundings.is_needed();
            if left.is_zero() || needed || !policy.ejection.enabled {
                return;
            }
            sleep(left.min(NAP).min(policy.check.interval)).await;
        }
    }

    /// Until checks have decided: why it is well, or why not.
    async fn probation(&self) -> Result<String, Trip> {
        let reason = self.health.status().reason.clone();
        self.health.enter(State::Probation, reason);
        let mut good = 0;
        loop {
            let policy = self.policy();
            if !policy.ejection.enabled {
                return Ok("ejection is switched off".to_owned());
            }
            let begun = Instant::now();
            match self.check(&policy.check).await {
                Checked::Good => good += 1,
                Checked::Failed(why) => {
                    let reason = format!("a health check failed in probation: {why}");
                    return Err(Trip { rule: Rule::HealthCheck, reason });
                }
                Checked::Skipped => {}
            }
            if good >= policy.check.healthy {
                return Ok(format!("{good} health checks in a row were good"));
            }
            sleep(policy.check.interval.saturating_sub(begun.elapsed())).await;
        }
    }

    async fn check(&self, check: &HealthCheck) -> Checked {
        let checked = self.surroundings.check(check).await;
        match &checked {
            Checked::Good => self.health.metrics.checks_good.inc(),
            Checked::Failed(why) => {
                self.health.metrics.checks_failed.inc();
                log::debug!("{}: a health check failed: {why}", self.health.url);
            }
            Checked::Skipped => {}
        }
        checked
    }

    fn policy(&self) -> Arc<HealthPolicy> {
        self.health.policy.load_full()
    }
}

#[cfg(test)]
mod tests;

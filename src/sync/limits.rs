//! The backends, not more at once than they can stand.
//!
//! Each has so many slots for requests; a copy takes one of both ends. Whoever could not be asked several times in a
//! row is left alone ([`Circuit`]): only that counts, because a backend that answers and refuses is repaired object by
//! object, with the pauses of each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::{
    Copied, Gate, Held, Md5, State, StoreError, Stores,
    circuit::{Admission, Circuit, Turn},
};
use crate::{
    journal::Object,
    telemetry::metrics::{IntGauge, SyncBackendMetrics, SyncMetrics},
};

/// [`Stores`] within limits.
pub struct Limited {
    inner: Arc<dyn Stores>,
    backends: HashMap<String, Backend>,
}

struct Backend {
    slots: Semaphore,
    circuit: Mutex<Circuit>,
    metrics: SyncBackendMetrics,
}

/// A request under way.
struct Slot<'a> {
    _permit: SemaphorePermit<'a>,
    requests: &'a IntGauge,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.requests.dec();
    }
}

/// That all backends of an object may be asked; those that were left alone are tried by its holder.
pub struct Pass<'a> {
    limited: &'a Limited,
    probes: Vec<&'a str>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        for backend in self.probes.drain(..).filter_map(|name| self.limited.backends.get(name)) {
            backend.circuit().give_up();
        }
    }
}

impl Backend {
    fn circuit(&self) -> std::sync::MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` = never: nobody closes slots.
    async fn slot(&self) -> Option<Slot<'_>> {
        let permit = self.slots.acquire().await.ok()?;
        self.metrics.requests.inc();
        Some(Slot { _permit: permit, requests: &self.metrics.requests })
    }

    /// Learns from what asking it came to.
    fn learn(&self, name: &str, state: &State) {
        let turn = match state {
            State::Unknown(why) => self.circuit().failed(Instant::now().into_std(), why),
            _ => self.circuit().answered(),
        };
        match (turn, state) {
            (Turn::Opened, State::Unknown(why)) => {
                self.metrics.left_alone.set(1);
                log::warn!("{name} is left alone for a while: {why}");
            }
            (Turn::Closed, _) => {
                self.metrics.left_alone.set(0);
                log::info!("{name} can be asked again");
            }
            _ => {}
        }
    }
}

impl Limited {
    /// `names` are all endpoints; `at_once` = requests to one of them.
    pub fn new<'a>(
        inner: Arc<dyn Stores>,
        names: impl IntoIterator<Item = &'a str>,
        at_once: usize,
        metrics: &SyncMetrics,
    ) -> Limited {
        let backend = |name: &str| Backend {
            slots: Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)),
            circuit: Mutex::new(Circuit::new()),
            metrics: metrics.backend(name),
        };
        let backends = names.into_iter().map(|name| (name.to_owned(), backend(name))).collect();
        Limited { inner, backends }
    }

    /// Whether these may be asked now; else after which pause, and why.
    pub fn admit<'a>(&'a self, names: &'a [String]) -> Result<Pass<'a>, (Duration, String)> {
        let mut pass = Pass { limited: self, probes: Vec::new() };
        for name in names {
            let Some(backend) = self.backends.get(name) else { continue };
            let admission = backend.circuit().admit(Instant::now().into_std());
            match admission {
                Admission::Free => {}
                Admission::Probe => pass.probes.push(name),
                Admission::Later(pause, why) => return Err((pause, why)),
            }
        }
        Ok(pass)
    }

    async fn slot(&self, name: &str) -> Option<Slot<'_>> {
        self.backends.get(name)?.slot().await
    }

    /// One slot of each of two, always in the same order: two copies in opposite directions do not wait for each other.
    async fn slots(&self, one: &str, other: &str) -> (Option<Slot<'_>>, Option<Slot<'_>>) {
        let (first, second) = if one <= other { (one, other) } else { (other, one) };
        let first_slot = self.slot(first).await;
        let second_slot = if first == second { None } else { self.slot(second).await };
        (first_slot, second_slot)
    }
}

#[async_trait]
impl Stores for Limited {
    async fn state(&self, backend: &str, object: &Object) -> State {
        let _slot = self.slot(backend).await;
        let state = self.inner.state(backend, object).await;
        // A bucket cannot be asked for, which says nothing of its backend.
        if let Some(known) = self.backends.get(backend).filter(|_| !object.key.is_empty()) {
            known.learn(backend, &state);
        }
        state
    }

    async fn md5(&self, backend: &str, object: &Object, held: &Held) -> Result<Md5, StoreError> {
        let _slot = self.slot(backend).await;
        self.inner.md5(backend, object, held).await
    }

    async fn copy(
        &self,
        object: &Object,
        from: (&str, &Held),
        to: (&str, &State),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError> {
        let _slots = self.slots(from.0, to.0).await;
        let copied = self.inner.copy(object, from, to, gate).await?;
        if let Some(backend) = self.backends.get(to.0) {
            backend.metrics.copied_objects.inc();
            backend.metrics.copied_bytes.inc_by(from.1.length);
        }
        Ok(copied)
    }

    async fn delete(
        &self,
        object: &Object,
        backend: (&str, &Held),
        gate: &dyn Gate,
    ) -> Result<(), StoreError> {
        let _slot = self.slot(backend.0).await;
        self.inner.delete(object, backend, gate).await?;
        if let Some(backend) = self.backends.get(backend.0) {
            backend.metrics.deleted_objects.inc();
        }
        Ok(())
    }

    async fn attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let _slot = self.slot(backend).await;
        self.inner.attribute(backend, object, name).await
    }

    async fn set_attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let _slot = self.slot(backend).await;
        self.inner.set_attribute(backend, object, name, value).await
    }
}

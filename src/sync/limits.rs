//! The backends, not more at once than they can stand.
//!
//! Each has so many slots for requests; a copy takes one of both ends. Whoever could not be asked, or left it unknown what
//! came of a change, several times in a row is left alone ([`Circuit`]); so is who does not answer as a storage does where
//! it is asked what it holds. What else a backend answered that is no refusal says nothing of others' objects.
//!
//! A refusal may be about one object, which is for a human then, or about the account, and then it would be about all of
//! them. It is taken to be about the object only if the last that was heard of the backend was good. Else it counts as
//! a failure: of an account that is refused, whatever it asks or does, the backend is left alone, and objects wait.
//! Questions, reading and changing are looked at apart ([`Kind`]), since an account may have the right to one only. What
//! the object that was to try one had no need of is open to all again ([`Pass::end`]), until it fails once more.

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
    stores::refused_credentials,
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
    circuits: Mutex<Circuits>,
    metrics: SyncBackendMetrics,
}

/// What is done with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What it holds.
    Ask,
    Read,
    Change,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Ask, Kind::Read, Kind::Change];
}

/// What is known of a backend, by kind.
struct Circuits([Circuit; 3]);

impl Circuits {
    fn of(&mut self, kind: Kind) -> &mut Circuit {
        &mut self.0[kind as usize]
    }
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
    probes: Vec<(&'a str, Kind)>,
}

impl Pass<'_> {
    /// The holder has done all that there was to do: what was not tried was not needed, where questions were answered.
    pub fn end(mut self) {
        for (name, kind) in self.probes.drain(..) {
            let Some(backend) = self.limited.backends.get(name) else { continue };
            let mut circuits = backend.circuits();
            if circuits.of(Kind::Ask).is_well() {
                let turn = circuits.of(kind).pass_over();
                backend.tell(name, &circuits, turn, "");
            } else {
                circuits.of(kind).give_up();
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        for (name, kind) in self.probes.drain(..) {
            if let Some(backend) = self.limited.backends.get(name) {
                backend.circuits().of(kind).give_up();
            }
        }
    }
}

impl Backend {
    fn circuits(&self) -> std::sync::MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` = never: nobody closes slots.
    async fn slot(&self) -> Option<Slot<'_>> {
        let permit = self.slots.acquire().await.ok()?;
        self.metrics.requests.inc();
        Some(Slot { _permit: permit, requests: &self.metrics.requests })
    }

    /// Learns from what asking it came to, and says what is to be believed of it.
    fn learn(&self, name: &str, object: &Object, state: State) -> State {
        match state {
            State::Unknown(why) => {
                self.failed(name, Kind::Ask, &why);
                State::Unknown(why)
            }
            State::Denied(why) => match self.refused(name, Kind::Ask, object, why) {
                Ok(why) => State::Refused(why),
                Err(why) => State::Unknown(why),
            },
            state @ (State::Absent | State::Present(_) | State::Refused(_)) => {
                self.answered(name, Kind::Ask);
                state
            }
        }
    }

    /// It did what it was asked to.
    fn answered(&self, name: &str, kind: Kind) {
        let mut circuits = self.circuits();
        let turn = circuits.of(kind).answered();
        self.tell(name, &circuits, turn, "");
    }

    fn failed(&self, name: &str, kind: Kind, why: &str) {
        let mut circuits = self.circuits();
        let turn = circuits.of(kind).failed(Instant::now().into_std(), why);
        self.tell(name, &circuits, turn, why);
    }

    /// It refused to tell a sub-resource of an object, for which an account may have no right that may do all else: where
    /// questions about objects are answered, that says nothing of others' objects.
    fn kept_back(&self, name: &str, object: &Object, why: String) -> Result<String, String> {
        if self.circuits().of(Kind::Ask).is_well() {
            Ok(why)
        } else {
            self.refused(name, Kind::Read, object, why)
        }
    }

    /// It refused something of an object: why, or that it refuses the account.
    fn refused(&self, name: &str, kind: Kind, object: &Object, why: String) -> Result<String, String> {
        // Under one lock: of several at once only the first finds it well.
        let mut circuits = self.circuits();
        let is_well = circuits.of(kind).is_well();
        let why = if is_well { why } else { refused_credentials(&object.cluster, name, &why) };
        let turn = circuits.of(kind).failed(Instant::now().into_std(), &why);
        self.tell(name, &circuits, turn, &why);
        if is_well { Ok(why) } else { Err(why) }
    }

    fn tell(&self, name: &str, circuits: &Circuits, turn: Turn, why: &str) {
        match turn {
            Turn::Opened => {
                self.metrics.left_alone.set(1);
                log::warn!("{name} is left alone for a while: {why}");
            }
            Turn::Closed if circuits.0.iter().all(Circuit::is_closed) => {
                self.metrics.left_alone.set(0);
                log::info!("{name} can be asked again");
            }
            Turn::Closed | Turn::None => {}
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
            circuits: Mutex::new(Circuits(std::array::from_fn(|_| Circuit::new()))),
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
            for kind in Kind::ALL {
                let admission = backend.circuits().of(kind).admit(Instant::now().into_std());
                match admission {
                    Admission::Free => {}
                    Admission::Probe => pass.probes.push((name, kind)),
                    Admission::Later(pause, why) => return Err((pause, why)),
                }
            }
        }
        Ok(pass)
    }

    /// Learns from what work with an object on these came to, and says what is to be believed of it.
    fn judged<T>(
        &self,
        object: &Object,
        used: &[(&str, Kind)],
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let known = || used.iter().filter_map(|(name, kind)| Some((*name, *kind, self.backends.get(*name)?)));
        match outcome {
            Ok(done) => {
                known().for_each(|(name, kind, backend)| backend.answered(name, kind));
                Ok(done)
            }
            Err(StoreError::Denied { by, why }) => match known().find(|(name, ..)| *name == by) {
                Some((name, kind, backend)) => Err(match backend.refused(name, kind, object, why) {
                    Ok(why) => StoreError::Denied { by, why },
                    Err(why) => StoreError::Failed(why),
                }),
                None => Err(StoreError::Denied { by, why }),
            },
            Err(StoreError::Unfinished { etag, why }) => match self.judged::<T>(object, used, Err(*why)) {
                Err(why) => Err(StoreError::Unfinished { etag, why: Box::new(why) }),
                done => done,
            },
            Err(StoreError::Unknown(why)) => {
                let changed = known().filter(|(_, kind, _)| *kind == Kind::Change);
                changed.for_each(|(name, kind, backend)| backend.failed(name, kind, &why));
                Err(StoreError::Unknown(why))
            }
            Err(error) => Err(error),
        }
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
        match self.backends.get(backend).filter(|_| !object.key.is_empty()) {
            Some(known) => known.learn(backend, object, state),
            None => state,
        }
    }

    async fn md5(&self, backend: &str, object: &Object, held: &Held) -> Result<Md5, StoreError> {
        let _slot = self.slot(backend).await;
        self.judged(object, &[(backend, Kind::Read)], self.inner.md5(backend, object, held).await)
    }

    async fn copy(
        &self,
        object: &Object,
        from: (&str, &Held),
        to: (&str, &State, Instant),
        gate: &dyn Gate,
    ) -> Result<Copied, StoreError> {
        let _slots = self.slots(from.0, to.0).await;
        let copied = self.inner.copy(object, from, to, gate).await;
        let copied = self.judged(object, &[(from.0, Kind::Read), (to.0, Kind::Change)], copied)?;
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
        self.judged(object, &[(backend.0, Kind::Change)], self.inner.delete(object, backend, gate).await)?;
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
        let told = self.inner.attribute(backend, object, name).await;
        match (told, self.backends.get(backend)) {
            (Err(StoreError::Denied { by, why }), Some(known)) => {
                Err(match known.kept_back(backend, object, why) {
                    Ok(why) => StoreError::Denied { by, why },
                    Err(why) => StoreError::Failed(why),
                })
            }
            (told, _) => self.judged(object, &[(backend, Kind::Read)], told),
        }
    }

    async fn set_attribute(
        &self,
        backend: &str,
        object: &Object,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let _slot = self.slot(backend).await;
        self.judged(
            object,
            &[(backend, Kind::Change)],
            self.inner.set_attribute(backend, object, name, value).await,
        )
    }
}

#[cfg(test)]
mod tests;

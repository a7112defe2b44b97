//! What the rest of the program asks and tells the road about the health of backends.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    super::{Upstream, peer::Peer},
    HealthPolicy, Monitor, Rule, State, Status, Watched,
};
use crate::{telemetry::metrics::Cut, topology::BackendId};

impl Upstream {
    /// A backend's state, why it is so, and since when.
    pub fn health(&self, backend: BackendId) -> Option<Arc<Status>> {
        self.peers.with(backend, |peer| peer.health.status())
    }

    /// Why a backend gets no requests for the time being, if it gets none.
    pub fn ejected(&self, backend: BackendId) -> Option<String> {
        let peer = self.peers.get(backend).filter(|peer| !peer.health.is_in())?;
        let status = peer.health.status();
        match status.state {
            State::Healthy => None,
            State::Ejected => Some(format!("ejected: {}", status.reason)),
            State::Probation => Some(format!("ejected, in probation: {}", status.reason)),
        }
    }

    /// A sub-request was ended from outside; `whole` if the backend had all of it. Counts it, and takes it for a
    /// failure where the backend did not keep up: where it alone held up an upload, and where it had the whole of a
    /// write and did not answer, until a later one could wait no longer. Too much work in the background is none,
    /// since clients may just write faster than it; what stalls there fails by itself.
    pub fn cut(&self, backend: BackendId, reason: Cut, whole: bool) {
        let Some(peer) = self.peers.get(backend) else { return };
        peer.metrics.cut(reason);
        match reason {
            Cut::Slow => peer.health.cut("too slow: it alone held up an upload"),
            Cut::Superseded if whole => peer.health.cut("no answer before the next write to the same object"),
            _ => {}
        }
    }

    /// No connection became free within `patience`: of the backends beside this one the one with most connections
    /// is to be taken out.
    pub(in crate::upstream) fn too_many_connections(&self, peer: &Arc<Peer>, patience: Duration) {
        if !peer.health.is_in() {
            // It is out already; this one waited since before.
            return;
        }
        let busiest = self.wards.busiest(peer);
        busiest.health.raise(Rule::Connections, || {
            let (most, url) = (busiest.in_flight(), &peer.backend.url);
            format!(
                "all connections to {url} that MaxConnsPerBackend allows were in use, and none became free within \
                 {patience:?}; of its cluster's backends this one has most in use, {most}"
            )
        });
    }

    /// Exchanges the numbers by which health is judged. Who is ejected stays so.
    pub(in crate::upstream) fn set_health_policy(&self, policy: HealthPolicy) {
        if **self.policy.load() == policy {
            return;
        }
        self.policy.store(Arc::new(policy));
        // Counts over another window mean something else.
        self.peers.all().iter().for_each(|peer| peer.health.forget());
    }

    /// Begins to watch over the health of all backends that nobody watches yet.
    pub fn run_health(self: &Arc<Self>) {
        self.peers.all().iter().for_each(|peer| self.watch(peer));
    }

    /// Begins to watch over the health of one backend, unless somebody does: a task that ends with
    /// [`Upstream::unwatch`].
    fn watch(self: &Arc<Self>, peer: &Arc<Peer>) {
        let mut monitor = peer.health.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        if monitor.as_ref().is_none_or(|running| running.is_finished()) {
            let watched = Watched { upstream: self.clone(), peer: peer.clone() };
            let task = tokio::spawn(Monitor::new(peer.health.clone(), watched).run());
            *monitor = Some(task.abort_handle());
        }
    }

    /// Ends that for a backend which is none any more.
    pub(in crate::upstream) fn unwatch(&self, peer: &Peer) {
        let mut monitor = peer.health.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = monitor.take() {
            running.abort();
        }
    }
}

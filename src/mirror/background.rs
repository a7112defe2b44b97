//! The bound on work that goes on after the client has its answer: per backend, in count and in bytes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    config::MirrorConfig,
    telemetry::metrics::{BackendMetrics, IntGauge},
    topology::{Backend, BackendId, ByBackend},
};

/// The books of all backends.
#[derive(Debug, Default)]
pub(super) struct Background(ByBackend<Load>);

#[derive(Debug)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    metrics: Arc<BackendMetrics>,
}

/// One sub-request in the background; its share is given back when dropped.
pub(super) struct Place {
    load: Arc<Load>,
    bytes: usize,
}

impl Background {
    /// Keeps books of these backends. Not to be called by two at once.
    pub fn hold(&self, backends: &[Arc<Backend>]) {
        self.0.hold(backends, |backend| {
            Arc::new(Load {
                requests: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                metrics: BackendMetrics::of(&backend.url),
            })
        });
    }

    /// The gauge of what waits for a backend in the queues of uploads.
    pub fn waiting_bytes(&self, backend: &Backend) -> IntGauge {
        let known = self.0.with(backend.id, |load| load.metrics.replica_buffer_bytes.clone());
        known.unwrap_or_else(|| BackendMetrics::of(&backend.url).replica_buffer_bytes.clone())
    }

    /// A place for a sub-request with `bytes` still to be sent; `None` when the backend has too much waiting, or is
    /// none any more.
    pub fn admit(&self, backend: BackendId, bytes: usize, most: &MirrorConfig) -> Option<Place> {
        let load = self.0.get(backend)?;
        let requests = load.requests.fetch_add(1, Relaxed);
        let waiting = load.bytes.fetch_add(bytes, Relaxed);
        load.metrics.background_requests.inc();
        load.metrics.background_bytes.add(bytes as i64);
        let place = Place { load, bytes };
        (requests < most.background_requests && waiting + bytes <= most.background_bytes).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Place { load, bytes } = self;
        load.requests.fetch_sub(1, Relaxed);
        load.bytes.fetch_sub(*bytes, Relaxed);
        load.metrics.background_requests.dec();
        load.metrics.background_bytes.sub(*bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_and_bytes_are_bounded_per_backend_and_given_back() {
        let backend = |id| {
            let (url, host) = (format!("http://background-{id}"), format!("background-{id}"));
            Arc::new(Backend { id, url, host, port: 80, maintained: false })
        };
        let background = Background::default();
        background.hold(&[backend(0), backend(1)]);
        let config = crate::topology::fixture::config(vec![], vec![]).mirror;
        let most = MirrorConfig { background_requests: 2, background_bytes: 100, ..config };
        let admit = |id, bytes| background.admit(id, bytes, &most);
        let first = admit(0, 60);
        assert!(first.is_some());
        assert!(admit(0, 60).is_none(), "too many bytes");
        let _second = admit(0, 40);
        assert!(_second.is_some());
        assert!(admit(0, 0).is_none(), "too many requests");
        assert!(admit(1, 100).is_some(), "another backend");
        drop(first);
        assert!(admit(0, 60).is_some());
    }
}

//! The bound on work that goes on after the client has its answer: per backend, in count and in bytes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::{
    telemetry::metrics::{BackendMetrics, IntGauge},
    topology::{Backend, BackendId},
};

/// The books of all backends.
#[derive(Debug)]
pub(super) struct Background {
    most_requests: usize,
    most_bytes: usize,
    backends: Vec<Load>,
}

#[derive(Debug)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    metrics: Arc<BackendMetrics>,
}

/// One sub-request in the background; its share is given back when dropped.
pub(super) struct Place {
    background: Arc<Background>,
    backend: BackendId,
    bytes: usize,
}

impl Background {
    /// `backends` in the order of their ids.
    pub fn new(backends: &[Arc<Backend>], most_requests: usize, most_bytes: usize) -> Arc<Self> {
        let load = |backend: &Arc<Backend>| Load {
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            metrics: BackendMetrics::of(&backend.url),
        };
        let backends = backends.iter().map(load).collect();
        Arc::new(Background { most_requests, most_bytes, backends })
    }

    /// The gauge of what waits for a backend in the queues of uploads.
    pub fn waiting_bytes(&self, backend: BackendId) -> IntGauge {
        self.backends[backend].metrics.replica_buffer_bytes.clone()
    }

    /// A place for a sub-request with `bytes` still to be sent; `None` when the backend has too much waiting.
    pub fn admit(self: &Arc<Self>, backend: BackendId, bytes: usize) -> Option<Place> {
        let load = self.backends.get(backend)?;
        let requests = load.requests.fetch_add(1, Relaxed);
        let waiting = load.bytes.fetch_add(bytes, Relaxed);
        load.metrics.background_requests.inc();
        load.metrics.background_bytes.add(bytes as i64);
        let place = Place { background: self.clone(), backend, bytes };
        (requests < self.most_requests && waiting + bytes <= self.most_bytes).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(load) = self.background.backends.get(self.backend) {
            load.requests.fetch_sub(1, Relaxed);
            load.bytes.fetch_sub(self.bytes, Relaxed);
            load.metrics.background_requests.dec();
            load.metrics.background_bytes.sub(self.bytes as i64);
        }
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
        let background = Background::new(&[backend(0), backend(1)], 2, 100);
        let first = background.admit(0, 60);
        assert!(first.is_some());
        assert!(background.admit(0, 60).is_none(), "too many bytes");
        let _second = background.admit(0, 40);
        assert!(_second.is_some());
        assert!(background.admit(0, 0).is_none(), "too many requests");
        assert!(background.admit(1, 100).is_some(), "another backend");
        drop(first);
        assert!(background.admit(0, 60).is_some());
    }
}

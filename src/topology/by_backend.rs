//! The state of backends, by id.
//!
//! A snapshot of the topology says which backends there are; what is known of them (connections, addresses, health,
//! work in the background) is kept in tables of this type, and survives a reload. Reading costs neither a lock nor a
//! shared counter. Entries of backends that are not in the topology any more are dropped; whoever still works with
//! one holds it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Backend, BackendId};

/// A table that is read by many and changed by few.
#[derive(Debug)]
pub struct ByBackend<T>(ArcSwap<Vec<Option<Arc<T>>>>);

impl<T> Default for ByBackend<T> {
    fn default() -> Self {
        ByBackend(ArcSwap::from_pointee(Vec::new()))
    }
}

/// What a change of the backends has come to.
#[derive(Debug)]
pub struct Change<T> {
    pub added: Vec<Arc<T>>,
    pub dropped: Vec<Arc<T>>,
}

impl<T> ByBackend<T> {
    /// The entry of a backend that is in the topology.
    pub fn get(&self, id: BackendId) -> Option<Arc<T>> {
        self.0.load().get(id)?.clone()
    }

    /// Looks at an entry without holding it.
    pub fn with<R>(&self, id: BackendId, look: impl FnOnce(&Arc<T>) -> R) -> Option<R> {
        self.0.load().get(id)?.as_ref().map(look)
    }

    /// All entries, in the order of ids.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.0.load().iter().flatten().cloned().collect()
    }

    /// Makes the table one of these backends, each named once: entries that are there stay, others are made or
    /// dropped. Not to be called by two at once.
    pub fn hold(
        &self,
        backends: &[Arc<Backend>],
        mut make: impl FnMut(&Arc<Backend>) -> Arc<T>,
    ) -> Change<T> {
        let mut before = self.0.load().to_vec();
        let slots = backends.iter().map(|backend| backend.id + 1).max().unwrap_or(0).max(before.len());
        let mut after = vec![None; slots];
        let mut added = Vec::new();
        for backend in backends {
            let kept = before.get_mut(backend.id).and_then(Option::take);
            after[backend.id] = Some(kept.unwrap_or_else(|| {
                let made = make(backend);
                added.push(made.clone());
                made
            }));
        }
        self.0.store(Arc::new(after));
        Change { added, dropped: before.into_iter().flatten().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(ids: &[BackendId]) -> Vec<Arc<Backend>> {
        let backend = |id: &BackendId| {
            let host = format!("b{id}");
            Arc::new(Backend { id: *id, url: format!("http://{host}"), host, port: 80, maintained: false })
        };
        ids.iter().map(backend).collect()
    }

    #[test]
    fn entries_stay_as_long_as_their_backend_and_no_longer() {
        let table = ByBackend::default();
        let mut made = 0;
        let mut hold = |ids: &[BackendId]| {
            let change = table.hold(&backends(ids), |backend| {
                made += 1;
                Arc::new((backend.id, made))
            });
            (change.added.len(), change.dropped.iter().map(|entry| entry.0).collect::<Vec<_>>())
        };
        assert_eq!(hold(&[0, 1]), (2, vec![]));
        assert_eq!(hold(&[1, 2]), (1, vec![0]));
        assert_eq!(hold(&[2, 0, 1]), (1, vec![]));
        assert_eq!(table.all().iter().map(|entry| **entry).collect::<Vec<_>>(), [(0, 4), (1, 2), (2, 3)]);
        assert_eq!(table.get(3), None);
        assert_eq!(table.with(1, |entry| entry.1), Some(2));
    }
}

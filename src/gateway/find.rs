//! What follows from where a read found its object: a record if a backend of its home cluster lacks it, a misplacement
//! if it is on another cluster.

use std::sync::Arc;

use super::{Gateway, write, write::Recorder};
use crate::{
    journal::Known, s3::Operation, synclog::Misplacement, telemetry::metrics::METRICS, topology::Backend,
};

impl Gateway {
    /// Records what is not as it should be. `by` = the cluster, by its place in the search, and the backend; `absent` =
    /// backends of the first one that said that there is no such object; `known` = what the journal said of it before.
    pub(super) async fn record_find(
        &self,
        recorder: &Recorder,
        (cluster, backend): (usize, Arc<Backend>),
        absent: &[Arc<Backend>],
        known: Option<&Known>,
    ) {
        let request = &recorder.route.request;
        match cluster {
            0 if absent.is_empty() => {}
            // Versions have other names on each backend, and a sub-resource may be what is missing.
            0 if request.version_id.is_some() || request.sub_resource.is_some() => {}
            // A write that is under way, or was while the backends were asked, explains it.
            0 if self.is_being_written(recorder) => {}
            0 => {
                if let Some(journaling) = &self.journaling {
                    journaling.found(recorder.seen(absent, &backend), known);
                }
                recorder.read(absent, &backend).await;
            }
            _ if request.operation != Operation::Read => {}
            elsewhere => {
                let found_on = &recorder.clusters[elsewhere].name;
                if let Some(journaling) = &self.journaling {
                    journaling.found(recorder.misplaced(found_on, absent), known);
                }
                self.record_misplacement(recorder, found_on).await;
            }
        }
    }

    fn is_being_written(&self, recorder: &Recorder) -> bool {
        let object = write::object_name(&recorder.route.request.target);
        object.is_some_and(|object| !self.mirror.order().lagging(&object).is_empty())
    }

    async fn record_misplacement(&self, recorder: &Recorder, found_on: &str) {
        METRICS.misplacements.inc();
        let misplacement = Misplacement {
            key: String::from_utf8_lossy(&recorder.route.request.ring_key).into_owned(),
            expected: recorder.clusters[0].name.clone(),
            actual: found_on.to_owned(),
        };
        self.logs.synclog.misplaced(misplacement).await;
    }
}

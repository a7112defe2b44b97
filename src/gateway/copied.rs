//! Copies of what backends may not agree on. Each backend copies what it has itself, and where only the tags of that are
//! older, no answer tells. So one backend's copy counts, and the journal hears that the others have none: they are
//! brought to it, tags included.

use super::{Gateway, route::Route, write};
use crate::{
    journal::Object,
    mirror::{Kind, Reply},
    s3::{Operation, Target},
    topology::{BackendId, Cluster},
};

/// The source of a copy is not known to be the same on all backends.
pub struct Doubt {
    /// Those that lack its last write, or have not ended it.
    lagging: Vec<BackendId>,
}

impl Gateway {
    /// Whether the source of a copy, within one cluster, is in doubt. Without a journal nobody could do anything about it.
    pub(super) fn doubt(&self, route: &Route, home: &Cluster) -> Option<Doubt> {
        let journaling = self.journaling.as_ref()?;
        let Operation::Copy { .. } = route.request.operation else { return None };
        let source = route.request.copy_source.as_ref()?;
        let (bucket, key) = (source.bucket.clone(), source.key.clone());
        let object = Object { cluster: home.name.clone(), bucket: bucket.clone(), key: key.clone() };
        let name = write::object_name(&Target::Object { bucket, key })?;
        let lagging: Vec<BackendId> = self.mirror.order().lagging(&name).all().collect();
        (!lagging.is_empty() || journaling.may_have_records(&object)).then_some(Doubt { lagging })
    }
}

impl Doubt {
    /// The replies as if one backend alone had taken the copy: one that does not lag, if such a one did.
    pub fn believed(&self, replies: &[Reply]) -> Vec<Reply> {
        let good = || replies.iter().filter(|reply| reply.kind == Kind::Good);
        let is_up_to_date = |reply: &&Reply| !self.lagging.contains(&reply.backend.id);
        let one = good().find(is_up_to_date).or_else(|| good().next()).map(|reply| reply.backend.id);
        let believed = |reply: &Reply| match reply.kind {
            Kind::Good if Some(reply.backend.id) != one => {
                let Reply { backend, cluster, .. } = reply.clone();
                let error = format!("{}: what it copied may be older", backend.url);
                Reply::without_answer(backend, cluster, Kind::NotApplied, error)
            }
            _ => reply.clone(),
        };
        replies.iter().map(believed).collect()
    }
}

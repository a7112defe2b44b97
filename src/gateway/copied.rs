//! Copies of what backends may not agree on. Each backend copies what it has itself, and where that is older no answer
//! tells: a client that moves an object would lose its newest version. So backends that lack that take no part in the
//! copy. Where it is not known who does, or only the tags may be older, one backend's copy counts. In both cases the
//! journal hears that the others have none: they are brought to it, tags included.

use super::{Gateway, route::Route, write};
use crate::{
    journal::Object,
    mirror::{Kind, Reply},
    s3::Target,
    topology::{BackendId, Cluster},
};

/// The source of a copy is not known to be the same on all backends.
pub struct Doubt {
    /// Those that lack its last write, as far as is known, or have not ended it.
    lagging: Vec<BackendId>,
    /// Those of them that surely do.
    left_out: Vec<BackendId>,
}

impl Gateway {
    /// Whether the source of a copy, or of a part of one, within one cluster, is in doubt. Without a journal nobody could
    /// do anything about it.
    pub(super) async fn doubt(&self, route: &Route, home: &Cluster) -> Option<Doubt> {
        let journaling = self.journaling.as_ref()?;
        let source = route.request.copy_source.as_ref()?;
        let (bucket, key) = (source.bucket.clone(), source.key.clone());
        let object = Object { cluster: home.name.clone(), bucket: bucket.clone(), key: key.clone() };
        let target = Target::Object { bucket, key };
        let (lagging, _) = self.lagging(&target, home).await;
        let own = self.mirror.order().lagging(&write::object_name(&target)?);
        let may_have_records = journaling.may_have_records(&object);
        if own.is_empty() && !may_have_records {
            return None;
        }
        // What was missed here and is in no record has been repaired.
        let left_out = if may_have_records { lagging.clone() } else { own.unfinished };
        // Where none has the last write they are all alike.
        let is_all = home.backends.iter().all(|backend| left_out.contains(&backend.id));
        Some(Doubt { lagging, left_out: if is_all { Vec::new() } else { left_out } })
    }
}

impl Doubt {
    /// Backends that are not to be asked for the copy.
    pub fn left_out(&self) -> &[BackendId] {
        &self.left_out
    }

    /// The replies as if one backend alone had taken the copy: one that does not lag, if such a one did.
    pub fn believed(&self, replies: &[Reply]) -> Vec<Reply> {
        let good = || replies.iter().filter(|reply| reply.kind == Kind::Good);
        let is_up_to_date = |reply: &&Reply| !self.lagging.contains(&reply.backend.id);
        let one = good().find(is_up_to_date).or_else(|| good().next()).map(|reply| reply.backend.id);
        let believed = |reply: &Reply| match reply.kind {
            Kind::Good if Some(reply.backend.id) != one => {
                let Reply { backend, cluster, sent_twice, .. } = reply.clone();
                let error = format!("{}: what it copied may be older", backend.url);
                // What was sent twice may yet come over what it is brought to.
                Reply { sent_twice, ..Reply::without_answer(backend, cluster, Kind::NotApplied, error) }
            }
            _ => reply.clone(),
        };
        replies.iter().map(believed).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::topology::Backend;

    fn good(id: BackendId) -> Reply {
        let (url, host) = (format!("http://b{id}"), format!("b{id}"));
        let backend = Arc::new(Backend { id, url, host, port: 80, maintained: false });
        Reply::without_answer(backend, 0, Kind::Good, String::new())
    }

    #[test]
    fn one_copy_counts_and_what_was_sent_twice_is_still_waited_for() {
        let believed = |lagging: &[BackendId]| {
            let doubt = Doubt { lagging: lagging.to_vec(), left_out: Vec::new() };
            let replies = [good(0), Reply { sent_twice: true, ..good(1) }];
            doubt.believed(&replies).iter().map(|reply| (reply.kind, reply.sent_twice)).collect::<Vec<_>>()
        };
        assert_eq!(believed(&[]), [(Kind::Good, false), (Kind::NotApplied, true)]);
        assert_eq!(believed(&[0]), [(Kind::NotApplied, false), (Kind::Good, true)]);
        assert_eq!(believed(&[0, 1]), [(Kind::Good, false), (Kind::NotApplied, true)]);
    }
}

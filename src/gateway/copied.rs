//! Copies of what backends may not agree on. Each backend copies what it has itself, and where that is older no answer
//! tells: a client that moves an object would lose its newest version. So backends that lack that take no part in the
//! copy. Where it is not known who does, or only the tags may be older, one backend's copy counts. In both cases the
//! journal hears that the others have none: they are brought to it, tags included. Where the bytes differ it hears what
//! each has copied.

use super::{Gateway, journaling::lagging::Word, route::Route};
use crate::{
    mirror::{Kind, Reply},
    s3::Target,
    topology::{BackendId, Cluster},
};

/// The source of a copy is not known to be the same on all backends.
pub struct Doubt {
    /// Those that lack its last write, as far as is known, or have not ended it. Of the others none is known to be ahead.
    left_out: Vec<BackendId>,
    /// Whose answer the client got.
    pub answered_by: Option<BackendId>,
}

impl Gateway {
    /// Whether the source of a copy, or of a part of one, within one cluster, is in doubt. Without a journal nobody could
    /// do anything about it.
    pub(super) async fn doubt(&self, route: &Route, home: &Cluster) -> Option<Doubt> {
        let journaling = self.journaling.as_ref()?;
        let source = route.request.copy_source.as_ref()?;
        let target = Target::Object { bucket: source.bucket.clone(), key: source.key.clone() };
        let (lagging, word) = self.lagging(&target, home).await;
        if lagging.is_empty() && word == Word::Nothing && journaling.surely_lacks(&target, home) {
            return None;
        }
        // Where none has the last write they are all alike.
        let is_all = home.backends.iter().all(|backend| lagging.contains(&backend.id));
        Some(Doubt { left_out: if is_all { Vec::new() } else { lagging }, answered_by: None })
    }
}

impl Doubt {
    /// Backends that are not to be asked for the copy.
    pub fn left_out(&self) -> &[BackendId] {
        &self.left_out
    }

    /// The replies as if one backend alone had taken the copy: the one whose answer the client got, so that what the
    /// client knows is what the others are brought to. Where they have copied different bytes (`diverges` belongs to
    /// `replies`) that is no reason to go over what may be newer: all of them have taken it then.
    pub fn believed(&self, replies: &[Reply], diverges: &[bool]) -> Vec<Reply> {
        let is_good = |reply: &Reply| reply.kind == Kind::Good;
        if replies.iter().zip(diverges).any(|(reply, diverges)| is_good(reply) && *diverges) {
            return replies.to_vec();
        }
        let mut good = replies.iter().filter(|reply| is_good(reply)).map(|reply| reply.backend.id);
        let first = good.next();
        let one = good.find(|id| Some(*id) == self.answered_by).or(first);
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

    fn believed(answered_by: Option<BackendId>, diverges: &[bool]) -> Vec<(Kind, bool)> {
        let doubt = Doubt { left_out: Vec::new(), answered_by };
        let replies = [good(0), Reply { sent_twice: true, ..good(1) }];
        doubt.believed(&replies, diverges).iter().map(|reply| (reply.kind, reply.sent_twice)).collect()
    }

    #[test]
    fn the_copy_of_which_the_client_was_told_counts_and_what_was_sent_twice_is_still_waited_for() {
        for (answered_by, expected) in [
            (None, [(Kind::Good, false), (Kind::NotApplied, true)]),
            (Some(0), [(Kind::Good, false), (Kind::NotApplied, true)]),
            (Some(1), [(Kind::NotApplied, false), (Kind::Good, true)]),
        ] {
            assert_eq!(believed(answered_by, &[false, false]), expected, "{answered_by:?}");
        }
    }

    #[test]
    fn of_different_copies_none_is_taken_for_the_only_one() {
        assert_eq!(believed(Some(1), &[false, true]), [(Kind::Good, false), (Kind::Good, true)]);
    }
}

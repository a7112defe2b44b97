//! What the replies to a write mean for the journal, cluster by cluster: pure.

use std::sync::Arc;

use crate::{
    journal::Said,
    mirror::{Kind, Reply},
    topology::Backend,
};

/// How a write ended on the backends of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No backend of any cluster took it.
    Void,
    /// All took it, and agree.
    Settled,
    Diverged,
}

/// The outcome for one of the clusters, and what its backends said. `diverges` belongs to `replies`.
pub fn outcome(
    cluster: usize,
    replies: &[Reply],
    diverges: &[bool],
    left_out: &[Arc<Backend>],
) -> (Outcome, Vec<(String, Said)>) {
    let own = || replies.iter().zip(diverges).filter(|(reply, _)| reply.cluster == cluster);
    let taken = own().any(|(reply, _)| reply.kind == Kind::Good);
    let mut said: Vec<_> = own().map(|(reply, _)| (reply.backend.endpoint(), said(reply, taken))).collect();
    said.extend(left_out.iter().map(|backend| (backend.endpoint(), Said::NotApplied)));
    let outcome = if !replies.iter().any(may_have_taken) {
        Outcome::Void
    } else if left_out.is_empty() && own().all(|(reply, diverges)| reply.kind == Kind::Good && !diverges) {
        Outcome::Settled
    } else {
        Outcome::Diverged
    };
    (outcome, said)
}

/// `taken` = another backend of the cluster took it: what this one has is compared with that.
fn said(reply: &Reply, taken: bool) -> Said {
    match reply.kind {
        Kind::Good => Said::Good { etag: reply.etag.clone(), version: reply.version.clone() },
        Kind::NotApplied if taken || !may_have_taken(reply) => Said::NotApplied,
        Kind::NotApplied | Kind::Unknown => Said::Unknown,
    }
}

/// Whether the backend may have done what it was asked to. Some do it and then answer that something is broken; 501,
/// 503 and 505 mean that nothing was tried.
fn may_have_taken(reply: &Reply) -> bool {
    let broken = || {
        let status = reply.status.filter(http::StatusCode::is_server_error);
        status.is_some_and(|status| !matches!(status.as_u16(), 501 | 503 | 505))
    };
    reply.kind != Kind::NotApplied || broken()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::mirror::verdict::divergences;

    fn backend(id: usize) -> Arc<Backend> {
        Arc::new(Backend { id, url: format!("http://B{id}"), host: format!("B{id}"), port: 80, maintained: false })
    }

    fn reply(id: usize, cluster: usize, kind: Kind, status: u16, etag: &str) -> Reply {
        Reply {
            backend: backend(id),
            cluster,
            kind,
            status: StatusCode::from_u16(status).ok(),
            etag: Some(etag.to_owned()).filter(|etag| !etag.is_empty()),
            comparable: true,
            version: None,
            error: String::new(),
        }
    }

    fn outcomes(replies: &[Reply]) -> Vec<(Outcome, Vec<Said>)> {
        let seen: Vec<_> = replies.iter().map(|reply| (reply.kind, reply.etag.as_deref())).collect();
        let diverges = divergences(&seen, true);
        let most = replies.iter().map(|reply| reply.cluster).max().unwrap();
        let of = |cluster| {
            let (outcome, said) = outcome(cluster, replies, &diverges, &[]);
            (outcome, said.into_iter().map(|(_, said)| said).collect())
        };
        (0..=most).map(of).collect()
    }

    fn good(etag: &str) -> Said {
        Said::Good { etag: Some(etag.to_owned()).filter(|etag| !etag.is_empty()), version: None }
    }

    #[test]
    fn a_write_to_one_cluster_is_settled_void_or_diverged() {
        use Kind::*;
        use Outcome::*;
        const ONE: &str = "\"0123456789abcdef0123456789abcdef\"";
        const OTHER: &str = "\"1123456789abcdef0123456789abcdef\"";
        for (replies, outcome, said) in [
            ([(Good, 200, ONE), (Good, 200, ONE)], Settled, [good(ONE), good(ONE)]),
            ([(Good, 200, ONE), (Good, 200, OTHER)], Diverged, [good(ONE), good(OTHER)]),
            ([(Good, 200, ONE), (NotApplied, 0, "")], Diverged, [good(ONE), Said::NotApplied]),
            ([(Good, 200, ONE), (NotApplied, 500, "")], Diverged, [good(ONE), Said::NotApplied]),
            ([(Unknown, 0, ""), (NotApplied, 0, "")], Diverged, [Said::Unknown, Said::NotApplied]),
            ([(NotApplied, 403, ""), (NotApplied, 503, "")], Void, [Said::NotApplied, Said::NotApplied]),
            // It says that it is broken, not that it did nothing.
            ([(NotApplied, 403, ""), (NotApplied, 500, "")], Diverged, [Said::NotApplied, Said::Unknown]),
        ] {
            let [one, other] = replies;
            let replies = [reply(0, 0, one.0, one.1, one.2), reply(1, 0, other.0, other.1, other.2)];
            assert_eq!(outcomes(&replies), [(outcome, said.to_vec())], "{replies:?}");
        }
    }

    #[test]
    fn a_delete_that_a_cluster_did_not_take_diverges_there_alone() {
        use Kind::*;
        let replies = [reply(0, 0, Good, 204, ""), reply(1, 0, Good, 404, ""), reply(2, 1, NotApplied, 0, "")];
        let expected = [
            (Outcome::Settled, vec![good(""), good("")]),
            (Outcome::Diverged, vec![Said::NotApplied]),
        ];
        assert_eq!(outcomes(&replies), expected);
        let replies = [reply(0, 0, NotApplied, 403, ""), reply(2, 1, NotApplied, 0, "")];
        assert!(outcomes(&replies).iter().all(|(outcome, _)| *outcome == Outcome::Void));
    }

    #[test]
    fn backends_are_named_by_their_endpoints_those_left_out_too() {
        let replies = [reply(1, 0, Kind::Good, 200, "\"e\"")];
        let (outcome, said) = outcome(0, &replies, &[false], &[backend(2)]);
        let expected = [("http://b1:80".to_owned(), good("\"e\"")), ("http://b2:80".to_owned(), Said::NotApplied)];
        assert_eq!((outcome, said), (Outcome::Diverged, expected.to_vec()));
    }
}

//! What the replies to a write mean for the journal, cluster by cluster: pure.

use std::sync::Arc;

use crate::{
    journal::{Outcome, Said},
    mirror::{Kind, Reply},
    s3::delete_objects::{Survivors, survivors},
    topology::Backend,
};

/// A reply, as far as it is about one object.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    reply: &'a Reply,
    kind: Kind,
    diverges: bool,
    /// It is about nothing else.
    whole: bool,
}

impl Part<'_> {
    /// The backend took it, and nothing of it can still happen.
    fn is_settled(&self) -> bool {
        self.kind == Kind::Good && !self.diverges && !self.reply.sent_twice
    }
}

/// Replies that are about one object as a whole. `diverges` belongs to `replies`.
pub fn whole<'a>(replies: &'a [Reply], diverges: &[bool]) -> Vec<Part<'a>> {
    let part = |(reply, diverges): (&'a Reply, &bool)| Part {
        reply,
        kind: reply.kind,
        diverges: *diverges,
        whole: true,
    };
    replies.iter().zip(diverges).map(part).collect()
}

/// Replies to a request that names many objects.
pub struct Parts<'a>(Vec<(&'a Reply, Kept)>);

enum Kept {
    /// These were not deleted, the others were.
    Those(Survivors),
    /// Whatever became of one became of all.
    Alike(Kind),
}

impl<'a> Parts<'a> {
    pub fn of(replies: &'a [Reply]) -> Parts<'a> {
        let kept = |reply: &Reply| match reply.status.filter(|_| reply.kind == Kind::NotApplied) {
            // It did some of it.
            Some(status) if status.is_success() => match reply.result.as_deref().and_then(survivors) {
                Some(survivors) => Kept::Those(survivors),
                None => Kept::Alike(Kind::Unknown),
            },
            _ => Kept::Alike(reply.kind),
        };
        Parts(replies.iter().map(|reply| (reply, kept(reply))).collect())
    }

    /// Those that are about this object, or one of its versions.
    pub fn about(&self, key: &[u8], version: Option<&str>) -> Vec<Part<'a>> {
        let part = |(reply, kept): &(&'a Reply, Kept)| {
            let kind = match kept {
                // It is about the bucket: nobody knows which objects were meant.
                Kept::Those(survivors) if key.is_empty() && !survivors.is_empty() => Kind::Unknown,
                Kept::Those(survivors) if survivors.has(key, version) => Kind::NotApplied,
                Kept::Those(_) => Kind::Good,
                Kept::Alike(kind) => *kind,
            };
            Part { reply, kind, diverges: false, whole: false }
        };
        self.0.iter().map(part).collect()
    }
}

/// The outcome for one of the clusters, and what its backends said.
pub fn outcome(cluster: usize, parts: &[Part], left_out: &[Arc<Backend>]) -> (Outcome, Vec<(String, Said)>) {
    let own = || parts.iter().filter(|part| part.reply.cluster == cluster);
    let mut said: Vec<_> = own().map(|part| (part.reply.backend.endpoint(), said(part))).collect();
    // It took the write, and may do so once more: said of it behind what it said itself.
    let twice = own().filter(|part| part.reply.sent_twice);
    said.extend(twice.map(|part| (part.reply.backend.endpoint(), Said::Unknown)));
    said.extend(left_out.iter().map(|backend| (backend.endpoint(), Said::NotApplied)));
    if let Some(part) = elsewhere(cluster, parts) {
        let endpoint = part.reply.backend.endpoint();
        if said.iter().all(|(known, _)| *known != endpoint) {
            said.push((endpoint, self::said(part)));
        }
    }
    let outcome = if !parts.iter().any(|part| may_have_taken(part) || part.reply.sent_twice) {
        Outcome::Void
    } else if left_out.is_empty() && own().all(Part::is_settled) {
        Outcome::Settled
    } else {
        Outcome::Diverged
    };
    (outcome, said)
}

/// The word of another cluster that matters here. A DELETE that one took is one here, too, though nobody here may have
/// allowed it. One that may have been done on a newer cluster may have uncovered what an older one has.
fn elsewhere<'a, 'b>(cluster: usize, parts: &'b [Part<'a>]) -> Option<&'b Part<'a>> {
    let others = || parts.iter().filter(|part| part.reply.cluster != cluster);
    let is_newer = |part: &&Part| part.reply.cluster > cluster && may_have_taken(part);
    others().find(|part| part.kind == Kind::Good).or_else(|| others().find(is_newer))
}

fn said(part: &Part) -> Said {
    let Part { reply, kind, .. } = part;
    match kind {
        Kind::Good => Said::Good { etag: reply.etag.clone(), version: reply.version.clone() },
        Kind::NotApplied if !may_have_taken(part) => Said::NotApplied,
        Kind::NotApplied | Kind::Unknown => Said::Unknown,
    }
}

/// Whether the backend may have done what it was asked to. Some do it and then answer that something is broken, also
/// behind a 200; 501, 503 and 505 mean that nothing was tried.
fn may_have_taken(part: &Part) -> bool {
    let broken = || {
        let status = part
            .reply
            .status
            .filter(|status| status.is_server_error() || (part.whole && status.is_success()));
        status.is_some_and(|status| !matches!(status.as_u16(), 501 | 503 | 505))
    };
    part.kind != Kind::NotApplied || broken()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::mirror::verdict::divergences;

    fn backend(id: usize) -> Arc<Backend> {
        Arc::new(Backend {
            id,
            url: format!("http://B{id}"),
            host: format!("B{id}"),
            port: 80,
            maintained: false,
        })
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
            result: None,
            sent_twice: false,
            error: String::new(),
        }
    }

    fn outcomes(replies: &[Reply]) -> Vec<(Outcome, Vec<Said>)> {
        let seen: Vec<_> = replies.iter().map(|reply| (reply.kind, reply.etag.as_deref())).collect();
        let diverges = divergences(&seen, true);
        let most = replies.iter().map(|reply| reply.cluster).max().unwrap();
        let of = |cluster| {
            let (outcome, said) = outcome(cluster, &whole(replies, &diverges), &[]);
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
            ([(Good, 200, ONE), (NotApplied, 503, "")], Diverged, [good(ONE), Said::NotApplied]),
            ([(Good, 200, ONE), (NotApplied, 500, "")], Diverged, [good(ONE), Said::Unknown]),
            // The status came before it knew the outcome.
            ([(NotApplied, 200, ""), (NotApplied, 0, "")], Diverged, [Said::Unknown, Said::NotApplied]),
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
        let replies =
            [reply(0, 0, Good, 204, ""), reply(1, 0, Good, 404, ""), reply(2, 1, NotApplied, 0, "")];
        // With the word of one that took it.
        let missed = vec![Said::NotApplied, good("")];
        let expected = [(Outcome::Settled, vec![good(""), good("")]), (Outcome::Diverged, missed)];
        assert_eq!(outcomes(&replies), expected);
        // Whether the newer one did it nobody knows.
        let replies = [reply(0, 0, NotApplied, 503, ""), reply(2, 1, Unknown, 0, "")];
        let expected = [vec![Said::NotApplied, Said::Unknown], vec![Said::Unknown]];
        assert_eq!(outcomes(&replies), expected.map(|said| (Outcome::Diverged, said)));
        let replies = [reply(0, 0, Unknown, 0, ""), reply(2, 1, NotApplied, 503, "")];
        let expected = [vec![Said::Unknown], vec![Said::NotApplied]];
        assert_eq!(outcomes(&replies), expected.map(|said| (Outcome::Diverged, said)));
        let replies = [reply(0, 0, NotApplied, 403, ""), reply(2, 1, NotApplied, 0, "")];
        assert!(outcomes(&replies).iter().all(|(outcome, _)| *outcome == Outcome::Void));
    }

    #[test]
    fn backends_are_named_by_their_endpoints_those_left_out_too() {
        let replies = [reply(1, 0, Kind::Good, 200, "\"e\"")];
        let (outcome, said) = outcome(0, &whole(&replies, &[false]), &[backend(2)]);
        let expected =
            [("http://b1:80".to_owned(), good("\"e\"")), ("http://b2:80".to_owned(), Said::NotApplied)];
        assert_eq!((outcome, said), (Outcome::Diverged, expected.to_vec()));
    }

    #[test]
    fn a_backend_that_was_sent_it_twice_may_do_it_once_more() {
        let replies = [
            Reply { sent_twice: true, ..reply(0, 0, Kind::Good, 200, "\"e\"") },
            reply(1, 0, Kind::Good, 200, "\"e\""),
        ];
        let said = vec![good("\"e\""), good("\"e\""), Said::Unknown];
        assert_eq!(outcomes(&replies), [(Outcome::Diverged, said)]);
        // Also what it refused the second time: what it said to the first nobody has heard.
        let refused = reply(0, 0, Kind::NotApplied, 404, "");
        let replies = [Reply { sent_twice: true, ..refused }, reply(1, 0, Kind::NotApplied, 404, "")];
        let said = vec![Said::NotApplied, Said::NotApplied, Said::Unknown];
        assert_eq!(outcomes(&replies), [(Outcome::Diverged, said)]);
    }

    #[test]
    fn of_many_objects_each_has_an_outcome_of_its_own() {
        let some = |id, body: &'static [u8]| Reply {
            result: Some(bytes::Bytes::from_static(body)),
            ..reply(id, 0, Kind::NotApplied, 200, "")
        };
        const KEPT_A: &[u8] = b"<DeleteResult><Error><Key>a</Key></Error></DeleteResult>";
        let about = |replies: &[Reply], key: &[u8]| outcome(0, &Parts::of(replies).about(key, None), &[]).0;
        let replies = [reply(0, 0, Kind::Good, 200, ""), some(1, KEPT_A)];
        assert_eq!((about(&replies, b"a"), about(&replies, b"b")), (Outcome::Diverged, Outcome::Settled));
        assert_eq!(about(&replies, b""), Outcome::Diverged);
        let replies = [some(0, KEPT_A), some(1, KEPT_A)];
        assert_eq!((about(&replies, b"a"), about(&replies, b"b")), (Outcome::Void, Outcome::Settled));
        let replies = [some(0, KEPT_A), some(1, b"<DeleteResult><Err")];
        assert_eq!((about(&replies, b"a"), about(&replies, b"b")), (Outcome::Diverged, Outcome::Diverged));
        // It has not said of any that it is gone.
        let replies =
            [reply(0, 0, Kind::Good, 200, ""), some(1, b"<Error><Code>InternalError</Code></Error>")];
        assert_eq!((about(&replies, b"a"), about(&replies, b"")), (Outcome::Diverged, Outcome::Diverged));
        let replies = [reply(0, 0, Kind::NotApplied, 403, ""), reply(1, 0, Kind::NotApplied, 0, "")];
        assert_eq!(about(&replies, b"a"), Outcome::Void);
    }
}

//! What a client is told, and what is recorded, given the replies of backends: a pure state machine.
//!
//! Events go in ([`Event`]), at most one [`Decision`] comes out, and after the last reply [`divergences`] says
//! which backends do not agree. No clocks, no sockets: tables test it, and a simulation can drive it.

/// What one exchange came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes: a final 2xx after the end of the body.
    Good,
    /// Any other final answer, or a failure before the end of the body was sent.
    NotApplied,
    /// The whole body went out and no final answer came, or a 2xx came before the end of the body.
    Unknown,
}

/// How replies become an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Writes to one cluster: the first good reply.
    FirstGood,
    /// Object DELETE: good only if every cluster has a good reply. Where all backends refuse, the first refusal:
    /// to try again would change nothing. Else unavailable.
    EveryCluster,
    /// Bucket writes: the first failure of a cluster without a good reply, else the first good answer.
    EveryClusterOrFirstFailure,
}

/// One reply as the verdict sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    /// Whether there is an answer that could be passed on.
    pub answered: bool,
    /// A DELETE's "there is no such key": good, but a backend that did delete something is heard first.
    pub absent: bool,
    /// The answer broke off in its body: another good one is passed on rather than this.
    pub broken: bool,
    /// A client error: the backend works, and does not want this request.
    pub refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The client's body ended properly.
    BodyEnded,
    /// The sub-request with this index has ended.
    Reply(usize, Seen),
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The answer of the sub-request with this index.
    Answer(usize),
    /// No backend's answer will do: 503.
    Unavailable,
}

/// The state of one client request.
#[derive(Debug)]
pub struct Verdict {
    rule: Rule,
    /// Cluster of each sub-request.
    clusters: Vec<usize>,
    /// In the order in which they came.
    replies: Vec<(usize, Seen)>,
    body_ended: bool,
    decided: bool,
}

impl Verdict {
    /// `clusters[i]` is the cluster of sub-request `i`.
    pub fn new(rule: Rule, clusters: Vec<usize>) -> Self {
        Verdict { rule, clusters, replies: Vec::new(), body_ended: false, decided: false }
    }

    /// Takes an event; returns the decision with the event that brings it about, and never again.
    pub fn on(&mut self, event: Event) -> Option<Decision> {
        match event {
            Event::BodyEnded => self.body_ended = true,
            Event::Reply(sub, seen) => self.replies.push((sub, seen)),
        }
        if self.decided {
            return None;
        }
        let decision = self.decide();
        self.decided = decision.is_some();
        decision
    }

    fn decide(&self) -> Option<Decision> {
        let all_in = self.replies.len() == self.clusters.len();
        match self.rule {
            Rule::FirstGood => {
                let whole = self.first(|_, seen| seen.kind == Kind::Good && !seen.broken);
                let any = || self.first(|_, seen| seen.kind == Kind::Good);
                match whole.or_else(|| all_in.then(any).flatten()) {
                    Some(sub) => self.body_ended.then_some(Decision::Answer(sub)),
                    None => all_in.then(|| self.answer_or_unavailable(|_, seen| seen.answered)),
                }
            }
            _ if !all_in => None,
            _ if self.clusters.iter().all(|cluster| self.has_good(*cluster)) => Some(
                self.first(|_, seen| seen.kind == Kind::Good && !seen.absent && !seen.broken)
                    .or_else(|| self.first(|_, seen| seen.kind == Kind::Good))
                    .map_or(Decision::Unavailable, Decision::Answer),
            ),
            Rule::EveryCluster => {
                let all_refused = self.replies.iter().all(|(_, seen)| seen.refused);
                Some(self.answer_or_unavailable(|_, seen| all_refused && seen.answered))
            }
            Rule::EveryClusterOrFirstFailure => {
                Some(self.answer_or_unavailable(|cluster, seen| seen.answered && !self.has_good(cluster)))
            }
        }
    }

    fn first(&self, wanted: impl Fn(usize, &Seen) -> bool) -> Option<usize> {
        self.replies.iter().find(|(sub, seen)| wanted(self.clusters[*sub], seen)).map(|(sub, _)| *sub)
    }

    fn answer_or_unavailable(&self, wanted: impl Fn(usize, &Seen) -> bool) -> Decision {
        self.first(wanted).map_or(Decision::Unavailable, Decision::Answer)
    }

    fn has_good(&self, cluster: usize) -> bool {
        self.replies.iter().any(|(sub, seen)| self.clusters[*sub] == cluster && seen.kind == Kind::Good)
    }
}

/// Which of the backends diverge, given all replies as (kind, ETag): `true` = to be recorded.
///
/// Every one that is not good while another is; all of them if none is good and any is unknown; with
/// `compare_etags` also a good one whose plain-MD5 ETag differs from the first good one's.
pub fn divergences(replies: &[(Kind, Option<&str>)], compare_etags: bool) -> Vec<bool> {
    let any = |kind| replies.iter().any(|(k, _)| *k == kind);
    if !any(Kind::Good) {
        return vec![any(Kind::Unknown); replies.len()];
    }
    let reference =
        replies.iter().find(|(kind, _)| *kind == Kind::Good).and_then(|(_, etag)| plain_md5(*etag));
    let disagrees = |etag| match (reference, plain_md5(etag)) {
        (Some(one), Some(other)) => compare_etags && !one.eq_ignore_ascii_case(other),
        _ => false,
    };
    replies.iter().map(|(kind, etag)| *kind != Kind::Good || disagrees(*etag)).collect()
}

/// The hexadecimal MD5 of an ETag that is one: `"9e107d9d372bb6826bd81d3542a419d6"`. Multipart ETags
/// (`...-2`) and encrypted objects' are not comparable.
fn plain_md5(etag: Option<&str>) -> Option<&str> {
    let digest = etag?.trim().trim_matches('"');
    (digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::{Event::*, Kind::*, *};

    fn seen(kind: Kind, answered: bool) -> Seen {
        Seen { kind, answered, absent: false, broken: false, refused: false }
    }
    fn good() -> Seen {
        seen(Good, true)
    }
    fn refused() -> Seen {
        Seen { refused: true, ..failed() }
    }
    fn failed() -> Seen {
        seen(NotApplied, true)
    }
    fn dead() -> Seen {
        seen(NotApplied, false)
    }
    fn lost() -> Seen {
        seen(Unknown, false)
    }
    fn absent() -> Seen {
        Seen { absent: true, ..good() }
    }

    /// Feeds events; returns the decision and the index of the event that brought it.
    fn run(rule: Rule, clusters: &[usize], events: &[Event]) -> Option<(usize, Decision)> {
        let mut verdict = Verdict::new(rule, clusters.to_vec());
        let mut decided = None;
        for (at, event) in events.iter().enumerate() {
            if let Some(decision) = verdict.on(*event) {
                assert!(decided.is_none(), "decided twice");
                decided = Some((at, decision));
            }
        }
        decided
    }

    #[test]
    fn the_first_good_reply_is_the_answer_once_the_body_has_ended() {
        let answer = |sub| Decision::Answer(sub);
        type Row<'a> = (&'a [Event], Option<(usize, Decision)>);
        let cases: &[Row] = &[
            (&[BodyEnded, Reply(1, good())], Some((1, answer(1)))),
            (&[Reply(1, good()), BodyEnded], Some((1, answer(1)))),
            (&[BodyEnded, Reply(0, refused()), Reply(1, good())], Some((2, answer(1)))),
            (&[BodyEnded, Reply(0, good()), Reply(1, good())], Some((1, answer(0)))),
            (&[BodyEnded, Reply(0, lost())], None),
            (&[BodyEnded, Reply(0, lost()), Reply(1, good())], Some((2, answer(1)))),
        ];
        for (events, expected) in cases {
            assert_eq!(run(Rule::FirstGood, &[0, 0], events), *expected, "{events:?}");
        }
    }

    #[test]
    fn an_answer_that_broke_off_is_passed_on_only_where_there_is_no_other() {
        let broken = || Seen { broken: true, ..good() };
        let first_good = |events: &[Event]| run(Rule::FirstGood, &[0, 0], events);
        let answer = |at, sub| Some((at, Decision::Answer(sub)));
        assert_eq!(first_good(&[BodyEnded, Reply(0, broken()), Reply(1, good())]), answer(2, 1));
        assert_eq!(first_good(&[BodyEnded, Reply(0, broken()), Reply(1, dead())]), answer(2, 0));
    }

    #[test]
    fn as_soon_as_none_can_become_good_the_first_answer_is_given() {
        let cases: &[(&[Event], Decision)] = &[
            (&[Reply(1, refused()), Reply(0, refused())], Decision::Answer(1)),
            (&[Reply(1, dead()), Reply(0, refused())], Decision::Answer(0)),
            (&[Reply(1, dead()), Reply(0, dead())], Decision::Unavailable),
            (&[BodyEnded, Reply(1, dead()), Reply(0, lost())], Decision::Unavailable),
        ];
        for (events, expected) in cases {
            let last = events.len() - 1;
            assert_eq!(run(Rule::FirstGood, &[0, 0], events), Some((last, *expected)), "{events:?}");
        }
    }

    #[test]
    fn a_delete_is_good_only_if_every_cluster_has_a_good_reply() {
        let clusters = [0, 0, 1, 1];
        let run = |replies: [Seen; 4]| {
            let mut events = vec![BodyEnded];
            events.extend(replies.into_iter().enumerate().map(|(sub, seen)| Reply(sub, seen)));
            run(Rule::EveryCluster, &clusters, &events)
        };
        assert_eq!(run([good(), good(), good(), good()]), Some((4, Decision::Answer(0))));
        assert_eq!(run([dead(), good(), refused(), good()]), Some((4, Decision::Answer(1))));
        assert_eq!(run([absent(), absent(), good(), dead()]), Some((4, Decision::Answer(2))));
        assert_eq!(run([absent(), absent(), absent(), absent()]), Some((4, Decision::Answer(0))));
        assert_eq!(run([good(), good(), dead(), refused()]), Some((4, Decision::Unavailable)));
        assert_eq!(run([good(), good(), lost(), lost()]), Some((4, Decision::Unavailable)));
    }

    #[test]
    fn a_delete_that_all_refuse_is_refused_and_any_other_failure_is_worth_another_try() {
        let clusters = [0, 1];
        let run = |replies: [Seen; 2]| {
            let events: Vec<_> =
                replies.into_iter().enumerate().map(|(sub, seen)| Reply(sub, seen)).collect();
            run(Rule::EveryCluster, &clusters, &events).map(|(_, decision)| decision)
        };
        assert_eq!(run([refused(), refused()]), Some(Decision::Answer(0)));
        for other in [failed(), dead(), lost(), good(), absent()] {
            assert_eq!(run([refused(), other]), Some(Decision::Unavailable), "{other:?}");
        }
    }

    #[test]
    fn a_bucket_write_answers_with_the_first_failure_of_a_cluster_that_has_no_good_reply() {
        let clusters = [0, 0, 1, 1];
        let run = |replies: [Seen; 4]| {
            let events: Vec<_> =
                replies.into_iter().enumerate().map(|(sub, seen)| Reply(sub, seen)).collect();
            run(Rule::EveryClusterOrFirstFailure, &clusters, &events).map(|(_, decision)| decision)
        };
        assert_eq!(run([good(), good(), good(), good()]), Some(Decision::Answer(0)));
        assert_eq!(run([refused(), good(), good(), good()]), Some(Decision::Answer(1)));
        assert_eq!(run([refused(), good(), refused(), refused()]), Some(Decision::Answer(2)));
        assert_eq!(run([refused(), good(), dead(), refused()]), Some(Decision::Answer(3)));
        assert_eq!(run([refused(), good(), dead(), lost()]), Some(Decision::Unavailable));
    }

    #[test]
    fn what_diverges() {
        const A: Option<&str> = Some("\"9e107d9d372bb6826bd81d3542a419d6\"");
        const B: Option<&str> = Some("\"e4d909c290d0fb1ca068ffaddf22cbd0\"");
        const PARTS: Option<&str> = Some("\"e4d909c290d0fb1ca068ffaddf22cbd0-2\"");
        type Row<'a> = (&'a [(Kind, Option<&'a str>)], &'a [bool]);
        let cases: &[Row] = &[
            (&[(Good, A), (Good, A)], &[false, false]),
            (&[(Good, A), (NotApplied, None)], &[false, true]),
            (&[(Unknown, None), (Good, A)], &[true, false]),
            (&[(NotApplied, None), (NotApplied, None)], &[false, false]),
            (&[(NotApplied, None), (Unknown, None)], &[true, true]),
            (&[(Good, A), (Good, B)], &[false, true]),
            (&[(Good, A), (Good, PARTS)], &[false, false]),
            (&[(Good, None), (Good, B)], &[false, false]),
        ];
        for (replies, expected) in cases {
            assert_eq!(divergences(replies, true), *expected, "{replies:?}");
        }
        assert_eq!(divergences(&[(Good, A), (Good, B)], false), [false, false]);
    }
}

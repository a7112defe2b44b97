//! What a sub-request came to, in the form that the verdict judges and the synclog records.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use bytes::Bytes;
use http::StatusCode;
use pingora_http::ResponseHeader;

use super::{
    latch::Latch,
    verdict::{Kind, Seen},
};
use crate::{
    s3::{
        delete_objects::survivors,
        error::{body_is_error, error_code},
        xml,
    },
    topology::Backend,
    upstream::{Body, Failure, Phase},
};

/// What one backend replied.
#[derive(Debug, Clone)]
pub struct Reply {
    pub backend: Arc<Backend>,
    /// Index of its cluster among the request's.
    pub cluster: usize,
    pub kind: Kind,
    /// Status of its final answer, if one came.
    pub status: Option<StatusCode>,
    pub etag: Option<String>,
    /// Whether its ETag can be compared: not where the storage has encrypted the object by a key of its own.
    pub comparable: bool,
    pub version: Option<String>,
    /// The answer's body, where it tells the outcome ([`Judge::reads_body`]).
    pub result: Option<Bytes>,
    /// It was sent whole before, on a connection that died without an answer: that may still take effect.
    pub sent_twice: bool,
    /// Why it is not good; empty if it is.
    pub error: String,
}

impl Reply {
    /// Of a backend that gave no answer, or was not asked.
    pub fn without_answer(backend: Arc<Backend>, cluster: usize, kind: Kind, error: String) -> Reply {
        Reply {
            backend,
            cluster,
            kind,
            status: None,
            etag: None,
            comparable: false,
            version: None,
            result: None,
            sent_twice: false,
            error,
        }
    }

    /// Of a backend that has taken the request, as far as the head of its answer tells.
    pub fn taken(backend: Arc<Backend>, cluster: usize, head: &ResponseHeader) -> Reply {
        let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let encryption = head.headers.get("x-amz-server-side-encryption");
        let encrypted = encryption.is_some_and(|value| value.as_bytes().starts_with(b"aws:kms"))
            || head.headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
        Reply {
            status: Some(head.status),
            etag: text("etag"),
            comparable: !encrypted,
            version: text("x-amz-version-id"),
            ..Reply::without_answer(backend, cluster, Kind::Good, String::new())
        }
    }

    /// Whether the backend turned the request down with a 3xx or 4xx. Where all do, nobody has missed anything.
    pub(super) fn is_refusal(&self) -> bool {
        self.kind == Kind::NotApplied
            && self.status.is_some_and(|status| status.is_redirection() || status.is_client_error())
    }
}

/// How a sub-request ended: its reply, and the answer if one came.
pub(super) struct End {
    pub reply: Reply,
    pub seen: Seen,
    pub answer: Option<(Box<ResponseHeader>, Body)>,
}

/// What makes an answer good, beyond its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// 2xx.
    Status,
    /// 2xx, or `NoSuchKey`: it is not there, which is what DELETE is for.
    Delete,
    /// 2xx whose body is not an `<Error>`.
    StatusAndBody,
    /// 2xx whose body is empty, or a document whose root's name begins so: CopyObject and CompleteMultipartUpload send the
    /// status before they know the outcome.
    StatusAndResult(&'static str),
    /// 2xx whose body says that nothing is left, or is empty: DeleteObjects answers 200 and lists the keys that it could
    /// not delete.
    StatusAndSurvivors,
}

/// How far a sub-request has come, for whoever has to end it from outside.
#[derive(Debug, Default)]
pub(super) struct Progress {
    may_apply: AtomicBool,
    /// Set when the client has its answer and nobody waits for this sub-request any more.
    pub detached: AtomicBool,
    /// Set by a later write to the same object that has lost patience with this one.
    pub aborted: Arc<Latch>,
    /// The number of the write, once the client's body has ended: from now on a failure is a missed write.
    committed: OnceLock<i64>,
    /// The backend has said that the write took effect, though not yet all that it has to say.
    settled: OnceLock<Reply>,
}

impl Progress {
    /// From now on the backend may have done it: the bytes that complete the request are about to be sent, or it has
    /// said that it has, before it had them.
    pub fn may_apply(&self) {
        self.may_apply.store(true, Relaxed);
    }

    /// The write has taken its place among those to its object.
    pub fn commit(&self, number: i64) {
        self.committed.get_or_init(|| number);
    }

    /// Its number among the writes to objects; `None` = its body has not ended, or it is to none.
    pub fn committed(&self) -> Option<i64> {
        self.committed.get().copied()
    }

    /// The backend has said that much.
    pub fn settle(&self, reply: Reply) {
        self.settled.get_or_init(|| reply);
    }

    /// The good reply, without what is in the answer's body.
    pub fn settled(&self) -> Option<&Reply> {
        self.settled.get()
    }

    /// What a sub-request that is cut off now came to.
    pub fn kind(&self) -> Kind {
        match (self.settled().is_some(), self.may_apply.load(Relaxed)) {
            (true, _) => Kind::Good,
            (false, true) => Kind::Unknown,
            (false, false) => Kind::NotApplied,
        }
    }
}

impl End {
    /// A sub-request that ended without an answer.
    pub fn without_answer(backend: Arc<Backend>, cluster: usize, kind: Kind, error: String) -> End {
        End::cut_off(Reply::without_answer(backend, cluster, kind, error))
    }

    /// A sub-request that was cut off when `reply` was all that had come of it.
    pub fn cut_off(reply: Reply) -> End {
        let seen = Seen { kind: reply.kind, answered: false, absent: false, broken: false, refused: false };
        End { reply, seen, answer: None }
    }

    /// A failed exchange; `maybe_applied` if an earlier try may have reached the backend whole.
    pub fn failed(backend: Arc<Backend>, cluster: usize, failure: &Failure, maybe_applied: bool) -> End {
        let unknown = maybe_applied || failure.phase >= Phase::Await;
        let kind = if unknown { Kind::Unknown } else { Kind::NotApplied };
        End::without_answer(backend, cluster, kind, failure.to_string())
    }

    /// A final answer; `early` if it came before the whole request was sent.
    pub fn answered(
        backend: Arc<Backend>,
        cluster: usize,
        head: Box<ResponseHeader>,
        body: Body,
        judge: Judge,
        early: bool,
    ) -> End {
        let broken = matches!(body, Body::Broken(..));
        let Judged { kind, absent, error } = judged(head.status, &body, judge, early);
        // What looks like a success and is none must not be passed on.
        let is_strange = kind == Kind::Unknown && matches!(body, Body::Whole(_));
        let deceptive = head.status.is_success() && kind != Kind::Good && (early || broken || is_strange);
        let refused = head.status.is_client_error() && kind == Kind::NotApplied;
        let result = match &body {
            Body::Whole(bytes) if judge.reads_body() => Some(bytes.clone()),
            _ => None,
        };
        // Copies and completed uploads are told of in the body.
        let tells = matches!(judge, Judge::StatusAndResult(_));
        let told = || result.as_deref().filter(|_| tells).and_then(xml::etag);
        let mut reply = Reply::taken(backend, cluster, &head);
        reply.etag = reply.etag.or_else(told);
        End {
            reply: Reply { kind, result, error, ..reply },
            seen: Seen { kind, answered: !deceptive, absent, broken, refused },
            answer: Some((head, body)),
        }
    }
}

impl Judge {
    /// Whether the answer's body is part of the judgement.
    pub fn reads_body(self) -> bool {
        !matches!(self, Judge::Status | Judge::Delete)
    }
}

/// The part of an answer's body that is known.
fn known(body: &Body) -> &Bytes {
    match body {
        Body::Whole(bytes) | Body::Long(bytes, _) | Body::Broken(bytes, _) => bytes,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Judged {
    kind: Kind,
    absent: bool,
    error: String,
}

fn judged(status: StatusCode, body: &Body, judge: Judge, early: bool) -> Judged {
    let bad = |error: String| Judged { kind: Kind::NotApplied, absent: false, error };
    let unknown = |error: String| Judged { kind: Kind::Unknown, absent: false, error };
    let good = |absent| Judged { kind: Kind::Good, absent, error: String::new() };
    if early {
        let error = format!("answered {status} before the whole request was sent");
        // One that took what it had for all of it has something else than the others.
        return if status.is_success() { unknown(error) } else { bad(error) };
    }
    let bytes = known(body);
    if !status.is_success() {
        return match error_code(bytes) {
            Some("NoSuchKey") if judge == Judge::Delete && status == StatusCode::NOT_FOUND => good(true),
            Some(code) => bad(format!("answered {status}: {code}")),
            None => bad(format!("answered {status}")),
        };
    }
    match (judge, body) {
        (Judge::Status | Judge::Delete, _) => good(false),
        _ if body_is_error(bytes) => {
            bad(format!("answered {status} with the error {}", error_code(bytes).unwrap_or("unknown")))
        }
        (Judge::StatusAndSurvivors, Body::Whole(bytes)) if !bytes.is_empty() => match survivors(bytes) {
            Some(survivors) if survivors.is_empty() => good(false),
            Some(_) => bad(format!("answered {status} with errors for some keys")),
            None => unknown(format!("answered {status} with something that is no list of keys")),
        },
        (Judge::StatusAndResult(name), Body::Whole(bytes)) if !xml::is_empty_or(bytes, name) => {
            unknown(format!("answered {status} with something that is no {name}Result"))
        }
        (_, Body::Whole(_)) => good(false),
        (_, Body::Broken(_, failure)) => unknown(format!("answered {status}, but {failure}")),
        (_, Body::Long(..)) => unknown(format!("answered {status} with more than can be judged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Cause;

    #[test]
    fn what_makes_an_answer_good() {
        const ERROR: &[u8] = b"<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>";
        const NO_KEY: &[u8] = b"<Error><Code>NoSuchKey</Code></Error>";
        const KEPT: &[u8] = b"<DeleteResult><Error><Key>a</Key></Error></DeleteResult>";
        const KEPT_AS_OTHERS_WRITE_IT: &[u8] =
            b"<x:DeleteResult xmlns:x='y'><x:Error><x:Key>a</x:Key></x:Error></x:DeleteResult>";
        const NO_BUCKET: &[u8] = b"<Error><Code>NoSuchBucket</Code></Error>";
        use Judge::*;
        use Kind::*;
        let cases = [
            (200, b"".as_slice(), Status, false, Good, false),
            (204, b"", Delete, false, Good, false),
            (200, b"", Status, true, Unknown, false),
            (204, b"", Delete, true, Unknown, false),
            (200, b"<DeleteResult/>", StatusAndSurvivors, true, Unknown, false),
            (403, ERROR, Status, true, NotApplied, false),
            (403, ERROR, Status, false, NotApplied, false),
            (307, b"", Status, false, NotApplied, false),
            (404, NO_KEY, Delete, false, Good, true),
            (404, NO_KEY, Status, false, NotApplied, false),
            (404, NO_BUCKET, Delete, false, NotApplied, false),
            (404, b"", Delete, false, NotApplied, false),
            (200, ERROR, StatusAndBody, false, NotApplied, false),
            (200, b"{}", StatusAndBody, false, Good, false),
            (200, ERROR, StatusAndResult("Copy"), false, NotApplied, false),
            (200, b"\n<CopyObjectResult/>", StatusAndResult("Copy"), false, Good, false),
            (200, b"", StatusAndResult("Copy"), false, Good, false),
            (200, b"<CompleteMultipartUploadResult/>", StatusAndResult("Copy"), false, Unknown, false),
            (200, b"<html/>", StatusAndResult("Copy"), false, Unknown, false),
            (200, ERROR, Status, false, Good, false),
            (200, KEPT, StatusAndSurvivors, false, NotApplied, false),
            (200, KEPT_AS_OTHERS_WRITE_IT, StatusAndSurvivors, false, NotApplied, false),
            (200, b"<DeleteResult><Error/></DeleteResult>", StatusAndSurvivors, false, Unknown, false),
            (200, b"<DeleteResult><Deleted/></DeleteResult>", StatusAndSurvivors, false, Good, false),
            (200, b"", StatusAndSurvivors, false, Good, false),
            (200, ERROR, StatusAndSurvivors, false, NotApplied, false),
            (200, b"<html/>", StatusAndSurvivors, false, Unknown, false),
            (200, b"<DeleteResult>", StatusAndSurvivors, false, Unknown, false),
        ];
        for (status, body, judge, early, kind, absent) in cases {
            let body = Body::Whole(Bytes::from_static(body));
            let judged = judged(StatusCode::from_u16(status).unwrap(), &body, judge, early);
            assert_eq!((judged.kind, judged.absent), (kind, absent), "{status} {judge:?} early={early}");
            assert_eq!(judged.error.is_empty(), kind == Good);
        }
    }

    #[test]
    fn what_looks_like_a_success_and_is_none_is_not_passed_on() {
        let answered = |status: u16, body: Body, judge| {
            let backend =
                Backend { id: 0, url: "http://a".into(), host: "a".into(), port: 80, maintained: false };
            let head = ResponseHeader::build(status, None).unwrap();
            End::answered(Arc::new(backend), 0, Box::new(head), body, judge, false).seen.answered
        };
        let whole = |body: &'static [u8]| Body::Whole(Bytes::from_static(body));
        for judge in [Judge::StatusAndSurvivors, Judge::StatusAndResult("Copy")] {
            assert!(!answered(200, whole(b"<html/>"), judge), "{judge:?}");
            // These tell the client what they are.
            assert!(answered(200, whole(b"<Error><Code>InternalError</Code></Error>"), judge), "{judge:?}");
            assert!(answered(404, whole(b"<html/>"), judge), "{judge:?}");
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_unknown_where_its_body_tells_the_outcome() {
        let backend =
            Backend { id: 0, url: "http://a".into(), host: "a".into(), port: 80, maintained: false };
        let failure = Failure::new(&backend, Phase::Receive, Cause::Deadline, std::time::Duration::ZERO);
        for (judge, kind) in [
            (Judge::Status, Kind::Good),
            (Judge::StatusAndBody, Kind::Unknown),
            (Judge::StatusAndResult("Copy"), Kind::Unknown),
            (Judge::StatusAndSurvivors, Kind::Unknown),
        ] {
            let body = Body::Broken(Bytes::from_static(b" "), failure.clone());
            assert_eq!(judged(StatusCode::OK, &body, judge, false).kind, kind, "{judge:?}");
        }
    }
}

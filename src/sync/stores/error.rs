//! From failed exchanges and bad answers to [`StoreError`]: whether something was done, and whether it can be.

use http::{Method, StatusCode};

use super::site::{Reply, Site};
use crate::{
    sync::{Gate, StoreError},
    upstream::{Cause, Failure, Phase},
};

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Target,
}

/// Why an attempt came to nothing.
#[derive(Debug)]
pub enum Broken {
    /// The pooled connection was dead, and nothing can have happened.
    Stale(StoreError),
    /// A bad answer, and what it means.
    Answered(Box<Reply>, StoreError),
    Error(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Broken {
        Broken::Error(error)
    }
}

impl From<Broken> for StoreError {
    fn from(broken: Broken) -> StoreError {
        match broken {
            Broken::Stale(error) | Broken::Answered(_, error) | Broken::Error(error) => error,
        }
    }
}

impl From<Cause> for StoreError {
    fn from(cause: Cause) -> StoreError {
        StoreError::Refused(cause.to_string())
    }
}

/// A failure of an exchange that can have changed nothing.
pub fn before(failure: Failure) -> StoreError {
    match failure.cause {
        Cause::Unsendable(_) => StoreError::Refused(failure.to_string()),
        _ => StoreError::Failed(failure.to_string()),
    }
}

/// A failure before the request was complete.
pub fn unfinished(failure: Failure) -> Broken {
    if failure.stale { Broken::Stale(before(failure)) } else { Broken::Error(before(failure)) }
}

/// A failure once the request was complete.
pub fn after(failure: Failure) -> Broken {
    match failure.phase {
        Phase::Await | Phase::Receive => Broken::Error(StoreError::Unknown(failure.to_string())),
        _ => unfinished(failure),
    }
}

/// An answer that is not the one that was hoped for.
pub fn of_reply(site: &Site, end: End, method: &Method, reply: &Reply) -> StoreError {
    let said = said(site, method, reply);
    match class(reply.status, reply.code(), end) {
        Class::Changed => StoreError::Changed(said),
        Class::Failed => StoreError::Failed(said),
        Class::Unknown => StoreError::Unknown(said),
        Class::Refused => StoreError::Refused(said),
        Class::Denied => StoreError::Denied { by: site.endpoint(), why: said },
    }
}

/// An answer that is not the one that was hoped for, for humans.
pub fn said(site: &Site, method: &Method, reply: &Reply) -> String {
    let code = Some(reply.code()).filter(|code| !code.is_empty()).unwrap_or("no error code");
    let (status, url) = (reply.status.as_u16(), site.url());
    match is_of_credentials(reply.status, code) {
        true => refused_credentials(site.clusters(), url, &format!("{status} to {method} ({code})")),
        false => format!("{url}: {status} to {method} ({code})"),
    }
}

/// What is said of a backend that refuses an account, whatever is asked.
pub fn refused_credentials(clusters: &str, backend: &str, said: &str) -> String {
    let said = said.strip_prefix(backend).and_then(|said| said.strip_prefix(": ")).unwrap_or(said);
    format!("credentials of {clusters} are refused by {backend}: {said}")
}

/// Whether an answer is about the account and not about what was asked: a wrong key, a wrong clock, an account that
/// is locked.
pub fn is_of_credentials(status: StatusCode, code: &str) -> bool {
    const CODES: [&str; 13] = [
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "RequestTimeTooSkewed",
        "RequestExpired",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "AccountProblem",
        "NotSignedUp",
        "UserSuspended",
        "InvalidSecurity",
    ];
    status == StatusCode::UNAUTHORIZED || CODES.contains(&code)
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Changed,
    Failed,
    Unknown,
    Refused,
    Denied,
}

fn class(status: StatusCode, code: &str, end: End) -> Class {
    match (status.as_u16(), code) {
        (412 | 416, _) | (409, "ConditionalRequestConflict") => Class::Changed,
        // A bucket that is to be there may come yet; so may a key or a clock be set.
        (_, "NoSuchBucket") => Class::Failed,
        _ if is_of_credentials(status, code) => Class::Failed,
        // Archived: who it belongs to may read others.
        (403, "InvalidObjectState") => Class::Refused,
        (403, _) => Class::Denied,
        (404, "NoSuchUpload") => Class::Failed,
        // A condition that somebody else's DELETE broke.
        (404, _) => Class::Changed,
        (
            400,
            "BadDigest"
            | "IncompleteBody"
            | "RequestTimeout"
            | "XAmzContentSHA256Mismatch"
            | "OperationAborted",
        ) => Class::Failed,
        (302 | 303 | 307 | 408 | 409 | 425 | 429, _) => Class::Failed,
        (501 | 505, _) => Class::Refused,
        (503, _) => Class::Failed,
        // It may have been done all the same.
        (500..=599, _) if end == End::Target => Class::Unknown,
        (300..=499, _) => Class::Refused,
        _ => Class::Failed,
    }
}

/// The gate, before bytes that complete a change.
pub async fn pass(gate: &dyn Gate, site: &Site) -> Result<(), StoreError> {
    if gate.may_go_on().await {
        return Ok(());
    }
    Err(StoreError::Changed(format!("{}: the change was called off before its end", site.url())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_whether_it_makes_sense_to_try_again() {
        let cases = [
            (412, "PreconditionFailed", Class::Changed),
            (409, "ConditionalRequestConflict", Class::Changed),
            (409, "OperationAborted", Class::Failed),
            (404, "NoSuchKey", Class::Changed),
            (404, "NoSuchBucket", Class::Failed),
            (403, "AccessDenied", Class::Denied),
            (403, "InvalidObjectState", Class::Refused),
            (403, "RequestTimeTooSkewed", Class::Failed),
            (403, "SignatureDoesNotMatch", Class::Failed),
            (400, "AuthorizationHeaderMalformed", Class::Failed),
            (401, "", Class::Failed),
            (400, "InvalidRequest", Class::Refused),
            (400, "BadDigest", Class::Failed),
            (301, "PermanentRedirect", Class::Refused),
            (307, "TemporaryRedirect", Class::Failed),
            (429, "", Class::Failed),
            (500, "InternalError", Class::Unknown),
            (501, "NotImplemented", Class::Refused),
            (503, "SlowDown", Class::Failed),
            (504, "", Class::Unknown),
        ];
        for (status, code, expected) in cases {
            assert_eq!(
                class(StatusCode::from_u16(status).unwrap(), code, End::Target),
                expected,
                "{status} {code}"
            );
        }
        assert_eq!(class(StatusCode::GATEWAY_TIMEOUT, "", End::Source), Class::Failed);
    }
}

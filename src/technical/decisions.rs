//! `POST /journal`: what a human decides of an object in the journal, as `akubra journal retry` and `drop` do.
//!
//! Takes `TechnicalEndpointToken`, as all changes here do. Who decides what is another's business ([`Desk`]).

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use serde::Deserialize;

use super::token::{self, Token};
use crate::telemetry::endpoint::{Answer, Refusal, read_body};

/// Where it is.
pub const PATH: &str = "/journal";
/// Of a decision: a key has 1024 bytes, each of which may be three here.
const MOST_BYTES: usize = 8 * 1024;
/// Characters of a reason that are kept.
const REASON_MOST: usize = 300;

/// What is decided of one object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    pub cluster: String,
    /// `/bucket/key`, percent-encoded.
    pub path: String,
    pub action: Action,
    /// Why; a drop needs one.
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is tried again now.
    Retry,
    /// It is forgotten: what its backends hold is right.
    Drop,
}

/// Why nothing was done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    #[error("the journal has no such object: {0}")]
    Unknown(String),
    #[error("it cannot be dropped now: it is being written or repaired, or waits for that; look at it again")]
    Busy,
    #[error("{0}")]
    Unavailable(String),
}

/// Who does what was decided.
#[async_trait]
pub trait Desk: Send + Sync {
    /// Has a deadline of its own.
    async fn decide(&self, decision: Decision) -> std::result::Result<(), DeskError>;
}

pub struct Decisions {
    token: Token,
    desk: Arc<dyn Desk>,
}

impl Decisions {
    pub fn new(token: Token, desk: Arc<dyn Desk>) -> Decisions {
        Decisions { token, desk }
    }

    pub async fn take(&self, session: &mut ServerSession) -> Result<Answer> {
        let decision = match self.asked(session).await {
            Ok(decision) => decision,
            Err(refusal) => return token::refused(refusal),
        };
        let done = match decision.action {
            Action::Retry => "It is tried again.",
            Action::Drop => "It is forgotten.",
        };
        match self.desk.decide(decision).await {
            Ok(()) => Answer::text(StatusCode::OK, done),
            Err(error) => {
                let status = match error {
                    DeskError::Unknown(_) => StatusCode::NOT_FOUND,
                    DeskError::Busy => StatusCode::CONFLICT,
                    DeskError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                Answer::text(status, error.to_string())
            }
        }
    }

    async fn asked(&self, session: &mut ServerSession) -> std::result::Result<Decision, Refusal> {
        self.token.check(&session.req_header().headers)?;
        parse(&read_body(session, MOST_BYTES).await?)
    }
}

fn parse(body: &[u8]) -> std::result::Result<Decision, Refusal> {
    let wrong = |text: String| Refusal(StatusCode::BAD_REQUEST, text);
    let decision: Decision = serde_json::from_slice(body).map_err(|error| {
        let right =
            r#"send {"cluster": "NAME", "path": "/BUCKET/KEY", "action": "retry" or "drop", "reason": "..."}"#;
        wrong(format!("This is no decision ({error}); {right}"))
    })?;
    let reason: String = decision.reason.trim().chars().take(REASON_MOST).collect();
    if decision.action == Action::Drop && reason.is_empty() {
        return Err(wrong("Say why nothing has to be repaired: the reason is empty.".to_owned()));
    }
    Ok(Decision { reason, ..decision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_needs_a_reason_and_what_is_no_decision_is_refused() {
        let parsed = |text: &str| parse(text.as_bytes()).map_err(|refusal| refusal.0.as_u16());
        let retry = parsed(r#"{"cluster": "c", "path": "/b/k", "action": "retry"}"#).unwrap();
        assert_eq!((retry.action, retry.reason.as_str()), (Action::Retry, ""));
        let drop = parsed(r#"{"cluster": "c", "path": "/b/k", "action": "drop", "reason": " is right "}"#);
        assert_eq!(drop.unwrap().reason, "is right");
        for wrong in [
            r#"{"cluster": "c", "path": "/b/k", "action": "drop", "reason": " \n"}"#,
            r#"{"cluster": "c", "path": "/b/k", "action": "forget"}"#,
            r#"{"cluster": "c", "path": "/b/k", "action": "retry", "all": true}"#,
            r#"{"path": "/b/k", "action": "retry"}"#,
            "",
        ] {
            assert_eq!(parsed(wrong), Err(400), "{wrong}");
        }
        let long = format!(
            r#"{{"cluster": "c", "path": "/b/k", "action": "drop", "reason": "{}"}}"#,
            "x".repeat(999)
        );
        assert_eq!(parsed(&long).unwrap().reason.len(), REASON_MOST);
    }
}

//! `/maintenance`: which backends get nothing, and `POST` to change that while the process runs.
//!
//! Reading is free, as the status page is; changing takes `TechnicalEndpointToken` as a bearer token (RFC 6750). What
//! is changed here survives restarts and takeovers, until the file says the same. A change is kept before it is in
//! force: one that cannot be kept is refused, and nothing is different.

use std::sync::Arc;

use async_trait::async_trait;
use http::{StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use serde::{Deserialize, Serialize};

use super::token::{self, Token};
use crate::telemetry::endpoint::{Answer, Refusal, read_body};

/// Where it is.
pub const PATH: &str = "/maintenance";
/// Of a change; a URL and a reason.
const MOST_BYTES: usize = 8 * 1024;
/// Characters of a reason that are kept.
const REASON_MOST: usize = 300;

/// One backend's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Maintained {
    pub backend: String,
    pub maintenance: bool,
    /// What the configuration says.
    pub configured: bool,
    /// Where it is not the configuration that decides: when it was changed, RFC 3339, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub backend: String,
    pub maintenance: bool,
    #[serde(default)]
    pub reason: String,
}

/// Why nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    #[error("no backend of the configuration is {asked}; there are: {}", .known.join(", "))]
    Unknown { asked: String, known: Vec<String> },
    #[error("the change cannot be kept, so it is not made: {0}")]
    NotKept(String),
    #[error("{0}")]
    Unavailable(&'static str),
}

/// Who knows and changes it.
#[async_trait]
pub trait Switch: Send + Sync {
    fn backends(&self) -> Vec<Maintained>;

    async fn set(&self, change: Change) -> std::result::Result<Maintained, SwitchError>;
}

pub struct Maintenance {
    token: Token,
    switch: Arc<dyn Switch>,
}

impl Maintenance {
    pub fn new(token: Token, switch: Arc<dyn Switch>) -> Maintenance {
        Maintenance { token, switch }
    }

    pub fn list(&self) -> Result<Answer> {
        json(StatusCode::OK, &self.switch.backends())
    }

    pub async fn change(&self, session: &mut ServerSession) -> Result<Answer> {
        match self.asked(session).await {
            Ok(change) => self.make(change).await,
            Err(refusal) => token::refused(refusal),
        }
    }

    async fn asked(&self, session: &mut ServerSession) -> std::result::Result<Change, Refusal> {
        self.token.check(&session.req_header().headers)?;
        let body = read_body(session, MOST_BYTES).await?;
        let change: Change = serde_json::from_slice(&body).map_err(|error| {
            let right = r#"send {"backend": "http://HOST:PORT", "maintenance": true, "reason": "..."}"#;
            Refusal(StatusCode::BAD_REQUEST, format!("This is not a change ({error}); {right}"))
        })?;
        Ok(Change { reason: change.reason.chars().take(REASON_MOST).collect(), ..change })
    }

    async fn make(&self, change: Change) -> Result<Answer> {
        match self.switch.set(change).await {
            Ok(maintained) => json(StatusCode::OK, &maintained),
            Err(error) => {
                let status = match error {
                    SwitchError::Unknown { .. } => StatusCode::NOT_FOUND,
                    SwitchError::NotKept(_) => StatusCode::INTERNAL_SERVER_ERROR,
                    SwitchError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                Answer::text(status, error.to_string())
            }
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Answer> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut answer = Answer::text(status, text + "\n")?;
    answer.head.insert_header(header::CONTENT_TYPE, "application/json")?;
    answer.head.insert_header(header::CACHE_CONTROL, "no-store")?;
    Ok(answer)
}

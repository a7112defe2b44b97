//! `POST /configuration/validate`: 200 or all that is wrong.
//!
//! What can be refused by its head is refused before a byte of the body is read. Checking a text of the largest size
//! takes a fraction of a second of processor time, which is bounded by the parser's own limits (no aliases, no depth,
//! see `config::tree`); that it is one at a time keeps a flood of them from the gateway's cores.

use std::{str, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use pingora_error::Result;
use tokio::sync::Semaphore;

use crate::{
    config::Config,
    telemetry::endpoint::{Answer, Refusal, read_body},
};

/// For those before it to be checked.
const TURN: Duration = Duration::from_secs(5);

pub struct Validator {
    body_max_size: usize,
    turn: Arc<Semaphore>,
}

impl Validator {
    pub fn new(body_max_size: usize) -> Validator {
        Validator { body_max_size, turn: Arc::new(Semaphore::new(1)) }
    }

    pub async fn answer(&self, session: &mut ServerSession) -> Result<Answer> {
        match self.body(session).await {
            Ok(body) => self.check(body).await,
            Err(refusal) => refusal.answer(),
        }
    }

    async fn body(&self, session: &mut ServerSession) -> std::result::Result<Vec<u8>, Refusal> {
        of_type(&session.req_header().headers)?;
        read_body(session, self.body_max_size).await
    }

    async fn check(&self, body: Vec<u8>) -> Result<Answer> {
        let Ok(Ok(turn)) = tokio::time::timeout(TURN, self.turn.clone().acquire_owned()).await else {
            let text = "Too many configurations are being checked.";
            let mut answer = Answer::text(StatusCode::SERVICE_UNAVAILABLE, text)?;
            answer.head.insert_header(header::RETRY_AFTER, "5")?;
            return Ok(answer);
        };
        let checked = tokio::task::spawn_blocking(move || {
            // Held by the work itself: it goes on if its client gives up.
            let _turn = turn;
            Config::check(body)
        });
        match checked.await {
            Ok(Ok(warnings)) => {
                let warnings = warnings.into_iter().map(|warning| format!("\nwarning: {warning}"));
                let text = format!("Configuration checked - OK.{}", warnings.collect::<String>());
                Answer::text(StatusCode::OK, text)
            }
            Ok(Err(errors)) => Answer::text(StatusCode::BAD_REQUEST, errors.to_string()),
            Err(error) => {
                log::error!("a configuration could not be checked: {error}");
                Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "The check failed; that is a bug.")
            }
        }
    }
}

/// `application/yaml`, in UTF-8 where a charset is named, and not compressed.
fn of_type(headers: &HeaderMap) -> std::result::Result<(), Refusal> {
    const RIGHT: &str = "send Content-Type: application/yaml";
    let refuse = |status, why: &str| Err(Refusal(status, format!("{why}; {RIGHT}")));
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return refuse(StatusCode::BAD_REQUEST, "There is no Content-Type");
    };
    if headers.get_all(header::CONTENT_TYPE).iter().count() > 1 {
        return refuse(StatusCode::BAD_REQUEST, "There is more than one Content-Type");
    }
    let value = str::from_utf8(value.as_bytes()).unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/yaml")) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "This type of content is not known");
    }
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let charset = value.trim_matches('"');
        if name.eq_ignore_ascii_case("charset")
            && !["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
        {
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "This charset is not known, UTF-8 is");
        }
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "It is compressed")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_type_is_yaml_with_or_without_charset() {
        let status =
            |value| of_type(&headers(&[("content-type", value)])).map_err(|refusal| refusal.0.as_u16());
        for right in [
            "application/yaml",
            "Application/YAML",
            "application/yaml;charset=utf-8",
            "application/yaml ; Charset=\"UTF-8\"; x=y",
        ] {
            assert_eq!(status(right), Ok(()), "{right}");
        }
        for wrong in
            ["text/yaml", "application/json", "application/yamlx", "", "application/yaml; charset=latin1"]
        {
            assert_eq!(status(wrong), Err(415), "{wrong}");
        }
        assert_eq!(of_type(&HeaderMap::new()).unwrap_err().0, 400);
        let compressed = headers(&[("content-type", "application/yaml"), ("content-encoding", "gzip")]);
        assert_eq!(of_type(&compressed).unwrap_err().0, 415);
    }
}

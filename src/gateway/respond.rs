//! Answers to the client: a backend's, or one of ours. The only place that writes to the client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use pingora_timeout::timeout;

use super::{context::Context, drain::Activity, head};
use crate::{
    s3::S3Error,
    telemetry::{
        endpoint::{Patience, linger},
        metrics::METRICS,
    },
    upstream::Body,
};

/// How long and how much a client may go on sending after it was answered.
pub(super) const LINGER: Duration = Duration::from_secs(5);
pub(super) const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// Writes answers, with what is added to each.
pub struct Responder<'a> {
    pub session: &'a mut Session,
    pub context: &'a mut Context,
    pub activity: &'a Activity,
}

impl Responder<'_> {
    fn extra(&self) -> &[(HeaderName, HeaderValue)] {
        &self.context.snapshot.config.additional_response_headers
    }

    /// `ClientWriteTimeout`: how long a client may take nothing.
    fn patience(&self) -> Duration {
        self.context.snapshot.config.client_write_timeout
    }

    /// Passes a backend's answer on. `body_read` = the client's request has been read to its end.
    pub async fn backend(&mut self, answer: (Box<ResponseHeader>, Body), body_read: bool) -> Result<()> {
        let (head, body) = answer;
        let body = match body {
            // The backend's connection is free before the client takes the answer.
            Body::Long(bytes, mut answer) => match answer.is_done() {
                true => {
                    answer.release().await;
                    Body::Whole(bytes)
                }
                false => Body::Long(bytes, answer),
            },
            body => body,
        };
        let length = match &body {
            Body::Whole(bytes) => Some(bytes.len()),
            _ => None,
        };
        let request = self.session.req_header();
        let head = head::for_client(*head, length, self.extra(), &self.context.id, request)?;
        self.keep_alive_if(body_read);
        match body {
            Body::Whole(bytes) => self.write(head, bytes).await?,
            Body::Broken(bytes, failure) if bytes.is_empty() => {
                return self.refuse_broken(&failure.to_string(), body_read).await;
            }
            Body::Broken(bytes, failure) => {
                self.begin(head, false).await?;
                self.piece(bytes).await?;
                return self.broken_off(failure.to_string());
            }
            Body::Long(bytes, mut answer) => {
                let mut piece = match bytes.is_empty() {
                    true => answer.chunk().await,
                    false => Ok(Some(bytes)),
                };
                if let Err(failure) = &piece {
                    return self.refuse_broken(&failure.to_string(), body_read).await;
                }
                self.begin(head, false).await?;
                while let Some(bytes) = match piece {
                    Ok(piece) => piece,
                    Err(failure) => return self.broken_off(failure.to_string()),
                } {
                    self.piece(bytes).await?;
                    piece = answer.chunk().await;
                }
                answer.release().await;
                self.served();
                self.end().await?;
            }
        }
        self.linger_unless(body_read).await;
        Ok(())
    }

    /// The backend's answer broke off before its body began: the client has heard nothing yet, and can be told
    /// instead of being cut off.
    async fn refuse_broken(&mut self, why: &str, body_read: bool) -> Result<()> {
        why.clone_into(&mut self.context.error);
        let refusal = S3Error::service_unavailable("the backend's answer broke off");
        self.refuse(&refusal, body_read).await
    }

    /// Answers with an error of ours.
    pub async fn refuse(&mut self, error: &S3Error, body_read: bool) -> Result<()> {
        METRICS.requests.refused(error.code);
        if self.context.error.is_empty() {
            self.context.error = error.to_string();
        }
        let resource = String::from_utf8_lossy(self.session.req_header().uri.path().as_bytes()).into_owned();
        let xml = error.to_xml(&resource, &self.context.id);
        self.whole(refusal_head(error)?, xml, body_read).await
    }

    /// Answers with a head and a body of ours.
    pub async fn whole(&mut self, mut head: ResponseHeader, body: Bytes, body_read: bool) -> Result<()> {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        head::add_ours(&mut head, self.extra(), &self.context.id)?;
        self.keep_alive_if(body_read);
        self.write(head, body).await?;
        self.linger_unless(body_read).await;
        Ok(())
    }

    /// The request is no load any more: a client that has its answer may send the next one at once, and what one
    /// that was refused still sends holds up nobody.
    fn served(&mut self) {
        self.context.admitted = None;
    }

    fn keep_alive_if(&mut self, body_read: bool) {
        if !body_read || self.activity.is_draining() {
            self.session.set_keepalive(None);
        }
    }

    async fn write(&mut self, head: ResponseHeader, body: Bytes) -> Result<()> {
        self.served();
        let bodiless = body.is_empty() || self.session.req_header().method == Method::HEAD;
        self.begin(head, bodiless).await?;
        if !bodiless {
            self.context.bytes_out += body.len() as u64;
            return in_time(
                timeout(self.patience(), self.session.write_response_body(Some(body), true)).await,
            );
        }
        self.end().await
    }

    /// Pingora's own write timeout covers bodies only.
    async fn begin(&mut self, head: ResponseHeader, end: bool) -> Result<()> {
        let written = timeout(self.patience(), self.session.write_response_header(Box::new(head), end)).await;
        in_time(written)
    }

    async fn piece(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() || self.session.req_header().method == Method::HEAD {
            return Ok(());
        }
        self.context.bytes_out += bytes.len() as u64;
        in_time(timeout(self.patience(), self.session.write_response_body(Some(bytes), false)).await)
    }

    async fn end(&mut self) -> Result<()> {
        in_time(timeout(self.patience(), self.session.write_response_body(None, true)).await)
    }

    /// The backend's answer broke off: an error, so that the client's connection is cut and never ends as if
    /// the answer were complete.
    fn broken_off(&mut self, why: String) -> Result<()> {
        self.context.error.clone_from(&why);
        Err(Error::explain(ErrorType::ReadError, why).into_up())
    }

    async fn linger_unless(&mut self, body_read: bool) {
        self.context.answered = Some(Instant::now());
        if body_read || self.activity.stop.is_set() {
            return;
        }
        let patience = Patience { half_close: self.patience(), longest: LINGER, most_bytes: LINGER_BYTES };
        tokio::select! {
            end = linger(&mut *self.session.downstream_session, patience) => METRICS.requests.lingered(end),
            () = self.activity.stop.wait() => {}
        }
    }
}

/// The outcome of a write under a deadline; what goes wrong is the client's doing.
pub fn in_time(outcome: std::result::Result<Result<()>, pingora_timeout::Elapsed>) -> Result<()> {
    match outcome {
        Ok(written) => written.map_err(|error| error.into_down()),
        Err(_) => Err(Error::explain(ErrorType::WriteTimedout, "the client takes no answer").into_down()),
    }
}

/// The head of an answer with an error of ours.
pub fn refusal_head(error: &S3Error) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(error.status, Some(8))?;
    head.insert_header(header::CONTENT_TYPE, "application/xml")?;
    if error.code == "SlowDown" {
        head.insert_header(header::RETRY_AFTER, "1")?;
    }
    Ok(head)
}

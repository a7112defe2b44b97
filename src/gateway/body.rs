//! The client's body as the mirror reads it, with the limits that apply to it.

use std::io;

use bytes::Bytes;
use pingora_error::{BError, ErrorType};
use pingora_proxy::Session;

use crate::{mirror::Source, s3::S3Error};

/// Why a client's body did not end properly.
#[derive(Debug)]
pub enum BodyError {
    /// Refused: too large, or too slow.
    Refused(S3Error),
    /// The client has gone, or sent something that is no body.
    Broken(BError),
}

pub struct ClientBody<'a> {
    session: &'a mut Session,
    /// `BodyMaxSize`
    limit: Option<u64>,
    pub received: u64,
}

impl<'a> ClientBody<'a> {
    pub fn new(session: &'a mut Session, limit: Option<u64>) -> Self {
        ClientBody { session, limit, received: 0 }
    }
}

/// What the look at a chunked body's framing says.
fn is_malformed(error: &pingora_error::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

impl Source for ClientBody<'_> {
    type Error = BodyError;

    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        // Pingora's body reader keeps its state in the session: a cancelled read loses nothing.
        let piece = match self.session.downstream_session.read_request_body().await {
            Ok(piece) => piece,
            Err(error) if matches!(error.etype(), ErrorType::ReadTimedout) => {
                return Err(BodyError::Refused(S3Error::request_timeout()));
            }
            Err(error) if is_malformed(&error) => {
                return Err(BodyError::Refused(S3Error::bad_request("the chunked body is malformed")));
            }
            Err(error) => return Err(BodyError::Broken(error)),
        };
        self.received += piece.as_ref().map_or(0, Bytes::len) as u64;
        match self.limit {
            Some(limit) if self.received > limit => Err(BodyError::Refused(S3Error::entity_too_large(limit))),
            _ => Ok(piece),
        }
    }
}

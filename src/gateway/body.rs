//! The client's body as the mirror reads it, with the limits that apply to it.

use std::{collections::VecDeque, io};

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
    gathered: Gathered,
    pub received: u64,
}

/// The beginning of a body that was read before its time.
#[derive(Debug, Default)]
pub struct Gathered {
    pieces: VecDeque<Bytes>,
    pub received: u64,
    /// The client was told to send it.
    asked_for: bool,
    /// It is all of it.
    ended: bool,
}

impl Gathered {
    /// The body, if it is all there.
    pub fn whole(&self) -> Option<Vec<u8>> {
        self.ended.then(|| self.pieces.iter().flatten().copied().collect())
    }

    /// The body as one piece, if it is all there.
    pub fn in_one_piece(self) -> Option<Gathered> {
        let whole = self.whole()?;
        let pieces = (!whole.is_empty()).then(|| whole.into());
        Some(Gathered { pieces: pieces.into_iter().collect(), ..self })
    }

    pub fn is_asked_for(&self) -> bool {
        self.asked_for
    }
}

impl<'a> ClientBody<'a> {
    /// What follows `gathered`, behind that.
    pub fn new(session: &'a mut Session, limit: Option<u64>, gathered: Gathered) -> Self {
        ClientBody { session, limit, received: gathered.received, gathered }
    }

    /// Reads to the end, or to where it is more than `most` bytes.
    pub async fn gather(&mut self, most: u64) -> Result<Gathered, BodyError> {
        let mut gathered = Gathered { asked_for: true, ..Gathered::default() };
        while gathered.received <= most {
            match self.next().await? {
                Some(piece) => gathered.pieces.push_back(piece),
                None => {
                    gathered.ended = true;
                    break;
                }
            }
            gathered.received = self.received;
        }
        Ok(gathered)
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
        match self.gathered.pieces.pop_front() {
            None if self.gathered.ended => return Ok(None),
            None => {}
            piece => return Ok(piece),
        }
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

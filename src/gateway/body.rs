//! The client's body as the mirror reads it, with the limits that apply to it.

use std::io;

use bytes::{Bytes, BytesMut};
use pingora_error::{BError, ErrorType};
use pingora_proxy::Session;

use crate::{
    mirror::{LARGEST_PIECE, Source},
    s3::S3Error,
};

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

/// The beginning of a body that was read before its time. In one piece, so that a body of one-byte chunks costs no more
/// than its bytes.
#[derive(Debug, Default)]
pub struct Gathered {
    bytes: Bytes,
    pub received: u64,
    /// The client was told to send it.
    asked_for: bool,
    /// It is all of it.
    ended: bool,
}

impl Gathered {
    /// Reads to the end, or to where it is more than `most` bytes.
    async fn from<S: Source>(body: &mut S, most: u64) -> Result<Gathered, S::Error> {
        let (mut bytes, mut ended) = (BytesMut::new(), false);
        while !ended && bytes.len() as u64 <= most {
            match body.next().await? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => ended = true,
            }
        }
        let received = bytes.len() as u64;
        Ok(Gathered { bytes: bytes.freeze(), received, asked_for: true, ended })
    }

    /// The body, if it is all there.
    pub fn whole(&self) -> Option<&[u8]> {
        self.ended.then_some(&self.bytes)
    }

    /// The next piece: the whole body at once, or a part of what there is of it.
    fn next(&mut self) -> Option<Bytes> {
        let most = if self.ended { usize::MAX } else { LARGEST_PIECE };
        let length = self.bytes.len().min(most);
        (length > 0).then(|| self.bytes.split_to(length))
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
        Gathered::from(self, most).await
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
        match self.gathered.next() {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A body of so many one-byte pieces.
    struct Crumbs(usize);

    impl Source for Crumbs {
        type Error = Infallible;

        async fn next(&mut self) -> Result<Option<Bytes>, Infallible> {
            let left = self.0;
            self.0 = left.saturating_sub(1);
            Ok((left > 0).then(|| Bytes::from_static(b"x")))
        }
    }

    async fn gathered(length: usize, most: u64) -> Gathered {
        Gathered::from(&mut Crumbs(length), most).await.unwrap()
    }

    fn pieces(mut gathered: Gathered) -> Vec<usize> {
        std::iter::from_fn(|| gathered.next()).map(|piece| piece.len()).collect()
    }

    #[tokio::test]
    async fn a_body_of_one_byte_pieces_is_gathered_into_one() {
        const LONG: usize = 3 * LARGEST_PIECE / 2;
        let whole = gathered(LONG, LONG as u64).await;
        assert_eq!((whole.whole().map(<[u8]>::len), whole.received), (Some(LONG), LONG as u64));
        assert_eq!(pieces(whole), [LONG]);
        // What is not all of it goes on as it would have come.
        let begun = gathered(2 * LONG, LONG as u64).await;
        assert_eq!((begun.whole(), begun.received), (None, LONG as u64 + 1));
        assert_eq!(pieces(begun), [LARGEST_PIECE, LARGEST_PIECE / 2 + 1]);
        assert!(pieces(gathered(0, 1).await).is_empty());
    }
}

//! A request's body, whole, bounded and under a deadline.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use pingora_core::protocols::http::{ServerSession, v1::common::is_expect_continue_req};
use pingora_error::Result;
use pingora_timeout::timeout;

use super::Answer;

/// For the whole body to come.
const BODY: Duration = Duration::from_secs(10);

/// Why a request is not answered as it would like.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub String);

impl Refusal {
    pub fn answer(self) -> Result<Answer> {
        Answer::text(self.0, self.1)
    }
}

/// Reads a body of at most `most` bytes. One that is announced to be larger is refused before a byte of it is read.
pub async fn read_body(session: &mut ServerSession, most: usize) -> Result<Vec<u8>, Refusal> {
    of_size(&session.req_header().headers, most)?;
    let read = async {
        // A client that has gone, or frames its body badly; the latter may hear of it.
        let broken = |_| Refusal(StatusCode::BAD_REQUEST, "The body cannot be read to its end.".into());
        if is_expect_continue_req(session.req_header()) {
            session.write_continue_response().await.map_err(broken)?;
        }
        let mut body = Vec::new();
        while let Some(bytes) = session.read_request_body().await.map_err(broken)? {
            if body.len() + bytes.len() > most {
                return Err(too_large(most));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    };
    let late = |_| Refusal(StatusCode::REQUEST_TIMEOUT, format!("The body did not come within {BODY:?}."));
    timeout(BODY, read).await.map_err(late)?
}

fn of_size(headers: &HeaderMap, most: usize) -> Result<(), Refusal> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    // A length that is no number has been refused with the head; one that is no u64 is too large.
    let announced = length.map_or(0, |length| length.trim().parse().unwrap_or(u64::MAX));
    if announced > most as u64 { Err(too_large(most)) } else { Ok(()) }
}

fn too_large(most: usize) -> Refusal {
    Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("At most {most} bytes are taken here."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_judged_by_the_head() {
        let fits = |length: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, length.parse().unwrap())]);
            of_size(&headers, 1000).is_ok()
        };
        assert!(fits("0") && fits("1000"));
        assert!(!fits("1001") && !fits("99999999999999999999999"));
        assert!(of_size(&HeaderMap::new(), 1000).is_ok());
    }
}

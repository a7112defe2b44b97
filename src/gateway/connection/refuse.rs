//! Answers to requests whose head never got as far as Pingora: malformed, too large, too slow.
//!
//! They are made as all others are, an S3 error with our headers and a line in the access log, as far as the
//! bytes that came tell what was meant.

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, header};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokio::io::AsyncWriteExt;

use super::{Connection, read};
use crate::{
    gateway::{
        context::{Context, account},
        head,
        respond::{LINGER, LINGER_BYTES, refusal_head},
    },
    s3::S3Error,
    telemetry::{
        access_log::AccessEntry,
        endpoint::{Answered, Patience, linger},
        metrics::METRICS,
    },
};

/// How much of a malformed request is kept for the access log.
const MOST_LOGGED: usize = 1024;

impl Connection<'_> {
    /// Answers with an error of ours and ends the connection.
    pub(super) async fn refuse(mut self, refusal: &S3Error) {
        METRICS.requests.refused(refusal.code);
        let context = Context::new(self.shared.current.pin());
        let seen = Seen::of(&self.ahead);
        self.ahead = BytesMut::new();
        let xml = refusal.to_xml(&seen.path, &context.id);
        let entry = self.entry(&context, seen, refusal, xml.len());
        let bodiless = entry.method == Method::HEAD;
        account(&self.shared.logs, entry);
        let Ok(answer) = self.answer(refusal, &xml, bodiless, &context.id) else { return };
        let send = async {
            self.stream.write_all(&answer).await?;
            self.stream.flush().await
        };
        let write_timeout = self.shared.current.look().config.client_write_timeout;
        let sent = matches!(timeout(write_timeout, send).await, Ok(Ok(())));
        if sent && !self.shared.activity.stop.is_set() {
            let patience = Patience { half_close: LINGER, longest: LINGER, most_bytes: LINGER_BYTES };
            METRICS.requests.lingered(linger(&mut self, patience).await);
        }
    }

    fn answer(&self, refusal: &S3Error, xml: &Bytes, bodiless: bool, id: &str) -> Result<BytesMut> {
        let mut head = refusal_head(refusal)?;
        head.insert_header(header::CONTENT_LENGTH, xml.len())?;
        head.insert_header(header::DATE, get_cached_date())?;
        head.insert_header(header::CONNECTION, "close")?;
        let snapshot = self.shared.current.look();
        head::add_ours(&mut head, &snapshot.config.additional_response_headers, id)?;
        let mut answer = BytesMut::with_capacity(1024);
        push_head(&head, &mut answer);
        if !bodiless {
            answer.put_slice(xml);
        }
        Ok(answer)
    }

    fn entry(&self, context: &Context, seen: Seen, refusal: &S3Error, length: usize) -> AccessEntry {
        AccessEntry {
            method: seen.method,
            host: String::new(),
            path: seen.path,
            useragent: String::new(),
            status: refusal.status.as_u16(),
            duration: context.started.elapsed(),
            error: refusal.to_string(),
            req_id: context.id.clone(),
            ts: context.ts,
            bytes_in: 0,
            bytes_out: length as u64,
            region: String::new(),
            cluster: String::new(),
            asked: 0,
            good: 0,
            remote: self.peer(),
        }
    }
}

impl Answered for Connection<'_> {
    async fn shut_down(&mut self) {
        // An error shows in the next read, too.
        self.stream.shutdown().await.ok();
    }

    async fn discard(&mut self) -> Option<usize> {
        let count = read(&mut self.stream, &mut self.ahead).await.ok().filter(|count| *count > 0);
        self.ahead.clear();
        count
    }
}

fn push_head(head: &ResponseHeader, buffer: &mut BytesMut) {
    let reason = head.status.canonical_reason().unwrap_or_default();
    buffer.put_slice(format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).as_bytes());
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            buffer.put_slice(part);
        }
    }
    buffer.put_slice(b"\r\n");
}

/// What a malformed head tells.
struct Seen {
    /// `-` where there is none.
    method: Method,
    path: String,
}

impl Seen {
    fn of(bytes: &[u8]) -> Seen {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let line = &line[..line.len().min(MOST_LOGGED)];
        let mut words = line.split(|byte| *byte == b' ');
        let method =
            words.next().and_then(|word| Method::from_bytes(word).ok()).filter(|_| line.contains(&b' '));
        let target = words.next().filter(|_| method.is_some()).unwrap_or_default();
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let unknown = || Method::from_bytes(b"-").unwrap_or_default();
        Seen { method: method.unwrap_or_else(unknown), path: String::from_utf8_lossy(path).into_owned() }
    }
}

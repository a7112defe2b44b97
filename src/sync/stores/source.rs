//! An object's bytes as they come in: those of the object that was looked at, all of them, and no others.

use std::ops::Range;

use bytes::Bytes;
use http::{Method, StatusCode};
use md5::{Digest, Md5 as Hasher};

use super::{
    error::{self, End},
    held,
    least::Account,
    request,
    site::{Reply, Site},
};
use crate::{
    journal::Object,
    sync::{Held, Md5, StoreError},
    upstream::{Answer, Incoming},
};

/// A body on its way.
pub struct Source<'a> {
    site: &'a Site,
    incoming: Incoming,
    account: Account,
    is_tagged: bool,
    length: u64,
    left: u64,
    part: Hasher,
    /// Of the object from its beginning, where this is a part of it.
    whole: Option<Hasher>,
}

/// What a body came to.
#[derive(Clone)]
pub struct Digests {
    pub part: Md5,
    pub whole: Option<Hasher>,
}

impl<'a> Source<'a> {
    /// Asks for these bytes of what a backend holds. `whole` has seen those before.
    pub async fn open(
        site: &'a Site,
        object: &Object,
        held: &Held,
        range: Option<Range<u64>>,
        whole: Option<Hasher>,
    ) -> Result<Source<'a>, StoreError> {
        let mut head = request::head(site, Method::GET, object, "")?;
        request::set(&mut head, "if-match", request::quoted(&held.etag))?;
        if let Some(Range { start, end }) = &range {
            request::set(&mut head, "range", format!("bytes={start}-{}", end.saturating_sub(1)))?;
        }
        let Answer { head, body } = site.open(head).await.map_err(error::before)?;
        let wanted = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        if head.status != wanted {
            if head.status.is_success() {
                let said = format!("{}: {} to GET instead of {wanted}", site.url(), head.status);
                return Err(StoreError::Failed(said));
            }
            let reply = site.collect(Answer { head, body }).await.map_err(error::before)?;
            return Err(error::of_reply(site, End::Source, &Method::GET, &reply));
        }
        let reply = Reply { status: head.status, headers: head.headers.clone(), body: Bytes::new() };
        check(site, &reply, held, range.as_ref())?;
        let length = range.map_or(held.length, |range| range.end - range.start);
        let account = site.account();
        let is_tagged = reply.header("x-amz-tagging-count").is_some_and(|count| count != "0");
        let part = Hasher::new();
        Ok(Source { site, incoming: body, account, is_tagged, length, left: length, part, whole })
    }

    /// Whether the backend says that the object has tags; not all do.
    pub fn is_tagged(&self) -> bool {
        self.is_tagged
    }

    /// Bytes that there will be.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next piece, never empty; `None` at the end that was announced.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let Some(piece) = self.account.wait(self.incoming.chunk()).await else {
                return Err(self.wrong(&format!("it sent {}", self.account.too_slow())));
            };
            let Some(piece) = piece.map_err(error::before)? else { break };
            self.account.moved(piece.len());
            let Some(left) = self.left.checked_sub(piece.len() as u64) else {
                return Err(self.wrong("more bytes came than it said"));
            };
            if piece.is_empty() {
                continue;
            }
            self.left = left;
            self.part.update(&piece);
            if let Some(whole) = &mut self.whole {
                whole.update(&piece);
            }
            self.site.pace.take(piece.len()).await;
            return Ok(Some(piece));
        }
        if self.left > 0 { Err(self.wrong("fewer bytes came than it said")) } else { Ok(None) }
    }

    /// Behind the last piece: gives the connection back.
    pub async fn finish(self) -> Digests {
        self.incoming.release().await;
        Digests { part: self.part.finalize().into(), whole: self.whole }
    }

    fn wrong(&self, what: &str) -> StoreError {
        StoreError::Failed(format!("{}: {what}", self.site.url()))
    }
}

/// Whether an answer is about the object that was looked at: not all backends know `If-Match`.
fn check(site: &Site, reply: &Reply, held: &Held, range: Option<&Range<u64>>) -> Result<(), StoreError> {
    let changed = |what: &str| Err(StoreError::Changed(format!("{}: {what}", site.url())));
    if reply.header("etag").map(request::unquoted).as_deref() != Some(held.etag.as_str()) {
        return changed("the source has another ETag now");
    }
    if held::metadata(&reply.headers).as_ref() != Some(&held.metadata) {
        return changed("the source has other metadata now");
    }
    let length = range.map_or(held.length, |range| range.end - range.start);
    if reply.header("content-length").is_some_and(|text| text.parse() != Ok(length)) {
        return changed("the source has another length now");
    }
    if let Some(Range { start, end }) = range {
        let expected = format!("bytes {start}-{}/{}", end.saturating_sub(1), held.length);
        if reply.header("content-range") != Some(expected.as_str()) {
            return changed("the source gave another part than it was asked for");
        }
    }
    Ok(())
}

/// Reads all bytes of what a backend holds.
pub async fn md5(site: &Site, object: &Object, held: &Held) -> Result<Md5, StoreError> {
    let mut source = Source::open(site, object, held, None, None).await?;
    while source.next().await?.is_some() {}
    Ok(source.finish().await.part)
}

//! An object from one backend to another in one piece, and what is checked of every copy.
//!
//! The piece that completes the body is held back until the source has ended as it should and the gate is open. What
//! is given up before that leaves nothing behind: its connection is reset.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, header};
use md5::Md5 as Hasher;
use pingora_http::RequestHeader;
use tokio::time::Instant;

use super::{
    S3Stores,
    attribute::{self, Tags},
    condition::Condition,
    error::{self, Broken, End},
    held::plain_md5,
    multipart, request,
    site::{Reply, Site},
    source::{self, Digests, Source},
};
use crate::{
    journal::Object,
    sync::{Copied, Gate, Held, Md5, State, StoreError, decide::ACL, sign},
    upstream::{Cause, Reuse, Sent},
};

/// What the target was seen to hold may not be that any more after so long, whatever its conditions are worth.
const SEEN_LONG_AGO: Duration = Duration::from_secs(1);

/// One copy: what from where to where.
pub struct Copy<'a> {
    pub stores: &'a S3Stores,
    pub object: &'a Object,
    pub source: &'a Site,
    pub held: &'a Held,
    pub target: &'a Arc<Site>,
    pub over: &'a State,
    /// When the target was asked.
    pub seen: Instant,
    pub gate: &'a dyn Gate,
}

/// A copy that the target has taken.
pub struct Taken {
    pub reply: Reply,
    /// Without quotes.
    pub etag: Option<String>,
    pub md5: Md5,
    /// What it has to be if it is made of MD5s.
    pub expected: String,
}

impl Copy<'_> {
    pub async fn run(&self) -> Result<Copied, StoreError> {
        let parts = multipart::part_size(self).await?;
        let tags = attribute::tags(self.source, self.object).await?;
        let header = tags.as_ref().map(Tags::header);
        let mut reuse = Reuse::Allowed;
        let mut condition = Condition::new(self.target, self.over);
        let taken = loop {
            let outcome = match parts {
                Some(size) => multipart::copy(self, size, header.as_deref(), &condition).await,
                None => self.whole(header.as_deref(), &condition, reuse).await,
            };
            match outcome {
                Ok(taken) => break taken,
                Err(Broken::Stale(_)) if reuse == Reuse::Allowed => reuse = Reuse::Fresh,
                Err(Broken::Answered(reply, error)) => {
                    if !condition.is_misunderstood(self.stores, self.object, &reply).await {
                        return Err(error);
                    }
                }
                Err(broken) => return Err(broken.into()),
            }
        };
        condition.held();
        let etag = taken.etag.clone();
        self.finished(taken, tags.as_ref())
            .await
            .map_err(|error| StoreError::Unfinished { etag, why: Box::new(error) })
    }

    /// What follows once the target has taken the copy.
    async fn finished(&self, taken: Taken, tags: Option<&Tags>) -> Result<Copied, StoreError> {
        let copied = self.verified(taken).await?;
        if let Some(tags) = tags {
            self.keep_tags(tags, &copied).await?;
        }
        if self.stores.settings.copy_acl {
            self.keep_acl(&copied).await?;
        }
        Ok(copied)
    }

    async fn whole(
        &self,
        tags: Option<&str>,
        condition: &Condition<'_>,
        reuse: Reuse,
    ) -> Result<Taken, Broken> {
        let mut head = self.head(Method::PUT, "", tags).map_err(StoreError::from)?;
        if let Some(md5) = &self.held.md5 {
            request::set(&mut head, "content-md5", request::content_md5(md5)).map_err(StoreError::from)?;
        }
        condition.set(&mut head).map_err(StoreError::from)?;
        let source = self.open_source(tags.is_some(), None, None).await?;
        let ready = |digests: Digests| async move {
            self.check_source(&digests.part)?;
            self.ready(condition.is_sent()).await
        };
        let (reply, digests) = stream(self.target, head, source, reuse, ready).await?;
        if !reply.status.is_success() {
            return Err(self.refused(Method::PUT, reply));
        }
        let etag = reply.header("etag").map(request::unquoted);
        Ok(Taken { reply, etag, md5: digests.part, expected: request::hex(&digests.part) })
    }

    /// What is to be copied; `tagged`, if tags of it could be read.
    pub async fn open_source(
        &self,
        tagged: bool,
        range: Option<Range<u64>>,
        whole: Option<Hasher>,
    ) -> Result<Source<'_>, StoreError> {
        let source = Source::open(self.source, self.object, self.held, range, whole).await?;
        if source.is_tagged() && !tagged {
            let url = self.source.url();
            return Err(StoreError::Failed(format!("{url}: it says that there are tags, and shows none")));
        }
        Ok(source)
    }

    /// Ceph's gateway (16) drops the tags with which an upload in parts is begun: they are set where they are missing.
    async fn keep_tags(&self, tags: &Tags, copied: &Copied) -> Result<(), StoreError> {
        if attribute::has_tags(self.target, self.object, tags).await? {
            return Ok(());
        }
        self.still_there(copied).await?;
        attribute::write(self.target, self.object, "tagging", Some(tags.document().as_bytes())).await?;
        match attribute::has_tags(self.target, self.object, tags).await? {
            true => Ok(()),
            false => Err(attribute::not_kept(self.target, "tags")),
        }
    }

    /// The source's ACL, if it was that of what was copied. The target is asked for its own before: one that knows no ACLs
    /// answers with the object, and would take what is written there for one.
    async fn keep_acl(&self, copied: &Copied) -> Result<(), StoreError> {
        let Some(acl) = attribute::read(self.source, self.object, ACL).await? else { return Ok(()) };
        let source = State::Present(self.held.clone());
        self.stores.still(self.source, self.object, &source).await?;
        if self.has_acl(&acl).await? {
            return Ok(());
        }
        self.still_there(copied).await?;
        attribute::write(self.target, self.object, ACL, Some(&acl)).await?;
        match self.has_acl(&acl).await? {
            true => Ok(()),
            false => Err(attribute::not_kept(self.target, "the ACL as it was set")),
        }
    }

    async fn has_acl(&self, acl: &[u8]) -> Result<bool, StoreError> {
        Ok(attribute::read(self.target, self.object, ACL).await?.as_deref() == Some(acl))
    }

    /// Before more is written to what the target has taken: that it is that still, and that the gate is open.
    async fn still_there(&self, copied: &Copied) -> Result<(), StoreError> {
        let url = self.target.url();
        match self.now().await? {
            Some(now) if now.etag == copied.etag => error::pass(self.gate, self.target).await,
            _ => Err(StoreError::Changed(format!("{url}: the copy was replaced before it was whole"))),
        }
    }

    /// What the target has taken is not what was sent: left there, nothing would tell it from what others have written.
    async fn take_away(&self, etag: &str) -> Result<(), StoreError> {
        match self.now().await?.filter(|now| now.etag == etag) {
            Some(now) => self.stores.remove(self.target, self.object, &now, self.gate).await,
            None => Ok(()),
        }
    }

    /// What the target holds.
    async fn now(&self) -> Result<Option<Held>, StoreError> {
        match self.stores.state_of(self.target, self.object).await {
            State::Present(now) => Ok(Some(now)),
            State::Absent => Ok(None),
            State::Unknown(why) | State::Refused(why) | State::Denied(why) => Err(StoreError::Failed(why)),
        }
    }

    /// Why a copy that is not right came to nothing, once that was seen to.
    async fn wrong(&self, etag: Option<&str>, why: String) -> StoreError {
        let url = self.target.url();
        let taken_away = match etag {
            Some(etag) => self.take_away(etag).await,
            None => Err(StoreError::Failed("it has not said under which ETag".into())),
        };
        match taken_away {
            Ok(()) => StoreError::Failed(format!("{url}: {why}; it is not there any more")),
            Err(StoreError::Unknown(error)) => {
                StoreError::Unknown(format!("{url}: {why}; nobody knows whether it is there still: {error}"))
            }
            Err(error) => StoreError::Failed(format!("{url}: {why}; it may be there still: {error}")),
        }
    }

    /// The head of a request that makes the object.
    pub fn head(&self, method: Method, query: &str, tags: Option<&str>) -> Result<RequestHeader, Cause> {
        let mut head = request::head(self.target, method, self.object, query)?;
        request::describe(&mut head, self.held, tags)?;
        Ok(head)
    }

    pub fn check_source(&self, md5: &Md5) -> Result<(), StoreError> {
        if self.held.md5.is_none_or(|known| known == *md5) {
            return Ok(());
        }
        let url = self.source.url();
        Err(StoreError::Failed(format!(
            "{url}: the MD5 of what it sent is {}, not its ETag",
            request::hex(md5)
        )))
    }

    /// Before the bytes that complete the change. There are storages that pass over conditions in silence: where the
    /// target was asked long ago it is asked once more all the same.
    pub async fn ready(&self, is_conditional: bool) -> Result<(), StoreError> {
        if !is_conditional || self.seen.elapsed() > SEEN_LONG_AGO {
            self.stores.still(self.target, self.object, self.over).await?;
        }
        error::pass(self.gate, self.target).await
    }

    pub fn refused(&self, method: Method, reply: Reply) -> Broken {
        let error = error::of_reply(self.target, End::Target, &method, &reply);
        Broken::Answered(Box::new(reply), error)
    }

    /// What the target has, by its word if that can be compared, else by reading it.
    async fn verified(&self, taken: Taken) -> Result<Copied, StoreError> {
        let Taken { reply, etag, md5, expected } = taken;
        let version = reply.header("x-amz-version-id").map(str::to_owned);
        let url = self.target.url();
        let plain = etag.as_ref().and_then(|etag| plain_md5(etag, &reply.headers));
        if let Some(etag) = etag.as_ref().filter(|etag| **etag == expected || plain == Some(md5)) {
            return Ok(Copied { etag: etag.clone(), version, md5 });
        }
        if let Some(etag) = &etag
            && !expected.contains('-')
            && plain.is_some()
        {
            let why = format!("it answered the ETag {etag}, the MD5 is {expected}");
            return Err(self.wrong(Some(etag), why).await);
        }
        let unseen = |why| StoreError::Failed(format!("the copy cannot be verified: {why}"));
        let now = self.now().await.map_err(unseen)?;
        let Some(now) = now.filter(|now| etag.as_ref().is_none_or(|etag| *etag == now.etag)) else {
            return Err(StoreError::Changed(format!("{url}: what was copied there is not there any more")));
        };
        let is_same = now.etag == expected || source::md5(self.target, self.object, &now).await? == md5;
        if now.length != self.held.length || !is_same {
            return Err(self
                .wrong(etag.as_deref(), "what it holds is not what was copied there".into())
                .await);
        }
        Ok(Copied { version: version.or(now.version), etag: now.etag, md5 })
    }
}

/// Streams a body into a request of a target. `ready` is asked with the body's digests before its last piece is sent.
pub async fn stream<F: Future<Output = Result<(), StoreError>>>(
    target: &Site,
    mut head: RequestHeader,
    mut source: Source<'_>,
    reuse: Reuse,
    ready: impl FnOnce(Digests) -> F,
) -> Result<(Reply, Digests), Broken> {
    let length = source.length();
    request::set(&mut head, header::CONTENT_LENGTH, length.to_string()).map_err(StoreError::from)?;
    request::set(&mut head, sign::CONTENT_SHA256, sign::UNSIGNED).map_err(StoreError::from)?;
    let (mut connection, mut account) = (None, target.account());
    let mut last = Bytes::new();
    while let Some(piece) = source.next().await? {
        let piece = std::mem::replace(&mut last, piece);
        if piece.is_empty() {
            continue;
        }
        let mut open = match connection.take() {
            Some(open) => open,
            None => target.connect(head.clone(), length, reuse).await?,
        };
        let length = piece.len();
        target.pace.take(length).await;
        open.push_body(piece);
        let Some(sent) = account.wait(open.send()).await else {
            let slow = format!("{}: it took {}", target.url(), account.too_slow());
            return Err(StoreError::Failed(slow).into());
        };
        if sent.map_err(error::unfinished)? == Sent::Answering {
            return Err(target.early(open).await);
        }
        account.moved(length);
        connection = Some(open);
    }
    let digests = source.finish().await;
    target.pace.take(last.len()).await;
    let connection = match connection {
        Some(open) => open,
        None => target.connect(head, length, reuse).await?,
    };
    ready(digests.clone()).await?;
    Ok((target.complete(connection, last).await?, digests))
}

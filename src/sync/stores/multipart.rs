//! A large object from one backend to another, in parts.
//!
//! Each part is a request of its own at both ends, and is checked by itself. They are as long as those of the source
//! where those can be known: then both have the same ETag.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use md5::{Digest, Md5 as Hasher};

use super::{
    condition::Condition,
    copy::{Copy, Taken, stream},
    error::{self, Broken, End},
    held::plain_md5,
    request,
    site::{Reply, Site},
    source::Digests,
    uploads::{Upload, Uploads},
    xml,
};
use crate::{
    journal::Object,
    s3::error::body_is_error,
    sync::{Md5, StoreError},
    upstream::Reuse,
};

const MOST_PARTS: u64 = 10_000;
const MIB: u64 = 1 << 20;
/// Of all parts but the last.
const SHORTEST_PART: u64 = 5 * MIB;
const LONGEST_PART: u64 = 5 << 30;
const LONGEST: u64 = 5 << 40;

/// How long the parts are to be; `None` = one piece.
pub async fn part_size(copy: &Copy<'_>) -> Result<Option<u64>, StoreError> {
    let (held, settings) = (copy.held, &copy.stores.settings);
    if held.length > LONGEST {
        return Err(StoreError::Refused(format!("{}: longer than 5 TiB", copy.source.url())));
    }
    if held.length > 0
        && let Some(parts) = parts_of(&held.etag)
        && let Some(first) = first_part(copy).await?
        && fits(first, parts, held.length)
    {
        return Ok(Some(first));
    }
    if held.length <= settings.multipart_threshold.min(LONGEST_PART) {
        return Ok(None);
    }
    let least = held.length.div_ceil(MOST_PARTS).next_multiple_of(MIB);
    Ok(Some(if held.length.div_ceil(settings.part_size.max(1)) > MOST_PARTS {
        least
    } else {
        settings.part_size
    }))
}

/// The number behind the ETag of an object that was made of parts.
fn parts_of(etag: &str) -> Option<u64> {
    let (digest, parts) = etag.rsplit_once('-')?;
    let is_digest = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.parse().ok().filter(|parts| is_digest && (1..=MOST_PARTS).contains(parts))
}

/// Whether parts of this length can be those of the object.
fn fits(first: u64, parts: u64, length: u64) -> bool {
    let long_enough = first >= SHORTEST_PART || parts == 1;
    long_enough && first <= LONGEST_PART && length.div_ceil(first) == parts
}

/// Of the source, where it says that. Without a condition: moto (5) compares it with the ETag of the part. Wrong words do no
/// harm, since what parts are read from is compared with what was looked at.
async fn first_part(copy: &Copy<'_>) -> Result<Option<u64>, StoreError> {
    let head = request::head(copy.source, Method::HEAD, copy.object, "partNumber=1")?;
    let reply = copy.source.ask(head).await.map_err(error::before)?;
    let length = reply.header("content-length").and_then(|text| text.parse().ok());
    Ok(length.filter(|length| reply.status.is_success() && *length > 0))
}

pub async fn copy(
    copy: &Copy<'_>,
    size: u64,
    tags: Option<&str>,
    condition: &Condition<'_>,
) -> Result<Taken, Broken> {
    let upload = begin(copy, tags).await?;
    Parts { copy, size, upload, tagged: tags.is_some() }.run(condition).await
}

/// In a task of its own: an upload is known by the answer alone, also to who was given up before it came.
async fn begin(copy: &Copy<'_>, tags: Option<&str>) -> Result<Upload, StoreError> {
    let head = copy.head(Method::POST, "uploads", tags)?;
    let (uploads, target, object) = (copy.stores.uploads.clone(), copy.target.clone(), copy.object.clone());
    let url = copy.target.url();
    let task = tokio::spawn(async move {
        let slot = uploads.slot();
        let reply = target.commit(head, Bytes::new()).await.map_err(invisible)?;
        let begun = begun(uploads, target, object, &reply);
        drop(slot);
        begun
    });
    task.await.map_err(|_| StoreError::Failed(format!("{url}: the upload was given up")))?
}

fn begun(
    uploads: Arc<Uploads>,
    target: Arc<Site>,
    object: Object,
    reply: &Reply,
) -> Result<Upload, StoreError> {
    if !reply.status.is_success() {
        return Err(invisible(error::of_reply(&target, End::Target, &Method::POST, reply)));
    }
    match xml::leaf(&reply.body, "UploadId").filter(|id| !id.is_empty()) {
        Some(id) => Ok(Upload::new(uploads, target, object, id)),
        None => Err(StoreError::Failed(format!("{}: it began an upload without UploadId", target.url()))),
    }
}

/// Of what nobody sees before the upload is completed, it does not matter whether it was done.
fn invisible(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(why) => StoreError::Failed(why),
        error => error,
    }
}

/// The parts on their way.
struct Parts<'a> {
    copy: &'a Copy<'a>,
    size: u64,
    upload: Upload,
    tagged: bool,
}

struct Part {
    /// As it was answered.
    etag: String,
    md5: Md5,
}

impl Parts<'_> {
    async fn run(mut self, condition: &Condition<'_>) -> Result<Taken, Broken> {
        let mut parts = Vec::new();
        let mut whole = Hasher::new();
        let mut start = 0;
        while start < self.copy.held.length {
            let part =
                self.part(parts.len() + 1, start, &whole).await.map_err(|broken| invisible(broken.into()))?;
            start += self.size;
            whole = part.1.whole.unwrap_or_default();
            parts.push(Part { etag: part.0, md5: part.1.part });
        }
        let md5 = whole.finalize().into();
        self.copy.check_source(&md5)?;
        // Ceph's gateway (16) passes over the condition of a completion.
        self.copy.ready(false).await?;
        let reply = self.complete(&parts, condition).await?;
        // Some answer with an empty one.
        let etag = xml::leaf(&reply.body, "ETag").map(|etag| request::unquoted(&etag));
        let etag = etag.filter(|etag| !etag.is_empty());
        let digests: Vec<u8> = parts.iter().flat_map(|part| part.md5).collect();
        let expected = format!("{}-{}", request::hex(&request::md5(&digests)), parts.len());
        Ok(Taken { reply, etag, md5, expected })
    }

    /// One part; once more where the connection was dead.
    async fn part(&self, number: usize, start: u64, whole: &Hasher) -> Result<(String, Digests), Broken> {
        match self.part_once(number, start, whole.clone(), Reuse::Allowed).await {
            Err(Broken::Stale(_)) => self.part_once(number, start, whole.clone(), Reuse::Fresh).await,
            outcome => outcome,
        }
    }

    async fn part_once(
        &self,
        number: usize,
        start: u64,
        whole: Hasher,
        reuse: Reuse,
    ) -> Result<(String, Digests), Broken> {
        let Copy { object, held, target, .. } = self.copy;
        let range = start..(start + self.size).min(held.length);
        let query = format!("partNumber={number}&uploadId={}", request::encoded(&self.upload.id));
        let head = request::head(target, Method::PUT, object, &query).map_err(StoreError::from)?;
        let source = self.copy.open_source(self.tagged, Some(range), Some(whole)).await?;
        let (reply, digests) = stream(target, head, source, reuse, |_| async { Ok(()) }).await?;
        if !reply.status.is_success() {
            return Err(self.copy.refused(Method::PUT, reply));
        }
        let etag = reply.header("etag").unwrap_or_default();
        let plain = plain_md5(&request::unquoted(etag), &reply.headers);
        if etag.is_empty() || plain.is_some_and(|md5| md5 != digests.part) {
            let said = format!("{}: it answered part {number} with the ETag {etag:?}", target.url());
            let md5 = request::hex(&digests.part);
            return Err(StoreError::Failed(format!("{said}, the MD5 is {md5}")).into());
        }
        Ok((etag.to_owned(), digests))
    }

    async fn complete(&mut self, parts: &[Part], condition: &Condition<'_>) -> Result<Reply, Broken> {
        let Copy { object, target, .. } = self.copy;
        let query = format!("uploadId={}", request::encoded(&self.upload.id));
        let mut head = request::head(target, Method::POST, object, &query).map_err(StoreError::from)?;
        condition.set(&mut head).map_err(StoreError::from)?;
        self.upload.completing();
        let mut reply = match target.commit(head, document(parts).into()).await {
            Err(error @ StoreError::Unknown(_)) => return Err(error.into()),
            reply => reply.inspect_err(|_| self.upload.completed(false))?,
        };
        if reply.status.is_success() && body_is_error(&reply.body) {
            let changed = matches!(reply.code(), "PreconditionFailed" | "ConditionalRequestConflict");
            reply.status =
                if changed { StatusCode::PRECONDITION_FAILED } else { StatusCode::INTERNAL_SERVER_ERROR };
        }
        let refused = (!reply.status.is_success()).then(|| self.copy.refused(Method::POST, reply.clone()));
        let is_unknown = matches!(refused, Some(Broken::Answered(_, StoreError::Unknown(_))));
        if !is_unknown {
            self.upload.completed(refused.is_none());
        }
        refused.map_or(Ok(reply), Err)
    }
}

fn document(parts: &[Part]) -> String {
    let part = |(index, part): (usize, &Part)| {
        let etag = quick_xml::escape::escape(&part.etag);
        format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", index + 1)
    };
    let parts: String = parts.iter().enumerate().map(part).collect();
    format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_source_if_they_can_be() {
        let digest = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(parts_of(&format!("{digest}-3")), Some(3));
        for etag in [digest, &format!("{digest}-0"), &format!("{digest}-10001"), "abc-3", "-3"] {
            assert_eq!(parts_of(etag), None, "{etag}");
        }
        assert!(fits(5 * MIB, 3, 15 * MIB) && fits(5 * MIB, 3, 11 * MIB) && fits(7, 1, 7));
        assert!(!fits(5 * MIB, 3, 16 * MIB) && !fits(MIB, 2, 2 * MIB) && !fits(LONGEST_PART + 1, 1, 1));
    }
}

//! Tags, ACL and other sub-resources of objects.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    error::{self, End},
    request,
    site::{Reply, Site},
    xml,
};
use crate::{
    journal::Object,
    sync::{StoreError, decide::TAGGING},
};

/// What it is that is not there, where that is not the sub-resource.
const OTHERS: [&str; 4] = ["NoSuchKey", "NoSuchBucket", "NoSuchVersion", ""];

pub async fn read(site: &Site, object: &Object, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let reply = ask(site, object, name).await?;
    if name == TAGGING && reply.status == StatusCode::OK {
        return Ok(tags_of(site, &reply)?.map(|tags| tags.document().into()));
    }
    match reply.status {
        StatusCode::OK if is_about(name, &reply.body) => Ok(Some(reply.body.to_vec())),
        StatusCode::OK => Err(something_else(site, name)),
        StatusCode::NOT_FOUND if !OTHERS.contains(&reply.code()) => Ok(None),
        _ => Err(unread(site, &reply)),
    }
}

/// Whether an answer is the document of a sub-resource. That of who does not know it is the object itself, and a value that
/// is written there becomes the object.
fn is_about(name: &str, body: &[u8]) -> bool {
    let root = match name {
        "acl" => "AccessControlPolicy",
        "legal-hold" => "LegalHold",
        "retention" => "Retention",
        _ => return false,
    };
    let root = [b"<", root.as_bytes()].concat();
    body.windows(root.len()).any(|window| window == root)
}

async fn ask(site: &Site, object: &Object, name: &str) -> Result<Reply, StoreError> {
    let head = request::head(site, Method::GET, object, &request::encoded(name))?;
    let answer = site.open(head).await.map_err(error::before)?;
    let reply = site.collect_short(answer).await.map_err(error::before)?;
    // The object, most likely.
    reply.ok_or_else(|| something_else(site, name))
}

fn something_else(site: &Site, name: &str) -> StoreError {
    StoreError::Refused(format!("{}: its answer to ?{name} is something else", site.url()))
}

/// `None` deletes it, which S3 has for tags alone: storages take such a request about another sub-resource for one about
/// the object.
pub async fn write(site: &Site, object: &Object, name: &str, value: Option<&[u8]>) -> Result<(), StoreError> {
    if value.is_none() && name != TAGGING {
        let url = site.url();
        return Err(StoreError::Refused(format!("{url}: S3 has no request that takes ?{name} away")));
    }
    let method = if value.is_some() { Method::PUT } else { Method::DELETE };
    let mut head = request::head(site, method.clone(), object, &request::encoded(name))?;
    if let Some(value) = value {
        request::set(&mut head, "content-md5", request::content_md5(&request::md5(value)))?;
    }
    let reply = site.commit(head, Bytes::copy_from_slice(value.unwrap_or_default())).await?;
    let is_gone = value.is_none() && reply.status == StatusCode::NOT_FOUND && !OTHERS.contains(&reply.code());
    if reply.status.is_success() || is_gone {
        return Ok(());
    }
    Err(error::of_reply(site, End::Target, &method, &reply))
}

/// An object's tags, if it has any. A backend that knows no tags has none.
pub async fn tags(site: &Site, object: &Object) -> Result<Option<Tags>, StoreError> {
    if !site.knows_tags() {
        return Ok(None);
    }
    let reply = ask(site, object, "tagging").await?;
    match reply.status {
        StatusCode::OK => tags_of(site, &reply),
        StatusCode::NOT_FOUND if !OTHERS.contains(&reply.code()) => Ok(None),
        _ if is_unknown(&reply) => {
            site.forget_tags();
            Ok(None)
        }
        _ => Err(unread(site, &reply)),
    }
}

/// Whether a backend shows these tags of an object; `Refused` where it knows no tags.
pub async fn has_tags(site: &Site, object: &Object, tags: &Tags) -> Result<bool, StoreError> {
    let reply = ask(site, object, "tagging").await?;
    match reply.status {
        StatusCode::OK => Ok(tags_of(site, &reply)?.as_ref() == Some(tags)),
        StatusCode::NOT_FOUND if !OTHERS.contains(&reply.code()) => Ok(false),
        _ if is_unknown(&reply) => Err(not_kept(site, "tags")),
        _ => Err(unread(site, &reply)),
    }
}

pub fn not_kept(site: &Site, what: &str) -> StoreError {
    StoreError::Refused(format!("{} does not keep {what}", site.url()))
}

/// Why a sub-resource could not be read, which changes nothing at either end.
fn unread(site: &Site, reply: &Reply) -> StoreError {
    match is_of_deleted(reply) {
        true => StoreError::Changed(format!("{}: it was deleted", site.url())),
        false => error::of_reply(site, End::Source, &Method::GET, reply),
    }
}

/// Whether an answer is that of who knows no tags.
fn is_unknown(reply: &Reply) -> bool {
    reply.is_not_implemented() || (reply.status == StatusCode::METHOD_NOT_ALLOWED && !is_of_deleted(reply))
}

/// S3 answers 405 for what was deleted meanwhile, where it keeps versions.
fn is_of_deleted(reply: &Reply) -> bool {
    reply.status == StatusCode::METHOD_NOT_ALLOWED && reply.headers.contains_key("x-amz-delete-marker")
}

/// Sorted: backends give them in any order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// As `x-amz-tagging` has them.
    pub fn header(&self) -> String {
        let pair = |(key, value): &(String, String)| {
            format!("{}={}", request::encoded(key), request::encoded(value))
        };
        self.0.iter().map(pair).collect::<Vec<_>>().join("&")
    }

    /// As `?tagging` has them.
    pub fn document(&self) -> String {
        use quick_xml::escape::escape;
        let tag = |(key, value): &(String, String)| {
            format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escape(key), escape(value))
        };
        let tags: String = self.0.iter().map(tag).collect();
        format!(
            "<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>{tags}</TagSet></Tagging>"
        )
    }
}

fn tags_of(site: &Site, reply: &Reply) -> Result<Option<Tags>, StoreError> {
    // Ceph's gateway (16) says nothing of what was made in parts; the bytes of an object would have an ETag.
    if reply.body.is_empty() && reply.header("etag").is_none() {
        return Ok(None);
    }
    let mut tags = parse(&reply.body)
        .ok_or_else(|| StoreError::Failed(format!("{}: its answer has no readable tags", site.url())))?;
    tags.sort_unstable();
    Ok(Some(Tags(tags)).filter(|tags| !tags.0.is_empty()))
}

/// `None` = not readable. An answer without a TagSet is that of who took the question for another one.
fn parse(body: &[u8]) -> Option<Vec<(String, String)>> {
    let mut tags = Vec::new();
    let mut key = None;
    if !body.windows(6).any(|window| window == b"TagSet") {
        return None;
    }
    for (name, text) in xml::leaves(body)? {
        match name.as_str() {
            "Key" => key = Some(text),
            "Value" => tags.push((key.take()?, text)),
            _ => {}
        }
    }
    key.is_none().then_some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_document_of_a_sub_resource_is_none() {
        assert!(is_about(
            "acl",
            b"<?xml version=\"1.0\"?><AccessControlPolicy><Owner/></AccessControlPolicy>"
        ));
        assert!(is_about("legal-hold", b"<LegalHold><Status>ON</Status></LegalHold>"));
        for (name, body) in [("acl", &b"hello"[..]), ("retention", b""), ("torrent", b"<torrent/>")] {
            assert!(!is_about(name, body), "{name}");
        }
    }

    #[test]
    fn tags_are_read_and_written() {
        let tags = Tags(vec![("a&b".to_owned(), String::new()), ("k 1".to_owned(), "<v>".to_owned())]);
        let xml = tags.document();
        assert_eq!(parse(xml.as_bytes()), Some(tags.0.clone()));
        assert_eq!(tags.header(), "a%26b=&k%201=%3Cv%3E");
        assert_eq!(parse(b"<Tagging><TagSet/></Tagging>"), Some(vec![]));
        for bad in ["", "text", "<Tagging><TagSet><Tag><Value>v</Value></Tag></TagSet></Tagging>"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}

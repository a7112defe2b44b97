//! From method, target and headers to operation, bucket and key.
//!
//! This decides which clusters a request goes to, so where clients and storages may read a request in two
//! ways, it takes the reading that cannot lose data: a DELETE that some storage could take for a plain one goes
//! everywhere, a PUT that some storage could store goes to every replica. Nothing is refused here but what
//! cannot be understood; whether an operation is offered is the gateway's business.

use http::{HeaderMap, Method, header::CONTENT_TYPE};

use super::{
    S3Error,
    query::{BUCKET_SUB_RESOURCES, OBJECT_SUB_RESOURCES, Query, decode_text},
    target::{RawTarget, bucket_and_key, percent_decode, split_once},
};
use crate::config::VirtualHostStyle;

/// What a request is about. Bucket and key are percent-decoded bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Service,
    Bucket { bucket: Vec<u8> },
    Object { bucket: Vec<u8>, key: Vec<u8> },
}

/// Where a request goes: one row each of the table "From a request to backends".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Object GET, HEAD.
    Read,
    /// Object PUT, POST and any other object request that is not below: all backends of the home cluster.
    Write,
    /// Object DELETE without sub-resource and versionId: every backend of every cluster.
    Delete,
    /// Object PUT with `x-amz-copy-source` (CopyObject); the ring key of the source.
    Copy {
        source_ring_key: Vec<u8>,
    },
    /// `?uploads`, `?uploadId`: one backend of the home cluster.
    Multipart(Multipart),
    /// Bucket PUT, DELETE, POST `?delete` and other bucket writes: every backend of every cluster.
    BucketWrite,
    /// Bucket and service GET, HEAD. `listing`: ListBuckets, ListObjects(V2), ListObjectVersions, ListMultipartUploads.
    BucketRead {
        listing: bool,
    },
    /// Form POST (`multipart/form-data`).
    FormPost,
    Options,
}

/// The multipart operations that belong to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multipart {
    /// CreateMultipartUpload
    Initiate,
    /// UploadPart, and UploadPartCopy when [`S3Request::copy_source`] is set
    Part,
    /// CompleteMultipartUpload
    Complete,
    /// AbortMultipartUpload
    Abort,
    /// ListParts
    List,
}

/// The source of CopyObject or UploadPartCopy: `x-amz-copy-source`, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    pub bucket: Vec<u8>,
    pub key: Vec<u8>,
    pub version_id: Option<String>,
    /// What the ring hashes for the source.
    pub ring_key: Vec<u8>,
}

/// A request, classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Request {
    pub operation: Operation,
    pub target: Target,
    /// What the ring hashes.
    pub ring_key: Vec<u8>,
    pub version_id: Option<String>,
    /// `acl`, `tagging`, ...: the first sub-resource in the query.
    pub sub_resource: Option<String>,
    /// The object request is about a sub-resource or a version: no other cluster may be asked.
    pub home_only: bool,
    /// Of a PUT with `x-amz-copy-source`, multipart or not.
    pub copy_source: Option<CopySource>,
}

/// Classifies a request.
///
/// `raw_target` is the request target as the client sent it (origin or absolute form, with query);
/// `bucket_in_host` is set in virtual-host style. Errors are 400 for what cannot be parsed, 405 for CONNECT and
/// TRACE, 501 for a copy from an access point.
pub fn classify(
    method: &Method,
    raw_target: &[u8],
    headers: &HeaderMap,
    bucket_in_host: Option<&str>,
    style: VirtualHostStyle,
) -> Result<S3Request, S3Error> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(S3Error::method_not_allowed());
    }
    // Some HTTP types cut the target off here, and a write would hit another key than the client named.
    if raw_target.contains(&b'#') {
        return Err(S3Error::invalid_uri("the request target contains a raw #"));
    }
    let raw = RawTarget::parse(raw_target)?;
    let path = raw.decoded_path()?;
    if raw.path == b"*" {
        return asterisk(method, path);
    }
    let unified = match bucket_in_host {
        Some(bucket) => [b"/", bucket.as_bytes(), &path].concat(),
        None => path.clone(),
    };
    let target = target_of(&unified);
    let is_object = matches!(target, Target::Object { .. });
    let query = Query::parse(raw.query, if is_object { OBJECT_SUB_RESOURCES } else { BUCKET_SUB_RESOURCES });
    let copy_source = match (is_object, method) {
        (true, &Method::PUT) => copy_source(headers, bucket_in_host.is_some(), style)?,
        _ => None,
    };
    let operation = match &target {
        _ if method == Method::OPTIONS => Operation::Options,
        Target::Object { .. } => object_operation(method, &query, headers, copy_source.as_ref()),
        target => bucket_operation(method, &query, headers, target),
    };
    Ok(S3Request {
        operation,
        target,
        ring_key: if style == VirtualHostStyle::Original { path } else { unified },
        home_only: is_object && (query.sub_resource.is_some() || query.version_id.is_some()),
        version_id: query.version_id,
        sub_resource: query.sub_resource.map(str::to_owned),
        copy_source,
    })
}

/// `*` (RFC 9112 section 3.2.4) asks about the server as a whole, which only OPTIONS can.
fn asterisk(method: &Method, path: Vec<u8>) -> Result<S3Request, S3Error> {
    if method != Method::OPTIONS {
        return Err(S3Error::invalid_uri("the target * is for OPTIONS only"));
    }
    Ok(S3Request {
        operation: Operation::Options,
        target: Target::Service,
        ring_key: path,
        version_id: None,
        sub_resource: None,
        home_only: false,
        copy_source: None,
    })
}

fn target_of(path: &[u8]) -> Target {
    match bucket_and_key(path) {
        (b"", _) => Target::Service,
        (bucket, None) => Target::Bucket { bucket: bucket.to_vec() },
        (bucket, Some(key)) => Target::Object { bucket: bucket.to_vec(), key: key.to_vec() },
    }
}

fn object_operation(
    method: &Method,
    query: &Query,
    headers: &HeaderMap,
    source: Option<&CopySource>,
) -> Operation {
    use Multipart::*;
    match *method {
        Method::GET | Method::HEAD if query.upload_id => Operation::Multipart(List),
        Method::GET | Method::HEAD => Operation::Read,
        // Without both parameters some storages take it for PutObject.
        Method::PUT if query.upload_id && query.part_number => Operation::Multipart(Part),
        Method::PUT => match source {
            Some(source) => Operation::Copy { source_ring_key: source.ring_key.clone() },
            None => Operation::Write,
        },
        Method::POST if is_form(headers) => Operation::FormPost,
        Method::POST if query.upload_id => Operation::Multipart(Complete),
        Method::POST if query.uploads => Operation::Multipart(Initiate),
        Method::DELETE if query.upload_id => Operation::Multipart(Abort),
        Method::DELETE if query.sub_resource.is_none() && query.version_id.is_none() => Operation::Delete,
        _ => Operation::Write,
    }
}

fn bucket_operation(method: &Method, query: &Query, headers: &HeaderMap, target: &Target) -> Operation {
    match *method {
        Method::GET => Operation::BucketRead {
            listing: match query.sub_resource {
                Some(name) if *target != Target::Service => matches!(name, "versions" | "uploads"),
                // Storages take a sub-resource that they do not know for a listing.
                _ => true,
            },
        },
        Method::HEAD => Operation::BucketRead { listing: false },
        // On `/` too: with a Host that only the storage knows for a bucket's, it is an upload all the same.
        Method::POST if is_form(headers) => Operation::FormPost,
        _ => Operation::BucketWrite,
    }
}

/// Whether the body is an HTML form with files (RFC 7578), as POST Object has it.
fn is_form(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| {
        let (essence, _) = split_once(value.as_bytes(), b';');
        essence.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data")
    })
}

/// Reads `x-amz-copy-source`: `[/]<bucket>/<key>[?versionId=<id>]`, percent-encoded (CopyObject).
fn copy_source(
    headers: &HeaderMap,
    virtual_host: bool,
    style: VirtualHostStyle,
) -> Result<Option<CopySource>, S3Error> {
    let mut values = headers.get_all("x-amz-copy-source").iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.as_bytes(),
        (Some(_), Some(_)) => return Err(S3Error::invalid_argument("there are two copy sources")),
    };
    if value.starts_with(b"arn:") {
        return Err(S3Error::not_implemented("copying from an access point is not supported"));
    }
    parse_copy_source(value, virtual_host && style == VirtualHostStyle::Original)
        .map(Some)
        .ok_or_else(|| S3Error::invalid_argument("copy source must be of the form /bucket/key"))
}

/// `bare`: objects of this region's virtual-host clients are placed by the key alone.
fn parse_copy_source(value: &[u8], bare: bool) -> Option<CopySource> {
    const VERSION: &[u8] = b"?versionId=";
    let (path, version) = match value.windows(VERSION.len()).position(|window| window == VERSION) {
        Some(at) => (&value[..at], Some(&value[at + VERSION.len()..])),
        None => (value, None),
    };
    let path = percent_decode(path)?;
    let (bucket, key) = split_once(path.strip_prefix(b"/").unwrap_or(&path), b'/');
    let key = key.filter(|key| !key.is_empty() && !bucket.is_empty())?;
    Some(CopySource {
        ring_key: if bare { [b"/", key].concat() } else { [b"/", bucket, b"/", key].concat() },
        bucket: bucket.to_vec(),
        key: key.to_vec(),
        version_id: version.filter(|id| !id.is_empty()).map(decode_text),
    })
}

#[cfg(test)]
mod tests;

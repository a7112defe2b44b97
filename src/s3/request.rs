//! From method, target and headers to operation, bucket and key.

use http::{HeaderMap, Method};

use super::S3Error;
use crate::config::VirtualHostStyle;

/// What a request is about. Bucket and key are percent-decoded bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Service,
    Bucket { bucket: Vec<u8> },
    Object { bucket: Vec<u8>, key: Vec<u8> },
}

/// Where a request goes (`spec` table "From a request to backends").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Object GET, HEAD.
    Read,
    /// Object PUT, POST and any other object request that is not below: all backends of the home cluster.
    Write,
    /// Object DELETE without sub-resource and versionId: every backend of every cluster.
    Delete,
    /// Object PUT with `x-amz-copy-source`; the ring key of the source.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multipart {
    Initiate,
    Part,
    Complete,
    Abort,
    List,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Request {
    pub operation: Operation,
    pub target: Target,
    /// What the ring hashes.
    pub ring_key: Vec<u8>,
    pub version_id: Option<String>,
    /// `acl`, `tagging`, ...: the first sub-resource in the query.
    pub sub_resource: Option<String>,
}

/// Classifies a request.
///
/// `raw_target` is the request target as the client sent it (origin or absolute form, with query);
/// `bucket_in_host` is set in virtual-host style.
pub fn classify(
    method: &Method,
    raw_target: &[u8],
    headers: &HeaderMap,
    bucket_in_host: Option<&str>,
    style: VirtualHostStyle,
) -> Result<S3Request, S3Error> {
    let _ = (method, raw_target, headers, bucket_in_host, style);
    todo!()
}

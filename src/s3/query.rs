//! The query: which sub-resource or version of a bucket or object a request is about.
//!
//! Sub-resources decide where a request goes, so their names are looked for as a storage would find them:
//! percent-decoded, with or without a value, anywhere in the query. Everything else (`prefix`, `X-Amz-*` and
//! `Signature` of presigned URLs, `response-*`, `x-id`, ...) only modifies a request and is passed over.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::target::split_once;

/// Parts of an object that are resources of their own (Amazon S3 API reference, "Actions", object requests).
///
/// `partNumber` is not among them: without an `uploadId` it names a range of the object itself.
pub(super) const OBJECT_SUB_RESOURCES: &[&str] = &[
    "acl",
    "append",
    "attributes",
    "encryption",
    "legal-hold",
    "renameObject",
    "restore",
    "retention",
    "select",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
];

/// Parts of a bucket that are resources of their own (Amazon S3 API reference, "Actions", bucket requests).
pub(super) const BUCKET_SUB_RESOURCES: &[&str] = &[
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "session",
    "tagging",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// What a query says about the resource.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// The first sub-resource among the names asked for.
    pub sub_resource: Option<&'static str>,
    /// The first `versionId` that is not empty. An empty one is none: storages either refuse it or take it so.
    pub version_id: Option<String>,
    pub uploads: bool,
    pub upload_id: bool,
    pub part_number: bool,
}

impl Query {
    /// Reads a raw query. Bad percent escapes are left as they stand, as storages do.
    pub fn parse(raw: &[u8], sub_resources: &[&'static str]) -> Query {
        let mut query = Query::default();
        for pair in raw.split(|&b| b == b'&') {
            let (name, value) = split_once(pair, b'=');
            let name: Cow<[u8]> = percent_decode(name).into();
            match &*name {
                b"uploads" => query.uploads = true,
                b"uploadId" => query.upload_id = true,
                b"partNumber" => query.part_number = true,
                b"versionId" if query.version_id.is_none() => {
                    query.version_id = value.filter(|value| !value.is_empty()).map(decode_text);
                }
                _ => {}
            }
            if query.sub_resource.is_none() {
                query.sub_resource = sub_resources.iter().find(|known| known.as_bytes() == &*name).copied();
            }
        }
        query
    }
}

/// Percent-decodes a value; what is not UTF-8 is replaced.
pub(super) fn decode_text(value: &[u8]) -> String {
    percent_decode(value).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub_resource(raw: &str) -> Option<&'static str> {
        Query::parse(raw.as_bytes(), OBJECT_SUB_RESOURCES).sub_resource
    }

    #[test]
    fn sub_resources_are_found_however_they_are_written() {
        for (raw, expected) in [
            ("", None),
            ("acl", Some("acl")),
            ("acl=", Some("acl")),
            ("x=1&legal-hold&acl", Some("legal-hold")),
            ("%61cl", Some("acl")),
            ("%zz&tagging", Some("tagging")),
            ("&&tagging&", Some("tagging")),
            ("ACL", None),
            ("x=acl", None),
            ("policy", None),
            ("partNumber=1", None),
            ("X-Amz-Signature=x&X-Amz-Expires=1&response-content-type=a%26acl", None),
            ("AWSAccessKeyId=a&Signature=b&Expires=1", None),
        ] {
            assert_eq!(sub_resource(raw), expected, "{raw}");
        }
    }

    #[test]
    fn an_empty_version_is_none() {
        for (raw, expected) in [
            ("versionId=a%2Fb", Some("a/b")),
            ("versionId=null", Some("null")),
            ("versionId=&versionId=x", Some("x")),
            ("versionId", None),
            ("versionid=x", None),
        ] {
            let query = Query::parse(raw.as_bytes(), OBJECT_SUB_RESOURCES);
            assert_eq!(query.version_id.as_deref(), expected, "{raw}");
        }
    }
}

//! The table "From a request to backends", row by row, and what no input may break.

use http::HeaderValue;
use proptest::prelude::*;

use super::{Operation::*, *};
use crate::config::VirtualHostStyle::{Original, Unified};

fn path_style(method: &str, target: &str) -> S3Request {
    with_headers(method, target, &[])
}

fn with_headers(method: &str, target: &str, headers: &[(&'static str, &str)]) -> S3Request {
    try_with(method, target, headers).unwrap()
}

fn try_with(method: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<S3Request, S3Error> {
    let headers: HeaderMap = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
    classify(&method.parse().unwrap(), target.as_bytes(), &headers, None, Unified)
}

fn object(bucket: &str, key: &str) -> Target {
    Target::Object { bucket: bucket.into(), key: key.into() }
}

fn bucket(bucket: &str) -> Target {
    Target::Bucket { bucket: bucket.into() }
}

#[test]
fn objects() {
    for (method, target, operation, home_only) in [
        ("GET", "/b/k", Read, false),
        ("HEAD", "/b/k?partNumber=1", Read, false),
        ("GET", "/b/k?X-Amz-Signature=a&X-Amz-Expires=1&response-content-type=b", Read, false),
        ("GET", "/b/k?acl", Read, true),
        ("HEAD", "/b/k?versionId=1", Read, true),
        ("GET", "/b/k?versionId=", Read, false),
        ("GET", "/b/k?uploads", Read, true),
        ("PUT", "/b/k", Write, false),
        ("PUT", "/b/k?tagging", Write, true),
        ("PUT", "/b/k?uploadId=1", Write, true),
        ("PUT", "/b/k?partNumber=1", Write, false),
        ("POST", "/b/k", Write, false),
        ("POST", "/b/k?restore", Write, true),
        ("POST", "/b/k?select&select-type=2", Write, true),
        ("PATCH", "/b/k", Write, false),
        ("DELETE", "/b/k", Delete, false),
        ("DELETE", "/b/k?x-id=DeleteObject", Delete, false),
        ("DELETE", "/b/k?versionId=", Delete, false),
        ("DELETE", "/b/k?versionId=1", Write, true),
        ("DELETE", "/b/k?tagging", Write, true),
        ("DELETE", "/b/k?policy", Delete, false),
        ("POST", "/b/k?uploads", Multipart(super::Multipart::Initiate), true),
        ("POST", "/b/k?uploads=", Multipart(super::Multipart::Initiate), true),
        ("PUT", "/b/k?partNumber=1&uploadId=x", Multipart(super::Multipart::Part), true),
        ("POST", "/b/k?uploadId=x", Multipart(super::Multipart::Complete), true),
        ("DELETE", "/b/k?uploadId=x", Multipart(super::Multipart::Abort), true),
        ("GET", "/b/k?uploadId=x&max-parts=2", Multipart(super::Multipart::List), true),
        ("OPTIONS", "/b/k", Options, false),
    ] {
        let request = path_style(method, target);
        assert_eq!(request.operation, operation, "{method} {target}");
        assert_eq!(request.home_only, home_only, "{method} {target}");
        assert_eq!(request.target, object("b", "k"), "{method} {target}");
        assert_eq!(request.ring_key, b"/b/k", "{method} {target}");
    }
}

#[test]
fn buckets_and_the_service() {
    const LISTING: Operation = BucketRead { listing: true };
    const OTHER: Operation = BucketRead { listing: false };
    for (method, target, operation) in [
        ("GET", "/", LISTING),
        ("GET", "/?x-id=ListBuckets", LISTING),
        ("HEAD", "/", OTHER),
        ("POST", "/", BucketWrite),
        ("GET", "/b", LISTING),
        ("GET", "/b/?list-type=2&prefix=a%2Fb", LISTING),
        ("GET", "/b?versions", LISTING),
        ("GET", "/b?uploads", LISTING),
        ("GET", "/b?versionId=1", LISTING),
        ("GET", "/b?unheard-of", LISTING),
        ("GET", "/b?location", OTHER),
        ("GET", "/b?acl", OTHER),
        ("GET", "/b?versioning=", OTHER),
        ("HEAD", "/b", OTHER),
        ("PUT", "/b", BucketWrite),
        ("PUT", "/b?versioning", BucketWrite),
        ("DELETE", "/b/", BucketWrite),
        ("DELETE", "/b?policy", BucketWrite),
        ("POST", "/b?delete", BucketWrite),
        ("OPTIONS", "/b", Options),
    ] {
        let request = path_style(method, target);
        assert_eq!(request.operation, operation, "{method} {target}");
        assert!(!request.home_only, "{method} {target}");
    }
    assert_eq!(path_style("POST", "/b?delete").sub_resource.as_deref(), Some("delete"));
}

#[test]
fn targets() {
    for (target, expected, ring_key) in [
        ("/", Target::Service, "/"),
        ("http://h", Target::Service, ""),
        ("/b//", bucket("b"), "/b//"),
        ("//b", bucket("b"), "//b"),
        ("/b//k", object("b", "/k"), "/b//k"),
        ("/b/k/", object("b", "k/"), "/b/k/"),
        ("//b/k", object("b", "k"), "//b/k"),
        ("/b/a+b%20c", object("b", "a+b c"), "/b/a+b c"),
        ("/b%2Fk", object("b", "k"), "/b/k"),
        ("/b/%252F", object("b", "%2F"), "/b/%2F"),
        ("/b/../k", object("b", "../k"), "/b/../k"),
        ("http://h:80/b/k?acl", object("b", "k"), "/b/k"),
    ] {
        let request = path_style("GET", target);
        assert_eq!(
            (&request.target, request.ring_key.as_slice()),
            (&expected, ring_key.as_bytes()),
            "{target}"
        );
    }
}

#[test]
fn malformed_targets_are_refused() {
    for target in ["", "b/k", "?x", "*x", "/b/%zz", "/b/%4", "/b/a#b", "/b/k?x#y", "/b/\u{1}", "*"] {
        let error = try_with("GET", target, &[]).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "InvalidURI"), "{target}");
    }
    assert_eq!(try_with("TRACE", "/b/k", &[]).unwrap_err().status, 405);
    assert_eq!(try_with("CONNECT", "h:443", &[]).unwrap_err().status, 405);
    assert_eq!(path_style("OPTIONS", "*").target, Target::Service);
}

#[test]
fn in_virtual_host_style_the_bucket_stands_in_the_host() {
    for (target, expected, unified, original) in [
        ("/", bucket("b"), "/b/", "/"),
        ("http://b.h", bucket("b"), "/b", ""),
        ("//", bucket("b"), "/b//", "//"),
        ("/k", object("b", "k"), "/b/k", "/k"),
        ("/k/", object("b", "k/"), "/b/k/", "/k/"),
        ("//k", object("b", "/k"), "/b//k", "//k"),
        ("/a/k?acl", object("b", "a/k"), "/b/a/k", "/a/k"),
    ] {
        for (style, ring_key) in [(Unified, unified), (Original, original)] {
            let request =
                classify(&Method::GET, target.as_bytes(), &HeaderMap::new(), Some("b"), style).unwrap();
            assert_eq!(request.target, expected, "{target}");
            assert_eq!(request.ring_key, ring_key.as_bytes(), "{target}");
        }
    }
}

#[test]
fn copies_name_their_source() {
    for (value, bucket, key, version) in [
        ("/src/a%20b", "src", "a b", None),
        ("src/a/b", "src", "a/b", None),
        ("src%2Fk", "src", "k", None),
        ("/src/k?versionId=v%2B1", "src", "k", Some("v+1")),
        ("/src/k?versionId=", "src", "k", None),
        ("/src/what%3FversionId=no", "src", "what?versionId=no", None),
        ("/src//k", "src", "/k", None),
    ] {
        let request = with_headers("PUT", "/b/k", &[("x-amz-copy-source", value)]);
        let source = request.copy_source.unwrap();
        let ring_key = format!("/{bucket}/{key}").into_bytes();
        assert_eq!(request.operation, Copy { source_ring_key: ring_key.clone() }, "{value}");
        let expected = CopySource {
            bucket: bucket.into(),
            key: key.into(),
            version_id: version.map(str::to_owned),
            ring_key,
        };
        assert_eq!(source, expected, "{value}");
    }
}

#[test]
fn sources_that_cannot_be_placed_are_refused() {
    for (value, status) in [
        ("", 400),
        ("/", 400),
        ("src", 400),
        ("/src/", 400),
        ("//k", 400),
        ("/src/%zz", 400),
        ("arn:aws:s3:eu-west-1:1:accesspoint/a/object/k", 501),
    ] {
        let error = try_with("PUT", "/b/k", &[("x-amz-copy-source", value)]).unwrap_err();
        assert_eq!(error.status, status, "{value}");
    }
    let twice = [("x-amz-copy-source", "/s/a"), ("x-amz-copy-source", "/s/b")];
    let mut headers = HeaderMap::new();
    for (name, value) in twice {
        headers.append(name, HeaderValue::from_static(value));
    }
    assert!(classify(&Method::PUT, b"/b/k", &headers, None, Unified).is_err());
}

#[test]
fn a_part_may_be_copied() {
    let header = [("x-amz-copy-source", "/src/k")];
    let part = with_headers("PUT", "/b/k?partNumber=1&uploadId=x", &header);
    assert_eq!(part.operation, Multipart(super::Multipart::Part));
    assert_eq!(part.copy_source.unwrap().ring_key, b"/src/k");
    for (method, target) in [("GET", "/b/k"), ("PUT", "/b"), ("POST", "/b/k?uploads")] {
        assert_eq!(with_headers(method, target, &header).copy_source, None, "{method} {target}");
    }
}

#[test]
fn the_source_is_placed_as_the_clients_of_the_region_place_it() {
    let headers = HeaderMap::from_iter([("x-amz-copy-source".parse().unwrap(), "/src/k".parse().unwrap())]);
    for (host, style, expected) in
        [(None, Original, "/src/k"), (Some("b"), Original, "/k"), (Some("b"), Unified, "/src/k")]
    {
        let request = classify(&Method::PUT, b"/x/k", &headers, host, style).unwrap();
        assert_eq!(request.copy_source.unwrap().ring_key, expected.as_bytes(), "{host:?} {style:?}");
    }
}

#[test]
fn forms_are_recognised() {
    for (target, content_type, operation) in [
        ("/b", "multipart/form-data; boundary=x", FormPost),
        ("/", "Multipart/Form-Data ;boundary=x", FormPost),
        ("/b?delete", "application/xml", BucketWrite),
        ("/b", "multipart/form-data-x", BucketWrite),
        ("/b/k", "multipart/form-data; boundary=x", FormPost),
    ] {
        let request = with_headers("POST", target, &[("content-type", content_type)]);
        assert_eq!(request.operation, operation, "{target} {content_type}");
    }
}

proptest! {
    #[test]
    fn no_request_panics(
        method in "[A-Z]{1,8}|GET|PUT|POST|DELETE",
        target: Vec<u8>,
        source: Vec<u8>,
        host in prop::option::of("[a-z.]{0,9}"),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&source) {
            headers.insert("x-amz-copy-source", value);
        }
        let method: Method = method.parse().unwrap();
        for target in [target.clone(), [b"/b/".as_slice(), &target].concat()] {
            for style in [Unified, Original] {
                drop(classify(&method, &target, &headers, host.as_deref(), style));
            }
        }
    }

    #[test]
    fn both_styles_find_the_same_object(
        path in "/{0,2}([a-z+./%]|%2[0-9a-fF]){0,12}(\\?(acl|versionId=1|uploads)?)?",
        method in "GET|PUT|DELETE|POST",
    ) {
        let method: Method = method.parse().unwrap();
        let none = HeaderMap::new();
        let by_path = classify(&method, format!("/b/{path}").as_bytes(), &none, None, Unified);
        let by_host = classify(&method, format!("/{path}").as_bytes(), &none, Some("b"), Unified);
        prop_assert_eq!(by_path, by_host);
    }
}

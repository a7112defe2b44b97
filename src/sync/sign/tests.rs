//! Signatures against the examples of S3's own documentation.

use std::time::Duration;

use http::Method;

use super::*;
use crate::{
    config::Secret,
    topology::fixture::{cluster, config, region},
};

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn signer(token: Option<&str>) -> (ServiceSigner, Topology) {
    let mut config = config(
        vec![cluster("c", &["examplebucket.s3.amazonaws.com", "other:9000", "other:81"])],
        vec![region("r", &[("c", 1.0)], &[])],
    );
    let credentials = Arc::new(Credentials {
        access_key: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
        session_token: token.map(|token| Secret::new(token.into())),
        region: "us-east-1".into(),
    });
    config.clusters[0].credentials = vec![Some(credentials.clone()), Some(credentials), None];
    let topology = Topology::new(&config);
    (ServiceSigner::new(&config, &topology), topology)
}

fn signed(
    target: &str,
    headers: &[(&'static str, &str)],
    token: Option<&str>,
    backend: usize,
) -> RequestHeader {
    let (signer, topology) = signer(token);
    let method = if headers.iter().any(|(name, _)| *name == "date") { Method::PUT } else { Method::GET };
    let mut header = RequestHeader::build(method, target.as_bytes(), None).unwrap();
    for (name, value) in headers {
        header.insert_header(*name, *value).unwrap();
    }
    // 20130524T000000Z
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_369_353_600);
    signer.sign_at(&topology.backends[backend], &mut header, time).unwrap();
    header
}

#[test]
fn the_examples_of_the_documentation_come_out() {
    let put = [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        (CONTENT_SHA256, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
    ];
    type Case<'a> = (&'a str, &'a [(&'static str, &'a str)], &'a str);
    let cases: [Case; 4] = [
        (
            "/test.txt",
            &[("range", "bytes=0-9"), (CONTENT_SHA256, EMPTY)],
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        ("/test%24file.text", &put, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        (
            "/?lifecycle",
            &[(CONTENT_SHA256, EMPTY)],
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/?max-keys=2&prefix=J",
            &[(CONTENT_SHA256, EMPTY)],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ];
    for (target, headers, signature) in cases {
        let header = signed(target, headers, None, 0);
        let authorization = header.headers["authorization"].to_str().unwrap();
        assert!(authorization.ends_with(&format!("Signature={signature}")), "{target}: {authorization}");
        assert!(authorization.contains("Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"));
    }
}

#[test]
fn host_body_and_token_are_signed() {
    let header = signed("/b/k", &[("host", "elsewhere")], Some("token"), 1);
    assert_eq!(header.headers["host"], "other:9000");
    assert_eq!(header.headers[CONTENT_SHA256], UNSIGNED);
    assert_eq!(header.headers["x-amz-security-token"], "token");
    let authorization = header.headers["authorization"].to_str().unwrap();
    assert!(
        authorization.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"),
        "{authorization}"
    );
}

#[test]
fn a_backend_without_credentials_is_told_by_the_key() {
    let (signer, topology) = signer(None);
    let known: Vec<bool> = topology.backends.iter().map(|backend| signer.knows(backend)).collect();
    assert_eq!(known, [true, true, false]);
    let mut header = RequestHeader::build(Method::GET, b"/b/k", None).unwrap();
    let cause = signer.sign(&topology.backends[2], &mut header).unwrap_err();
    assert!(cause.to_string().contains("Clusters.NAME.Credentials"), "{cause}");
}

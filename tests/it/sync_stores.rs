//! Copying between backends: real S3 servers that check signatures, and backends that misbehave at either end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use akubra::{
    config::Config,
    journal::Object,
    sync::{
        Copied, Gate, Held, State, StoreError, Stores,
        sign::ServiceSigner,
        stores::{S3Stores, Settings},
    },
    topology::Topology,
    upstream::{Upstream, resolve::Resolver},
};
use async_trait::async_trait;
use aws_sdk_s3::{Client, primitives::ByteStream};
use bytes::Bytes;
use md5::Digest;

use crate::fixture::{
    ACCESS_KEY, Answer, Behaviour, Endpoint, Misbehaving, Phase, Received, S3Backend, SECRET_KEY, hex_md5,
    noise, run, s3_client, soon,
};

const MIB: usize = 1 << 20;
/// So that a body comes in several pieces, and does not fit into buffers on the way.
const LARGE: usize = 4 * MIB;

/// Open for so many changes.
pub struct Turnstile(AtomicUsize);

#[async_trait]
impl Gate for Turnstile {
    async fn may_go_on(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

pub fn open() -> Turnstile {
    Turnstile(AtomicUsize::new(usize::MAX))
}

fn closed() -> Turnstile {
    Turnstile(AtomicUsize::new(0))
}

fn stores_with(backends: &[&dyn Endpoint], settings: Settings, credentials: &str) -> S3Stores {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let yaml = format!(
        "Listen: '127.0.0.1:0'\nClusters:\n  c:\n    Backends: {urls:?}\n{credentials}Regions:\n  r:\n    Default: true\n    \
         Clusters: [{{Cluster: c, Weight: 1}}]\nLogging: {{Synclog: {{stderr: true}}}}\n"
    );
    let config = Config::parse(&yaml, &|_| None).unwrap();
    let topology = Topology::new(&config);
    let resolver = Arc::new(Resolver::new(&topology.backends));
    let signer = Arc::new(ServiceSigner::new(&config, &topology));
    let upstream = Arc::new(Upstream::new(&config, &topology, resolver).signing(signer));
    S3Stores::new(&upstream, &topology, settings)
}

pub fn stores(backends: &[&dyn Endpoint], settings: Settings) -> S3Stores {
    let keys = format!("    Credentials: {{AccessKey: {ACCESS_KEY}, SecretKey: {SECRET_KEY}}}\n");
    stores_with(backends, settings, &keys)
}

fn small_parts(part_size: usize) -> Settings {
    Settings { multipart_threshold: MIB as u64, part_size: part_size as u64, ..Settings::default() }
}

pub fn object(key: &str) -> Object {
    Object { cluster: "c".into(), bucket: b"bucket".to_vec(), key: key.into() }
}

async fn held(stores: &S3Stores, backend: &dyn Endpoint, key: &str) -> Held {
    match stores.state(&backend.url(), &object(key)).await {
        State::Present(held) => held,
        other => panic!("{key}: {other:?}"),
    }
}

/// From the one to the other, over what is there.
async fn copy(
    stores: &S3Stores,
    key: &str,
    from: &dyn Endpoint,
    to: &dyn Endpoint,
    gate: &Turnstile,
) -> Result<Copied, StoreError> {
    let over = stores.state(&to.url(), &object(key)).await;
    let source = held(stores, from, key).await;
    stores.copy(&object(key), (&from.url(), &source), (&to.url(), &over), gate).await
}

/// A misbehaving source with one object and no tags, and a misbehaving target.
async fn misbehaving_pair(body: &Bytes) -> (Misbehaving, Misbehaving) {
    let (a, b) = crate::fixture::pair().await;
    a.holds("/bucket/k", body.clone());
    a.will_once_on("GET", Behaviour::answers(Answer::error(501, "NotImplemented")));
    (a, b)
}

#[test]
fn objects_arrive_whole_and_with_what_belongs_to_them() {
    run(async {
        let (a, b) = (S3Backend::with_bucket("bucket").await, S3Backend::with_bucket("bucket").await);
        let stores = stores(&[&a, &b], small_parts(5 * MIB));
        let small = noise(70_000);
        let cases = [
            ("empty", Bytes::new()),
            ("small", small.clone()),
            ("large", noise(LARGE)),
            ("in parts", noise(20 * MIB + 1)),
        ];
        for (key, body) in cases {
            let put = a.client().put_object().bucket("bucket").key(key).body(ByteStream::from(body.clone()));
            let put =
                put.content_type("text/x").cache_control("no-store").metadata("colour", "red  and blue");
            put.send().await.unwrap();
            let copied =
                copy(&stores, key, &a, &b, &open()).await.unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(copied.md5[..], md5::Md5::digest(&body)[..], "{key}");
            assert_eq!(b.object("bucket", key).await.unwrap(), body, "{key}");
            let (source, target) = (held(&stores, &a, key).await, held(&stores, &b, key).await);
            assert_eq!((&target.metadata, target.length), (&source.metadata, source.length), "{key}");
            assert!(source.metadata.contains(&("x-amz-meta-colour".into(), "red  and blue".into())));
            assert_eq!(target.etag, copied.etag);
            assert_eq!(stores.md5(&b.url(), &object(key), &target).await.unwrap(), copied.md5);
            assert_eq!(key == "in parts", copied.etag.ends_with("-5"), "{}", copied.etag);
        }
    });
}

#[test]
fn keys_mean_the_same_object_everywhere() {
    run(async {
        let (a, b) = (S3Backend::with_bucket("bucket").await, S3Backend::with_bucket("bucket").await);
        let stores = stores(&[&a, &b], Settings::default());
        let keys = [
            "a b",
            "a+b",
            "100%",
            "%41",
            "ż/ó\u{1f600}",
            "q'\"",
            "a&b=c?d#e",
            "x;y,z",
            "new\nline",
            "~!*()$@:",
            "<é>",
        ];
        for key in keys {
            let body = ByteStream::from(key.as_bytes().to_vec());
            a.client().put_object().bucket("bucket").key(key).body(body).send().await.unwrap();
            let copied =
                copy(&stores, key, &a, &b, &open()).await.unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!(copied.etag, hex_md5(key.as_bytes()), "{key}");
            assert_eq!(b.object("bucket", key).await.as_deref(), Some(key.as_bytes()), "{key}");
            let target = held(&stores, &b, key).await;
            stores.delete(&object(key), (&b.url(), &target), &open()).await.unwrap();
            assert_eq!(stores.state(&b.url(), &object(key)).await, State::Absent, "{key}");
        }
        // What this server cannot hold: the target as it goes out.
        let m = Misbehaving::start().await;
        let raw = stores_with_one(&m);
        raw.state(&m.url(), &object("/a//../b/./\u{7f}")).await;
        assert_eq!(m.requests()[0].target, "/bucket//a//../b/./%7F");
    });
}

fn stores_with_one(backend: &Misbehaving) -> S3Stores {
    stores(&[backend], Settings::default())
}

#[test]
fn the_signature_covers_what_is_asked_for() {
    run(async {
        let a = S3Backend::with_bucket("bucket").await;
        a.client()
            .put_object()
            .bucket("bucket")
            .key("k")
            .body(ByteStream::from_static(b"x"))
            .send()
            .await
            .unwrap();
        let good = stores(&[&a], Settings::default());
        held(&good, &a, "k").await;
        // A sub-resource that the server does not implement: not 403, so it was signed well.
        for name in ["tagging", "acl", "a b+c"] {
            let error = good.attribute(&a.url(), &object("k"), name).await;
            assert!(
                !matches!(&error, Err(StoreError::Refused(why)) if why.contains("403")),
                "{name}: {error:?}"
            );
        }
        let wrong = "    Credentials: {AccessKey: AKIAFIXTURE, SecretKey: wrong}\n";
        let refused = format!("credentials of c are refused by {}: 403", a.url());
        for (credentials, expected) in [(wrong, refused.as_str()), ("", "Clusters.NAME.Credentials")] {
            let stores = stores_with(&[&a], Settings::default(), credentials);
            let State::Unknown(why) = stores.state(&a.url(), &object("k")).await else { panic!() };
            assert!(why.contains(expected) && why.contains(&a.url()), "{why}");
            let held = held(&good, &a, "k").await;
            let refused = stores.delete(&object("k"), (&a.url(), &held), &open()).await.unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused:?}");
        }
    });
}

#[test]
fn tags_and_acl_go_along() {
    run(async {
        let (a, b) = crate::fixture::pair().await;
        a.holds("/bucket/k", "body");
        a.will_once_on("GET", shows(TAGS));
        b.will_once_on("GET", shows(TAGS));
        let stores = stores(&[&a, &b], Settings { copy_acl: true, ..Settings::default() });
        a.will_once_on("GET", Behaviour::good());
        a.will_once_on("GET", Behaviour::answers(Answer::new(200).body("<AccessControlPolicy/>")));
        copy(&stores, "k", &a, &b, &open()).await.unwrap();
        let puts = puts(&b);
        assert_eq!(puts.len(), 2);
        assert_eq!(puts[0].header("x-amz-tagging"), Some("a=&z=1%20%26%202"));
        assert_eq!(puts[1].target, "/bucket/k?acl");
        assert_eq!(puts[1].body.as_deref(), Some(&b"<AccessControlPolicy/>"[..]));
        assert!(puts[1].header("content-md5").is_some());
    });
}

const TAGS: &str = "<Tagging><TagSet><Tag><Key>z</Key><Value>1 &amp; 2</Value></Tag><Tag><Key>a</Key><Value/></Tag>\
                    </TagSet></Tagging>";

fn shows(document: &'static str) -> Behaviour {
    Behaviour::answers(Answer::new(200).body(document))
}

fn puts(backend: &Misbehaving) -> Vec<Received> {
    backend.requests().into_iter().filter(|request| request.method == "PUT").collect()
}

/// As Ceph's gateway drops those of uploads in parts, and then answers with nothing at all.
#[test]
fn tags_that_a_target_has_dropped_are_set() {
    run(async {
        for keeps in [true, false] {
            let (a, b) = crate::fixture::pair().await;
            a.holds("/bucket/k", "body");
            a.will_once_on("GET", shows(TAGS));
            b.will_once_on("GET", shows(""));
            b.will_once_on("GET", shows(if keeps { TAGS } else { "<Tagging><TagSet/></Tagging>" }));
            let stores = stores(&[&a, &b], Settings::default());
            let refused = StoreError::Refused(format!("{} does not keep tags", b.url()));
            b.will_once_on("PUT", Behaviour::good());
            b.will_once_on("PUT", Behaviour::answers(200));
            let copied = copy(&stores, "k", &a, &b, &open()).await;
            assert_eq!(copied.err(), (!keeps).then_some(refused));
            let puts = puts(&b);
            assert_eq!((puts.len(), puts[1].target.as_str()), (2, "/bucket/k?tagging"));
            let body = String::from_utf8(puts[1].body.clone().unwrap().to_vec()).unwrap();
            assert!(body.contains("<Tag><Key>z</Key><Value>1 &amp; 2</Value></Tag>"), "{body}");
        }
    });
}

#[test]
fn a_target_that_knows_no_tags_is_named() {
    run(async {
        for (status, code) in [(501, "NotImplemented"), (405, "MethodNotAllowed")] {
            let (a, b) = crate::fixture::pair().await;
            a.holds("/bucket/k", "body");
            a.will_once_on("GET", shows(TAGS));
            b.will_once_on("GET", Behaviour::answers(Answer::error(status, code)));
            let stores = stores(&[&a, &b], Settings::default());
            let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
            assert_eq!(error, StoreError::Refused(format!("{} does not keep tags", b.url())));
        }
    });
}

#[test]
fn tags_that_cannot_be_read_are_not_taken_for_none() {
    run(async {
        let deleted = Answer::error(405, "MethodNotAllowed").header("x-amz-delete-marker", "true");
        let not_known = || Answer::error(501, "NotImplemented");
        let tagged = || Behaviour::good().with_header("x-amz-tagging-count", "1");
        let cases = [
            (vec![Behaviour::answers(deleted)], "was deleted"),
            (vec![Behaviour::answers(503)], "503"),
            (vec![Behaviour::answers(403)], "403"),
            (vec![shows("<Tagging>")], "no readable tags"),
            (vec![Behaviour::answers(not_known()), tagged()], "shows none"),
        ];
        for (answers, expected) in cases {
            let (a, b) = crate::fixture::pair().await;
            a.holds("/bucket/k", "body");
            for answer in answers {
                a.will_once_on("GET", answer);
            }
            let stores = stores(&[&a, &b], Settings::default());
            let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{expected}: {error:?}");
            assert_eq!(b.stored_bytes("/bucket/k"), None);
        }
    });
}

/// moto compares a condition with the ETag of the part.
#[test]
fn what_is_said_of_parts_is_a_hint_only() {
    run(async {
        let (a, b) = misbehaving_pair(&Bytes::from_static(b"body")).await;
        let stores = stores(&[&a, &b], Settings::default());
        let etag = format!("{}-1", hex_md5(b"parts"));
        let source = Held { etag: etag.clone(), md5: None, ..held(&stores, &a, "k").await };
        a.will_once_on("HEAD", Behaviour::answers(412));
        let body = Answer::new(200).header("ETag", &format!("\"{etag}\"")).body("body");
        a.will_once_on("GET", Behaviour::answers(body));
        let from = (&*a.url(), &source);
        stores.copy(&object("k"), from, (&b.url(), &State::Absent), &open()).await.unwrap();
        assert_eq!(b.stored_bytes("/bucket/k").as_deref(), Some(&b"body"[..]));
        let asked = a.requests().into_iter().find(|request| request.target.contains("partNumber")).unwrap();
        assert_eq!(asked.header("if-match"), None);
    });
}

#[test]
fn attributes_are_read_written_and_deleted() {
    run(async {
        let m = Misbehaving::start().await;
        let (stores, url, k) = (stores_with_one(&m), m.url(), object("k"));
        let once = |method: &str, answer: Answer| m.will_once_on(method, Behaviour::answers(answer));
        once("GET", Answer::error(404, "NoSuchTagSet"));
        assert_eq!(stores.attribute(&url, &k, "tagging").await, Ok(None));
        once("GET", Answer::error(404, "NoSuchKey"));
        assert!(matches!(stores.attribute(&url, &k, "acl").await, Err(StoreError::Changed(_))));
        once("GET", Answer::new(200).body("<AccessControlPolicy/>"));
        assert_eq!(stores.attribute(&url, &k, "acl").await, Ok(Some(b"<AccessControlPolicy/>".to_vec())));
        // Of a backend that does not know the question: what is written there would be the object.
        once("GET", Answer::new(200).body("the object"));
        assert!(matches!(stores.attribute(&url, &k, "acl").await, Err(StoreError::Refused(_))));
        stores.set_attribute(&url, &k, "tagging", Some(b"<t/>")).await.unwrap();
        stores.set_attribute(&url, &k, "tagging", None).await.unwrap();
        let last = m.requests().into_iter().rev().take(2).collect::<Vec<_>>();
        assert_eq!((last[0].method.as_str(), last[1].method.as_str()), ("DELETE", "PUT"));
        assert_eq!(
            (last[0].target.as_str(), last[1].body.as_deref()),
            ("/bucket/k?tagging", Some(&b"<t/>"[..]))
        );
        m.will_once_on("PUT", Behaviour::resets(Phase::AfterBody));
        let lost = stores.set_attribute(&url, &k, "tagging", Some(b"<t/>")).await;
        assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    });
}

#[test]
fn a_source_that_breaks_off_or_lies_leaves_nothing_at_the_target() {
    run(async {
        let body = noise(LARGE);
        let changed = Answer::new(200).header("ETag", "\"other\"").body(body.clone());
        let lies =
            Answer::new(200).header("ETag", &format!("\"{}\"", hex_md5(&body))).body(noise(LARGE).slice(1..));
        let wrong_bytes =
            Answer::new(200).header("ETag", &format!("\"{}\"", hex_md5(&body))).body(vec![7; LARGE]);
        let cases = [
            (Behaviour::closes(Phase::MidAnswerBody(LARGE - 1)), "Failed"),
            (Behaviour::resets(Phase::MidAnswerBody(MIB)), "Failed"),
            (Behaviour::answers(503), "Failed"),
            (Behaviour::answers(403), "Denied"),
            (Behaviour::answers(404), "Changed"),
            (Behaviour::answers(412), "Changed"),
            (Behaviour::answers(changed), "Changed"),
            (Behaviour::answers(lies), "Changed"),
            (Behaviour::answers(wrong_bytes), "Failed"),
        ];
        for (behaviour, expected) in cases {
            let (a, b) = misbehaving_pair(&body).await;
            let stores = stores(&[&a, &b], Settings::default());
            a.will_once_on("GET", behaviour.clone());
            let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{behaviour:?}: {error:?}");
            b.wait_for_open_connections(1).await;
            assert!(
                b.paths().is_empty() && !b.requests().iter().any(|r| r.method == "PUT" && r.is_complete())
            );
        }
    });
}

#[test]
fn nothing_is_stored_if_the_gate_is_closed() {
    run(async {
        for (length, settings) in [
            (0, Settings::default()),
            (9, Settings::default()),
            (LARGE, Settings::default()),
            (LARGE, small_parts(MIB)),
        ] {
            let (a, b) = misbehaving_pair(&noise(length)).await;
            let stores = stores(&[&a, &b], settings);
            let error = copy(&stores, "k", &a, &b, &closed()).await.unwrap_err();
            assert!(matches!(&error, StoreError::Changed(why) if why.contains("called off")), "{error:?}");
            assert!(b.paths().is_empty());
            b.holds("/bucket/k", "old");
            let old = held(&stores, &b, "k").await;
            stores.delete(&object("k"), (&b.url(), &old), &closed()).await.unwrap_err();
            assert!(b.stored("/bucket/k").is_some());
        }
    });
}

#[test]
fn what_the_target_answers_decides() {
    run(async {
        let early = |answer: u16| Behaviour::answers_early(answer, crate::fixture::AfterEarly::Close);
        for length in [0, 9, LARGE] {
            let cases = [
                (Behaviour::resets(Phase::AfterBody), "Unknown"),
                (Behaviour::closes(Phase::AfterBody), "Unknown"),
                (Behaviour::answers(504), "Unknown"),
                (Behaviour::answers(403), "Denied"),
                (Behaviour::answers(Answer::error(400, "InvalidRequest")), "Refused"),
                (Behaviour::answers(503), "Failed"),
                (Behaviour::answers(Answer::error(404, "NoSuchBucket")), "Failed"),
                (
                    Behaviour::answers(Answer::new(200).header("ETag", &format!("\"{}\"", hex_md5(b"?")))),
                    "Failed",
                ),
                (early(403), "Denied"),
                (early(503), "Failed"),
            ];
            for (behaviour, expected) in cases {
                let (a, b) = misbehaving_pair(&noise(length)).await;
                let stores = stores(&[&a, &b], Settings::default());
                b.will_once_on("PUT", behaviour.clone());
                let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
                assert!(format!("{error:?}").starts_with(expected), "{length} {behaviour:?}: {error:?}");
                assert!(error.to_string().contains(&b.url()), "{error}");
            }
        }
    });
}

#[test]
fn an_etag_that_cannot_be_compared_is_verified_by_reading() {
    run(async {
        // By its ETag that HEAD tells, else by its bytes.
        for (read, good) in [(None, true), (Some("body"), true), (Some("bode"), false)] {
            let (a, b) = misbehaving_pair(&Bytes::from_static(b"body")).await;
            let stores = stores(&[&a, &b], Settings::default());
            b.will_once_on("PUT", Behaviour::answers(Answer::new(201)));
            if let Some(read) = read {
                // Behind the answer the backend has something of the same length.
                b.will_once_on("HEAD", Behaviour::good());
                b.will_once_on(
                    "HEAD",
                    Behaviour::answers(
                        Answer::new(200)
                            .header("ETag", "\"x-1\"")
                            .header("Last-Modified", "Fri, 24 May 2013 00:00:01 GMT")
                            .body(read),
                    ),
                );
                b.will_once_on(
                    "GET",
                    Behaviour::answers(Answer::new(200).header("ETag", "\"x-1\"").body(read)),
                );
            }
            let outcome = copy(&stores, "k", &a, &b, &open()).await;
            assert_eq!(outcome.is_ok(), good, "{outcome:?}");
            assert_eq!(b.requests().iter().any(|request| request.method == "GET"), read.is_some());
        }
    });
}

#[test]
fn a_target_that_changed_meanwhile_is_left_alone() {
    run(async {
        let (a, b) = (S3Backend::with_bucket("bucket").await, S3Backend::with_bucket("bucket").await);
        a_changed_target_is_left_alone(&a, &b).await;
    });
}

/// Copies from the one to the other over what is not there any more, in one piece and in parts.
pub async fn a_changed_target_is_left_alone(a: &dyn Endpoint, b: &dyn Endpoint) {
    let stores = stores(&[a, b], small_parts(5 * MIB));
    let (at_a, at_b) = (s3_client(&a.url()), s3_client(&b.url()));
    let put = async |client: &Client, body: Bytes| {
        let put = client.put_object().bucket("bucket").key("k").body(ByteStream::from(body));
        put.send().await.unwrap();
    };
    for body in [noise(10), noise(6 * MIB)] {
        put(&at_a, body).await;
        let source = held(&stores, a, "k").await;
        put(&at_b, Bytes::from_static(b"before")).await;
        let before = stores.state(&b.url(), &object("k")).await;
        put(&at_b, Bytes::from_static(b"newer")).await;
        let newer = held(&stores, b, "k").await;
        for over in [State::Absent, before.clone()] {
            let error = stores.copy(&object("k"), (&a.url(), &source), (&b.url(), &over), &open()).await;
            assert!(matches!(error, Err(StoreError::Changed(_))), "{error:?}");
        }
        assert_eq!(held(&stores, b, "k").await, newer);
        copy(&stores, "k", a, b, &open()).await.unwrap();
        put(&at_a, Bytes::from_static(b"other")).await;
        let now = stores.state(&b.url(), &object("k")).await;
        let error = stores.copy(&object("k"), (&a.url(), &source), (&b.url(), &now), &open()).await;
        assert!(matches!(error, Err(StoreError::Changed(_))), "{error:?}");
    }
}

#[test]
fn a_backend_that_knows_no_conditions_is_asked_before_instead() {
    run(async {
        let (a, b) = misbehaving_pair(&Bytes::from_static(b"body")).await;
        let stores = stores(&[&a, &b], Settings::default());
        b.will_once_on("PUT", Behaviour::answers(Answer::error(501, "NotImplemented")));
        copy(&stores, "k", &a, &b, &open()).await.unwrap();
        let seen: Vec<_> =
            b.requests().iter().map(|r| (r.method.clone(), r.header("if-none-match").is_some())).collect();
        let expected = [("HEAD", false), ("PUT", true), ("HEAD", false), ("PUT", false)];
        assert_eq!(seen, expected.map(|(method, conditional)| (method.to_owned(), conditional)));
        let old = held(&stores, &b, "k").await;
        b.holds("/bucket/k", "newer");
        let error = stores.delete(&object("k"), (&b.url(), &old), &open()).await.unwrap_err();
        assert!(matches!(error, StoreError::Changed(_)) && b.stored("/bucket/k").is_some(), "{error:?}");
        let now = held(&stores, &b, "k").await;
        stores.delete(&object("k"), (&b.url(), &now), &open()).await.unwrap();
        assert!(
            b.stored("/bucket/k").is_none() && b.requests().iter().all(|r| r.header("if-match").is_none())
        );
    });
}

/// As Ceph's gateway has it: the header, quotes and all, is compared with the ETag.
#[test]
fn a_backend_that_wants_no_quotes_in_if_match_gets_none() {
    run(async {
        let (a, b) = misbehaving_pair(&Bytes::from_static(b"body")).await;
        let stores = stores(&[&a, &b], Settings::default());
        b.compares_with_quotes();
        for old in [&b"old"[..], b"older"] {
            b.holds("/bucket/k", old);
            copy(&stores, "k", &a, &b, &open()).await.unwrap();
            assert_eq!(b.stored_bytes("/bucket/k").as_deref(), Some(&b"body"[..]));
        }
        let puts: Vec<_> = b.requests().into_iter().filter(|request| request.method == "PUT").collect();
        let conditions: Vec<_> = puts.iter().map(|put| put.header("if-match").unwrap()).collect();
        let bare = [hex_md5(b"old"), hex_md5(b"older")];
        assert_eq!(conditions, [&format!("\"{}\"", bare[0]), &bare[0], &bare[1]]);
        // What is not there any more is told from what is misunderstood.
        b.holds("/bucket/k", "old");
        let (source, before) = (held(&stores, &a, "k").await, stores.state(&b.url(), &object("k")).await);
        b.holds("/bucket/k", "newer");
        let error = stores.copy(&object("k"), (&a.url(), &source), (&b.url(), &before), &open()).await;
        assert!(matches!(error, Err(StoreError::Changed(_))), "{error:?}");
        assert_eq!(b.stored_bytes("/bucket/k").as_deref(), Some(&b"newer"[..]));
    });
}

#[test]
fn deletes_are_judged_too() {
    run(async {
        let cases = [
            (Behaviour::answers(404), None),
            (Behaviour::answers(403), Some("Denied")),
            (Behaviour::answers(500), Some("Unknown")),
            (Behaviour::answers(503), Some("Failed")),
            (Behaviour::resets(Phase::AfterBody), Some("Unknown")),
        ];
        for (behaviour, expected) in cases {
            let m = Misbehaving::start().await;
            m.holds("/bucket/k", "x");
            let stores = stores_with_one(&m);
            let old = held(&stores, &m, "k").await;
            m.will_once_on("DELETE", behaviour.clone());
            let outcome = stores.delete(&object("k"), (&m.url(), &old), &open()).await;
            let found = outcome.as_ref().err().map(|error| format!("{error:?}"));
            let fits = match (&found, expected) {
                (Some(found), Some(expected)) => found.starts_with(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(fits, "{behaviour:?}: {outcome:?}");
            let delete = m.wait_for_request("the DELETE", |request| request.method == "DELETE").await;
            assert_eq!(delete.header("if-match"), Some(format!("\"{}\"", hex_md5(b"x")).as_str()));
        }
    });
}

/// Settings under which what may yet happen is waited for a moment only.
fn soon_settled() -> Settings {
    Settings { settle: Duration::from_millis(300), ..small_parts(MIB) }
}

fn is_abort(request: &Received) -> bool {
    request.method == "DELETE" && request.target.ends_with("uploadId=upload-1")
}

#[test]
fn an_upload_in_parts_that_fails_is_aborted_once_it_cannot_be_complete() {
    run(async {
        let complete = |behaviour: Behaviour| vec![("POST", Behaviour::good()), ("POST", behaviour)];
        let error =
            Answer::new(200).body("<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>");
        let wrong = Answer::new(200).header("ETag", &format!("\"{}\"", hex_md5(b"?")));
        let (now, later, never) = (Some(0), Some(300), None);
        let cases = [
            (vec![("PUT", Behaviour::good()), ("PUT", Behaviour::answers(500))], "Failed", now),
            (vec![("PUT", Behaviour::resets(Phase::AfterBody))], "Failed", now),
            (vec![("PUT", Behaviour::answers(wrong))], "Failed", now),
            (vec![("PUT", Behaviour::answers(403))], "Denied", now),
            (vec![("POST", Behaviour::resets(Phase::AfterBody))], "Failed", never),
            (complete(Behaviour::answers(error)), "Unknown", later),
            (complete(Behaviour::answers(Answer::error(412, "PreconditionFailed"))), "Changed", now),
            (complete(Behaviour::resets(Phase::AfterBody)), "Unknown", later),
            (complete(Behaviour::answers(504)), "Unknown", later),
            // Nothing is put together here: what is read back is not there.
            (vec![], "Changed", never),
        ];
        for (behaviours, expected, aborted) in cases {
            let (a, b) = misbehaving_pair(&noise(3 * MIB + 1)).await;
            let stores = stores(&[&a, &b], soon_settled());
            for (method, behaviour) in &behaviours {
                b.will_once_on(method, behaviour.clone());
            }
            let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
            let ended = Instant::now();
            assert!(format!("{error:?}").starts_with(expected), "{behaviours:?}: {error:?}");
            if let Some(after) = aborted {
                b.wait_for_request("the abort", is_abort).await;
                assert!(ended.elapsed() >= Duration::from_millis(after), "{behaviours:?}");
            }
            // Whatever is to come has come by then.
            stores.end(Duration::from_secs(5)).await;
            assert_eq!(
                b.requests().iter().filter(|request| is_abort(request)).count() > 0,
                aborted.is_some()
            );
        }
    });
}

#[test]
fn an_upload_in_parts_that_nobody_waits_for_any_more_is_aborted() {
    run(async {
        let hangs = || Behaviour::hangs(Phase::AfterBody);
        for behaviours in [
            vec![("POST", hangs())],
            vec![("PUT", Behaviour::good()), ("PUT", hangs())],
            vec![("POST", Behaviour::good()), ("POST", hangs())],
        ] {
            let (a, b) = misbehaving_pair(&noise(3 * MIB + 1)).await;
            let stores = Arc::new(stores(&[&a, &b], soon_settled()));
            let hanging = behaviours.len();
            for (method, behaviour) in &behaviours {
                b.will_once_on(method, behaviour.clone());
            }
            let method = behaviours[0].0;
            let requests = |b: &Misbehaving| {
                let complete = |r: &&Received| r.method == method && r.is_complete();
                b.requests().iter().filter(complete).count()
            };
            let (held, gate) = (held(&stores, &a, "k").await, open());
            let (from, to, key) = (a.url(), b.url(), object("k"));
            let mut copy = Box::pin(stores.copy(&key, (&from, &held), (&to, &State::Absent), &gate));
            let reached = async {
                while requests(&b) < hanging {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                outcome = &mut copy => panic!("{outcome:?}"),
                () = soon("what hangs", reached) => {}
            }
            drop(copy);
            b.release();
            b.wait_for_request("the abort", is_abort).await;
        }
    });
}

#[test]
fn an_abort_is_tried_again_before_the_process_ends() {
    run(async {
        let (a, b) = misbehaving_pair(&noise(3 * MIB + 1)).await;
        let stores = stores(&[&a, &b], soon_settled());
        b.will_once_on("DELETE", Behaviour::answers(503));
        let error = copy(&stores, "k", &a, &b, &closed()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Changed(why) if why.contains("called off")), "{error:?}");
        b.wait_for_request("the abort", |request| is_abort(request) && request.answered == 503).await;
        stores.end(Duration::from_secs(5)).await;
        let aborts: Vec<u16> =
            b.requests().iter().filter(|request| is_abort(request)).map(|request| request.answered).collect();
        assert_eq!(aborts, [503, 204]);
    });
}

#[test]
fn a_refused_question_is_asked_for_its_reason() {
    run(async {
        let cases = [
            (403, "AccessDenied", "Refused"),
            (403, "SignatureDoesNotMatch", "Unknown"),
            (403, "RequestTimeTooSkewed", "Unknown"),
            (400, "ExpiredToken", "Unknown"),
            (400, "InvalidRequest", "Refused"),
            (401, "", "Unknown"),
            (503, "SlowDown", "Unknown"),
        ];
        for (status, code, expected) in cases {
            let m = Misbehaving::start().await;
            m.will(Behaviour::answers(Answer::error(status, code)));
            let state = stores_with_one(&m).state(&m.url(), &object("k")).await;
            assert!(format!("{state:?}").starts_with(expected), "{status} {code}: {state:?}");
            let (State::Refused(why) | State::Unknown(why)) = state else { panic!() };
            assert!(why.contains(&format!("{status} to HEAD")) && why.contains(&m.url()), "{why}");
            let of_credentials = expected == "Unknown" && status != 503;
            assert_eq!(why.starts_with("credentials of c are refused by"), of_credentials, "{why}");
        }
    });
}

#[test]
fn a_copy_that_trickles_is_given_up_at_either_end() {
    run(async {
        let settings = |base: Settings| Settings {
            least_rate: MIB as u64,
            patience: Duration::from_millis(400),
            ..base
        };
        // More than the kernel takes for somebody who does not read.
        for base in [Settings::default(), small_parts(12 * MIB)] {
            for slow_source in [true, false] {
                let (a, b) = misbehaving_pair(&noise(24 * MIB)).await;
                let stores = stores(&[&a, &b], settings(base.clone()));
                let (slow, method, behaviour) = match slow_source {
                    true => (&a, "GET", Behaviour::writes_at(20_000)),
                    false => (&b, "PUT", Behaviour::reads_at(20_000)),
                };
                slow.will_once_on(method, behaviour);
                let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
                let said = format!("{}: it {}", slow.url(), if slow_source { "sent" } else { "took" });
                assert!(
                    matches!(&error, StoreError::Failed(why) if why.contains(&said) && why.contains("slower than")),
                    "{error:?}"
                );
            }
        }
    });
}

#[test]
fn only_what_is_done_without_a_condition_was_refused_for_the_condition() {
    run(async {
        let (a, b) = misbehaving_pair(&Bytes::from_static(b"body")).await;
        let stores = stores(&[&a, &b], Settings::default());
        let not_implemented = || Behaviour::answers(Answer::error(501, "NotImplemented"));
        for _ in 0..2 {
            b.will_once_on("PUT", not_implemented());
        }
        let error = copy(&stores, "k", &a, &b, &open()).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        copy(&stores, "k", &a, &b, &open()).await.unwrap();
        let puts = b.requests().into_iter().filter(|request| request.method == "PUT");
        let conditional: Vec<bool> = puts.map(|put| put.header("if-none-match").is_some()).collect();
        assert_eq!(conditional, [true, false, true]);
        let old = held(&stores, &b, "k").await;
        for _ in 0..2 {
            b.will_once_on("DELETE", not_implemented());
        }
        let error = stores.delete(&object("k"), (&b.url(), &old), &open()).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        stores.delete(&object("k"), (&b.url(), &old), &open()).await.unwrap();
        let last = b.requests().into_iter().rfind(|request| request.method == "DELETE").unwrap();
        assert!(last.header("if-match").is_some());
    });
}

#[test]
fn a_refused_condition_is_noticed_in_the_middle_of_a_body_too() {
    run(async {
        let body = noise(LARGE);
        let (a, b) = misbehaving_pair(&body).await;
        let stores = stores(&[&a, &b], Settings::default());
        let refusal = Answer::error(501, "NotImplemented");
        b.will_once_on("PUT", Behaviour::answers_early(refusal, crate::fixture::AfterEarly::Close));
        copy(&stores, "k", &a, &b, &open()).await.unwrap();
        assert_eq!(b.stored_bytes("/bucket/k"), Some(body));
        let last = b.requests().into_iter().rfind(|request| request.method == "PUT").unwrap();
        assert!(last.header("if-none-match").is_none());
    });
}

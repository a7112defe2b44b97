//! What arrives of an object, and what does not.

use super::*;

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

//! `If-Match` and `If-None-Match`, as servers keep them.

use super::*;

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
        stores.copy(&object("k"), from, (&b.url(), &State::Absent, just_now()), &open()).await.unwrap();
        assert_eq!(b.stored_bytes("/bucket/k").as_deref(), Some(&b"body"[..]));
        let asked = a.requests().into_iter().find(|request| request.target.contains("partNumber")).unwrap();
        assert_eq!(asked.header("if-match"), None);
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
            let error =
                stores.copy(&object("k"), (&a.url(), &source), (&b.url(), &over, just_now()), &open()).await;
            assert!(matches!(error, Err(StoreError::Changed(_))), "{error:?}");
        }
        assert_eq!(held(&stores, b, "k").await, newer);
        copy(&stores, "k", a, b, &open()).await.unwrap();
        put(&at_a, Bytes::from_static(b"other")).await;
        let now = stores.state(&b.url(), &object("k")).await;
        let error =
            stores.copy(&object("k"), (&a.url(), &source), (&b.url(), &now, just_now()), &open()).await;
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

#[test]
fn a_target_that_was_asked_long_ago_is_asked_again() {
    run(async {
        for (ago, expected) in [(0, &["PUT"][..]), (2, &["HEAD", "PUT"])] {
            let (a, b) = misbehaving_pair(&Bytes::from_static(b"body")).await;
            let stores = stores(&[&a, &b], Settings::default());
            let source = held(&stores, &a, "k").await;
            let seen = just_now() - Duration::from_secs(ago);
            let to = (&*b.url(), &State::Absent, seen);
            stores.copy(&object("k"), (&a.url(), &source), to, &open()).await.unwrap();
            let asked: Vec<String> = b.requests().into_iter().map(|request| request.method).collect();
            assert_eq!(asked, expected);
        }
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
        let error =
            stores.copy(&object("k"), (&a.url(), &source), (&b.url(), &before, just_now()), &open()).await;
        assert!(matches!(error, Err(StoreError::Changed(_))), "{error:?}");
        assert_eq!(b.stored_bytes("/bucket/k").as_deref(), Some(&b"newer"[..]));
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

//! What answers of backends mean.

use super::*;

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
                !matches!(&error, Err(StoreError::Refused(why)) if why.contains(": 403 to")),
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
                    "Unfinished",
                ),
                (early(403), "Denied"),
                (early(503), "Failed"),
            ];
            // It may have stored what it had by then; what is sent in one go is complete, and looked at.
            let done = [(early(200), "Unknown")].into_iter().filter(|_| length == LARGE);
            for (behaviour, expected) in cases.into_iter().chain(done) {
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

#[test]
fn a_refused_question_is_asked_for_its_reason() {
    run(async {
        let cases = [
            (403, "AccessDenied", "Denied"),
            (403, "SignatureDoesNotMatch", "Unknown"),
            (403, "RequestTimeTooSkewed", "Unknown"),
            (400, "ExpiredToken", "Unknown"),
            (400, "InvalidRequest", "Denied"),
            (401, "", "Unknown"),
            (503, "SlowDown", "Unknown"),
        ];
        for (status, code, expected) in cases {
            let m = Misbehaving::start().await;
            m.will(Behaviour::answers(Answer::error(status, code)));
            let state = stores_with_one(&m).state(&m.url(), &object("k")).await;
            assert!(format!("{state:?}").starts_with(expected), "{status} {code}: {state:?}");
            let (State::Denied(why) | State::Unknown(why)) = state else { panic!() };
            assert!(why.contains(&format!("{status} to HEAD")) && why.contains(&m.url()), "{why}");
            let of_credentials = expected == "Unknown" && status != 503;
            assert_eq!(why.starts_with("credentials of c are refused by"), of_credentials, "{why}");
        }
    });
}

#[test]
fn what_a_target_stores_that_was_not_sent_is_taken_away_again() {
    run(async {
        let wrong = || Answer::new(200).header("ETag", &format!("\"{}\"", hex_md5(b"?")));
        let shown = || wrong().header("Last-Modified", "Fri, 24 May 2013 00:00:01 GMT").body("other one");
        let for_the_copy = || Turnstile(AtomicUsize::new(1));
        for (is_open, answer, deletes, told) in [
            (open(), 204, 1, "not there any more"),
            (for_the_copy(), 204, 0, "may be there still"),
            (open(), 504, 1, "nobody knows whether it is there still"),
        ] {
            let (a, b) = misbehaving_pair(&noise(9)).await;
            let stores = stores(&[&a, &b], Settings::default());
            // There is nothing yet.
            b.will_once_on("HEAD", Behaviour::good());
            b.will_once_on("HEAD", Behaviour::answers(shown()));
            b.will_once_on("HEAD", Behaviour::answers(shown()));
            b.will_once_on("PUT", Behaviour::answers(wrong()));
            b.will_once_on("DELETE", Behaviour::answers(answer));
            let error = copy(&stores, "k", &a, &b, &is_open).await.unwrap_err();
            assert!(matches!(error, StoreError::Unfinished { etag: Some(_), .. }), "{error:?}");
            let sent = b.requests().into_iter().filter(|request| request.method == "DELETE").count();
            assert_eq!(sent, deletes, "{error}");
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(error.may_happen_yet(), answer == 504, "{error:?}");
        }
    });
}

//! Tags, ACLs, and other sub-resources.

use super::*;

const TAGS: &str = "<Tagging><TagSet><Tag><Key>z</Key><Value>1 &amp; 2</Value></Tag><Tag><Key>a</Key><Value/></Tag>\
                    </TagSet></Tagging>";

const ACL: &str = "<AccessControlPolicy/>";
const OTHER_ACL: &str = "<AccessControlPolicy><Owner/></AccessControlPolicy>";

fn shows(document: &'static str) -> Behaviour {
    Behaviour::answers(Answer::new(200).body(document))
}

/// What went wrong with a copy that was taken.
fn behind_the_copy(error: StoreError) -> StoreError {
    match error {
        StoreError::Unfinished { why, .. } => *why,
        error => panic!("{error:?}"),
    }
}

fn puts(backend: &Misbehaving) -> Vec<Received> {
    backend.requests().into_iter().filter(|request| request.method == "PUT").collect()
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
        a.will_once_on("GET", shows(ACL));
        b.will_once_on("GET", shows(OTHER_ACL));
        b.will_once_on("GET", shows(ACL));
        b.will_once_on("PUT", Behaviour::good());
        b.will_once_on("PUT", Behaviour::answers(200));
        copy(&stores, "k", &a, &b, &open()).await.unwrap();
        let puts = puts(&b);
        assert_eq!(puts.len(), 2);
        assert_eq!(puts[0].header("x-amz-tagging"), Some("a=&z=1%20%26%202"));
        assert_eq!(puts[1].target, "/bucket/k?acl");
        assert_eq!(puts[1].body.as_deref(), Some(ACL.as_bytes()));
        assert!(puts[1].header("content-md5").is_some());
    });
}

#[test]
fn a_target_gets_an_acl_only_if_it_has_another_one() {
    run(async {
        let object = noise(2 * MIB);
        let kept = Answer::new(200).body(OTHER_ACL);
        let cases = [
            (vec![Answer::new(200).body(ACL)], 1, None),
            (vec![Answer::error(501, "NotImplemented")], 1, Some("501 to GET")),
            // It does not know the question: what is written there would be the object.
            (vec![Answer::new(200).body("the object")], 1, Some("something else")),
            (vec![Answer::new(200).body(object)], 1, Some("something else")),
            (vec![kept.clone(), kept], 2, Some("does not keep the ACL as it was set")),
        ];
        for (answers, expected, refused) in cases {
            let (a, b) = crate::fixture::pair().await;
            a.holds("/bucket/k", "body");
            a.will_once_on("GET", shows("<Tagging><TagSet/></Tagging>"));
            a.will_once_on("GET", Behaviour::good());
            a.will_once_on("GET", shows(ACL));
            for answer in answers {
                b.will_once_on("GET", Behaviour::answers(answer));
            }
            b.will_once_on("PUT", Behaviour::good());
            b.will_once_on("PUT", Behaviour::answers(200));
            let stores = stores(&[&a, &b], Settings { copy_acl: true, ..Settings::default() });
            let copied = copy(&stores, "k", &a, &b, &open()).await;
            assert_eq!(puts(&b).len(), expected, "{copied:?}");
            let error = copied.err().map(behind_the_copy);
            let is_refused =
                |why: &str| matches!(&error, Some(StoreError::Refused(said)) if said.contains(why));
            assert!(refused.map_or(error.is_none(), is_refused), "{error:?}");
        }
    });
}

#[test]
fn what_has_replaced_a_copy_does_not_get_its_acl() {
    run(async {
        for is_replaced in [true, false] {
            let (a, b) = crate::fixture::pair().await;
            a.holds("/bucket/k", "body");
            let stores = stores(&[&a, &b], Settings { copy_acl: true, ..Settings::default() });
            a.will_once_on("GET", shows("<Tagging><TagSet/></Tagging>"));
            a.will_once_on("GET", Behaviour::good());
            a.will_once_on("GET", shows(ACL));
            b.will_once_on("GET", shows(OTHER_ACL));
            if is_replaced {
                // There is nothing yet.
                b.will_once_on("HEAD", Behaviour::good());
                let other = Answer::new(200).header("ETag", "\"other\"");
                let other = other.header("Last-Modified", "Fri, 24 May 2013 00:00:01 GMT").body("other");
                b.will_once_on("HEAD", Behaviour::answers(other));
            }
            // For the one change of the copy itself, and one more.
            let gate = Turnstile(std::sync::atomic::AtomicUsize::new(if is_replaced { 2 } else { 1 }));
            let error = copy(&stores, "k", &a, &b, &gate).await.unwrap_err();
            assert!(matches!(behind_the_copy(error), StoreError::Changed(_)));
            assert_eq!(puts(&b).len(), 1);
        }
    });
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
            assert_eq!(copied.err().map(behind_the_copy), (!keeps).then_some(refused));
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
            let refused = StoreError::Refused(format!("{} does not keep tags", b.url()));
            assert_eq!(behind_the_copy(error), refused);
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
        // Storages would take the object away.
        for name in ["acl", "legal-hold", "retention"] {
            let refused = stores.set_attribute(&url, &k, name, None).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{name}: {refused:?}");
        }
        assert_eq!(m.requests().iter().filter(|request| request.method == "DELETE").count(), 1);
        m.will_once_on("PUT", Behaviour::resets(Phase::AfterBody));
        let lost = stores.set_attribute(&url, &k, "tagging", Some(b"<t/>")).await;
        assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    });
}

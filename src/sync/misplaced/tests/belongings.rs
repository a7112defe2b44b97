//! What belongs to an object beside its bytes, and is not deleted with it elsewhere.

use super::*;

#[tokio::test(start_paused = true)]
async fn tags_that_home_does_not_have_stay_with_what_they_belong_to() {
    let world = world().await;
    let tags = |backend, value| world.stores.describe(backend, "tagging", value);
    world.stores.put(C, "key", "text", EPOCH);
    world.stores.put(A, "key", "text", EPOCH + 50_000);
    tags(C, "tags");
    tags(A, "tags");
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["parked"]);
    assert!(world.last().why.contains("has another ?tagging than http://b:80"), "{:?}", world.last());
    assert_eq!(there_are(&world), [true, true, true]);
    tags(B, "tags");
    let object = world.last().object;
    assert!(world.journal.retry(&object).await.unwrap());
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(there_are(&world), [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_home_does_not_have_stays_with_what_it_belongs_to() {
    let on = "<LegalHold><Status>ON</Status></LegalHold>";
    let until = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>9999-01-01T00:00:00Z</RetainUntilDate></Retention>";
    for (name, lock) in [("legal-hold", on), ("retention", until)] {
        let world = world().await;
        world.stores.put(C, "key", "text", EPOCH);
        world.stores.describe(C, name, lock);
        assert_eq!(world.once().await, Ended::Done { left: true });
        let why = format!("{C} has another ?{name} than {A}, and the same bytes");
        assert_eq!((world.last().outcome, world.last().why), ("parked", why));
        assert_eq!(there_are(&world), [true, true, true]);
        for backend in [A, B] {
            world.stores.describe(backend, name, lock);
        }
        let object = world.last().object;
        assert!(world.journal.retry(&object).await.unwrap());
        assert_eq!(world.once().await, Ended::Done { left: false });
        assert_eq!(there_are(&world), [true, true, false]);
    }
}

#[tokio::test(start_paused = true)]
async fn where_what_belongs_to_it_may_not_be_looked_for_nothing_is_deleted() {
    for name in ["tagging", "acl", "legal-hold", "retention"] {
        let mut world = world().await;
        world.copy_acl = true;
        world.stores.put(C, "key", "text", EPOCH);
        world.stores.hidden.lock().unwrap().insert((C, name));
        assert_eq!(world.once().await, Ended::Done { left: true });
        assert_eq!((world.last().outcome, there_are(&world)), ("parked", [true, true, true]), "{name}");
        assert!(world.last().why.contains(&format!("?{name} may not be read")), "{:?}", world.last());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_may_not_be_looked_for_says_nothing_of_the_backend() {
    let mut world = world().await;
    (world.concurrency, world.per_backend) = (9, 9);
    world.stores.hidden.lock().unwrap().insert((C, "legal-hold"));
    world.stores.put(C, "key", "text", EPOCH);
    for number in 1..9 {
        let key = format!("key{number}");
        world.stores.put(C, &key, "text", EPOCH);
        let absent = [A, B].map(|backend| (backend, Said::NotApplied));
        world.record(&key, What::Misplaced("old".into()), &absent).await;
    }
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["parked"; 9], "{:?}", world.last());
    assert!(world.last().why.contains("?legal-hold may not be read"), "{:?}", world.last());
}

#[tokio::test(start_paused = true)]
async fn an_acl_is_left_behind_only_where_none_is_copied() {
    for copy_acl in [false, true] {
        let mut world = world().await;
        world.copy_acl = copy_acl;
        world.stores.put(C, "key", "text", EPOCH);
        world.stores.describe(C, "acl", "acl");
        world.once().await;
        assert_eq!(there_are(&world), [true, true, copy_acl], "{:?}", world.last());
    }
}

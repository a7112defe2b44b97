//! Backends that take what a repair sends and do not keep it as it was.

use super::super::{
    fixture::{A, B, EPOCH, World},
    worker::Ended,
};
use crate::journal::{Said, What};

fn good() -> Said {
    Said::Good { etag: None, version: None }
}

/// An object on both backends, and a record of an ACL that only "a" took.
async fn with_acl() -> World {
    let world = World::new();
    for backend in [A, B] {
        world.stores.put(backend, "key", "text", EPOCH - 60_000);
    }
    world.stores.attributes.lock().unwrap().insert(A.into(), b"acl".to_vec());
    world.record("key", What::Attribute("acl".into()), &[(A, good()), (B, Said::NotApplied)]).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_sub_resource_goes_to_a_backend_that_has_not_taken_it() {
    let world = with_acl().await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((world.outcomes(), world.last().changed), (vec!["resolved"], 1));
    assert_eq!(world.stores.attributes.lock().unwrap().get(B).map(Vec::as_slice), Some(b"acl".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_tells_a_sub_resource_in_other_words_is_told_it_once() {
    let world = with_acl().await;
    world.stores.careless.lock().unwrap().insert(B.into());
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["parked"]);
    assert_eq!(world.last().why, format!("{B} does not keep ?acl as it was set"));
    // It was asked once for the object, and told once.
    assert_eq!(world.stores.asked(B), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_keep_metadata_gets_one_copy() {
    let mut world = World::new();
    world.strong = false;
    world.stores.put(A, "key", "text", EPOCH - 1_000);
    world.stores.describe(A, "key", &[("cache-control", "no-store"), ("content-type", "text/plain")]);
    world.stores.careless.lock().unwrap().insert(B.into());
    let etag = world.stores.holds(A, "key").map(|held| held.etag);
    // Both writes have the same bytes; "b" lost them, and what it has then is by its ETag of the first.
    let here = Said::Good { etag, version: None };
    let there = Said::Good { etag: Some("lost".into()), version: None };
    world.record("key", What::Put, &[(A, here.clone()), (B, Said::NotApplied)]).await;
    world.record("key", What::Put, &[(A, here), (B, there)]).await;
    assert_eq!(world.once().await, Ended::Done { left: true });
    assert_eq!(world.outcomes(), ["parked"]);
    assert_eq!(
        world.last().why,
        format!("{B} does not keep what is copied there, see cache-control, content-type")
    );
    assert_eq!(world.stores.holds(B, "key").map(|held| held.metadata), Some(vec![]));
}

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

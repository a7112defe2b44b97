//! Backends that take what a repair sends and do not keep it as it was.

use std::sync::atomic::Ordering::Relaxed;

use super::super::{
    fixture::{A, B, EPOCH, SETTLE, World},
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
    world.stores.describe(A, "acl", "acl");
    world.record("key", What::Attribute("acl".into()), &[(A, good()), (B, Said::NotApplied)]).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_sub_resource_goes_to_a_backend_that_has_not_taken_it() {
    let world = with_acl().await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((world.outcomes(), world.last().changed), (vec!["resolved"], 1));
    assert_eq!(world.stores.described(B, "acl").as_deref(), Some("acl"));
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

/// The same text on both, and a PUT of it that "b" has missed; tags differ.
async fn with_tags(a: Said, b: Said) -> World {
    let world = World::new();
    for backend in [A, B] {
        world.stores.put(backend, "key", "text", EPOCH - 1_000);
    }
    world.stores.describe(A, "tagging", "new");
    world.stores.describe(B, "tagging", "old");
    world.record("key", What::Put, &[(A, a), (B, b)]).await;
    world
}

fn tags_of(world: &World, backend: &str) -> String {
    world.stores.described(backend, "tagging").unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_missed_a_write_of_the_same_bytes_gets_its_tags() {
    let world = with_tags(good(), Said::NotApplied).await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!((world.outcomes(), world.last().changed), (vec!["resolved"], 1));
    assert_eq!(tags_of(&world, B), "new");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_knows_whose_tags_are_newer_nobody_gets_other_ones() {
    let world = with_tags(Said::NotApplied, Said::Unknown).await;
    world.ahead.store(SETTLE.as_millis() as i64, Relaxed);
    world.once().await;
    assert_eq!((tags_of(&world, A), tags_of(&world, B)), ("new".into(), "old".into()));
    assert_eq!(world.outcomes(), ["parked"]);
    assert_eq!(world.last().why, "nothing tells on which backend ?tagging is newer");
}

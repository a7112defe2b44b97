//! Backends that take what a repair sends and do not keep it as it was.

use tokio::time::sleep;

use super::{
    super::{
        fixture::{A, B, C, EPOCH, SETTLE, Unheard, World},
        worker::Ended,
    },
    *,
};
use crate::{
    journal::{Said, fixture::Behind},
    topology::fixture,
};

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

const D: &str = "http://d:80";

/// A write that only "a" took, and an ACL that only "b" did.
async fn with_the_acl_of_a_target(hosts: &[&str]) -> World {
    let world =
        World::over(vec![fixture::cluster("main", hosts)], vec![fixture::region("r", &[("main", 1.0)], &[])]);
    let names: Vec<String> = hosts.iter().map(|host| format!("http://{host}:80")).collect();
    for name in &names {
        world.stores.put(name, "key", if name == A { "new" } else { "old" }, EPOCH - 60_000);
    }
    let etag = world.stores.holds(A, "key").map(|held| held.etag);
    let took = Said::Good { etag, version: None };
    let by = |only: &str, said: &Said| -> Vec<(&str, Said)> {
        let said = |name: &str| if name == only { said.clone() } else { Said::NotApplied };
        names.iter().map(|name| (name.as_str(), said(name))).collect()
    };
    world.record("key", What::Put, &by(A, &took)).await;
    world.stores.describe(B, "acl", "acl");
    world.record("key", What::Attribute("acl".into()), &by(B, &good())).await;
    world
}

fn etag_of(world: &World, backend: &str) -> String {
    world.stores.holds(backend, "key").unwrap().etag
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_costs_no_other_its_last_word() {
    let world = with_the_acl_of_a_target(&["a", "b", "c"]).await;
    world.stores.denied.lock().unwrap().insert((C, "key"));
    world.once().await;
    assert_eq!(world.last().outcome, "failed");
    world.stores.denied.lock().unwrap().clear();
    sleep(SETTLE).await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    for backend in [A, B, C] {
        assert_eq!(etag_of(&world, backend), etag_of(&world, A));
        assert_eq!(world.stores.described(backend, "acl").as_deref(), Some("acl"), "{backend}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_copied_to_gets_the_acl_though_another_target_fails() {
    let world = with_the_acl_of_a_target(&["a", "b", "c", "d"]).await;
    world.stores.denied.lock().unwrap().insert((D, "key"));
    world.once().await;
    assert_eq!(etag_of(&world, C), etag_of(&world, A));
    assert_eq!(world.stores.described(C, "acl").as_deref(), Some("acl"));
}

#[tokio::test(start_paused = true)]
async fn an_acl_that_did_not_follow_its_copy_follows_later() {
    let mut world = World::new();
    world.copy_acl = true;
    world.missed_by_b("key").await;
    world.stores.describe(A, "acl", "acl");
    world.stores.unheard.lock().unwrap().insert(B, Unheard::Done);
    world.once().await;
    assert_eq!((world.outcomes(), world.stores.described(B, "acl")), (vec!["failed"], None));
    sleep(2 * SETTLE).await;
    assert_eq!(world.once().await, Ended::Done { left: false });
    assert_eq!(world.stores.described(B, "acl").as_deref(), Some("acl"));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_cut_and_of_which_nobody_heard_does_not_win() {
    let world = World::new();
    world.missed_by_b("key").await;
    let whole = world.stores.holds(A, "key");
    world.ahead.store(SETTLE.as_millis() as i64 * 2, Relaxed);
    world.stores.unheard.lock().unwrap().insert(B, Unheard::Cut);
    world.once().await;
    assert_eq!(world.stores.holds(B, "key").unwrap().etag, "cut");
    sleep(2 * SETTLE).await;
    world.once().await;
    assert_eq!((world.last().outcome, world.stores.holds(A, "key")), ("parked", whole));
}

#[test]
fn what_may_still_happen_is_waited_for_whatever_came_after_it() {
    let unknown = || StoreError::Unknown("no answer".into());
    let behind = StoreError::Unfinished { etag: None, why: Box::new(unknown()) };
    let later = Later::failed(Duration::from_secs(5));
    for error in [unknown(), behind] {
        let attempt = Attempt::default();
        attempt.note::<()>(&Err(error));
        attempt.note(&Ok(()));
        let waits = Later { pause: SETTLE, calm: true, unseen: true, ..later };
        assert_eq!(attempt.postponed(later, SETTLE), waits);
        assert_eq!(attempt.set_aside(None, SETTLE), Some(SETTLE));
    }
    let attempt = Attempt::default();
    attempt.note::<()>(&Err(StoreError::Changed("it changed".into())));
    assert_eq!((attempt.postponed(later, SETTLE), attempt.set_aside(None, SETTLE)), (later, None));
    attempt.note(&Ok(()));
    assert_eq!(attempt.postponed(later, SETTLE), Later { unseen: true, ..later });
    assert_eq!(attempt.set_aside(None, SETTLE), Some(Duration::ZERO));
}

/// Open once the journal has shown so many objects.
pub(in crate::sync) struct After<'a>(pub &'a Behind, pub usize);

#[async_trait]
impl Gate for After<'_> {
    async fn may_go_on(&self) -> bool {
        self.0.shown.load(Relaxed) == self.1
    }
}

/// The journal of a world as it is asked by one who counts.
pub(in crate::sync) fn counted(world: &World) -> Behind {
    Behind { memory: std::sync::Mutex::new(world.journal.clone()), ..Behind::default() }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_looked_at_behind_the_journals_answer() {
    let world = World::new();
    world.missed_by_b("key").await;
    let case = world.journal.list(&Default::default(), None, 1).await.unwrap().remove(0);
    let journal = counted(&world);
    let (gate, seen) = (After(&journal, 1), case.ids());
    let gate = Undisturbed { journal: &journal, gate: &gate, object: &case.object, seen: &seen };
    assert!(gate.may_go_on().await);
}

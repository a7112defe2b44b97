//! The line of an object, and who missed its last write.

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn object() -> Object {
    Object::from(b"/bucket/key".as_slice())
}

fn enter(order: &Arc<Order>, object: &Object, backends: &[BackendId]) -> Vec<Ticket> {
    order.enter(object, backends.iter().map(|id| (*id, Arc::default())).collect()).1
}

#[tokio::test(start_paused = true)]
async fn a_later_write_waits_for_the_earlier_one_on_the_same_backend() {
    let order = Order::new();
    let mut first = enter(&order, &object(), &[0, 1]);
    let mut second = enter(&order, &object(), &[0, 1]);
    first[0].turn(PATIENCE, None).await;
    drop(first.remove(0));
    second[0].turn(PATIENCE, None).await;
    let waits = tokio::time::timeout(Duration::from_secs(1), second[1].turn(PATIENCE, None)).await;
    assert!(waits.is_err(), "the write before it on backend 1 has not ended");
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_the_earlier_write_is_aborted() {
    let order = Order::new();
    let first = enter(&order, &object(), &[0]).remove(0);
    let mut second = enter(&order, &object(), &[0]).remove(0);
    let started = tokio::time::Instant::now();
    let earlier = tokio::spawn(async move {
        first.place.aborted.wait().await;
        drop(first);
    });
    second.turn(PATIENCE, None).await;
    assert!(started.elapsed() >= PATIENCE);
    earlier.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_its_turn_does_not_let_the_next_one_overtake() {
    let order = Order::new();
    let first = enter(&order, &object(), &[0]);
    let second = enter(&order, &object(), &[0]);
    let mut third = enter(&order, &object(), &[0]);
    drop(second);
    let waits = tokio::time::timeout(Duration::from_secs(1), third[0].turn(PATIENCE, None)).await;
    assert!(waits.is_err(), "the first write has not ended");
    drop(third);
    let mut fourth = enter(&order, &object(), &[0]);
    drop(first);
    let started = tokio::time::Instant::now();
    fourth[0].turn(PATIENCE, None).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn two_that_leave_before_their_turn_do_not_let_the_next_one_overtake() {
    let order = Order::new();
    let _first = enter(&order, &object(), &[0]);
    let second = enter(&order, &object(), &[0]);
    let third = enter(&order, &object(), &[0]);
    let mut fourth = enter(&order, &object(), &[0]);
    drop(second);
    drop(third);
    let waits = tokio::time::timeout(Duration::from_secs(1), fourth[0].turn(PATIENCE, None)).await;
    assert!(waits.is_err(), "the first write has not ended");
    drop(fourth);
    assert_eq!(order.lagging(&object()).all().collect::<Vec<_>>(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_named_twice_does_not_wait_for_itself() {
    let order = Order::new();
    let mut tickets = enter(&order, &object(), &[0, 0]);
    let started = tokio::time::Instant::now();
    tickets[1].turn(PATIENCE, None).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    drop(tickets);
    assert!(order.lagging(&object()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn other_objects_and_other_backends_do_not_wait() {
    let order = Order::new();
    let _first = enter(&order, &object(), &[0]);
    enter(&order, &object(), &[1])[0].turn(PATIENCE, None).await;
    enter(&order, &Object::from(b"/bucket/other".as_slice()), &[0])[0].turn(PATIENCE, None).await;
}

#[test]
fn nothing_is_left_when_all_tickets_are_gone() {
    let order = Order::new();
    let first = enter(&order, &object(), &[0, 1]);
    let second = enter(&order, &object(), &[0]);
    assert_eq!(order.lagging(&object()).all().collect::<Vec<_>>(), [0, 1]);
    drop(second);
    drop(first);
    assert!(order.lagging(&object()).is_empty());
    assert_eq!(order.entries.load(Relaxed), 0);
}

#[test]
fn a_backend_that_missed_the_last_write_lags_until_it_has_a_later_one() {
    let order = Order::new();
    order.missed(&object(), 1, 7);
    assert_eq!(order.lagging(&object()).all().collect::<Vec<_>>(), [1]);
    order.took(&object(), 1, 8);
    assert!(order.lagging(&object()).is_empty());
    assert_eq!(order.entries.load(Relaxed), 0);
}

#[test]
fn an_earlier_write_that_ends_late_does_not_make_up_for_a_later_one_that_was_missed() {
    let order = Order::new();
    for number in [8, 3] {
        order.missed(&object(), 1, number);
        order.took(&object(), 1, 7);
        assert_eq!(order.lagging(&object()).missed, [(1, 8)], "8 is missed, and 7 is before it");
    }
    order.took(&object(), 1, 9);
    assert!(order.lagging(&object()).is_empty());
}

#[test]
fn what_was_made_up_for_does_not_count_and_what_was_missed_since_does() {
    let order = Order::new();
    order.missed(&object(), 1, 7);
    order.missed(&object(), 2, 7);
    order.missed(&object(), 2, 9);
    for backend in [1, 2] {
        order.made_up(&object(), backend, 7);
    }
    assert_eq!(order.lagging(&object()).missed, [(2, 9)]);
    order.made_up(&object(), 2, 9);
    assert!(order.lagging(&object()).is_empty());
    assert_eq!(order.entries.load(Relaxed), 0);
}

#[test]
fn that_a_write_was_missed_is_no_news_where_a_later_one_is_taken_by_then() {
    let order = Order::new();
    let enter = |backends: &[BackendId]| {
        order.enter(&object(), backends.iter().map(|id| (*id, Arc::default())).collect())
    };
    let (first, tickets) = enter(&[0]);
    let (second, later) = enter(&[0, 1]);
    order.took(&object(), 1, second.number());
    // Nothing of it is in line any more, and the first one is through: now it is known that 1 was to have it.
    drop((tickets, later));
    order.missed(&object(), 1, first.number());
    assert!(order.lagging(&object()).is_empty());
    order.missed(&object(), 0, second.number());
    assert_eq!(order.lagging(&object()).missed, [(0, second.number())]);
    order.took(&object(), 0, second.number() + 1);
    drop((first, second));
    assert!(order.shard(&object()).lines.is_empty());
    assert_eq!(order.entries.load(Relaxed), 0);
}

#[test]
fn the_table_of_missed_writes_is_bounded() {
    let order = Order::new();
    for n in 0..MISSED_MOST * 2 {
        order.missed(&Object::from(format!("/b/{n}").as_bytes()), 0, 1);
    }
    assert!(order.entries.load(Relaxed) <= MISSED_MOST);
    let last = format!("/b/{}", MISSED_MOST * 2 - 1);
    assert_eq!(order.lagging(last.as_bytes()).all().collect::<Vec<_>>(), [0]);
}

//! One row per rule: records and states in, decision out.

mod attributes;
mod late;
mod tags;

use super::{content::md5_of, *};
use crate::{
    journal::{Intent, Object, WriteId},
    sync::Held,
};

pub const BOUNDS: Bounds = Bounds { clocks: 5_000, settle: 30_000 };

pub fn known(records: &[Record]) -> Known<'_> {
    Known { records, ..Known::default() }
}
pub const A: &str = "http://a:80";
pub const B: &str = "http://b:80";
pub const C: &str = "http://c:80";

pub fn md5(content: u8) -> String {
    format!("{content:02x}").repeat(16)
}

pub fn held(content: u8, modified: i64) -> Held {
    let etag = md5(content);
    Held {
        md5: md5_of(&etag),
        etag,
        version: None,
        modified,
        length: 10,
        object_version: None,
        metadata: Vec::new(),
    }
}

fn has(content: u8, modified: i64) -> State {
    State::Present(held(content, modified))
}

fn states(all: &[(&str, State)]) -> Vec<(String, State)> {
    all.iter().map(|(name, state)| ((*name).to_owned(), state.clone())).collect()
}

pub fn good(content: u8) -> Said {
    Said::Good { etag: Some(format!("\"{}\"", md5(content))), version: None }
}

pub fn deleted() -> Said {
    Said::Good { etag: None, version: None }
}

/// A write of gateway 1, number and commit alike, that lasted a second from `begun`.
pub fn record(number: i64, what: What, begun: i64, replies: &[(&str, Said)]) -> Record {
    let object = Object { cluster: "main".into(), bucket: b"b".to_vec(), key: b"k".to_vec() };
    Record {
        intent: Intent {
            id: WriteId { gateway: 1, number },
            object,
            what,
            region: "r".into(),
            req_id: String::new(),
            length: Some(10),
            begun,
            strong: false,
            turn: None,
        },
        commit: Some(number),
        turn: None,
        ended: begun + 1_000,
        replies: replies.iter().map(|(name, said)| ((*name).to_owned(), said.clone())).collect(),
    }
}

pub fn by_gateway(gateway: i64, mut record: Record) -> Record {
    record.intent.id.gateway = gateway;
    record
}

pub fn strong(mut record: Record) -> Record {
    record.intent.strong = true;
    record
}

fn copy(source: &str, targets: &[&str]) -> Decision {
    Decision::Copy { source: source.into(), targets: names(targets), attributes: Vec::new() }
}

fn delete(targets: &[&str]) -> Decision {
    Decision::Delete { targets: names(targets) }
}

fn names(all: &[&str]) -> Vec<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

fn agreed() -> Decision {
    Decision::Agreed { attributes: Vec::new() }
}

fn one(record: &Record) -> &[Record] {
    std::slice::from_ref(record)
}

#[track_caller]
fn check(records: &[Record], all: &[(&str, State)], expected: Decision) {
    assert_eq!(decide(known(records), &states(all), BOUNDS), expected);
}

#[track_caller]
fn parked(records: &[Record], all: &[(&str, State)], part: &str) {
    match decide(known(records), &states(all), BOUNDS) {
        Decision::Park(reason) if reason.contains(part) => {}
        other => panic!("{other:?}"),
    }
}

pub const T: i64 = 1_000_000;
pub const LATER: i64 = T + 100_000;

#[test]
fn a_backend_that_took_the_newest_write_and_holds_it_is_the_source() {
    let put = record(1, What::Put, T, &[(A, good(2)), (B, Said::NotApplied)]);
    check(one(&put), &[(A, has(2, T)), (B, has(1, T - 9))], copy(A, &[B]));
    check(one(&put), &[(A, has(2, T)), (B, State::Absent)], copy(A, &[B]));
    check(one(&put), &[(A, has(2, T)), (B, has(2, LATER))], agreed());
    let newer = record(2, What::Put, T, &[(A, Said::NotApplied), (B, good(3))]);
    check(&[newer, put], &[(A, has(2, T)), (B, has(3, T))], copy(B, &[A]));
}

#[test]
fn an_older_write_that_came_late_does_not_win() {
    let lost = record(1, What::Put, T, &[(A, good(1)), (B, Said::Unknown)]);
    let newer = record(2, What::Put, T + 2_000, &[(A, good(2)), (B, good(2))]);
    check(&[lost.clone(), newer], &[(A, has(2, T)), (B, has(1, LATER))], copy(A, &[B]));
    let gone = record(2, What::Delete, T + 2_000, &[(A, deleted()), (B, deleted())]);
    check(&[lost, gone], &[(A, State::Absent), (B, has(1, LATER))], delete(&[B]));
}

#[test]
fn a_recorded_delete_is_carried_out_and_nothing_else_deletes() {
    let gone = record(1, What::Delete, T, &[(A, deleted()), (B, Said::NotApplied)]);
    check(one(&gone), &[(A, State::Absent), (B, has(1, T - 100))], delete(&[B]));
    check(one(&gone), &[(A, State::Absent), (B, State::Absent)], agreed());
    // In another cluster it was deleted; here every backend was away.
    let missed = [(A, Said::NotApplied), (B, Said::NotApplied), ("http://other:80", deleted())];
    let missed = record(1, What::Delete, T, &missed);
    check(&[missed], &[(A, has(1, T - 100)), (B, has(1, T - 100))], delete(&[A, B]));
    // Refused by one, and the other may not have heard of it: nobody was told that it was done.
    let refused = record(1, What::Delete, T, &[(A, Said::NotApplied), (B, Said::Unknown)]);
    check(one(&refused), &[(A, has(1, T - 100)), (B, has(1, T - 100))], agreed());
    check(one(&refused), &[(A, has(1, T - 100)), (B, State::Absent)], copy(A, &[B]));
    // Its gateway died, and its client may have been told.
    let orphan = record(1, What::Delete, T, &[]);
    check(one(&orphan), &[(A, has(1, T - 100)), (B, State::Absent)], delete(&[A]));
    // Absent without a DELETE: lost, or never had.
    let put = record(1, What::Put, T, &[(A, good(1)), (B, Said::Unknown)]);
    check(&[put], &[(A, State::Absent), (B, has(1, T))], copy(B, &[A]));
    let seen = record(1, What::Seen, T, &[(A, deleted()), (B, Said::NotApplied)]);
    check(&[seen], &[(A, has(1, T)), (B, State::Absent)], copy(A, &[B]));
    // A copy that a worker made while it was deleted, or a write of which nobody knows: either would be a guess.
    let all_gone = record(1, What::Delete, T, &[(A, deleted()), (B, deleted())]);
    parked(one(&all_gone), &[(A, State::Absent), (B, has(1, T + 500))], "it was deleted");
    check(one(&all_gone), &[(A, State::Absent), (B, has(1, LATER))], copy(B, &[A]));
    // Written again after the DELETE, by whom nobody knows.
    check(&[gone], &[(A, State::Absent), (B, has(1, LATER))], copy(B, &[A]));
}

#[test]
fn a_put_after_a_delete_wins() {
    let gone = record(1, What::Delete, T, &[(A, deleted()), (B, Said::NotApplied)]);
    let put = record(2, What::Put, T + 10, &[(A, good(2)), (B, Said::NotApplied)]);
    check(&[gone, put], &[(A, has(2, T)), (B, has(1, T - 100))], copy(A, &[B]));
}

#[test]
fn a_write_whose_outcome_nobody_knows_is_told_by_time_or_left_to_a_human() {
    let lost = record(1, What::Put, T, &[(A, Said::Unknown), (B, Said::NotApplied)]);
    check(one(&lost), &[(A, has(2, T)), (B, has(1, T - 100_000))], copy(A, &[B]));
    check(one(&lost), &[(A, has(1, T - 100_000)), (B, has(1, T - 100_000))], agreed());
    check(one(&lost), &[(A, has(2, T)), (B, State::Absent)], copy(A, &[B]));
    // B has what was there before, and A something else: the write.
    check(&[lost], &[(A, has(2, T)), (B, has(1, T - 1_000))], copy(A, &[B]));
    let unknown = record(1, What::Put, T, &[]);
    parked(&[unknown], &[(A, has(2, T)), (B, has(1, T - 1_000))], "nothing tells");
}

#[test]
fn writes_through_two_gateways_are_ordered_by_more_than_their_clocks_may_differ() {
    let one = record(1, What::Put, T, &[(A, good(1)), (B, good(1))]);
    let far = by_gateway(2, record(1, What::Put, T + 20_000, &[(A, good(2)), (B, good(2))]));
    check(&[one.clone(), far], &[(A, has(2, T)), (B, has(1, T))], copy(A, &[B]));
    let near = by_gateway(2, record(1, What::Put, T + 2_000, &[(A, good(2)), (B, good(2))]));
    parked(&[one.clone(), near.clone()], &[(A, has(2, T)), (B, has(1, T))], "nothing tells");
    check(&[one.clone(), near.clone()], &[(A, has(2, T)), (B, has(2, T))], agreed());
    let version =
        |content, version| State::Present(Held { object_version: Some(version), ..held(content, T) });
    check(&[one, near], &[(A, version(2, 7)), (B, version(1, 8))], copy(B, &[A]));
}

#[test]
fn the_journal_itself_orders_writes_whose_gateway_died() {
    let mut orphan = record(1, What::Put, T, &[]);
    (orphan.commit, orphan.ended, orphan.turn) = (None, T + 60_000, Some(7));
    let mut next = by_gateway(2, strong(record(1, What::Put, T + 500, &[(A, good(2)), (B, good(2))])));
    parked(&[orphan.clone(), next.clone()], &[(A, has(2, T)), (B, has(1, T))], "nothing tells");
    next.intent.turn = Some(8);
    check(&[orphan, next], &[(A, has(2, T)), (B, has(1, T))], copy(A, &[B]));
}

#[test]
fn what_was_acknowledged_and_is_nowhere_is_not_replaced_by_what_is_older() {
    let put = record(1, What::Put, T, &[(A, good(2)), (B, Said::NotApplied)]);
    parked(&[put], &[(A, State::Absent), (B, has(1, T - 100_000))], "took a newer write");
}

#[test]
fn what_is_certain_does_not_wait_for_a_backend_that_is_away() {
    let put = record(1, What::Put, T, &[(A, good(2)), (B, Said::NotApplied), (C, Said::NotApplied)]);
    let away = || State::Unknown("c: refused".into());
    check(one(&put), &[(A, has(2, T)), (B, State::Absent), (C, away())], copy(A, &[B]));
    let wait = Decision::Wait("c: refused".into());
    check(one(&put), &[(A, has(2, T)), (B, has(2, T)), (C, away())], wait.clone());
    // The one that took it is away.
    check(
        &[put],
        &[(A, away()), (B, has(1, T - 9)), (C, has(3, T - 9))],
        Decision::Wait("c: refused".into()),
    );
    let gone = record(1, What::Delete, T, &[(A, deleted())]);
    check(&[gone], &[(A, State::Absent), (B, State::Absent), (C, away())], wait);
}

#[test]
fn contents_whose_tags_cannot_be_compared_are_read() {
    let multipart = |length| State::Present(Held { etag: "abc-2".into(), md5: None, length, ..held(1, T) });
    let seen = record(1, What::Seen, T, &[(A, deleted()), (C, Said::NotApplied)]);
    let all = [(A, multipart(10)), (B, has(1, T)), (C, State::Absent)];
    check(one(&seen), &all, Decision::Digest(names(&[A])));
    parked(&[seen], &[(A, multipart(11)), (B, has(1, T)), (C, State::Absent)], "nothing tells");
    // An encrypted object's ETag looks like a digest and is none.
    let encrypted = State::Present(Held { md5: None, ..held(7, T) });
    let put = record(1, What::Put, T, &[(A, good(7)), (B, Said::Unknown), (C, Said::NotApplied)]);
    let all = [(A, encrypted), (B, has(1, T)), (C, State::Absent)];
    check(&[strong(put)], &all, Decision::Digest(names(&[A])));
    // Each holds what it took.
    let said = |etag: &str| Said::Good { etag: Some(etag.into()), version: None };
    let put = record(1, What::Put, T, &[(A, said("abc-2")), (B, good(1)), (C, Said::NotApplied)]);
    let all = [(A, multipart(10)), (B, has(1, T)), (C, State::Absent)];
    check(&[put], &all, copy(A, &[C]));
}

#[test]
fn metadata_alone_is_not_told_by_time() {
    let seen = record(1, What::Seen, T, &[(A, deleted()), (B, Said::NotApplied)]);
    let other = Held { metadata: vec![("expires".into(), "0".into())], ..held(1, LATER) };
    parked(&[seen], &[(A, has(1, T)), (B, State::Present(other))], "nothing tells");
}

#[test]
fn good_replies_that_disagree_are_for_a_human() {
    let put = record(1, What::Put, T, &[(A, good(1)), (B, good(2))]);
    let mut put = strong(put);
    parked(one(&put), &[(A, has(1, T)), (B, has(2, T))], "nothing tells");
    // Of a copy the slower one need not have had the newer source.
    put.ended = T + 20_000;
    parked(&[put], &[(A, has(1, T)), (B, has(2, T + 15_000))], "nothing tells");
}

#[test]
fn what_cannot_be_brought_to_another_backend_is_for_a_human() {
    parked(&[record(1, What::Bucket("PUT".into()), T, &[])], &[], "PUT of a bucket");
    parked(&[record(1, What::Version("DELETE".into()), T, &[])], &[], "DELETE of one version");
    parked(&[record(1, What::Attribute("restore".into()), T, &[])], &[], "?restore: only ?acl");
}

#[test]
fn what_contradicts_itself_is_no_order() {
    let turned = |number, begun, content, turns: (i64, i64)| {
        let replies = [(A, good(content)), (B, good(content))];
        let mut record = by_gateway(number, record(1, What::Put, begun, &replies));
        (record.intent.turn, record.turn) = (Some(turns.0), Some(turns.1));
        record
    };
    // By the journal this is the earlier one, by the clocks the later.
    let (one, other) = (turned(1, T + 50_000, 1, (1, 2)), turned(2, T, 2, (3, 4)));
    let order = Order::new(&[&one, &other], BOUNDS.clocks);
    assert!(!order.before(0, 1) && !order.before(1, 0));
    parked(&[one, other], &[(A, has(1, T)), (B, has(2, T))], "nothing tells");
}

#[test]
fn order_goes_on_from_one_to_the_next() {
    let first = record(1, What::Put, T, &[(A, good(1))]);
    let by_other = by_gateway(2, record(1, What::Put, T + 20_000, &[(A, good(1))]));
    let last = by_gateway(2, record(2, What::Put, T, &[(A, good(1))]));
    let order = Order::new(&[&last, &first, &by_other], BOUNDS.clocks);
    assert!(order.before(1, 2) && order.before(2, 0) && order.before(1, 0) && !order.before(0, 1));
    assert!(order.is_newest(0) && !order.is_newest(1) && !order.is_newest(2));
}

#[test]
fn of_what_a_dead_gateway_had_under_way_the_greater_number_is_later() {
    let write = |number, begun, replies: &[(&str, Said)]| record(number, What::Put, begun, replies);
    let ended = |number, begun| Record { commit: None, ..write(number, begun, &[(A, Said::Unknown)]) };
    let orphan = |number, begun| Record::orphaned(write(number, begun, &[]).intent, T + 60_000);
    let order = |a: &Record, b: &Record| {
        let order = Order::new(&[a, b], BOUNDS.clocks);
        (order.before(0, 1), order.before(1, 0))
    };
    assert_eq!(order(&orphan(1, T), &orphan(2, T + 10)), (true, false));
    assert_eq!(order(&write(1, T, &[(A, Said::Unknown)]), &orphan(2, T)), (true, false));
    // Of another gateway nobody knows.
    assert_eq!(order(&orphan(1, T), &by_gateway(2, orphan(2, T + 10))), (false, false));
    // It had its number early, and began late.
    assert_eq!(order(&orphan(1, T + 5_000), &ended(2, T)), (false, true));
    let (mut one, mut other) = (orphan(1, T), orphan(2, T));
    (one.intent.turn, one.turn, other.intent.turn, other.turn) = (Some(5), Some(6), Some(3), Some(4));
    assert_eq!(order(&one, &other), (false, true));
}

/// Writes that the others have to be compared with one by one, and the time at which they are over.
fn many(count: usize) -> (Vec<Record>, i64) {
    let write = |number: i64| {
        let replies = [(A, good(1)), (B, Said::NotApplied)];
        by_gateway(number % 2, record(number, What::Put, T + 10 * number, &replies))
    };
    ((0..count as i64).map(write).collect(), T + 10 * count as i64)
}

#[test]
fn there_may_be_many_records_and_not_more() {
    let (records, end) = many(200);
    check(&records, &[(A, has(1, end)), (B, State::Absent)], copy(A, &[B]));
    let (records, end) = many(RECORDS_MOST + 1);
    parked(&records, &[(A, has(1, end)), (B, State::Absent)], "more than");
}

#[test]
#[ignore = "tells how long the longest decision takes, which means something in an optimised build only"]
fn the_most_records_are_decided_soon() {
    let (records, end) = many(RECORDS_MOST);
    let begun = std::time::Instant::now();
    check(&records, &[(A, has(1, end)), (B, State::Absent)], copy(A, &[B]));
    println!("{RECORDS_MOST} records: {:?}", begun.elapsed());
}

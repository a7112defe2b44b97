//! Rows about what comes late or is brought by a worker, and about backends that were not always there.

use super::*;

#[test]
fn a_write_that_may_have_come_late_over_an_acknowledged_one_is_for_a_human() {
    let mut failed = record(1, What::Put, T, &[(A, Said::Unknown), (B, Said::NotApplied)]);
    let by_other = |replies: &[(&str, Said)]| by_gateway(2, record(1, What::Put, T + 2_000, replies));
    let taken = by_other(&[(A, good(2)), (B, good(2))]);
    let all = [(A, has(1, LATER)), (B, has(2, T + 2_000))];
    parked(&[failed.clone(), taken.clone()], &all, "nothing tells");
    // Nobody holds it any more.
    let overwritten = by_other(&[(A, good(2)), (B, Said::NotApplied)]);
    let all = [(A, has(1, T + 4_000)), (B, has(3, T - 100_000))];
    parked(&[failed.clone(), overwritten], &all, "took a newer write");
    parked(
        &[failed.clone(), taken.clone()],
        &[(A, has(1, T + 4_000)), (B, has(1, T + 4_000))],
        "took a newer write",
    );
    let gone = by_gateway(2, record(1, What::Delete, T + 2_000, &[(A, deleted()), (B, deleted())]));
    parked(&[failed.clone(), gone], &[(A, has(1, T + 20_000)), (B, State::Absent)], "nothing tells");
    // It was there long before it was given up.
    failed.ended = T + 60_000;
    check(&[failed, taken], &[(A, has(1, T + 20_000)), (B, has(2, T + 2_000))], copy(A, &[B]));
}

#[test]
fn agreement_on_what_is_older_than_an_acknowledged_write_is_not_forgotten() {
    let put = record(1, What::Put, T, &[(A, good(2)), (B, Said::NotApplied)]);
    let both = |content, modified| [(A, has(content, modified)), (B, has(content, modified))];
    parked(one(&put), &both(1, T - 100_000), "took a newer write");
    check(one(&put), &both(3, LATER), agreed());
    // A storage may date an upload from its beginning.
    check(one(&put), &both(2, T - 100_000), agreed());
    let newer = record(2, What::Put, T + 2_000, &[(A, good(3)), (B, Said::NotApplied)]);
    check(&[put.clone(), newer], &both(3, T - 100_000), agreed());
    check(one(&put), &[(A, State::Absent), (B, State::Absent)], agreed());
    // What a worker deleted while the write was under way.
    let gone = record(0, What::Delete, T - 2_000, &[(A, deleted()), (B, Said::NotApplied)]);
    parked(&[gone, put], &[(A, State::Absent), (B, State::Absent)], "took a newer write");
}

#[test]
fn a_late_delete_of_which_nobody_knows_is_no_reason_to_forget_what_was_acknowledged() {
    let failed = record(1, What::Delete, T, &[(A, Said::Unknown), (B, Said::NotApplied)]);
    let put = record(2, What::Put, T + 2_000, &[(A, good(2)), (B, Said::NotApplied)]);
    let nothing = [(A, State::Absent), (B, State::Absent)];
    parked(&[failed.clone(), put.clone()], &nothing, "took a newer write");
    parked(&[by_gateway(2, failed.clone()), put.clone()], &nothing, "took a newer write");
    // One that may rightly have been done.
    let later = Record { commit: Some(3), ..failed };
    let begun = Intent { begun: T + 4_000, ..later.intent.clone() };
    check(&[put.clone(), Record { intent: begun, ..later }], &nothing, agreed());
    let refused = record(1, What::Delete, T, &[(A, Said::NotApplied), (B, Said::NotApplied)]);
    check(&[refused, put.clone()], &nothing, agreed());
    // Nor is one whose order nobody knows, where the other may have come late; without it there is no other reason.
    let delete = record(1, What::Delete, T + 2_000, &[(A, deleted()), (B, deleted())]);
    let unordered = by_gateway(2, delete);
    let failed = record(1, What::Delete, T, &[(A, Said::Unknown), (B, Said::NotApplied)]);
    check(&[unordered.clone(), put.clone()], &nothing, agreed());
    parked(&[failed, unordered, put], &nothing, "took a newer write");
}

#[test]
fn what_a_worker_brought_late_does_not_outlive_a_delete() {
    let mut delete = strong(record(2, What::Delete, T, &[(A, deleted()), (B, deleted())]));
    (delete.intent.turn, delete.turn) = (Some(5), Some(6));
    let all = [(A, has(1, T + 20_000)), (B, State::Absent)];
    let decided = |since, until| {
        let known =
            Known { records: one(&delete), unseen: Some(Unseen { since, until }), ..Known::default() };
        decide(known, &states(&all), BOUNDS)
    };
    assert_eq!(decided(4, 9), Decision::Delete { targets: names(&[A]) });
    // It is of nobody who was under way then.
    for (since, until) in [(6, 9), (3, 5)] {
        assert!(matches!(decided(since, until), Decision::Park(_)), "{since} {until}");
    }
}

#[test]
fn what_a_delete_on_a_newer_cluster_may_have_uncovered_is_for_a_human() {
    let hidden = |records: &[Record], all: &[(&str, State)]| {
        decide(Known { records, hidden: true, ..Known::default() }, &states(all), BOUNDS)
    };
    let is_parked = |decision| matches!(decision, Decision::Park(why) if why.contains("a newer cluster"));
    let old = [(A, has(1, T - 100_000)), (B, has(1, T - 100_000))];
    let delete = |number, said: &[(&str, Said)]| record(number, What::Delete, T + 2_000 * number, said);
    let missed = || delete(1, &[(A, Said::NotApplied), (B, Said::NotApplied), ("elsewhere", Said::Unknown)]);
    let orphan = || Record::orphaned(delete(1, &[]).intent, T + 60_000);
    for done_elsewhere in [missed(), orphan()] {
        assert!(is_parked(hidden(one(&done_elsewhere), &old)));
        // Where nothing is hidden, nothing is uncovered.
        check(one(&done_elsewhere), &old, agreed());
        // A later one, which somebody took.
        let again = delete(2, &[(A, deleted()), (B, Said::NotApplied)]);
        let left = [(A, State::Absent), (B, has(1, T - 100_000))];
        assert_eq!(hidden(&[done_elsewhere, again], &left), Decision::Delete { targets: names(&[B]) });
    }
    let refused = delete(1, &[(A, Said::NotApplied), (B, Said::NotApplied), ("elsewhere", Said::NotApplied)]);
    assert_eq!(hidden(&[refused], &old), agreed());
}

#[test]
fn a_write_that_only_a_backend_took_which_is_gone_is_for_a_human() {
    let replies = |said| [("http://gone:80", said), (A, Said::NotApplied), (B, Said::NotApplied)];
    let put = record(1, What::Put, T, &replies(good(2)));
    let old = || has(1, T - 100_000);
    for all in [[old(), old()], [old(), State::Absent], [State::Absent, State::Absent]] {
        let [a, b] = all;
        parked(one(&put), &[(A, a), (B, b)], "http://gone:80 took a newer write");
    }
    // A worker had copied it in time.
    check(one(&put), &[(A, has(2, T + 2_000)), (B, old())], copy(A, &[B]));
    check(one(&put), &[(A, has(2, T + 2_000)), (B, has(2, T + 3_000))], agreed());
    let gone = record(1, What::Delete, T, &replies(deleted()));
    check(&[gone], &[(A, old()), (B, old())], delete(&[A, B]));
    let tags = record(1, What::Attribute("tagging".into()), T, &replies(deleted()));
    let unknown = Decision::Agreed { attributes: vec![Attribute { name: "tagging".into(), source: None }] };
    check(&[tags], &[(A, old()), (B, old())], unknown);
}

#[test]
fn a_backend_that_is_new_in_the_cluster_gets_what_the_others_have() {
    let put = record(1, What::Put, T, &[(A, good(1)), (B, Said::NotApplied)]);
    check(one(&put), &[(A, has(1, T)), (B, State::Absent), (C, State::Absent)], copy(A, &[B, C]));
    let seen = record(1, What::Seen, T, &[(A, deleted()), (B, Said::NotApplied)]);
    check(&[seen], &[(A, has(1, T)), (B, has(1, T)), (C, State::Absent)], copy(A, &[C]));
    let gone = record(1, What::Delete, T, &[(A, deleted()), (B, Said::NotApplied)]);
    check(&[gone], &[(A, State::Absent), (B, has(1, T - 100)), (C, State::Absent)], delete(&[B]));
}

#[test]
fn what_a_backend_may_never_have_had_does_not_prove_a_delete() {
    let orphan = record(2, What::Delete, T + 2_000, &[]);
    let put = record(1, What::Put, T, &[(A, good(1)), (B, good(1))]);
    let missed = record(1, What::Put, T, &[(A, good(1)), (B, Said::NotApplied)]);
    let seen = record(1, What::Seen, T, &[(A, deleted()), (B, Said::NotApplied)]);
    let two = [(A, has(1, T)), (B, State::Absent)];
    parked(&[missed, orphan.clone()], &two, "a gateway died");
    parked(&[seen, orphan.clone()], &two, "a gateway died");
    // The read was told so, then the DELETE began, then the read was recorded.
    let begun = T + 2_100;
    let meanwhile = Record {
        commit: None,
        ended: begun,
        ..record(3, What::Seen, begun, &[(A, deleted()), (B, Said::NotApplied)])
    };
    parked(&[orphan.clone(), meanwhile], &two, "a gateway died");
    // The cluster had no C then.
    let three = [(A, has(1, T)), (B, has(1, T)), (C, State::Absent)];
    parked(&[put.clone(), orphan.clone()], &three, "a gateway died");
    check(&[put, orphan.clone()], &two, delete(&[A]));
    let later = record(3, What::Put, T + 70_000, &[(A, good(2)), (B, Said::NotApplied)]);
    check(&[orphan, later], &[(A, has(2, T + 70_000)), (B, State::Absent)], copy(A, &[B]));
}

#[test]
fn what_a_worker_may_have_brought_over_a_write_does_not_win() {
    let put = record(1, What::Put, T, &[(A, good(2)), (B, good(2)), (C, Said::NotApplied)]);
    let old = || has(1, T - 100_000);
    // Sent before it began, it may arrive for as long as anything may.
    parked(one(&put), &[(A, has(1, T + 20_000)), (B, has(2, T)), (C, State::Absent)], "nothing tells");
    check(one(&put), &[(A, has(1, LATER)), (B, has(2, T)), (C, State::Absent)], copy(A, &[B, C]));
    // This is what was there before.
    check(one(&put), &[(A, has(1, T + 20_000)), (B, has(2, T)), (C, old())], copy(B, &[A, C]));
    check(one(&put), &[(A, has(3, T + 20_000)), (B, has(2, T)), (C, old())], copy(A, &[B, C]));
}

#[test]
fn what_came_long_after_all_that_is_recorded_is_not_taken_for_an_old_write() {
    let lost = strong(record(1, What::Put, T, &[(A, Said::Unknown), (B, Said::NotApplied)]));
    let taken = strong(record(2, What::Put, T + 2_000, &[(A, good(2)), (B, good(2))]));
    let both = [lost, taken];
    check(&both, &[(A, has(1, T + 20_000)), (B, has(2, T))], copy(B, &[A]));
    parked(&both, &[(A, has(1, LATER)), (B, has(2, T))], "nothing tells");
}

#[test]
fn a_copy_that_has_lost_metadata_does_not_replace_what_it_was_made_of() {
    let lost = record(1, What::Put, T, &[(A, Said::NotApplied), (B, Said::Unknown)]);
    let whole = Held { metadata: vec![("cache-control".into(), "no-cache".into())], ..held(1, T - 100_000) };
    parked(&[lost], &[(A, State::Present(whole)), (B, has(1, LATER))], "nothing tells");
}

#[test]
fn what_was_sent_twice_may_be_there_with_an_etag_that_nobody_was_told() {
    let opaque = |etag: &str, content, modified| {
        let (etag, md5) = (etag.to_owned(), md5_of(&md5(content)));
        State::Present(Held { etag, md5, ..held(content, modified) })
    };
    let told = Said::Good { etag: Some("\"new-1\"".into()), version: None };
    let replies = [(A, told), (B, Said::Unknown), (C, Said::Unknown), (A, Said::Unknown)];
    let put = strong(record(1, What::Put, T, &replies));
    // Just before it there was something else.
    let all = [(A, opaque("new-2", 2, T)), (B, has(1, T - 4_000)), (C, opaque("new-3", 2, T + 1_000))];
    let decided = decide(known(one(&put)), &states(&all), BOUNDS);
    assert!(!matches!(&decided, Decision::Copy { source, .. } if source == B), "{decided:?}");
    check(one(&put), &[(A, opaque("new-2", 2, T)), (B, has(1, T - 100_000))], copy(A, &[B]));
}

#[test]
fn what_may_be_a_workers_own_does_not_win_however_late_it_is_there() {
    let put = record(1, What::Put, T, &[(A, Said::NotApplied), (B, good(2)), (C, Said::NotApplied)]);
    let unseen = |since| Some(Unseen { since, until: i64::MAX });
    let decided = |put: &Record, unseen, a, c| {
        let all = [(A, a), (B, has(2, T)), (C, c)];
        decide(Known { records: one(put), unseen, ..Known::default() }, &states(&all), BOUNDS)
    };
    let old = || has(1, T - 100_000);
    assert_eq!(decided(&put, None, has(3, LATER), old()), copy(A, &[B, C]));
    // A copy that was not stored as it was sent, also where what was there before is known.
    for c in [old(), State::Absent] {
        let wrong = decided(&put, unseen(9), has(3, LATER), c);
        assert!(matches!(wrong, Decision::Park(_)), "{wrong:?}");
    }
    // Nor that of a worker which has only just changed something.
    let all = [(A, has(3, LATER)), (B, has(2, T)), (C, State::Absent)];
    let changed = Known { changed: true, ..known(one(&put)) };
    assert!(matches!(decide(changed, &states(&all), BOUNDS), Decision::Park(_)));
    // What was there before, of a worker that began before the write and ended after it.
    let at = |turn, put: Record| Record {
        turn: Some(turn),
        intent: Intent { turn: Some(turn - 1), ..put.intent },
        ..put
    };
    let put = strong(at(10, put));
    assert_eq!(decided(&put, unseen(5), has(1, LATER), State::Absent), copy(B, &[A, C]));
}

#[test]
fn what_may_have_been_deleted_is_not_replaced_by_what_was_there_before() {
    let put = by_gateway(2, strong(record(1, What::Put, T, &[(A, good(2)), (B, Said::NotApplied)])));
    let delete = strong(record(2, What::Delete, T + 3_000, &[(A, Said::Unknown), (B, Said::NotApplied)]));
    for modified in [T - 100_000, T - 1_000, T, T + 1_000] {
        parked(&[put.clone(), delete.clone()], &[(A, State::Absent), (B, has(1, modified))], "took a newer");
    }
    // Nor by what may be older: nothing tells which of two came last to the one that took both.
    let earlier = strong(record(1, What::Put, T - 900, &[(A, good(1)), (B, good(1))]));
    let absent = [(A, State::Absent), (B, has(1, T))];
    parked(&[earlier.clone(), put.clone(), delete.clone()], &absent, "took a newer");
    check(&[earlier, put, delete], &[(A, has(1, T)), (B, has(1, T))], agreed());
}

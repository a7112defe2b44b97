//! Sub-resources that were written: whose word counts.

use super::*;

#[test]
fn sub_resources_are_compared_once_the_object_agrees() {
    let tags = || What::Attribute("tagging".into());
    let first = record(1, tags(), T, &[(A, deleted()), (B, Said::NotApplied)]);
    let attribute = |source: Option<&str>| Decision::Agreed {
        attributes: vec![Attribute { name: "tagging".into(), source: source.map(str::to_owned) }],
    };
    let same = [(A, has(1, T)), (B, has(1, T))];
    check(one(&first), &same, attribute(Some(A)));
    let second = record(2, tags(), T, &[(A, Said::Unknown), (B, Said::NotApplied)]);
    check(&[first.clone(), second], &same, attribute(None));
    let put = record(3, What::Put, T, &[(A, good(1)), (B, good(1))]);
    check(&[first, put], &same, agreed());
}

#[test]
fn a_target_with_the_last_word_about_a_sub_resource_is_heard_before_it_is_overwritten() {
    let put = record(1, What::Put, T, &[(A, good(1)), (B, Said::NotApplied)]);
    let tags = record(2, What::Attribute("tagging".into()), T, &[(A, Said::NotApplied), (B, deleted())]);
    let states = [(A, has(1, T)), (B, has(2, T - 100_000))];
    let attributes = vec![Attribute { name: "tagging".into(), source: Some(B.into()) }];
    let copy = Decision::Copy { source: A.into(), targets: names(&[B]), attributes };
    check(&[put, tags], &states, copy);
}

#[test]
fn the_last_word_of_a_backend_that_is_away_is_waited_for() {
    let put = record(1, What::Put, T, &[(A, good(1)), (B, Said::NotApplied), (C, good(1))]);
    for name in ["tagging", "acl"] {
        let replies = [(A, Said::NotApplied), (B, Said::NotApplied), (C, deleted())];
        let written = record(2, What::Attribute(name.into()), T, &replies);
        let states = [(A, has(1, T)), (B, State::Absent), (C, State::Unknown("c: refused".into()))];
        check(&[put.clone(), written], &states, Decision::Wait("c: refused".into()));
    }
}

#[test]
fn a_copy_is_from_who_took_the_last_write_of_what_is_copied() {
    let first = record(1, What::Put, T, &[(A, good(1)), (B, good(1)), (C, good(1))]);
    let second =
        record(2, What::Put, T + 9_000, &[(A, Said::NotApplied), (B, good(1)), (C, Said::NotApplied)]);
    let states = [(A, has(1, T)), (B, has(1, T + 9_000)), (C, State::Absent)];
    check(&[first, second], &states, copy(B, &[C]));
}

#[test]
fn a_sub_resource_is_compared_unless_something_certainly_replaced_it() {
    let tags = record(1, What::Attribute("tagging".into()), T, &[(A, deleted()), (B, Said::NotApplied)]);
    let attribute = Attribute { name: "tagging".into(), source: Some(A.into()) };
    let put = |said| record(2, What::Put, T + 2_000, &[(A, said), (B, Said::NotApplied)]);
    let same = [(A, has(1, T - 100_000)), (B, has(1, T - 100_000))];
    check(&[tags.clone(), put(Said::Unknown)], &same, Decision::Agreed { attributes: vec![attribute] });
    check(&[tags, put(good(1))], &[(A, has(1, T)), (B, has(1, T))], agreed());
}

#[test]
fn a_sub_resource_that_may_have_come_late_is_compared_with_that_of_the_object_after_it() {
    let tags =
        |number, said| record(number, What::Attribute("tagging".into()), T, &[(A, said), (B, deleted())]);
    let put = record(3, What::Put, T + 2_000, &[(A, good(1)), (B, good(1))]);
    let put_on_one = record(3, What::Put, T + 2_000, &[(A, good(1)), (B, Said::NotApplied)]);
    let same = [(A, has(1, T)), (B, has(1, T))];
    let attribute = |source: Option<&str>| Decision::Agreed {
        attributes: vec![Attribute { name: "tagging".into(), source: source.map(str::to_owned) }],
    };
    check(&[tags(1, Said::Unknown), put], &same, attribute(Some(B)));
    parked(&[tags(1, Said::Unknown), put_on_one], &same, "?tagging");
    let earlier = record(0, What::Put, T, &[(A, Said::Unknown), (B, good(1))]);
    check(&[earlier, tags(1, deleted())], &same, attribute(Some(B)));
    let orphan = Record::orphaned(record(4, What::Put, T + 5_000, &[]).intent, T + 6_000);
    parked(&[tags(1, deleted()), orphan], &same, "a gateway died");
    // Nor is it what a backend took last that something older may have come over.
    check(&[tags(1, Said::Unknown), tags(2, deleted())], &same, attribute(Some(B)));
}

#[test]
fn what_a_worker_may_have_overwritten_is_nobodys_word() {
    let at = |turns: (i64, i64), mut record: Record| {
        (record.intent.turn, record.turn) = (Some(turns.0), Some(turns.1));
        record
    };
    let tags = |a, b| record(1, What::Attribute("tagging".into()), T, &[(A, a), (B, b)]);
    let put = |a, b| record(2, What::Put, T + 2_000, &[(A, a), (B, b)]);
    let same = [(A, has(1, T)), (B, has(1, T))];
    let decided = |records: &[Record], since, until| {
        let unseen = Some(Unseen { since, until });
        decide(Known { records, unseen, ..Known::default() }, &states(&same), BOUNDS)
    };
    let is_parked = |decision| matches!(decision, Decision::Park(why) if why.contains("?tagging"));
    let attribute = Attribute { name: "tagging".into(), source: Some(A.into()) };
    let by_a = || Decision::Agreed { attributes: vec![attribute.clone()] };
    for said in [deleted(), Said::NotApplied] {
        let written = [at((3, 4), tags(deleted(), said))];
        assert!(is_parked(decided(&written, 2, 5)));
        assert!(is_parked(decided(&written, 3, i64::MAX)));
        // It knew it, or began when it was over.
        assert_eq!(decided(&written, 4, i64::MAX), by_a());
        assert_eq!(decided(&written, 1, 3), by_a());
    }
    // What was sent may have come over the tags of the object that has replaced them, too.
    let replaced = [at((1, 2), tags(deleted(), Said::NotApplied)), at((5, 6), put(good(1), good(1)))];
    assert!(is_parked(decided(&replaced, 3, 7)));
    assert_eq!(decided(&replaced, 6, 7), agreed());
    let over = |since, until| {
        let unseen = Some(Unseen { since, until });
        tags_of(Known { records: &[at((5, 6), put(good(1), Said::NotApplied))], unseen, ..Known::default() })
    };
    assert_eq!((over(3, 7), over(6, 7)), (None, Some(A.into())));
}

/// Who has the right tags, where all hold the same.
fn tags_of(known: Known<'_>) -> Option<String> {
    super::super::along(known, &states(&[(A, has(1, T)), (B, has(1, T))]), BOUNDS, TAGGING)?.source
}

#[test]
fn what_no_copy_has_is_given_to_all_that_are_copied_to() {
    let acl = |a, b| record(2, What::Attribute("acl".into()), T + 2_000, &[(A, a), (B, b)]);
    let put = record(1, What::Put, T, &[(A, good(1)), (B, Said::NotApplied)]);
    let differ = [(A, has(1, T)), (B, has(2, T - 100_000))];
    let attribute = |source: &str| Attribute { name: "acl".into(), source: Some(source.into()) };
    for (written, source) in [(acl(deleted(), deleted()), A), (acl(Said::NotApplied, deleted()), B)] {
        let attributes = vec![attribute(source)];
        let copy = Decision::Copy { source: A.into(), targets: names(&[B]), attributes };
        check(&[put.clone(), written], &differ, copy);
    }
    // A worker may have been stopped behind the copy: B may have none any more.
    let same = states(&[(A, has(1, T)), (B, has(1, LATER))]);
    let unseen = Some(Unseen { since: 7, until: 9 });
    let decided = |written: Record| {
        let old = |record: &Record| Record { turn: Some(1), ..record.clone() };
        let records = [old(&put), old(&written)];
        decide(Known { records: &records, unseen, ..Known::default() }, &same, BOUNDS)
    };
    let by_a = Decision::Agreed { attributes: vec![attribute(A)] };
    assert_eq!(decided(acl(deleted(), deleted())), by_a);
    let only_b = decided(acl(Said::NotApplied, deleted()));
    assert!(matches!(&only_b, Decision::Park(why) if why.contains("?acl")), "{only_b:?}");
}

#[test]
fn a_sub_resource_that_what_is_copied_has_replaced_is_not_given_to_it() {
    let tags =
        |before, a| record(1, What::Attribute("tagging".into()), T - before, &[(A, a), (B, deleted())]);
    let put = record(2, What::Put, T, &[(A, good(1)), (B, good(1))]);
    let later = record(3, What::Put, T + 2_000, &[(A, Said::Unknown), (B, Said::NotApplied)]);
    let differ = [(A, has(2, T + 2_000)), (B, has(1, T))];
    let unsure = tags(2_000, Said::Unknown);
    parked(&[unsure, put.clone(), later.clone()], &differ, "?tagging may have come late");
    // Long ago, or not to A at all.
    for replaced in [tags(200_000, Said::Unknown), tags(2_000, Said::NotApplied)] {
        check(&[replaced, put.clone(), later.clone()], &differ, copy(A, &[B]));
    }
}

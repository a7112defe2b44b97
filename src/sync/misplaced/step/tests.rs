//! Which step is next, by tables.

use super::*;

fn held(text: &str, modified: i64) -> Held {
    Held {
        etag: text.into(),
        version: None,
        modified,
        length: 1,
        object_version: None,
        md5: Some([text.as_bytes()[0]; 16]),
        metadata: Vec::new(),
    }
}

fn states(all: &[(&str, Option<Held>)]) -> Vec<(String, State)> {
    let state = |held: &Option<Held>| held.clone().map_or(State::Absent, State::Present);
    all.iter().map(|(name, held)| ((*name).to_owned(), state(held))).collect()
}

#[test]
fn what_home_lacks_comes_from_a_cluster_that_agrees_on_it() {
    let home = states(&[("a", None), ("b", None)]);
    let next = |there: &[(&str, Option<Held>)]| step(&home, &[states(there)], &HashSet::new());
    let x = || Some(held("x", 0));
    assert_eq!(next(&[("c", x()), ("d", x())]), Step::Copy { source: "c".into() });
    assert_eq!(next(&[("c", None), ("d", None)]), Step::Done);
    assert!(matches!(next(&[("c", x()), ("d", None)]), Step::Wait(_)));
    assert!(matches!(next(&[("c", x()), ("d", Some(held("y", 0)))]), Step::Wait(_)));
    let mut unread = held("z", 0);
    unread.md5 = None;
    assert_eq!(next(&[("c", x()), ("d", Some(unread))]), Step::Digest(vec!["d".into()]));
    let mut there = states(&[("c", x())]);
    there.push(("d".into(), State::Unknown("refused".into())));
    assert_eq!(step(&home, &[there], &HashSet::new()), Step::Wait("refused".into()));
    // Several clusters.
    let several = |there: &[&[(&str, Option<Held>)]]| {
        let there: Vec<_> = there.iter().map(|one| states(one)).collect();
        step(&home, &there, &HashSet::new())
    };
    assert_eq!(
        several(&[&[("c", None)], &[("d", x()), ("c", None)], &[("e", x())]]),
        Step::Wait("d has it, and not all other backends of that cluster do".into())
    );
    assert_eq!(several(&[&[("c", None)], &[("d", x())], &[("e", x())]]), Step::Copy { source: "d".into() });
    assert!(matches!(several(&[&[("d", x())], &[("e", Some(held("y", 0)))]]), Step::Park(_)));
}

#[test]
fn only_what_home_has_or_had_before_is_deleted_elsewhere() {
    let home =
        |held: Held| states(&[("a", Some(held.clone())), ("b", Some(Held { modified: 900_000, ..held }))]);
    let none = HashSet::new();
    let next = |ours: Held, theirs: Held| step(&home(ours), &[states(&[("c", Some(theirs))])], &none);
    let gone = Step::Delete { targets: vec!["c".into()] };
    assert_eq!(next(held("x", 0), held("x", 100_000)), gone);
    // What is at home may be a copy, and then it is later than what it is a copy of.
    assert!(matches!(next(held("x", 100_000), held("y", 0)), Step::Park(_)));
    assert!(matches!(next(held("x", 100_000), held("y", 200_000)), Step::Park(_)));
    // Its version tells, whatever the clocks do.
    let version = |held: Held, version| Held { object_version: Some(version), ..held };
    assert_eq!(next(version(held("x", 0), 7), version(held("y", 100_000), 6)), gone);
    assert!(matches!(next(version(held("x", 100_000), 7), version(held("y", 0), 8)), Step::Park(_)));
    let other = Held { metadata: vec![("content-type".into(), "text/plain".into())], ..held("x", 100_000) };
    assert!(matches!(next(held("x", 0), other), Step::Park(_)));
    let stays = HashSet::from(["c".to_owned()]);
    let both = |text| {
        vec![
            states(&[("c", Some(held("y", 0)))]),
            states(&[("d", Some(held(text, 0))), ("c", Some(held("y", 0)))]),
        ]
    };
    assert_eq!(step(&home(held("x", 0)), &both("x"), &stays), Step::Delete { targets: vec!["d".into()] });
    assert!(matches!(step(&home(held("x", 0)), &both("z"), &stays), Step::Park(_)));
    assert_eq!(step(&home(held("x", 0)), &both("x")[..1], &stays), Step::Done);
    assert_eq!(step(&home(held("x", 0)), &[states(&[("c", None)])], &none), Step::Done);
    let unread = |text| Held { md5: None, ..held(text, 0) };
    assert_eq!(next(unread("x"), unread("y")), Step::Digest(vec!["c".into(), "a".into()]));
}

//! Whose tags are right where all hold the same bytes.

use super::*;

const TAGGING: &str = "tagging";

fn both() -> Vec<(String, State)> {
    states(&[(A, has(1, 0)), (B, has(1, 0))])
}

/// `None` = they need not be compared; else who has the right ones.
fn source(records: &[Record], states: &[(String, State)]) -> Option<Option<String>> {
    along(known(records), states, BOUNDS, TAGGING).map(|tags| {
        assert_eq!(tags.name, TAGGING);
        tags.source
    })
}

#[test]
fn they_are_those_of_who_took_the_last_write() {
    let put = |number, begun, a: Said, b: Said| record(number, What::Put, begun, &[(A, a), (B, b)]);
    let missed_by_b = || put(1, 10_000, good(1), Said::NotApplied);
    let right = |backend: &str| Some(Some(backend.to_owned()));
    assert_eq!(source(&[missed_by_b()], &both()), right(A));
    assert_eq!(source(&[missed_by_b(), put(2, 20_000, Said::NotApplied, good(1))], &both()), right(B));
    // A write that nobody took changes nothing.
    let failed = put(2, 20_000, Said::NotApplied, Said::NotApplied);
    assert_eq!(source(&[missed_by_b(), failed], &both()), right(A));
    // Something of unknown outcome may have come over it.
    for unknown in [put(0, 5_000, Said::Unknown, good(1)), put(2, 20_000, Said::Unknown, Said::NotApplied)] {
        assert_eq!(source(&[missed_by_b(), unknown], &both()), Some(None));
    }
    let written = record(0, What::Attribute(TAGGING.into()), 5_000, &[(A, Said::Unknown), (B, good(1))]);
    assert_eq!(source(&[written, missed_by_b()], &both()), Some(None));
    assert_eq!(source(&[put(1, 10_000, Said::Unknown, Said::Unknown)], &both()), Some(None));
}

#[test]
fn they_are_not_compared_without_need() {
    let all_took = record(1, What::Put, 10_000, &[(A, good(1)), (B, good(1))]);
    assert_eq!(source(&[all_took], &both()), None);
    let missed = || record(1, What::Put, 10_000, &[(A, good(1)), (B, Said::NotApplied)]);
    assert_eq!(source(&[missed()], &states(&[(A, has(1, 0)), (B, State::Absent)])), None);
    assert_eq!(source(&[], &both()), None);
}

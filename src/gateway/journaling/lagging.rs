//! Who lacks the newest version of an object: by the gateway's own writes, and by what the journal has recorded.

use crate::{mirror::Lagging, topology::BackendId};

/// All of these, as long as that leaves one to be preferred. Else what is newer counts: a write that is under way, once a
/// backend has taken it, since its client has been told; before that, and after it, what is recorded, which knows writes
/// of other gateways, too.
pub fn joined(backends: &[BackendId], own: &Lagging, recorded: Vec<BackendId>) -> Vec<BackendId> {
    let is_all = |lagging: &[BackendId]| backends.iter().all(|backend| lagging.contains(backend));
    let own_ones: Vec<BackendId> = own.all().collect();
    let both: Vec<BackendId> = own_ones.iter().chain(&recorded).copied().collect();
    match both {
        both if !is_all(&both) => both,
        _ if !own.unfinished.is_empty() && !is_all(&own_ones) => own_ones,
        both if recorded.is_empty() => both,
        _ => recorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_all_would_lag_what_is_newer_counts() {
        let lagging = |unfinished: &[BackendId], missed: &[BackendId], recorded: &[BackendId]| {
            let missed = missed.iter().map(|id| (*id, 1)).collect();
            let own = Lagging { unfinished: unfinished.to_vec(), missed };
            joined(&[0, 1, 2], &own, recorded.to_vec())
        };
        assert_eq!(lagging(&[1], &[2], &[1]), [1, 2, 1]);
        // 0 has taken what is under way, and missed what was before.
        assert_eq!(lagging(&[1, 2], &[], &[0]), [1, 2]);
        assert_eq!(lagging(&[1], &[2], &[0]), [1, 2]);
        // Nobody has taken it yet.
        assert_eq!(lagging(&[0, 1, 2], &[], &[0]), [0]);
        // What 0 missed is older than what another gateway has recorded since.
        assert_eq!(lagging(&[], &[0], &[1, 2]), [1, 2]);
        assert_eq!(lagging(&[0, 1, 2], &[], &[]), [0, 1, 2]);
    }
}

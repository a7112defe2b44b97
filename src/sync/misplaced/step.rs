//! What is next with a misplaced object: a pure function of what the backends of its home and of other clusters hold.

use std::collections::HashSet;

use super::super::{Held, State, decide::content};

/// What backends hold, by endpoint.
pub type States = [(String, State)];

/// What is to be done with an object of which the home's backends agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is nowhere but at home, or must stay where it is.
    Done,
    /// To all backends of the home.
    Copy {
        source: String,
    },
    Delete {
        targets: Vec<String>,
    },
    /// The bytes of these have to be read first.
    Digest(Vec<String>),
    Wait(String),
    Park(String),
}

/// Decides. `home` is what the home's backends hold, `there` those of each other cluster that are not the home's too. On
/// `stays` nothing is deleted.
pub fn step(home: &States, there: &[Vec<(String, State)>], stays: &HashSet<String>) -> Step {
    if let Some(why) = there.iter().flatten().find_map(|(_, state)| state.why_unknown()) {
        return Step::Wait(why.to_owned());
    }
    let at_home = holders(home);
    match at_home.first() {
        None => from(there),
        Some(_) => away(&at_home, &found(there.iter(), |name| !stays.contains(name))),
    }
}

fn holders(states: &States) -> Vec<(&String, &Held)> {
    let present = states.iter().filter_map(|(name, state)| match state {
        State::Present(held) => Some((name, held)),
        _ => None,
    });
    present.collect()
}

/// All that hold it, each once.
fn found<'a>(
    there: impl Iterator<Item = &'a Vec<(String, State)>>,
    counts: impl Fn(&str) -> bool,
) -> Vec<(&'a String, &'a Held)> {
    let mut found: Vec<(&String, &Held)> = Vec::new();
    for (name, held) in there.flat_map(|states| holders(states)) {
        if counts(name) && !found.iter().any(|(known, _)| *known == name) {
            found.push((name, held));
        }
    }
    found
}

/// Home has nothing: what to bring there.
fn from(there: &[Vec<(String, State)>]) -> Step {
    for cluster in there {
        let found = holders(cluster);
        let Some((source, first)) = found.first() else { continue };
        if found.len() < cluster.len() {
            return Step::Wait(format!("{source} has it, and not all other backends of that cluster do"));
        }
        let differs = |(_, held): &&(&String, &Held)| content(held, first) == Some(false);
        if let Some((other, _)) = found.iter().find(differs) {
            return Step::Wait(format!("{source} and {other} hold different contents"));
        }
    }
    let found = found(there.iter(), |_| true);
    let Some((source, first)) = found.first() else { return Step::Done };
    let unread = unread(found.iter().copied().map(|one| (one, *first)));
    if !unread.is_empty() {
        return Step::Digest(unread);
    }
    match found.iter().find(|(_, held)| !same(held, first)) {
        Some((other, held)) => Step::Park(format!(
            "home has nothing, {source} holds {}, {} bytes, {other} holds {}, {} bytes, and nothing tells which is newer",
            first.etag, first.length, held.etag, held.length
        )),
        None => Step::Copy { source: (*source).clone() },
    }
}

/// Home has it: what to delete elsewhere.
fn away(home: &[(&String, &Held)], found: &[(&String, &Held)]) -> Step {
    let Some((_, ours)) = home.first() else { return Step::Done };
    let is_older = |held: &Held| match (held.object_version, ours.object_version) {
        (Some(theirs), Some(ours)) => theirs < ours,
        // The time of what is at home may be that of a copy.
        _ => false,
    };
    let open: Vec<_> = found.iter().copied().filter(|(_, held)| !is_older(held)).collect();
    let mut unread = unread(open.iter().copied().map(|one| (one, *ours)));
    if !unread.is_empty() {
        // Both sides of the comparison.
        unread.extend(home.first().filter(|(_, held)| held.md5.is_none()).map(|(name, _)| (*name).clone()));
        return Step::Digest(unread);
    }
    match open.iter().find(|(_, held)| !same(held, ours)) {
        Some((backend, held)) => Step::Park(format!(
            "{backend} holds {}, {} bytes, home holds {}, {} bytes, and nothing tells which is newer",
            held.etag, held.length, ours.etag, ours.length
        )),
        None if found.is_empty() => Step::Done,
        None => Step::Delete { targets: found.iter().map(|(name, _)| (*name).clone()).collect() },
    }
}

fn same(one: &Held, other: &Held) -> bool {
    content(one, other) == Some(true) && one.metadata == other.metadata
}

/// Those whose bytes nobody knows, and would have to.
fn unread<'a>(pairs: impl Iterator<Item = ((&'a String, &'a Held), &'a Held)>) -> Vec<String> {
    let unsure = pairs.filter(|((_, held), other)| content(held, other).is_none());
    unsure.filter(|((_, held), _)| held.md5.is_none()).map(|((name, _), _)| name.clone()).collect()
}

#[cfg(test)]
mod tests;

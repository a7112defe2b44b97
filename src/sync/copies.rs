//! What copies have brought along, and whether the targets have kept it: storages that drop or change metadata would be
//! copied to again and again, or would be taken to hold what they do not.

use super::{Held, State};

/// The copies of one repair.
#[derive(Debug, Default)]
pub struct Copies(Vec<Copy>);

#[derive(Debug)]
struct Copy {
    target: String,
    /// As the target answered.
    etag: String,
    metadata: Vec<(String, String)>,
}

impl Copies {
    /// What a backend held was copied to `target`, which answered with this ETag.
    pub fn note(&mut self, target: &str, etag: &str, held: &Held) {
        self.0.retain(|copy| copy.target != target);
        let metadata = held.metadata.clone();
        self.0.push(Copy { target: target.to_owned(), etag: etag.to_owned(), metadata });
    }

    /// Whether nobody else than the source of a copy and its targets are among these backends.
    pub fn reach_all(&self, backends: &[String]) -> bool {
        let is_target = |backend: &&String| self.0.iter().any(|copy| copy.target == **backend);
        backends.iter().filter(is_target).count() + 1 >= backends.len()
    }

    /// That a target holds the copy, and not all that came with it.
    pub fn lost(&self, states: &[(String, State)]) -> Option<String> {
        self.0.iter().find_map(|copy| {
            let held = copy.held(states)?;
            let is_lost = |name: &&str| !held.metadata.iter().any(|(kept, _)| kept == name);
            let lost: Vec<&str> =
                copy.metadata.iter().map(|(name, _)| name.as_str()).filter(is_lost).collect();
            let names = lost.join(", ");
            (!lost.is_empty()).then(|| format!("{} does not keep metadata {names}", copy.target))
        })
    }

    /// That it would be copied once more to a target which holds it, because it holds other metadata than it was sent.
    pub fn is_in_vain(&self, states: &[(String, State)], source: &str, targets: &[String]) -> Option<String> {
        let (_, State::Present(right)) = states.iter().find(|(name, _)| name == source)? else { return None };
        self.0.iter().filter(|copy| targets.contains(&copy.target)).find_map(|copy| {
            let held = copy.held(states).filter(|_| copy.metadata == right.metadata)?;
            let differs = |of: &[(String, String)], other: &[(String, String)]| {
                let differs = of.iter().filter(|one| !other.contains(one));
                differs.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            };
            let mut names = differs(&held.metadata, &right.metadata);
            names.extend(differs(&right.metadata, &held.metadata));
            names.sort_unstable();
            names.dedup();
            let names = names.join(", ");
            (!names.is_empty())
                .then(|| format!("{} holds other metadata than was copied there: {names}", copy.target))
        })
    }
}

impl Copy {
    /// What the target holds, if that is the copy still.
    fn held<'a>(&self, states: &'a [(String, State)]) -> Option<&'a Held> {
        states.iter().find_map(|(name, state)| match state {
            State::Present(held) if *name == self.target && held.etag == self.etag => Some(held),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(etag: &str, metadata: &[(&str, &str)]) -> Held {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Held {
            etag: etag.into(),
            version: None,
            modified: 0,
            length: 1,
            object_version: None,
            md5: None,
            metadata: metadata.collect(),
        }
    }

    #[test]
    fn what_a_target_does_not_keep_is_named() {
        let full = held("e", &[("content-type", "a/b"), ("x-amz-meta-a", "1"), ("x-amz-meta-b", "2")]);
        let mut copies = Copies::default();
        copies.note("t", "e", &full);
        let states = |now: Held| {
            vec![("s".to_owned(), State::Present(full.clone())), ("t".to_owned(), State::Present(now))]
        };
        let targets = ["t".to_owned()];
        let said = |now: &Held| {
            let states = states(now.clone());
            copies.lost(&states).or_else(|| copies.is_in_vain(&states, "s", &targets))
        };
        assert_eq!(said(&full), None);
        let less = held("e", &[("content-type", "a/b")]);
        assert_eq!(said(&less).unwrap(), "t does not keep metadata x-amz-meta-a, x-amz-meta-b");
        // Something else by now: that of somebody else.
        assert_eq!(said(&Held { etag: "f".into(), ..less }), None);
        let mut other = full.clone();
        other.metadata[0].1 = "a/c".into();
        other.metadata.push(("x-amz-meta-c".into(), String::new()));
        let vain = "t holds other metadata than was copied there: content-type, x-amz-meta-c";
        assert_eq!(said(&other).unwrap(), vain);
        assert_eq!(copies.lost(&states(other)), None);
    }
}

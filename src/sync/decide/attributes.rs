//! Sub-resources that were written, and whose word counts.

use std::collections::BTreeMap;

use super::Case;
use crate::{
    journal::{Record, Said, What},
    sync::State,
};

/// A sub-resource that a recorded request wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    /// A backend that took the newest write to it, if it is known which that is.
    pub source: Option<String>,
}

impl Case<'_> {
    /// The sub-resources that were written, by their names, but for those that a later write of the object has
    /// replaced.
    pub(super) fn attributes(&self) -> Vec<Attribute> {
        if !self.states.iter().any(|(_, state)| matches!(state, State::Present(_))) {
            return Vec::new();
        }
        let mut written: BTreeMap<&String, Vec<&Record>> = BTreeMap::new();
        for record in self.records {
            if let What::Attribute(name) = &record.intent.what {
                written.entry(name).or_default().push(record);
            }
        }
        written.into_iter().filter_map(|(name, all)| self.attribute(name, &all)).collect()
    }

    fn attribute(&self, name: &str, all: &[&Record]) -> Option<Attribute> {
        let newest = all.iter().find(|newest| {
            all.iter().all(|other| {
                other.id() == newest.id() || (self.is_before(other, newest) && !self.is_before(newest, other))
            })
        });
        let replaces = |newest: &Record, write: usize| {
            self.is_taken(write) && self.is_before(newest, self.writes[write])
        };
        if newest.is_some_and(|newest| (0..self.writes.len()).any(|write| replaces(newest, write))) {
            return None;
        }
        let took = |newest: &&Record| {
            let is_here = |backend: &String| self.states.iter().any(|(name, _)| name == backend);
            let is_good = |(name, said): &&(String, Said)| matches!(said, Said::Good { .. }) && is_here(name);
            let good = newest.replies.iter().find(is_good);
            good.map(|(backend, _)| backend.clone())
        };
        Some(Attribute { name: name.to_owned(), source: newest.and_then(took) })
    }
}

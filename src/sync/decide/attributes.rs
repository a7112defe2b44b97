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
    /// A backend that took the newest write to it, or of the object after that, if it is known which that is; and to
    /// which nothing older could come since.
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
        let replaces = |write: usize, newest: &Record| {
            self.is_taken(write) && self.is_before(newest, self.writes[write])
        };
        let writes = 0..self.writes.len();
        let replaced = newest.and_then(|newest| {
            let replacing: Vec<usize> = writes.filter(|write| replaces(*write, newest)).collect();
            let is_last = |write: &usize| !replacing.iter().any(|other| self.order.before(*write, *other));
            replacing.iter().copied().find(is_last).map(|write| &self.writes[write])
        });
        // One of unknown outcome may have come after what has replaced it.
        let may_be_late = |record: &Record, backend: &str| *record.said(backend) == Said::Unknown;
        let backends = || self.states.iter().map(|(backend, _)| backend);
        if replaced.is_some() && !backends().any(|backend| all.iter().any(|of| may_be_late(of, backend))) {
            return None;
        }
        let last = replaced.or(newest);
        let has_it = |last: &Record, backend: &str| {
            let others = all.iter().filter(|other| other.id() != last.id());
            matches!(last.said(backend), Said::Good { .. })
                && !others.into_iter().any(|of| may_be_late(of, backend))
        };
        let source = last.and_then(|last| backends().find(|backend| has_it(last, backend)).cloned());
        Some(Attribute { name: name.to_owned(), source })
    }
}

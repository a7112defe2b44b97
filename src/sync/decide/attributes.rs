//! Sub-resources that were written, and whose word counts.

use super::{Case, is_before};
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
    /// The sub-resources that were written, but for those that a later write of the object has replaced.
    pub(super) fn attributes(&self, records: &[Record]) -> Vec<Attribute> {
        if !self.states.iter().any(|(_, state)| matches!(state, State::Present(_))) {
            return Vec::new();
        }
        let written = |record: &&Record| matches!(record.intent.what, What::Attribute(_));
        let mut attributes: Vec<Attribute> = Vec::new();
        for record in records.iter().filter(written) {
            let What::Attribute(name) = &record.intent.what else { continue };
            if attributes.iter().any(|known| known.name == *name) {
                continue;
            }
            let same = |other: &&Record| other.intent.what == record.intent.what;
            let all: Vec<&Record> = records.iter().filter(same).collect();
            let newest = all.iter().find(|newest| {
                all.iter()
                    .all(|other| other.id() == newest.id() || is_before(other, newest, self.clock_bound))
            });
            let replaced =
                |newest: &Record| self.writes.iter().any(|put| is_before(newest, put, self.clock_bound));
            if newest.is_some_and(|newest| replaced(newest)) {
                continue;
            }
            let took = |newest: &&Record| {
                let good = newest.replies.iter().find(|(_, said)| matches!(said, Said::Good { .. }));
                good.map(|(backend, _)| backend.clone())
            };
            attributes.push(Attribute { name: name.clone(), source: newest.and_then(took) });
        }
        attributes
    }
}

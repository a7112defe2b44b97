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
    /// replaced. `Err` = why one of them cannot be told. Of several backends that could be the source, `first` is.
    pub(super) fn attributes(&self, first: Option<&str>) -> Result<Vec<Attribute>, String> {
        if !self.states.iter().any(|(_, state)| matches!(state, State::Present(_))) {
            return Ok(Vec::new());
        }
        let mut written: BTreeMap<&String, Vec<&Record>> = BTreeMap::new();
        for record in self.records {
            if let What::Attribute(name) = &record.intent.what {
                written.entry(name).or_default().push(record);
            }
        }
        written.into_iter().filter_map(|(name, all)| self.attribute(name, &all, first).transpose()).collect()
    }

    fn attribute(
        &self,
        name: &str,
        all: &[&Record],
        first: Option<&str>,
    ) -> Result<Option<Attribute>, String> {
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
            return Ok(None);
        }
        let Some(last) = replaced.or(newest) else {
            return Ok(Some(Attribute { name: name.to_owned(), source: None }));
        };
        let is_good = |backend: &&String| matches!(last.said(backend), Said::Good { .. });
        // What was sent so long before has come, or never will.
        let slack = self.bounds.settle.saturating_add(self.bounds.clocks);
        let is_over = |other: &Record| other.ended.saturating_add(slack) < last.intent.begun;
        let is_older = |other: &&&Record| other.id() != last.id() && !self.is_before(last, other);
        let is_sure = |backend: &&String| {
            let others = all.iter().chain(&self.writes).filter(is_older).filter(|other| !is_over(other));
            !others.into_iter().any(|other| may_be_late(other, backend))
        };
        let is_there = |backend: &&String| {
            let state = self.states.iter().find(|(name, _)| name == *backend);
            matches!(state, Some((_, State::Present(_))))
        };
        let mut took: Vec<&String> = backends().filter(is_good).filter(is_there).collect();
        took.sort_by_key(|backend| first != Some(backend.as_str()));
        match (took.iter().find(|backend| is_sure(backend)), took.first()) {
            (None, Some(backend)) => {
                Err(format!("{backend} took what ?{name} is now, and something older may have come over it"))
            }
            (source, _) => {
                let source = source.map(|source| (*source).clone());
                Ok(Some(Attribute { name: name.to_owned(), source }))
            }
        }
    }
}

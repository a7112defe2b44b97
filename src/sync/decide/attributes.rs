//! Sub-resources that were written, and whose word counts.

use std::collections::BTreeMap;

use super::{Case, origins::Origins};
use crate::{
    journal::{Record, Said, What},
    sync::State,
};

pub(in crate::sync) const ACL: &str = "acl";
pub(in crate::sync) const LEGAL_HOLD: &str = "legal-hold";
pub(in crate::sync) const RETENTION: &str = "retention";
pub(in crate::sync) const TAGGING: &str = "tagging";

/// The backend from which the object is copied, and where what that holds may come from.
pub(super) type Copied<'a> = (&'a str, &'a Origins);

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
    /// replaced. `Err` = why one of them cannot be told.
    pub(super) fn attributes(&self, copied: Option<Copied<'_>>) -> Result<Vec<Attribute>, String> {
        if !self.states.iter().any(|(_, state)| matches!(state, State::Present(_))) {
            return Ok(Vec::new());
        }
        let mut written: BTreeMap<&String, Vec<&Record>> = BTreeMap::new();
        for record in self.records {
            if let What::Attribute(name) = &record.intent.what {
                written.entry(name).or_default().push(record);
            }
        }
        written.into_iter().filter_map(|(name, all)| self.attribute(name, &all, copied).transpose()).collect()
    }

    /// Tags and ACL belong to each write of the object. Whoever has not taken the last one may hold the same bytes from an
    /// earlier one, with others. `None` = all took it.
    pub(super) fn along(&self, name: &str) -> Option<Attribute> {
        if self.states.iter().any(|(_, state)| !matches!(state, State::Present(_))) {
            return None;
        }
        let newest = self.newest_puts();
        let backends = || self.states.iter().map(|(backend, _)| backend);
        let may_be_overwritten = newest.iter().any(|write| self.may_be_overwritten(self.writes[*write]));
        if !may_be_overwritten && backends().all(|backend| self.took_all(&newest, backend)) {
            return None;
        }
        let changes_it = |record: &&Record| match &record.intent.what {
            What::Put | What::Delete => true,
            What::Attribute(written) => written == name,
            _ => false,
        };
        let is_sure = |backend: &&String| {
            let mut others = self.records.iter().filter(changes_it);
            newest.len() == 1
                && self.took_all(&newest, backend)
                && !may_be_overwritten
                && !others.any(|record| record.may_come(backend))
        };
        Some(Attribute { name: name.to_owned(), source: backends().find(is_sure).cloned() })
    }

    pub(super) fn took_all(&self, writes: &[usize], backend: &str) -> bool {
        writes.iter().all(|write| matches!(self.writes[*write].said(backend), Said::Good { .. }))
    }

    /// The last write that was done, as far as is known; several, where their order is not known.
    pub(super) fn newest_puts(&self) -> Vec<usize> {
        let may_be_done = |write: &usize| self.is_taken(*write) || self.writes[*write].is_uncertain();
        let puts: Vec<usize> =
            (0..self.writes.len()).filter(|write| !self.is_delete(*write)).filter(may_be_done).collect();
        let is_newest = |write: &&usize| !puts.iter().any(|other| self.order.before(**write, *other));
        puts.iter().filter(is_newest).copied().collect()
    }

    /// Those that have to be looked after when `source` is copied over the targets: of which one of these has the last
    /// word, and all that are no part of a copy. `Err` = nothing tells who has it.
    pub(super) fn last_words(
        &self,
        copied: Copied<'_>,
        targets: &[String],
    ) -> Result<Vec<Attribute>, String> {
        let mut attributes = self.attributes(Some(copied))?;
        let is_taken = |name: &str| {
            self.records.iter().any(|record| {
                matches!(&record.intent.what, What::Attribute(written) if written == name)
                    && record.replies.iter().any(|(_, said)| matches!(said, Said::Good { .. }))
            })
        };
        if let Some(unknown) = attributes.iter().find(|of| of.source.is_none() && is_taken(&of.name)) {
            return Err(format!("nothing tells on which backend ?{} is newer", unknown.name));
        }
        let is_copied = |of: &Attribute| of.name == TAGGING;
        attributes
            .retain(|of| of.source.as_ref().is_some_and(|source| !is_copied(of) || targets.contains(source)));
        Ok(attributes)
    }

    fn attribute(
        &self,
        name: &str,
        all: &[&Record],
        copied: Option<Copied<'_>>,
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
        let may_be_late = |record: &Record, backend: &str| record.may_come(backend);
        let backends = || self.states.iter().map(|(backend, _)| backend);
        let is_late = || backends().any(|backend| all.iter().any(|of| may_be_late(of, backend)));
        if replaced.is_some_and(|replaced| !self.may_be_overwritten(replaced)) && !is_late() {
            return Ok(None);
        }
        let may_replace = |write: &usize| self.is_orphan(*write) && !self.is_delete(*write);
        if let (Some(newest), None) = (newest, replaced)
            && (0..self.writes.len())
                .filter(may_replace)
                .any(|write| !self.is_before(self.writes[write], newest))
        {
            return Err(format!("a gateway died in the middle of a write that may have replaced ?{name}"));
        }
        let Some(last) = replaced.or(newest) else {
            return Ok(Some(Attribute { name: name.to_owned(), source: None }));
        };
        if let Some((source, origins)) = copied
            && self.are_all_after(origins, last)
        {
            // What is copied has replaced it, unless something of it came to the source over that.
            return match all.iter().find(|of| of.may_come(source) && !self.were_over(of, origins)) {
                Some(_) => {
                    Err(format!("?{name} may have come late to {source}, which has the newest object"))
                }
                None => Ok(None),
            };
        }
        let source = self.source(name, last, all, copied.map(|(source, _)| source))?;
        Ok(Some(Attribute { name: name.to_owned(), source }))
    }

    /// Whether a content can only be of writes that are later than this.
    fn are_all_after(&self, origins: &Origins, record: &Record) -> bool {
        let is_after = |write: &usize| self.is_before(record, self.writes[*write]);
        !origins.before
            && (origins.later || !origins.writes.is_empty())
            && origins.writes.iter().all(is_after)
    }

    /// Whether nothing that was sent for it could come any more when the first of these writes began.
    fn were_over(&self, record: &Record, origins: &Origins) -> bool {
        let slack = self.bounds.settle.saturating_add(self.bounds.clocks);
        let begun = origins.writes.iter().map(|write| self.writes[*write].intent.begun).min();
        begun.is_none_or(|begun| record.ended.saturating_add(slack) < begun)
    }

    /// Whether a worker may have sent sub-resources of older writes, whose end nobody has seen: nothing tells whether a
    /// backend still has what it took.
    fn may_be_overwritten(&self, write: &Record) -> bool {
        self.unseen.is_some_and(|unseen| unseen.may_be_over(write))
    }

    /// Whether a worker may have copied to a backend since that took what a sub-resource was made: unless it is of tags,
    /// the copy has none, and what the worker meant to write there again may be missing.
    fn may_be_copied_over(&self, write: &Record, backend: &str) -> bool {
        let lacks = |put: &usize| !matches!(self.writes[*put].said(backend), Said::Good { .. });
        self.unseen.is_some_and(|unseen| write.intent.turn.is_none_or(|begun| begun < unseen.until))
            && (0..self.writes.len()).filter(|write| !self.is_delete(*write)).any(|put| lacks(&put))
    }

    /// A backend that took the last word about a sub-resource, and over which nothing older can have come since.
    fn source(
        &self,
        name: &str,
        last: &Record,
        all: &[&Record],
        first: Option<&str>,
    ) -> Result<Option<String>, String> {
        let is_there = |backend: &&String| {
            let state = self.states.iter().find(|(name, _)| name == *backend);
            matches!(state, Some((_, State::Present(_))))
        };
        let took = |record: &Record, backend: &str| matches!(record.said(backend), Said::Good { .. });
        let backends = self.states.iter().map(|(backend, _)| backend).filter(is_there);
        let mut took_last: Vec<&String> = backends.filter(|backend| took(last, backend)).collect();
        took_last.sort_by_key(|backend| first != Some(backend.as_str()));
        // What was sent so long before has come, or never will.
        let slack = self.bounds.settle.saturating_add(self.bounds.clocks);
        let others: Vec<&Record> = all
            .iter()
            .chain(&self.writes)
            .copied()
            .filter(|other| other.id() != last.id() && !self.is_before(last, other))
            .filter(|other| other.ended.saturating_add(slack) >= last.intent.begun)
            .collect();
        // The object may have been written after it: that is known where both arrived.
        let rivals =
            (0..self.writes.len()).filter(|write| self.is_taken(*write)).map(|write| self.writes[write]);
        let rivals: Vec<&Record> = rivals
            .filter(|write| {
                !self.is_before(write, last) && !self.is_before(last, write) && write.id() != last.id()
            })
            .collect();
        let is_sure = |backend: &&&String| {
            !self.may_be_overwritten(last)
                && (name == TAGGING || !self.may_be_copied_over(last, backend))
                && !others.iter().any(|other| other.may_come(backend))
                && rivals.iter().all(|rival| took(rival, backend))
        };
        match (took_last.iter().find(is_sure), took_last.first()) {
            (None, Some(backend)) => {
                Err(format!("{backend} took what ?{name} is now, and something else may have come over it"))
            }
            (source, _) => Ok(source.map(|source| (*source).clone())),
        }
    }
}

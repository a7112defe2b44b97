//! The contents that the backends hold, each with those that hold it and with where it may come from.

use super::{
    Case, FRACTION,
    content::{content, is_true},
    origins::Origins,
};
use crate::{
    journal::{Record, Said, What},
    sync::{Held, State},
};

/// Backends that hold the same, and where it may come from; without backends: that it was deleted.
#[derive(Debug, Clone)]
pub(super) struct Class<'a> {
    pub holders: Vec<(&'a str, &'a Held)>,
    pub origins: Origins,
}

impl<'a> Class<'a> {
    fn of(group: Vec<(&'a str, &'a Held, Origins)>) -> Class<'a> {
        let all: Vec<Origins> = group.iter().map(|(_, _, origins)| origins.clone()).collect();
        let holders = group.into_iter().map(|(backend, held, _)| (backend, held)).collect();
        Class { holders, origins: Origins::joined(&all) }
    }

    pub fn is_gone(&self) -> bool {
        self.holders.is_empty()
    }

    pub fn earliest(&self) -> i64 {
        self.holders.iter().map(|(_, held)| held.modified).min().unwrap_or(i64::MAX)
    }

    pub fn latest(&self) -> i64 {
        self.holders.iter().map(|(_, held)| held.modified + FRACTION).max().unwrap_or(i64::MIN)
    }
}

impl<'a> Case<'a> {
    pub(super) fn is_delete(&self, write: usize) -> bool {
        self.writes[write].intent.what == What::Delete
    }

    /// Whether a backend took it, of whatever cluster.
    pub(super) fn is_taken(&self, write: usize) -> bool {
        self.writes[write].replies.iter().any(|(_, said)| matches!(said, Said::Good { .. }))
    }

    /// Whether a write is a DELETE that somebody allowed and its client may rely on: a backend took it, of whatever
    /// cluster, or its gateway died and some backend has nothing. One that all refused, or may not have heard, is
    /// not carried out in a client's stead.
    pub(super) fn is_tombstone(&self, write: usize) -> bool {
        self.is_delete(write) && (self.is_taken(write) || (self.is_orphan(write) && self.lacks(write, true)))
    }

    /// Whether a write is a DELETE whose gateway died, and nothing tells whether a backend did it.
    pub(super) fn is_doubtful(&self, write: usize) -> bool {
        let is_passed = |later: usize| self.is_taken(later) && self.order.before(write, later);
        self.is_delete(write)
            && self.is_orphan(write)
            && self.lacks(write, false)
            && !self.lacks(write, true)
            && !(0..self.writes.len()).any(is_passed)
    }

    /// Its gateway died: nobody was told what backends said.
    pub(super) fn is_orphan(&self, write: usize) -> bool {
        self.writes[write].replies.is_empty()
    }

    /// Whether some backend has nothing; `because` of this DELETE, as far as is known.
    fn lacks(&self, delete: usize, because: bool) -> bool {
        let absent = self.states.iter().filter(|(_, state)| *state == State::Absent);
        let mut absent = absent.map(|(backend, _)| backend);
        absent.any(|backend| !because || !self.may_have_lacked(backend, self.writes[delete]))
    }

    /// Whether a backend may have lacked the object before a DELETE began: it did not take an earlier write, or a read
    /// missed it there, or the cluster did not have that backend yet.
    fn may_have_lacked(&self, backend: &str, delete: &Record) -> bool {
        let is_word = |record: &&Record| matches!(record.intent.what, What::Put | What::Seen);
        let known = |record: &&Record| !record.replies.is_empty() && !self.is_before(delete, record);
        let took = |record: &Record| matches!(record.said(backend), Said::Good { .. });
        self.records.iter().filter(is_word).filter(known).any(|record| !took(record))
    }

    /// The contents that there are, and that the object was deleted, if it was.
    pub(super) fn classes(&self) -> Vec<Class<'a>> {
        let mut groups: Vec<Vec<(&'a str, &'a Held, Origins)>> = Vec::new();
        for (backend, state) in self.states {
            let State::Present(held) = state else { continue };
            let origins = self.origins(backend, held);
            let same = |(_, other, theirs): &(&str, &Held, Origins)| {
                is_true(equal((*other, theirs), (held, &origins)))
            };
            // It may be what shows that others hold the same.
            let (joined, apart) = groups.into_iter().partition(|group| group.iter().any(same));
            groups = apart;
            let mut group: Vec<_> = joined.into_iter().flatten().collect();
            group.push((backend, held, origins));
            groups.push(group);
        }
        let mut classes: Vec<Class> = groups.into_iter().map(Class::of).collect();
        self.tell_apart(&mut classes);
        classes.extend(self.deleted());
        classes
    }

    /// That the object was deleted, if it was.
    fn deleted(&self) -> Option<Class<'a>> {
        let deletes: Vec<usize> = (0..self.writes.len()).filter(|write| self.is_tombstone(*write)).collect();
        let newest = |write: &usize| !deletes.iter().any(|other| self.order.before(*write, *other));
        let writes: Vec<usize> = deletes.iter().copied().filter(newest).collect();
        let origins = Origins::exactly(writes)?;
        Some(Class { holders: Vec::new(), origins })
    }

    /// Another content than that of a write cannot come from that write, if both could be read.
    fn tell_apart(&self, classes: &mut [Class]) {
        let exact: Vec<(Vec<usize>, Vec<Held>)> = classes
            .iter()
            .map(|class| {
                let writes = if class.origins.exact { class.origins.writes.clone() } else { Vec::new() };
                (writes, class.holders.iter().map(|(_, held)| (*held).clone()).collect())
            })
            .collect();
        for (at, class) in classes.iter_mut().enumerate() {
            if class.origins.exact {
                continue;
            }
            for (other, (writes, held)) in exact.iter().enumerate() {
                let differs = |mine: &Held| held.iter().any(|theirs| content(mine, theirs) == Some(false));
                if other != at && class.holders.iter().any(|(_, mine)| differs(mine)) {
                    class.origins.writes.retain(|write| !writes.contains(write));
                }
            }
            class.origins = std::mem::take(&mut class.origins).or_unexplained();
        }
        // Without records backends agree: there was one content before, and where it is known the others are not it.
        let is_before =
            |class: &Class| class.origins.before && !class.origins.later && class.origins.writes.is_empty();
        let known: Vec<bool> = classes.iter().map(is_before).collect();
        if known.contains(&true) {
            for (class, known) in classes.iter_mut().zip(known) {
                // What a worker brought need not be what it was sent.
                let may_be_wrong = self.unseen.is_some() && class.origins.brought;
                class.origins.before &= known || may_be_wrong;
            }
        }
        self.mark_copies(classes);
    }

    /// The same bytes with other metadata may be a copy to a backend that does not keep all of it, if it is there since
    /// a worker could make one: it may come from where the other comes from.
    fn mark_copies(&self, classes: &mut [Class]) {
        let recorded = self.records.iter().map(|record| record.ended).min().unwrap_or(i64::MAX);
        let may_be_copy = |class: &Class| {
            !class.origins.exact && class.latest() > recorded.saturating_sub(self.bounds.clocks)
        };
        let all = classes.to_vec();
        for (at, class) in classes.iter_mut().enumerate().filter(|(_, class)| may_be_copy(class)) {
            for (other, origin) in all.iter().enumerate() {
                let (one, other_one) = (class.holders.first(), origin.holders.first());
                let alike = one.zip(other_one).map(|((_, one), (_, other))| content(one, other));
                if other != at && alike.is_some_and(is_true) {
                    class.origins.widen(&origin.origins);
                }
            }
        }
    }
}

/// Whether two backends hold the same; `None` = only their bytes could tell.
fn equal(a: (&Held, &Origins), b: (&Held, &Origins)) -> Option<bool> {
    let one_write = a.1.writes.iter().any(|write| b.1.writes.contains(write));
    match content(a.0, b.0) {
        Some(false) => Some(false),
        // Storages may tell the metadata of one write in different words.
        Some(true) => Some(one_write || a.0.metadata == b.0.metadata),
        None => (one_write && a.1.exact && b.1.exact).then_some(true),
    }
}

//! The contents that the backends hold, each with those that hold it and with where it may come from.

use super::{
    Case, FRACTION,
    content::{content, is_true},
    origins::{Origins, joined},
};
use crate::{
    journal::{Said, What},
    sync::{Held, State},
};

/// Backends that hold the same, and where it may come from; without backends: that it was deleted.
#[derive(Debug, Clone)]
pub(super) struct Class<'a> {
    pub holders: Vec<(&'a str, &'a Held)>,
    pub origins: Origins,
}

impl Class<'_> {
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

    /// Whether a write is a DELETE that somebody allowed and its client may rely on: a backend took it, of whatever
    /// cluster, or its gateway died and some backend has nothing. One that all refused, or may not have heard, is
    /// not carried out in a client's stead.
    fn is_tombstone(&self, write: usize) -> bool {
        let record = self.writes[write];
        let taken = record.replies.iter().any(|(_, said)| matches!(said, Said::Good { .. }));
        let gone = || self.states.iter().any(|(_, state)| *state == State::Absent);
        self.is_delete(write) && (taken || (record.replies.is_empty() && gone()))
    }

    /// The contents that there are, and that the object was deleted, if it was.
    pub(super) fn classes(&self) -> Vec<Class<'a>> {
        let mut classes: Vec<Class> = Vec::new();
        for (backend, state) in self.states {
            let State::Present(held) = state else { continue };
            let origins = self.origins(backend, held);
            let same = |class: &&mut Class| {
                let theirs = class.holders.iter();
                theirs.map(|(_, other)| self.equal((other, &class.origins), (held, &origins))).any(is_true)
            };
            match classes.iter_mut().find(same) {
                Some(class) => {
                    class.holders.push((backend, held));
                    class.origins = joined(&class.origins, &origins);
                }
                None => classes.push(Class { holders: vec![(backend, held)], origins }),
            }
        }
        self.tell_apart(&mut classes);
        let deletes: Vec<usize> = (0..self.writes.len()).filter(|write| self.is_tombstone(*write)).collect();
        let newest = |write: &usize| !deletes.iter().any(|other| self.order.before(*write, *other));
        let writes: Vec<usize> = deletes.iter().copied().filter(newest).collect();
        if !writes.is_empty() {
            let origins = Origins { writes, exact: true, ..Origins::default() };
            classes.push(Class { holders: Vec::new(), origins });
        }
        classes
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
            let none = class.origins.writes.is_empty() && !class.origins.before;
            class.origins.later |= none;
        }
        // Without records backends agree: there was one content before, and where it is known the others are not it.
        let is_before =
            |class: &Class| class.origins.before && !class.origins.later && class.origins.writes.is_empty();
        let known: Vec<bool> = classes.iter().map(is_before).collect();
        if known.contains(&true) {
            for (class, known) in classes.iter_mut().zip(known) {
                class.origins.before &= known;
            }
        }
    }

    /// Whether two backends hold the same; `None` = only their bytes could tell.
    fn equal(&self, a: (&Held, &Origins), b: (&Held, &Origins)) -> Option<bool> {
        let one_write = a.1.writes.iter().any(|write| b.1.writes.contains(write));
        match content(a.0, b.0) {
            Some(false) => Some(false),
            // Storages may tell the metadata of one write in different words.
            Some(true) => Some(one_write || a.0.metadata == b.0.metadata),
            None => (one_write && a.1.exact && b.1.exact).then_some(true),
        }
    }
}

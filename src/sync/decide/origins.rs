//! Where what a backend holds may come from: by what the backend said of each write, and by when it got it.

use super::{
    Case, FRACTION,
    content::{md5_of, unquoted},
};
use crate::{
    journal::{Record, Said},
    sync::{Held, Md5, State},
};

/// Where a content may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origins {
    /// From before all records.
    pub before: bool,
    /// From one of these writes.
    pub writes: Vec<usize>,
    /// From a write that is in no record, after those that are.
    pub later: bool,
    /// The backend said of one of the writes what it still holds.
    pub exact: bool,
}

impl Case<'_> {
    /// Where what a backend holds may come from.
    pub(super) fn origins(&self, backend: &str, held: &Held) -> Origins {
        let puts = (0..self.writes.len()).filter(|write| !self.is_delete(*write));
        let (mut exact, mut possible) = (Vec::new(), Vec::new());
        for write in puts {
            match self.may_be(write, backend, held) {
                Some(true) => exact.push(write),
                None => possible.push(write),
                Some(false) => {}
            }
        }
        if !exact.is_empty() {
            // Of several writes of the same bytes it is the last one that the backend took.
            let took = |write: usize| matches!(self.writes[write].said(backend), Said::Good { .. });
            let passed =
                |write: &usize| exact.iter().any(|last| took(*last) && self.order.before(*write, *last));
            let writes = exact.iter().copied().filter(|write| !passed(write)).collect();
            return Origins { writes, exact: true, ..Origins::default() };
        }
        let took_one = self.writes.iter().any(|write| matches!(write.said(backend), Said::Good { .. }));
        let last = self.writes.iter().map(|write| write.ended).max();
        let late = last.is_some_and(|last| held.modified > last.saturating_add(self.clock_bound));
        let all_strong = self.writes.iter().all(|write| write.intent.strong);
        // Every write that may have reached a backend is recorded: what one of them explains needs no other cause.
        let explained = all_strong && !possible.is_empty();
        let before = !took_one && !late;
        let unexplained = possible.is_empty() && !before;
        let later = (late && !explained) || unexplained;
        // Or a worker brought it back while the DELETE was under way.
        let took_delete = |write: usize| {
            self.is_delete(write) && matches!(self.writes[write].said(backend), Said::Good { .. })
        };
        let brought = unexplained && !late && (0..self.writes.len()).any(took_delete);
        Origins { before: before || brought, writes: possible, later, exact: false }
    }

    /// Whether a backend holds what a write has written; `None` = it may.
    fn may_be(&self, write: usize, backend: &str, held: &Held) -> Option<bool> {
        let record = self.writes[write];
        let said = record.said(backend);
        if let Said::Good { etag: Some(etag), version } = said {
            let versions = version.as_ref().zip(held.version.as_ref()).map(|(then, now)| then == now);
            if unquoted(etag) != held.etag || versions == Some(false) {
                return Some(false);
            }
            // The same bytes may have been written again by somebody of whom nobody knows.
            let again = held.modified > record.ended.saturating_add(self.clock_bound);
            let sure = versions.is_some() || record.intent.strong || !again;
            return sure.then_some(true);
        }
        match (self.known_md5(record), held.md5) {
            (Some(written), Some(found)) => return Some(written == found),
            _ if record.intent.length.is_some_and(|length| length != held.length) => return Some(false),
            _ => {}
        }
        // A backend that did not take it may have got it from a worker since.
        let slack = if *said == Said::NotApplied { 0 } else { self.clock_bound };
        let too_early = held.modified + FRACTION < record.intent.begun.saturating_sub(slack);
        too_early.then_some(false)
    }

    /// The digest of what a write has written, if a backend told it. One that holds it and says that its ETag is no
    /// digest, because it is encrypted, has not told it.
    fn known_md5(&self, record: &Record) -> Option<Md5> {
        record.replies.iter().find_map(|(backend, said)| {
            let Said::Good { etag: Some(etag), .. } = said else { return None };
            let is_other = |held: &Held| held.etag == unquoted(etag) && held.md5 != md5_of(etag);
            let now = self.states.iter().find(|(name, _)| name == backend);
            let encrypted =
                now.is_some_and(|(_, state)| matches!(state, State::Present(held) if is_other(held)));
            if encrypted { None } else { md5_of(etag) }
        })
    }
}

/// What can be said of one content that several backends hold.
pub(super) fn joined(a: &Origins, b: &Origins) -> Origins {
    match (a.exact, b.exact) {
        (true, false) => return a.clone(),
        (false, true) => return b.clone(),
        _ => {}
    }
    // Where one backend can have it only from after all records, the others have it from there too, or from a worker.
    let only_later = |origins: &&Origins| origins.later && !origins.before && origins.writes.is_empty();
    if let Some(later) = [a, b].into_iter().find(only_later) {
        return later.clone();
    }
    let common: Vec<usize> = a.writes.iter().copied().filter(|write| b.writes.contains(write)).collect();
    let (before, later) = (a.before && b.before, a.later && b.later);
    if !common.is_empty() || before || later {
        return Origins { before, writes: common, later, exact: a.exact };
    }
    let mut writes = a.writes.clone();
    writes.extend(b.writes.iter().filter(|write| !a.writes.contains(write)));
    Origins { before: a.before || b.before, writes, later: a.later || b.later, exact: a.exact }
}

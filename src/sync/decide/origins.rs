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
    /// What a worker had sent when the last of the writes began may have arrived over it. If it is from before, the
    /// time of the backend is that of the copy.
    pub brought: bool,
    /// It is there since what was sent before the end of the last write could still arrive, or may be of a worker.
    early: bool,
}

impl Origins {
    /// Where it comes from if nothing explains it: from a write of which nobody knows, or from a worker that copied what
    /// was there before while a write was under way.
    pub fn or_unexplained(mut self) -> Origins {
        if self.writes.is_empty() && !self.before {
            self.later = true;
            self.before = self.early;
            self.brought = self.early;
        }
        self
    }

    /// From one of these, if there are any.
    pub fn exactly(writes: Vec<usize>) -> Option<Origins> {
        (!writes.is_empty()).then(|| Origins { writes, exact: true, ..Origins::default() })
    }

    /// It may come from before or from a write that the other may come from, too.
    pub fn widen(&mut self, other: &Origins) {
        self.before |= other.before;
        self.writes.extend(&other.writes);
        self.writes.sort_unstable();
        self.writes.dedup();
    }

    fn is_later(&self) -> bool {
        self.later && !self.before && self.writes.is_empty()
    }

    /// What can be said of one content that several backends hold; all that they are, in any order.
    pub fn joined(all: &[Origins]) -> Origins {
        let exact: Vec<&Origins> = all.iter().filter(|origins| origins.exact).collect();
        if !exact.is_empty() {
            return Origins { exact: true, ..Origins::common(&exact) };
        }
        // Where one backend can have it only from after all records, the others have it from there too, or from a worker.
        match all.iter().find(|origins| origins.is_later()) {
            Some(later) => later.clone(),
            None => Origins::common(&all.iter().collect::<Vec<_>>()),
        }
    }

    /// What all of them may be, else what any of them may be.
    fn common(all: &[&Origins]) -> Origins {
        let any = |is: fn(&Origins) -> bool| all.iter().any(|origins| is(origins));
        let every = |is: fn(&Origins) -> bool| all.iter().all(|origins| is(origins));
        let mut writes: Vec<usize> = all.iter().flat_map(|origins| origins.writes.iter().copied()).collect();
        writes.sort_unstable();
        writes.dedup();
        let mut joined = Origins {
            before: every(|origins| origins.before),
            writes: writes.clone(),
            later: every(|origins| origins.later),
            exact: false,
            brought: any(|origins| origins.brought),
            early: every(|origins| origins.early),
        };
        joined.writes.retain(|write| all.iter().all(|origins| origins.writes.contains(write)));
        if joined.writes.is_empty() && !joined.before && !joined.later {
            let (before, later) = (any(|origins| origins.before), any(|origins| origins.later));
            joined = Origins { before, writes, later, ..joined };
        }
        joined
    }
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
        let took = |write: usize| matches!(self.writes[write].said(backend), Said::Good { .. });
        // Of several writes of the same bytes it is the last one that the backend took.
        let last: Vec<usize> = exact.iter().copied().filter(|write| took(*write)).collect();
        exact.retain(|write| !last.iter().any(|last| self.order.before(*write, *last)));
        if let Some(origins) = Origins::exactly(exact) {
            return origins;
        }
        let took_one = (0..self.writes.len()).any(took);
        let ended = self.writes.iter().map(|write| write.ended).max();
        let after = |slack: i64| ended.is_some_and(|ended| held.modified > ended.saturating_add(slack));
        let late = after(self.bounds.clocks);
        // What workers have sent may be there since any time, and need not be right.
        let early = self.unseen.is_some()
            || self.changed
            || !after(self.bounds.clocks.saturating_add(self.bounds.settle));
        // Every write that may have reached a backend is recorded: what one of them explains needs no other cause, unless
        // it is there since nothing of them could arrive any more.
        let explained = self.all_strong() && early && !possible.is_empty();
        let (before, later) = (!took_one && !late, late && !explained);
        let origins = Origins { before, writes: possible, later, exact: false, brought: false, early };
        match origins.writes.is_empty() && !before && early && self.only_workers_were_late() {
            true => Origins { before: true, later: false, brought: true, ..origins },
            false => origins.or_unexplained(),
        }
    }

    /// Whether what came after the last recorded write, while something of a worker could still come, was of one: nobody
    /// else writes what is in no record.
    fn only_workers_were_late(&self) -> bool {
        let is_in_time = |write: &&Record, until| write.intent.turn.is_some_and(|begun| begun < until);
        self.unseen.is_some_and(|unseen| {
            self.all_strong()
                && self.writes.iter().all(|write| is_in_time(write, unseen.until))
                && self.writes.iter().any(|write| unseen.may_be_over(write))
        })
    }

    /// Whether every write that may have reached a backend is in a record.
    pub(super) fn all_strong(&self) -> bool {
        self.writes.iter().all(|write| write.intent.strong)
    }

    /// Whether a backend holds what a write has written; `None` = it may.
    pub(super) fn may_be(&self, write: usize, backend: &str, held: &Held) -> Option<bool> {
        let record = self.writes[write];
        let said = record.said(backend);
        if let Said::Good { etag: Some(etag), version } = said {
            let versions = version.as_ref().zip(held.version.as_ref()).map(|(then, now)| then == now);
            let is_it = unquoted(etag) == held.etag && versions != Some(false);
            // Something else came over it, and a worker brought it back.
            let same_bytes = || held.md5.is_some() && self.known_md5(record) == held.md5;
            if is_it || same_bytes() {
                // The same bytes may have been written again by somebody of whom nobody knows.
                let again = held.modified > record.ended.saturating_add(self.bounds.clocks);
                let sure = versions == Some(true) || record.intent.strong || !again;
                return sure.then_some(true);
            }
            // What was sent twice may be there by the other request, whose ETag nobody was told.
            if !record.may_come(backend) {
                return Some(false);
            }
        }
        match (self.known_md5(record), held.md5) {
            (Some(written), Some(found)) => return Some(written == found),
            _ if record.intent.length.is_some_and(|length| length != held.length) => return Some(false),
            _ => {}
        }
        // A backend that did not take it may have got it from a worker since.
        let slack = if *said == Said::NotApplied { 0 } else { self.bounds.clocks };
        let too_early = held.modified + FRACTION < record.intent.begun.saturating_sub(slack);
        too_early.then_some(false)
    }

    /// The digest of what a write has written, if a backend told it. One that holds it and says that its ETag is no
    /// digest, because it is encrypted, has not told it.
    fn known_md5(&self, record: &Record) -> Option<Md5> {
        record.replies.iter().find_map(|(backend, said)| {
            let Said::Good { etag: Some(etag), .. } = said else { return None };
            // It may have another by now, so that nothing tells what this one is.
            if record.may_come(backend) {
                return None;
            }
            let is_other = |held: &Held| held.etag == unquoted(etag) && held.md5 != md5_of(etag);
            let now = self.states.iter().find(|(name, _)| name == backend);
            let encrypted =
                now.is_some_and(|(_, state)| matches!(state, State::Present(held) if is_other(held)));
            if encrypted { None } else { md5_of(etag) }
        })
    }
}

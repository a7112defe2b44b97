//! Which of several contents is the newest.

use super::{
    Case, Decision, FRACTION,
    classes::Class,
    content::{content, is_true},
    origins::Origins,
};
use crate::{journal::Said, sync::Held};

impl Case<'_> {
    /// The class that the others are to be brought to, by its index; no class at all is 0.
    pub(super) fn winner(&self, classes: &[Class]) -> Result<usize, Decision> {
        if classes.len() <= 1 {
            return Ok(0);
        }
        let all = 0..classes.len();
        let beats = |a: usize, b: usize| self.beats(&classes[a].origins, &classes[b].origins);
        if let Some(newest) = all.clone().find(|a| all.clone().all(|b| *a == b || beats(*a, b))) {
            return Ok(newest);
        }
        let left: Vec<usize> = all.clone().filter(|a| !all.clone().any(|b| beats(b, *a))).collect();
        let unread = self.unread(classes, &left);
        if !unread.is_empty() {
            return Err(Decision::Digest(unread));
        }
        by_version(classes, &left)
            .or_else(|| self.by_time(classes, &left).filter(|_| !are_alike(classes, &left)))
            .ok_or_else(|| Decision::Park(self.why_undecided(classes, &left)))
    }

    /// Whether whatever `newer` comes from is after whatever `older` comes from.
    fn beats(&self, newer: &Origins, older: &Origins) -> bool {
        let before_is_older = !newer.before || (!older.before && older.writes.is_empty() && !older.later);
        let later_is_newer = !older.later || (!newer.later && newer.writes.is_empty() && !newer.before);
        let writes = older.writes.iter().all(|a| newer.writes.iter().all(|b| self.order.before(*a, *b)));
        before_is_older && later_is_newer && writes
    }

    /// Of the classes that are left, backends whose bytes would tell whether they hold the same.
    fn unread(&self, classes: &[Class], left: &[usize]) -> Vec<String> {
        let holders =
            || left.iter().flat_map(|class| classes[*class].holders.iter().map(move |h| (*class, h)));
        let mut unread = Vec::new();
        for (class, (name, held)) in holders() {
            let unsure = |(other, (_, theirs)): (usize, &(&str, &Held))| {
                other != class && content(held, theirs).is_none()
            };
            if held.md5.is_none() && holders().any(unsure) {
                unread.push((*name).to_owned());
            }
        }
        unread
    }

    /// The class that is later by the clocks of the backends, where that is proof.
    fn by_time(&self, classes: &[Class], left: &[usize]) -> Option<usize> {
        let later = |a: usize, b: usize| {
            let (newer, older) = (&classes[a], &classes[b]);
            let bound = self.bounds.clocks;
            !self.may_be_late(newer, older)
                && match (newer.is_gone(), older.is_gone()) {
                    (false, false) => newer.earliest() > older.latest().saturating_add(bound),
                    (false, true) => newer.earliest() > self.when_deleted(older, true).saturating_add(bound),
                    (true, _) => older.latest() < self.when_deleted(newer, false).saturating_sub(bound),
                }
        };
        left.iter().copied().find(|a| left.iter().all(|b| a == b || later(*a, *b)))
    }

    /// Whether what is newer by time may be something older that came late: an older write, or a copy of what was there
    /// before; or a write that may be older, and of which no backend says that it came in time. So may be what the same
    /// write has made of something older.
    fn may_be_late(&self, newer: &Class, older: &Class) -> bool {
        let (late, other) = (&newer.origins, &older.origins);
        let is_older =
            |write: usize| other.later || other.writes.iter().any(|b| self.order.before(write, *b));
        let is_copy = late.before && late.brought && (other.later || !other.writes.is_empty());
        let late_comers = self.late_comers(newer);
        let is_overtaken =
            || other.writes.iter().any(|write| self.may_have_overtaken(newer, &late_comers, *write));
        // Each backend has made its own, as of what it had: a copy. Who was slower need not have copied what is newer.
        let is_one_write =
            late.exact && other.exact && late.writes.iter().any(|write| other.writes.contains(write));
        is_copy || is_one_write || late.writes.iter().any(|write| is_older(*write)) || is_overtaken()
    }

    /// Of the writes that a content may be from, those that perhaps came after their end.
    pub(super) fn late_comers(&self, class: &Class) -> Vec<usize> {
        class.origins.writes.iter().copied().filter(|write| !self.came_in_time(*write, class)).collect()
    }

    /// Whether a content is perhaps that of a write which came late, over one that a backend took, or may have without
    /// anybody being told, and that may be the later of the two.
    pub(super) fn may_have_overtaken(&self, newer: &Class, late: &[usize], taken: usize) -> bool {
        (self.is_taken(taken) || self.is_orphan(taken))
            && late.iter().any(|write| !self.order.before(taken, *write))
            && !newer.origins.writes.contains(&taken)
    }

    /// Whether a backend that holds it got a write before that had ended: what came later may have come much later. Of a
    /// DELETE only the beginning counts.
    fn came_in_time(&self, write: usize, class: &Class) -> bool {
        let record = self.writes[write];
        let bound = self.bounds.clocks;
        let in_time = |(backend, held): &(&str, &Held)| match record.said(backend) {
            Said::Good { .. } => held.modified <= record.ended.saturating_add(bound),
            Said::Unknown => held.modified + FRACTION < record.ended.saturating_sub(bound),
            Said::NotApplied => false,
        };
        class.is_gone() || (!self.is_orphan(write) && class.holders.iter().any(in_time))
    }

    /// When the DELETEs of a class ended, the last of them, or began, the first.
    fn when_deleted(&self, gone: &Class, ended: bool) -> i64 {
        let writes = gone.origins.writes.iter().map(|write| self.writes[*write]);
        match ended {
            true => writes.map(|write| write.ended).max().unwrap_or(i64::MAX),
            false => writes.map(|write| write.intent.begun).min().unwrap_or(i64::MIN),
        }
    }

    fn why_undecided(&self, classes: &[Class], left: &[usize]) -> String {
        let contents: Vec<_> = left
            .iter()
            .map(|class| match classes[*class].holders.first() {
                Some((backend, held)) => format!("{backend} holds {}, {} bytes", held.etag, held.length),
                None => "it was deleted".to_owned(),
            })
            .collect();
        format!("nothing tells which is newer: {}", contents.join("; "))
    }
}

/// Whether two classes have the same bytes, and differ in metadata only: a copy has the later time, and may lack what
/// its backend does not keep.
fn are_alike(classes: &[Class], left: &[usize]) -> bool {
    let first = |class: &usize| classes[*class].holders.first().map(|(_, held)| *held);
    let held: Vec<&Held> = left.iter().filter_map(first).collect();
    held.iter().enumerate().any(|(at, one)| held[at + 1..].iter().any(|other| is_true(content(one, other))))
}

/// The class whose objects have the greatest version, if all have one.
fn by_version(classes: &[Class], left: &[usize]) -> Option<usize> {
    let version = |class: usize| {
        let mut versions = classes[class].holders.iter().map(|(_, held)| held.object_version);
        let first = versions.next()??;
        versions.all(|other| other == Some(first)).then_some(first)
    };
    let versions: Option<Vec<(usize, u64)>> =
        left.iter().map(|class| Some((*class, version(*class)?))).collect();
    let mut versions = versions?;
    versions.sort_by_key(|(_, version)| std::cmp::Reverse(*version));
    match versions.as_slice() {
        [(newest, one), (_, other), ..] if one > other => Some(*newest),
        _ => None,
    }
}

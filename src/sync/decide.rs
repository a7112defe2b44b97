//! Which backend is right: a pure function of what the backends hold and what the journal knows.
//!
//! What a backend holds comes from somewhere ([`Origins`]): from a recorded write that it took, or may have taken;
//! from before all of them; or from a later write that nobody recorded. Contents are compared by where they come from:
//! one is newer than another if **every** origin it may have is after every origin of the other. The newest of all is
//! what the backends are brought to.
//!
//! - Two records are ordered if their gateway says so, or if one ended before the other began ([`Order`]).
//! - A recorded DELETE competes as a content of its own. Without one, a backend that lacks the object has nothing to say:
//!   nothing is ever deleted because it is missing elsewhere.
//! - Where the order does not tell, the object's version in its metadata does, else `Last-Modified` if it differs by
//!   more than the clocks may, and could not be that of an older write which came late. Else a human has to.
//! - A write that a backend acknowledged and nobody holds any more is not replaced by an older one.

use super::{Held, State};
use crate::journal::{Record, Said, What};

/// What `Last-Modified` leaves out.
const FRACTION: i64 = 999;

/// Each is compared with each.
const RECORDS_MOST: usize = 500;

/// What to do with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// All backends hold the same, or nothing. These sub-resources were written and are still to be compared.
    Agreed { attributes: Vec<Attribute> },
    /// Bring `targets` to what `source` holds.
    Copy { source: String, targets: Vec<String> },
    /// Delete it on these.
    Delete { targets: Vec<String> },
    /// Ask these for the digest of what they hold, then decide again.
    Digest(Vec<String>),
    /// Some backend has to be asked first, and could not be.
    Wait(String),
    /// For a human.
    Park(String),
}

/// A sub-resource that a recorded request wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub name: String,
    /// A backend that took the newest write to it, if it is known which that is.
    pub source: Option<String>,
}

/// Decides. `states` has every backend of the cluster once, by its endpoint; `clock_bound` is in milliseconds.
pub fn decide(records: &[Record], states: &[(String, State)], clock_bound: i64) -> Decision {
    if let Some(reason) = not_for_machines(records) {
        return Decision::Park(reason);
    }
    if records.len() > RECORDS_MOST {
        let count = records.len();
        return Decision::Park(format!(
            "{count} records are more than the {RECORDS_MOST} that can be put in order"
        ));
    }
    let writes: Vec<&Record> =
        records.iter().filter(|record| matches!(record.intent.what, What::Put | What::Delete)).collect();
    let order = Order::new(&writes, clock_bound);
    let case = Case { writes, order, states, clock_bound };
    let classes = case.classes();
    let unknown = states.iter().find_map(|(_, state)| match state {
        State::Unknown(why) | State::Refused(why) => Some(why.clone()),
        _ => None,
    });
    match case.winner(&classes) {
        Ok(winner) => match (case.bring_to(&classes, winner), unknown) {
            (None, None) => Decision::Agreed { attributes: case.attributes(records) },
            (Some(todo), None) => case.checked(&classes, winner).map_or(todo, Decision::Park),
            // What is certain need not wait for a backend that is away.
            (Some(todo), Some(_)) if case.is_certain(&classes, winner) => todo,
            (_, Some(why)) => Decision::Wait(why),
        },
        Err(_) if unknown.is_some() => Decision::Wait(unknown.unwrap_or_default()),
        Err(undecided) => undecided,
    }
}

/// Requests whose effect cannot be brought to another backend.
fn not_for_machines(records: &[Record]) -> Option<String> {
    records.iter().find_map(|record| match &record.intent.what {
        What::Version(request) => {
            Some(format!("{request} of one version: ids of versions differ between backends"))
        }
        What::Bucket(request) => Some(format!("{request} of a bucket: look at what its backends have")),
        _ => None,
    })
}

/// Which of the writes took effect before which, as far as is known.
#[derive(Debug)]
pub struct Order(Vec<Vec<bool>>);

impl Order {
    fn new(writes: &[&Record], clock_bound: i64) -> Order {
        let known = |a: &Record, b: &Record| is_before(a, b, clock_bound);
        let mut before: Vec<Vec<bool>> =
            writes.iter().map(|a| writes.iter().map(|b| known(a, b)).collect()).collect();
        // What is before something is before all that comes after it.
        for via in 0..writes.len() {
            for a in 0..writes.len() {
                for b in 0..writes.len() {
                    before[a][b] |= before[a][via] && before[via][b];
                }
            }
        }
        Order(before)
    }

    /// Whether write `a` took effect before write `b`.
    fn before(&self, a: usize, b: usize) -> bool {
        self.0[a][b]
    }

    fn is_newest(&self, a: usize) -> bool {
        !self.0[a].contains(&true)
    }
}

/// Whether one write is known to be before another.
pub fn is_before(a: &Record, b: &Record, clock_bound: i64) -> bool {
    // The journal saw the end of the one before the other began.
    if a.turn.zip(b.intent.turn).is_some_and(|(ended, begun)| ended < begun) {
        return true;
    }
    if a.intent.id.gateway != b.intent.id.gateway {
        return a.ended.saturating_add(clock_bound) < b.intent.begun;
    }
    match (a.commit, b.commit) {
        (Some(one), Some(other)) => one < other,
        _ => a.ended < b.intent.begun,
    }
}

/// Where a content may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Origins {
    /// From before all records.
    before: bool,
    /// From one of these writes.
    writes: Vec<usize>,
    /// From a write that is in no record, after those that are.
    later: bool,
    /// The backend said of one of the writes what it still holds.
    exact: bool,
}

/// Backends that hold the same, and where it may come from; without backends: that it was deleted.
#[derive(Debug, Clone)]
struct Class<'a> {
    holders: Vec<(&'a str, &'a Held)>,
    origins: Origins,
}

impl Class<'_> {
    fn is_gone(&self) -> bool {
        self.holders.is_empty()
    }
    fn earliest(&self) -> i64 {
        self.holders.iter().map(|(_, held)| held.modified).min().unwrap_or(i64::MAX)
    }
    fn latest(&self) -> i64 {
        self.holders.iter().map(|(_, held)| held.modified + FRACTION).max().unwrap_or(i64::MIN)
    }
}

struct Case<'a> {
    writes: Vec<&'a Record>,
    order: Order,
    states: &'a [(String, State)],
    clock_bound: i64,
}

impl<'a> Case<'a> {
    fn is_delete(&self, write: usize) -> bool {
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
    fn classes(&self) -> Vec<Class<'a>> {
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

    /// Where what a backend holds may come from.
    fn origins(&self, backend: &str, held: &Held) -> Origins {
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
    fn known_md5(&self, record: &Record) -> Option<super::Md5> {
        record.replies.iter().find_map(|(backend, said)| {
            let Said::Good { etag: Some(etag), .. } = said else { return None };
            let is_other = |held: &Held| held.etag == unquoted(etag) && held.md5 != md5_of(etag);
            let now = self.states.iter().find(|(name, _)| name == backend);
            let encrypted =
                now.is_some_and(|(_, state)| matches!(state, State::Present(held) if is_other(held)));
            if encrypted { None } else { md5_of(etag) }
        })
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

    /// The class that the others are to be brought to, by its index; no class at all is 0.
    fn winner(&self, classes: &[Class]) -> Result<usize, Decision> {
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
            // An older write may have come late.
            let late_comer = newer.origins.writes.iter().any(|write| {
                older.origins.later
                    || older.origins.writes.iter().any(|other| self.order.before(*write, *other))
            });
            let bound = self.clock_bound;
            !late_comer
                && match (newer.is_gone(), older.is_gone()) {
                    (false, false) => newer.earliest() > older.latest().saturating_add(bound),
                    (false, true) => newer.earliest() > self.deleted(older, true).saturating_add(bound),
                    (true, _) => older.latest() < self.deleted(newer, false).saturating_sub(bound),
                }
        };
        left.iter().copied().find(|a| left.iter().all(|b| a == b || later(*a, *b)))
    }

    /// When the DELETEs of a class ended, the last of them, or began, the first.
    fn deleted(&self, gone: &Class, ended: bool) -> i64 {
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

    /// What is left to be done for all reachable backends to be like the winner.
    fn bring_to(&self, classes: &[Class], winner: usize) -> Option<Decision> {
        let class = classes.get(winner)?;
        let is_among = |name: &String| class.holders.iter().any(|(holder, _)| holder == name);
        let targets: Vec<String> = self
            .states
            .iter()
            .filter(|(name, state)| match state {
                State::Unknown(_) | State::Refused(_) => false,
                State::Absent => !class.is_gone(),
                State::Present(_) => !is_among(name),
            })
            .map(|(name, _)| name.clone())
            .collect();
        if targets.is_empty() {
            return None;
        }
        Some(match class.holders.first() {
            None => Decision::Delete { targets },
            Some((source, _)) => Decision::Copy { source: (*source).to_owned(), targets },
        })
    }

    /// Why the winner must not replace others after all: a backend took a newer write, and nobody holds it.
    fn checked(&self, classes: &[Class], winner: usize) -> Option<String> {
        let origins = &classes.get(winner)?.origins;
        let older = |write: usize| {
            origins.before || origins.writes.iter().any(|other| self.order.before(*other, write))
        };
        let taken = |write: &usize| {
            let replies = &self.writes[*write].replies;
            replies.iter().find(|(_, said)| matches!(said, Said::Good { .. })).map(|(backend, _)| backend)
        };
        let lost = (0..self.writes.len()).filter(|write| !self.is_delete(*write) && older(*write));
        let backend = lost.into_iter().find_map(|write| taken(&write))?;
        Some(format!("{backend} took a newer write than any backend holds now"))
    }

    /// Whether no backend that could not be asked can hold anything newer.
    fn is_certain(&self, classes: &[Class], winner: usize) -> bool {
        let Some(Class { origins, .. }) = classes.get(winner) else { return false };
        let newest: Vec<usize> = (0..self.writes.len()).filter(|a| self.order.is_newest(*a)).collect();
        origins.exact && newest.len() == 1 && origins.writes.contains(&newest[0])
    }

    /// The sub-resources that were written, but for those that a later write of the object has replaced.
    fn attributes(&self, records: &[Record]) -> Vec<Attribute> {
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

/// What can be said of one content that several backends hold.
fn joined(a: &Origins, b: &Origins) -> Origins {
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

fn is_true(answer: Option<bool>) -> bool {
    answer == Some(true)
}

/// Whether the bytes are the same; `None` = that is not known.
pub(super) fn content(a: &Held, b: &Held) -> Option<bool> {
    if a.length != b.length {
        return Some(false);
    }
    match (a.md5, b.md5) {
        (Some(one), Some(other)) => Some(one == other),
        _ => None,
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

fn unquoted(etag: &str) -> &str {
    etag.trim().trim_matches('"')
}

/// The digest that an ETag is, if it is one.
pub fn md5_of(etag: &str) -> Option<super::Md5> {
    let text = unquoted(etag).as_bytes();
    if text.len() != 32 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut md5 = super::Md5::default();
    for (byte, pair) in md5.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(md5)
}

#[cfg(test)]
mod tests;

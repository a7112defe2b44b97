//! Which backend is right: a pure function of what the backends hold and what the journal knows.
//!
//! What a backend holds comes from somewhere ([`origins::Origins`]): from a recorded write that it took, or may have taken;
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
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | what may be decided, and what is done about it |
//! | `order.rs` | which write took effect before which |
//! | `origins.rs` | where what one backend holds may come from |
//! | `classes.rs` | the contents that there are, each with its holders |
//! | `content.rs` | whether two backends hold the same bytes |
//! | `winner.rs` | which content is the newest |
//! | `attributes.rs` | sub-resources that were written |

mod attributes;
mod classes;
mod content;
mod order;
mod origins;
mod winner;

use super::State;
use crate::journal::{self, RECORDS_MOST, Record, Said, Unseen, What};
use classes::Class;
use order::Order;

pub use attributes::Attribute;
pub(super) use attributes::{ACL, LEGAL_HOLD, RETENTION, TAGGING};
pub(super) use content::content;

/// What `Last-Modified` leaves out.
const FRACTION: i64 = 999;

/// What to do with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// All backends hold the same, or nothing. These sub-resources were written and are still to be compared.
    Agreed { attributes: Vec<Attribute> },
    /// Bring `targets` to what `source` holds.
    Copy {
        source: String,
        targets: Vec<String>,
        /// Sub-resources of which a target has the last word: to be brought to the source before.
        attributes: Vec<Attribute>,
    },
    /// Delete it on these.
    Delete { targets: Vec<String> },
    /// Ask these for the digest of what they hold, then decide again.
    Digest(Vec<String>),
    /// Some backend has to be asked first, and could not be.
    Wait(String),
    /// For a human.
    Park(String),
}

/// What is assumed of the world; in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How far clocks of gateways and backends may be apart.
    pub clocks: i64,
    /// After which what was sent does not happen any more.
    pub settle: i64,
}

/// What the journal knows of an object, apart from where it stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    pub records: &'a [Record],
    pub unseen: Option<Unseen>,
    /// Whether a region looks for the object on a newer cluster first, which hides what is here.
    pub hidden: bool,
    /// Whether the worker has changed something since it was told the rest: what no record explains may be of that.
    pub changed: bool,
}

impl<'a> Known<'a> {
    pub fn of(case: &'a journal::Case) -> Known<'a> {
        Known { records: &case.records, unseen: case.unseen, ..Known::default() }
    }
}

/// Decides. `states` has every backend of the cluster once, by its endpoint.
pub fn decide(known: Known<'_>, states: &[(String, State)], bounds: Bounds) -> Decision {
    let Known { records, .. } = known;
    if let Some(reason) = not_for_machines(records) {
        return Decision::Park(reason);
    }
    if records.len() > RECORDS_MOST {
        return Decision::Park(format!(
            "it has more than the {RECORDS_MOST} records that can be put in order"
        ));
    }
    Case::new(known, states, bounds).decide()
}

/// Where all backends hold the same bytes and metadata: whether a sub-resource that comes with each write may differ, and
/// who has the right one.
pub fn along(known: Known<'_>, states: &[(String, State)], bounds: Bounds, name: &str) -> Option<Attribute> {
    Case::new(known, states, bounds).along(name)
}

/// Sub-resources that can be read from one backend and written to another.
const COMPARED: [&str; 4] = [ACL, LEGAL_HOLD, RETENTION, TAGGING];

/// Requests whose effect cannot be brought to another backend.
fn not_for_machines(records: &[Record]) -> Option<String> {
    records.iter().find_map(|record| match &record.intent.what {
        What::Version(request) => {
            Some(format!("{request} of one version: ids of versions differ between backends"))
        }
        What::Bucket(request) => Some(format!("{request} of a bucket: look at what its backends have")),
        What::Attribute(name) if !COMPARED.contains(&name.as_str()) => {
            Some(format!("?{name}: only {} are compared", COMPARED.map(|name| format!("?{name}")).join(", ")))
        }
        _ => None,
    })
}

struct Case<'a> {
    records: &'a [Record],
    unseen: Option<Unseen>,
    hidden: bool,
    changed: bool,
    /// Of the records, those that made something of the object.
    writes: Vec<&'a Record>,
    order: Order,
    states: &'a [(String, State)],
    bounds: Bounds,
}

impl<'a> Case<'a> {
    fn new(known: Known<'a>, states: &'a [(String, State)], bounds: Bounds) -> Case<'a> {
        let Known { records, unseen, hidden, changed } = known;
        let writes: Vec<&Record> =
            records.iter().filter(|record| matches!(record.intent.what, What::Put | What::Delete)).collect();
        let order = Order::new(&writes, bounds.clocks);
        Case { records, unseen, hidden, changed, writes, order, states, bounds }
    }
}

impl Case<'_> {
    fn decide(&self) -> Decision {
        let unknown = self.states.iter().find_map(|(_, state)| state.why_unknown().map(str::to_owned));
        let classes = self.classes();
        let winner = self.winner(&classes);
        let Some(why) = unknown else {
            return match (winner, self.doubt(&classes)) {
                (Err(Decision::Digest(backends)), _) => Decision::Digest(backends),
                (_, Some(doubt)) => Decision::Park(doubt),
                (Ok(winner), None) => self.bring(&classes, winner),
                (Err(undecided), None) => undecided,
            };
        };
        // What is certain need not wait for a backend that is away; what is not may be once that answers.
        let certain = winner.ok().filter(|winner| self.is_certain(&classes, *winner));
        let todo = certain.and_then(|winner| self.bring_to(&classes, winner));
        todo.filter(|todo| !matches!(todo, Decision::Park(_))).unwrap_or(Decision::Wait(why))
    }

    /// What is to be done for all backends to be like the winner, and whether that is right.
    fn bring(&self, classes: &[Class], winner: usize) -> Decision {
        let todo = self.bring_to(classes, winner);
        let class = classes.get(winner);
        let late = class.map(|class| self.late_comers(class)).unwrap_or_default();
        let lost = match (class, &todo) {
            (Some(class), Some(_)) => self.lost(|write| self.may_replace(classes, class, &late, write)),
            (Some(class), None) if !class.is_gone() => {
                self.lost(|write| self.has_replaced(class, &late, write))
            }
            _ => self.lost(|write| self.is_elsewhere(write) || self.is_deleted_late(write)),
        };
        match (lost, todo) {
            (Some(why), _) => Decision::Park(why),
            (None, Some(todo)) => todo,
            (None, None) => match self.attributes(None) {
                Ok(attributes) => Decision::Agreed { attributes },
                Err(why) => Decision::Park(why),
            },
        }
    }

    /// Why one of the writes that are `missed` is lost: a backend took it, or may have before an older one came late.
    fn lost(&self, missed: impl Fn(usize) -> bool) -> Option<String> {
        let puts = (0..self.writes.len()).filter(|write| !self.is_delete(*write));
        puts.filter(|write| missed(*write)).find_map(|write| {
            let replies = &self.writes[write].replies;
            let taken = replies.iter().find(|(_, said)| matches!(said, Said::Good { .. }));
            let taken =
                taken.map(|(backend, _)| format!("{backend} took a newer write than any backend holds now"));
            taken.or_else(|| self.may_be_overtaken(write))
        })
    }

    /// A gateway that died told nobody whether a backend took its write. If one did, it may hold now what was sent
    /// earlier and came late, or lack what a DELETE of unknown outcome has removed.
    fn may_be_overtaken(&self, write: usize) -> Option<String> {
        let is_by = |other: usize, backend: &str, state: &State| match state {
            _ if other == write || !self.writes[other].may_come(backend) => false,
            State::Absent => self.is_delete(other),
            State::Present(held) => {
                let is_of = !self.is_delete(other) && self.may_be(other, backend, held) != Some(false);
                is_of && self.order.before(other, write)
            }
            _ => false,
        };
        let is_overtaken = |(backend, state): &&(String, State)| {
            (0..self.writes.len()).any(|other| !self.is_over(other, write) && is_by(other, backend, state))
        };
        let (backend, _) = self.states.iter().filter(|_| self.is_orphan(write)).find(is_overtaken)?;
        Some(format!(
            "a gateway died in the middle of a write, over which another may have come on {backend}"
        ))
    }

    /// Whether nothing that was sent for one write could still come when another began.
    fn is_over(&self, write: usize, when: usize) -> bool {
        let slack = self.bounds.settle.saturating_add(self.bounds.clocks);
        self.writes[write].ended.saturating_add(slack) < self.writes[when].intent.begun
    }

    /// What is left to be done for all reachable backends to be like the winner.
    fn bring_to(&self, classes: &[Class], winner: usize) -> Option<Decision> {
        let class = classes.get(winner)?;
        let is_among = |name: &String| class.holders.iter().any(|(holder, _)| holder == name);
        let targets: Vec<String> = self
            .states
            .iter()
            .filter(|(name, state)| match state {
                State::Unknown(_) | State::Refused(_) | State::Denied(_) => false,
                State::Absent => !class.is_gone(),
                State::Present(_) => !is_among(name),
            })
            .map(|(name, _)| name.clone())
            .collect();
        if targets.is_empty() {
            return None;
        }
        let Some(source) = self.source_of(class) else { return Some(Decision::Delete { targets }) };
        Some(match self.last_words((source, &class.origins), &targets) {
            Ok(attributes) => Decision::Copy { source: source.to_owned(), targets, attributes },
            Err(why) => Decision::Park(why),
        })
    }

    /// From whom a content is copied: rather from who took the last write of it, so that what came with that goes along.
    fn source_of<'c>(&self, class: &Class<'c>) -> Option<&'c str> {
        let newest = self.newest_puts();
        let holders = || class.holders.iter().map(|(holder, _)| *holder);
        holders().find(|holder| self.took_all(&newest, holder)).or_else(|| holders().next())
    }

    /// Whether a content may be older than a write. The others must not be brought to it then.
    fn may_replace(&self, classes: &[Class], class: &Class, late: &[usize], write: usize) -> bool {
        let origins = &class.origins;
        let is_older = |other: &usize| self.order.before(*other, write);
        // Where it is held it has been compared.
        let is_held = || classes.iter().any(|class| class.origins.writes.contains(&write));
        origins.before
            || origins.writes.iter().any(is_older)
            || (!is_held()
                && (self.may_have_overtaken(class, late, write) || self.may_be_hidden(class, write)))
    }

    /// Whether a write that a backend took, and of which nothing is left, may be later than a content: nothing tells their
    /// order, neither a backend that took it and holds this now, nor a DELETE after it.
    fn may_be_hidden(&self, class: &Class, write: usize) -> bool {
        let took = |backend: &str| matches!(self.writes[write].said(backend), Said::Good { .. });
        let is_unordered = |other: &usize| !self.order.before(write, *other);
        let is_deleted =
            |other: usize| self.is_delete(other) && self.is_taken(other) && self.order.before(write, other);
        self.is_taken(write)
            && class.origins.writes.iter().any(is_unordered)
            && !class.holders.iter().any(|(backend, _)| took(backend))
            && !(0..self.writes.len()).any(is_deleted)
    }

    /// Whether what all backends hold is certainly older than a write, or came late. If it may be a later one, they are
    /// left alone.
    fn has_replaced(&self, class: &Class, late: &[usize], write: usize) -> bool {
        let origins = &class.origins;
        let begun = self.writes[write].intent.begun.saturating_sub(self.bounds.clocks);
        let is_old = !origins.exact && class.holders.iter().any(|(_, held)| held.modified + FRACTION < begun);
        let is_older = |other: &usize| self.order.before(*other, write);
        let is_before = origins.writes.iter().all(is_older) && (!origins.before || self.all_strong());
        !origins.writes.contains(&write)
            && (is_old || (!origins.later && (is_before || self.may_have_overtaken(class, late, write))))
    }

    /// Nobody has the object any more: whether no backend took the write that the cluster still has, and no DELETE came
    /// after it.
    fn is_elsewhere(&self, write: usize) -> bool {
        let is_here = |backend: &String| self.states.iter().any(|(name, _)| name == backend);
        let mut replies = self.writes[write].replies.iter();
        !replies.any(|(backend, said)| matches!(said, Said::Good { .. }) && is_here(backend))
            && !self.may_be_undone(write)
    }

    /// Nobody has the object any more: whether it was a DELETE that is older than the write, or may have come late over
    /// it.
    fn is_deleted_late(&self, write: usize) -> bool {
        let may_be_done = |delete| self.is_taken(delete) || self.writes[delete].is_uncertain();
        let mut deletes = (0..self.writes.len()).filter(|other| self.is_delete(*other));
        deletes.any(may_be_done) && !self.may_be_undone(write)
    }

    /// Whether a DELETE may rightly have taken the object away after a write. One whose order is not known may only if
    /// there is none that may have done so because it came late.
    fn may_be_undone(&self, write: usize) -> bool {
        let deletes = || (0..self.writes.len()).filter(|other| self.is_delete(*other));
        let is_later = |delete| self.order.before(write, delete);
        let is_late = |delete: usize| self.writes[delete].is_uncertain() && !is_later(delete);
        deletes().any(|delete| match self.is_taken(delete) {
            true if is_later(delete) => true,
            true => !self.order.before(delete, write) && !deletes().any(is_late),
            false => self.writes[delete].is_uncertain() && is_later(delete),
        })
    }

    /// A DELETE may have been done, or backends may have lacked the object before.
    fn doubt(&self, classes: &[Class]) -> Option<String> {
        let is_there = classes.iter().any(|class| !class.is_gone());
        let is_doubtful = || (0..self.writes.len()).any(|write| self.is_doubtful(write));
        let why = "a gateway died in the middle of a DELETE, and a backend may have lacked the object before";
        let doubt = (is_there && is_doubtful()).then(|| why.to_owned());
        doubt.or_else(|| self.may_be_uncovered(classes))
    }

    /// Nobody knows whether a newer cluster did a DELETE which this one did not. If it did, it does not hide any more
    /// what is here and older.
    fn may_be_uncovered(&self, classes: &[Class]) -> Option<String> {
        let is_elsewhere = |name: &String| self.states.iter().all(|(backend, _)| backend != name);
        let is_unknown = |(name, said): &(String, Said)| *said == Said::Unknown && is_elsewhere(name);
        let may_be_done =
            |delete: &usize| self.is_orphan(*delete) || self.writes[*delete].replies.iter().any(is_unknown);
        let is_passed = |delete: &usize| {
            (0..self.writes.len()).any(|write| self.is_taken(write) && self.order.before(*delete, write))
        };
        let may_be_older = |class: &Class, delete| {
            let is_later = |write: &usize| self.order.before(delete, *write);
            !class.is_gone() && (class.origins.before || !class.origins.writes.iter().all(is_later))
        };
        let deletes =
            (0..self.writes.len()).filter(|write| self.is_delete(*write) && !self.is_tombstone(*write));
        let mut left = deletes.filter(|delete| may_be_done(delete) && !is_passed(delete));
        let is_uncovered = left.any(|delete| classes.iter().any(|class| may_be_older(class, delete)));
        let why = "a newer cluster may have done a DELETE which this one did not, and may not hide any more what is here";
        (self.hidden && is_uncovered).then(|| why.to_owned())
    }

    fn is_before(&self, a: &Record, b: &Record) -> bool {
        order::is_before(a, b, self.bounds.clocks)
    }

    /// Whether no backend that could not be asked can hold anything newer.
    fn is_certain(&self, classes: &[Class], winner: usize) -> bool {
        let Some(Class { origins, .. }) = classes.get(winner) else { return false };
        let newest: Vec<usize> = (0..self.writes.len()).filter(|a| self.order.is_newest(*a)).collect();
        origins.exact && newest.len() == 1 && origins.writes.contains(&newest[0])
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

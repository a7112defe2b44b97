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
use crate::journal::{Record, Said, What};
use classes::Class;
use order::{Order, is_before};

pub use attributes::Attribute;
pub(super) use content::content;

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
        State::Unknown(why) => Some(why.clone()),
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

struct Case<'a> {
    writes: Vec<&'a Record>,
    order: Order,
    states: &'a [(String, State)],
    clock_bound: i64,
}

impl Case<'_> {
    /// What is left to be done for all reachable backends to be like the winner.
    fn bring_to(&self, classes: &[Class], winner: usize) -> Option<Decision> {
        let class = classes.get(winner)?;
        let is_among = |name: &String| class.holders.iter().any(|(holder, _)| holder == name);
        let targets: Vec<String> = self
            .states
            .iter()
            .filter(|(name, state)| match state {
                State::Unknown(_) => false,
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
}

#[cfg(test)]
mod tests;

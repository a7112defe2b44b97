//! Copies that were sent home, and what has to be seen before anything else is done: that none of them may still arrive,
//! and that no DELETE has overtaken them.

use super::{again, ends};
use crate::{
    journal::{Case, Object, What, WriteId},
    sync::{
        Copied, Held, State, StoreError,
        decide::content,
        repair::{Outcome, Repair, Undisturbed, new_in},
    },
};

/// Copies of one object, of which nobody knows yet whether they may stay.
#[derive(Debug)]
pub struct Sent {
    pub(super) copies: Vec<Copy>,
    pub(super) ended: Result<(), StoreError>,
}

/// To a backend of the home, which had nothing.
#[derive(Debug)]
pub(super) struct Copy {
    pub backend: String,
    pub source: Held,
    /// `None` = nobody knows whether it arrived.
    pub copied: Option<Copied>,
}

impl Copy {
    /// Whether what a backend holds is this.
    fn is(&self, held: &Held) -> bool {
        match &self.copied {
            Some(copied) => held.etag == copied.etag && held.version == copied.version,
            None => content(held, &self.source) != Some(false),
        }
    }
}

impl Sent {
    /// Whether one may still arrive, until `settle` has passed.
    pub fn may_arrive(&self) -> bool {
        self.copies.iter().any(|copy| copy.copied.is_none())
    }

    /// Once none can arrive any more and no write is under way, or has been for long: takes them back if the object was
    /// deleted since the records `seen`, and not written again. The object begins anew then, whatever there was. `Err` = not
    /// all that would have to go could be looked at or taken back: to be tried again.
    pub async fn look_back(
        &self,
        repair: &Repair<'_>,
        object: &Object,
        seen: &[WriteId],
        case: Option<&Case>,
    ) -> Result<Outcome, StoreError> {
        let new: Vec<&What> =
            case.iter().flat_map(|case| new_in(case, seen)).map(|record| &record.intent.what).collect();
        if let Some(case) = case.filter(|_| new.contains(&&What::Delete) && !new.contains(&&What::Put)) {
            self.take_back(repair, object, case).await?;
        }
        Ok(match &self.ended {
            // What is written meanwhile cannot count on what it says of tags.
            Err(StoreError::Unknown(why)) => Outcome::Unsettled { why: why.clone() },
            _ if !new.is_empty() => again("it was written to meanwhile"),
            Ok(()) => again("a write was under way"),
            Err(error) => ends(repair, error.clone()),
        })
    }

    /// Not what somebody has written since.
    async fn take_back(&self, repair: &Repair<'_>, object: &Object, case: &Case) -> Result<(), StoreError> {
        let known = case.ids();
        let gate = Undisturbed { journal: repair.journal, gate: repair.gate, object, seen: &known };
        for copy in &self.copies {
            match repair.stores.state(&copy.backend, object).await {
                State::Present(held) if copy.is(&held) => {
                    repair.stores.delete(object, (&copy.backend, &held), &gate).await?;
                }
                State::Present(_) | State::Absent => {}
                State::Unknown(why) | State::Refused(why) => return Err(StoreError::Failed(why)),
            }
        }
        Ok(())
    }
}

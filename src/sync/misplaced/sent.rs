//! Copies that were sent home, and what has to be seen before anything else is done: that none of them may still arrive,
//! and that no DELETE has overtaken them.

use super::{again, ends};
use crate::{
    journal::{Case, Object, What, WriteId},
    sync::{
        Copied, Held, State, StoreError,
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
    pub arrival: Arrival,
}

/// Whether a copy has arrived.
#[derive(Debug)]
pub(super) enum Arrival {
    /// With this ETag, and version.
    Known(String, Option<String>),
    /// It did, and the target has not said under which ETag.
    Nameless,
    /// Nobody knows.
    Unknown,
}

impl Arrival {
    /// `None` = it will never.
    pub fn of(copied: &Result<Copied, StoreError>) -> Option<Arrival> {
        match copied {
            Ok(copied) => Some(Arrival::Known(copied.etag.clone(), copied.version.clone())),
            Err(StoreError::Unfinished { etag: Some(etag), .. }) => Some(Arrival::Known(etag.clone(), None)),
            Err(StoreError::Unfinished { etag: None, .. }) => Some(Arrival::Nameless),
            Err(StoreError::Unknown(_)) => Some(Arrival::Unknown),
            Err(_) => None,
        }
    }
}

impl Copy {
    /// Whether what its backend holds is this. `Err` = nothing has told yet.
    async fn is(&self, held: &Held, repair: &Repair<'_>, object: &Object) -> Result<bool, StoreError> {
        if let Arrival::Known(etag, version) = &self.arrival {
            return Ok(held.etag == *etag && (version.is_none() || held.version == *version));
        }
        if held.length != self.source.length || held.metadata != self.source.metadata {
            return Ok(false);
        }
        let md5 = match held.md5 {
            Some(md5) => md5,
            None => repair.stores.md5(&self.backend, object, held).await?,
        };
        match self.source.md5 {
            Some(known) => Ok(md5 == known),
            None if held.etag == self.source.etag => Ok(true),
            None => Err(StoreError::Failed(format!(
                "{} holds {}, and nothing tells whether that is the copy of {}",
                self.backend, held.etag, self.source.etag
            ))),
        }
    }
}

impl Sent {
    /// Whether one may still arrive, until `settle` has passed.
    pub fn may_arrive(&self) -> bool {
        self.copies.iter().any(|copy| matches!(copy.arrival, Arrival::Unknown))
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
                State::Present(held) if copy.is(&held, repair, object).await? => {
                    let deleted = repair.stores.delete(object, (&copy.backend, &held), &gate).await;
                    repair.attempt.note(&deleted);
                    deleted?;
                }
                State::Present(_) | State::Absent => {}
                State::Unknown(why) | State::Refused(why) | State::Denied(why) => {
                    return Err(StoreError::Failed(why));
                }
            }
        }
        Ok(())
    }
}

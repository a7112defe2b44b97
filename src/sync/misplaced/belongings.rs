//! What would be lost with what is deleted elsewhere, though home has the same bytes: tags and an ACL that a copy which
//! was given up in the middle has not brought, or which home does not keep, and locks, which no copy brings. Nothing tells
//! whose are newer.

use chrono::{DateTime, Utc};

use super::{Move, States};
use crate::{
    journal::Object,
    sync::{
        Held, State, StoreError,
        decide::{LEGAL_HOLD, RETENTION, content},
        stores::xml,
    },
};

/// They keep an object from being deleted.
const LOCKS: [&str; 2] = [LEGAL_HOLD, RETENTION];

impl Move<'_> {
    /// Why something would be left behind. What is older at the target than at home has been written over, with all that
    /// belonged to it.
    pub(super) async fn left_behind(
        &self,
        object: &Object,
        targets: &[String],
        there: &States,
        home: &States,
    ) -> Result<Option<String>, StoreError> {
        for (target, state) in there.iter().filter(|(name, _)| targets.contains(name)) {
            let State::Present(held) = state else { continue };
            let same = home.iter().filter(|(_, own)| is_same(own, held)).map(|(backend, _)| backend);
            let same: Vec<&String> = same.collect();
            if same.is_empty() {
                continue;
            }
            for name in self.repair.rules.along().iter().chain(&LOCKS) {
                if let Some(why) = self.lacks(object, target, &same, name).await? {
                    return Ok(Some(why));
                }
            }
        }
        Ok(None)
    }

    /// Which backend of the home has not what the target has of a sub-resource.
    async fn lacks(
        &self,
        object: &Object,
        target: &str,
        home: &[&String],
        name: &str,
    ) -> Result<Option<String>, StoreError> {
        let Some(theirs) = self.told(object, target, name).await? else { return Ok(None) };
        let now = Utc::now();
        if is_kept(name, &theirs, None, now) {
            return Ok(None);
        }
        for backend in home {
            let ours = self.told(object, backend, name).await?;
            if !is_kept(name, &theirs, ours.as_deref(), now) {
                return Ok(Some(format!("{target} has another ?{name} than {backend}, and the same bytes")));
            }
        }
        Ok(None)
    }

    /// `None` = there is none, or the backend knows no such thing. What the account may not see may be there.
    async fn told(&self, object: &Object, backend: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.repair.stores.attribute(backend, object, name).await {
            Err(StoreError::Denied { by, why }) => {
                Err(StoreError::Denied { by, why: format!("?{name} may not be read: {why}") })
            }
            Err(StoreError::Refused(_)) => Ok(None),
            told => told,
        }
    }
}

fn is_same(own: &State, held: &Held) -> bool {
    matches!(own, State::Present(own) if content(own, held) != Some(false) && own.metadata == held.metadata)
}

/// Whether what one backend has is with another one, too; of a lock, whether that one's holds as long.
fn is_kept(name: &str, theirs: &[u8], ours: Option<&[u8]>, now: DateTime<Utc>) -> bool {
    match name {
        LEGAL_HOLD => !is_held(theirs) || ours.is_some_and(is_held),
        RETENTION => is_retained(theirs, ours, now),
        _ => ours == Some(theirs),
    }
}

/// Whether a legal hold is on; one that cannot be read is.
fn is_held(document: &[u8]) -> bool {
    xml::leaf(document, "Status").is_none_or(|status| status != "OFF")
}

fn is_retained(theirs: &[u8], ours: Option<&[u8]>, now: DateTime<Utc>) -> bool {
    match (Retention::of(theirs), ours.and_then(Retention::of)) {
        (Some(theirs), _) if theirs.until <= now => true,
        (Some(theirs), Some(ours)) => ours.until >= theirs.until && (ours.is_strict || !theirs.is_strict),
        (Some(_), None) => false,
        (None, _) => ours == Some(theirs) || xml::leaf(theirs, "RetainUntilDate").is_none(),
    }
}

struct Retention {
    until: DateTime<Utc>,
    /// Nobody may end it before.
    is_strict: bool,
}

impl Retention {
    /// `None` = there is none, or its date cannot be read.
    fn of(document: &[u8]) -> Option<Retention> {
        let until = DateTime::parse_from_rfc3339(&xml::leaf(document, "RetainUntilDate")?).ok()?.to_utc();
        let is_strict = xml::leaf(document, "Mode").is_none_or(|mode| mode != "GOVERNANCE");
        Some(Retention { until, is_strict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_kept_by_one_that_holds_as_long() {
        let now = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().to_utc();
        let hold = |status: &str| format!("<LegalHold><Status>{status}</Status></LegalHold>");
        let until = |mode: &str, year: &str| {
            let date = format!("{year}-06-01T00:00:00.000Z");
            format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{date}</RetainUntilDate></Retention>")
        };
        let (strict, lax) = (|year| until("COMPLIANCE", year), |year| until("GOVERNANCE", year));
        let unreadable = "<Retention><RetainUntilDate>soon</RetainUntilDate></Retention>".to_owned();
        let cases = [
            (LEGAL_HOLD, hold("OFF"), None, true),
            (LEGAL_HOLD, hold("ON"), None, false),
            (LEGAL_HOLD, hold("ON"), Some(hold("OFF")), false),
            (LEGAL_HOLD, hold("ON"), Some(hold("ON")), true),
            (LEGAL_HOLD, "?".into(), None, false),
            (RETENTION, "<Retention/>".into(), None, true),
            (RETENTION, strict("2025"), None, true),
            (RETENTION, lax("2027"), None, false),
            (RETENTION, lax("2027"), Some(lax("2026")), false),
            (RETENTION, lax("2027"), Some(strict("2028")), true),
            (RETENTION, strict("2027"), Some(lax("2028")), false),
            (RETENTION, unreadable.clone(), None, false),
            (RETENTION, unreadable.clone(), Some(unreadable), true),
            ("tagging", "a".into(), None, false),
            ("tagging", "a".into(), Some("b".into()), false),
            ("tagging", "a".into(), Some("a".into()), true),
        ];
        for (name, theirs, ours, kept) in cases {
            let ours = ours.as_ref().map(String::as_bytes);
            assert_eq!(is_kept(name, theirs.as_bytes(), ours, now), kept, "{name} {theirs} {ours:?}");
        }
    }
}

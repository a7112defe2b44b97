//! Sub-resources: compared once the object agrees, and kept while what they belong to is copied over.

use super::{Outcome, Repair, WRITING};
use crate::{
    journal::Object,
    sync::{
        State, StoreError,
        decide::{self, Attribute, Known},
    },
};

/// What the last write to a sub-resource made it, of an object that is about to be copied.
pub(super) struct LastWord {
    pub holder: String,
    name: String,
    value: Option<Vec<u8>>,
}

impl Repair<'_> {
    /// What has to be looked after while the object is copied: who has it may be copied over.
    pub(super) async fn last_words(
        &self,
        object: &Object,
        attributes: Vec<Attribute>,
    ) -> Result<Vec<LastWord>, Outcome> {
        let mut words = Vec::new();
        for Attribute { name, source } in attributes {
            let Some(holder) = source else { continue };
            let value = self.attribute(object, &holder, &name).await?;
            words.push(LastWord { holder, name, value });
        }
        Ok(words)
    }

    /// Sets what a backend has not, because a copy does not bring it along.
    pub(super) async fn give_back(
        &self,
        object: &Object,
        words: &[LastWord],
        target: &str,
    ) -> Result<(), Outcome> {
        for LastWord { name, value, .. } in words {
            if self.attribute(object, target, name).await? != *value {
                self.set_attribute(object, target, name, value.as_deref()).await?;
            }
        }
        Ok(())
    }

    async fn attribute(
        &self,
        object: &Object,
        backend: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>, Outcome> {
        let failed = || Outcome::Failed { why: changed_meanwhile(name) };
        let value = self.stores.attribute(backend, object, name).await;
        value.map_err(|error| self.problem(error).unwrap_or_else(failed))
    }

    /// Compares sub-resources and brings them to what the newest write to them made; returns how many were written.
    pub(super) async fn attributes(
        &self,
        object: &Object,
        attributes: &[Attribute],
    ) -> Result<usize, Outcome> {
        let mut written = 0;
        for attribute in attributes {
            written += self.compare(object, attribute, false).await?;
        }
        Ok(written)
    }

    /// Compares what came with the last write and goes along with a copy, unless it is `compared` already; returns how many
    /// were written. Backends that refuse to tell are left out.
    pub(super) async fn along(
        &self,
        object: &Object,
        known: Known<'_>,
        states: &[(String, State)],
        compared: &[Attribute],
    ) -> Result<usize, Outcome> {
        let mut written = 0;
        for name in self.rules.along().iter().filter(|name| compared.iter().all(|of| of.name != **name)) {
            if let Some(attribute) = decide::along(known, states, self.rules.bounds(), name) {
                written += self.compare(object, &attribute, true).await?;
            }
        }
        Ok(written)
    }

    /// `lenient`: without those that refuse to tell.
    async fn compare(&self, object: &Object, attribute: &Attribute, lenient: bool) -> Result<usize, Outcome> {
        let Attribute { name, source } = attribute;
        let mut values = Vec::new();
        for backend in self.backends {
            match self.stores.attribute(backend, object, name).await {
                Ok(value) => values.push((backend, value)),
                Err(StoreError::Changed(_)) => return Ok(1),
                Err(StoreError::Refused(_) | StoreError::Denied { .. }) if lenient => {}
                Err(error) => {
                    let failed = || Outcome::Failed { why: changed_meanwhile(name) };
                    return Err(self.problem(error).unwrap_or_else(failed));
                }
            }
        }
        if values.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            return Ok(0);
        }
        let right = source.as_ref().and_then(|source| values.iter().find(|(name, _)| *name == source));
        let Some((_, right)) = right else {
            let why = format!("nothing tells on which backend ?{name} is newer");
            return Err(Outcome::Parked { why });
        };
        let mut written = 0;
        for (backend, _) in values.iter().filter(|(_, value)| value != right) {
            self.set_attribute(object, backend, name, right.as_deref()).await?;
            written += 1;
        }
        Ok(written)
    }

    /// Sets a sub-resource and reads it back: a backend that tells it in other words than it was told would be told
    /// again and again.
    async fn set_attribute(
        &self,
        object: &Object,
        backend: &str,
        name: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Outcome> {
        if !self.gate.may_go_on().await {
            return Err(Outcome::Again { pause: WRITING, why: changed_meanwhile(name) });
        }
        let changed = || Outcome::Failed { why: changed_meanwhile(name) };
        let set = self.stores.set_attribute(backend, object, name, value).await;
        self.attempt.note(&set);
        if let Some(outcome) = set.err().and_then(|error| self.problem(error)) {
            return Err(outcome);
        }
        let now = self.stores.attribute(backend, object, name).await;
        let now = now.map_err(|error| self.problem(error).unwrap_or_else(changed))?;
        if now.as_deref() == value {
            return Ok(());
        }
        // Another write, or a backend that does as it likes.
        match self.gate.may_go_on().await {
            true => Err(Outcome::Parked { why: format!("{backend} does not keep ?{name} as it was set") }),
            false => Err(Outcome::Again { pause: WRITING, why: changed_meanwhile(name) }),
        }
    }
}

fn changed_meanwhile(name: &str) -> String {
    format!("?{name} was changed meanwhile")
}

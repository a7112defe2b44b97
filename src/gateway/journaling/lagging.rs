//! Who lacks the newest version of an object: by the gateway's own writes, and by what the journal has recorded.

use std::{
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{Journaling, object};
use crate::{
    gateway::{Gateway, write},
    journal::{Known, Object},
    mirror::Lagging,
    s3::Target,
    topology::{BackendId, Cluster},
};

/// The longest that a read waits for the journal's word on its object. After one that waited in vain none asks for a
/// while.
const ASKING: Duration = Duration::from_millis(50);
const NOT_ASKING: Duration = Duration::from_secs(1);

/// What the journal says of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    Says(Known),
    /// That it has no record.
    Nothing,
    /// It was not heard, or there is no journal.
    Unheard,
}

impl Word {
    pub fn known(self) -> Option<Known> {
        match self {
            Word::Says(known) => Some(known),
            Word::Nothing | Word::Unheard => None,
        }
    }
}

impl Gateway {
    /// The backends of a cluster that lack the newest version of an object that is about to be read, and what the journal
    /// says of it there.
    pub(in crate::gateway) async fn lagging(
        &self,
        target: &Target,
        cluster: &Cluster,
    ) -> (Vec<BackendId>, Word) {
        let name = write::object_name(target);
        let look = || name.as_ref().map(|name| self.mirror.order().lagging(name)).unwrap_or_default();
        let before = look();
        let word = match &self.journaling {
            Some(journaling) => journaling.word(target, cluster, !before.missed.is_empty()).await,
            None => Word::Unheard,
        };
        // After the journal: a write may have ended meanwhile.
        let own = look();
        if let (true, Some(name)) = (is_made_up(&word, &before, &own), &name) {
            let here = own.missed.iter().filter(|(id, _)| cluster.backends.iter().any(|has| has.id == *id));
            here.for_each(|(id, number)| self.mirror.order().made_up(name, *id, *number));
        }
        (who(&word, &before, &own, cluster), word)
    }
}

impl Journaling {
    /// What the journal says. `is_missed` = a backend has missed a write to the object, by what this gateway has seen of
    /// its own: then [`Word::Nothing`] means that this has been repaired since, or was nothing.
    ///
    /// A write is live from before it is sent until what it came to is in the memory, and in the memory until the journal
    /// has it and has none of it any more. So who has seen the miss, then that no write is live, and then that there is no
    /// record, looks at one that has come and gone. Where the memory had no room for it the journal must have taken it
    /// first. What never comes to a record counts for good.
    pub(super) async fn word(&self, target: &Target, cluster: &Cluster, is_missed: bool) -> Word {
        let remembered = &self.overview.remembered;
        if !is_missed && remembered.is_empty() && remembered.is_whole() {
            return Word::Nothing;
        }
        if !matches!(target, Target::Object { .. }) {
            return Word::Unheard;
        }
        let object = object(target, &cluster.name);
        let is_open = is_missed && (self.overview.live.has(&object) || self.overview.untold.load(Relaxed));
        let word = match remembered.of(&object) {
            Some(known) => Word::Says(known),
            None if remembered.surely_lacks(&object) => Word::Nothing,
            None => self.ask(&object, is_missed && !is_open).await,
        };
        match word {
            Word::Nothing if is_open => Word::Unheard,
            word => word,
        }
    }

    /// Whether backends certainly agree on an object. Not where the journal said so while there was no room for it in the
    /// memory: more may be on its way there.
    pub fn surely_lacks(&self, target: &Target, cluster: &Cluster) -> bool {
        self.overview.remembered.surely_lacks(&object(target, &cluster.name))
    }

    /// `in_full` = that there is nothing counts only if the journal has all that it was told.
    async fn ask(&self, object: &Object, in_full: bool) -> Word {
        let engine = self.writer.engine().filter(|_| self.writer.is_available() && self.may_ask());
        let Some(engine) = engine else { return Word::Unheard };
        let has_all = !in_full || timeout(ASKING, self.writer.caught_up()).await.is_ok();
        let answer = timeout(ASKING, engine.known(object)).await;
        let word = match answer {
            Ok(Ok(Some(known))) => Word::Says(known),
            Ok(Ok(None)) if has_all => Word::Nothing,
            _ => Word::Unheard,
        };
        if has_all && word != Word::Unheard {
            self.metrics.asked_in_time.inc();
            return word;
        }
        self.metrics.asked_in_vain.inc();
        *self.asked_in_vain.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        word
    }

    fn may_ask(&self) -> bool {
        let last = *self.asked_in_vain.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| last.elapsed() >= NOT_ASKING)
    }
}

/// Whether nobody lacks what backends of this cluster have missed: the journal has no record of it any more. `before` and
/// after it was heard. Of what was missed since it may not have heard; and while another write is under way on some
/// backends, the one that others missed may be that one.
fn is_made_up(word: &Word, before: &Lagging, own: &Lagging) -> bool {
    *word == Word::Nothing && own.unfinished.is_empty() && own.missed == before.missed
}

/// Backends that lag, by the journal's word, and by what the gateway's own writes were `before` it was heard and are now.
fn who(word: &Word, before: &Lagging, own: &Lagging, cluster: &Cluster) -> Vec<BackendId> {
    match word {
        Word::Says(known) => {
            let lags = cluster.backends.iter().filter(|backend| known.lags(&backend.endpoint()));
            let recorded = lags.map(|backend| backend.id).collect();
            let backends: Vec<BackendId> = cluster.backends.iter().map(|backend| backend.id).collect();
            joined(&backends, own, recorded)
        }
        Word::Nothing if is_made_up(word, before, own) => Vec::new(),
        Word::Nothing | Word::Unheard => own.all().collect(),
    }
}

/// All of these, as long as that leaves one to be preferred. Else what is newer counts: a write that is under way, once a
/// backend has taken it, since its client has been told; before that, and after it, what is recorded, which knows writes
/// of other gateways, too.
fn joined(backends: &[BackendId], own: &Lagging, recorded: Vec<BackendId>) -> Vec<BackendId> {
    let is_all = |lagging: &[BackendId]| backends.iter().all(|backend| lagging.contains(backend));
    let own_ones: Vec<BackendId> = own.all().collect();
    let both: Vec<BackendId> = own_ones.iter().chain(&recorded).copied().collect();
    match both {
        both if !is_all(&both) => both,
        _ if !own.unfinished.is_empty() && !is_all(&own_ones) => own_ones,
        both if recorded.is_empty() => both,
        _ => recorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The missed ones missed write 1.
    fn own(unfinished: &[BackendId], missed: &[BackendId]) -> Lagging {
        let missed = missed.iter().map(|id| (*id, 1)).collect();
        Lagging { unfinished: unfinished.to_vec(), missed }
    }

    #[test]
    fn what_was_missed_counts_unless_it_is_known_that_it_was_repaired() {
        let cluster = Cluster { name: "c".into(), backends: Vec::new() };
        let who = |word: Word, before: &Lagging, own: &Lagging| who(&word, before, own, &cluster);
        let missed = own(&[], &[1]);
        assert!(who(Word::Nothing, &missed, &missed).is_empty());
        assert_eq!(who(Word::Unheard, &missed, &missed), [1]);
        // 0 has yet to take what 1 missed.
        assert_eq!(who(Word::Nothing, &own(&[0], &[1]), &own(&[0], &[1])), [0, 1]);
        // While the journal was asked.
        assert_eq!(who(Word::Nothing, &own(&[], &[]), &missed), [1]);
        assert_eq!(who(Word::Nothing, &missed, &Lagging { missed: vec![(1, 2)], ..Lagging::default() }), [1]);
    }

    #[test]
    fn where_all_would_lag_what_is_newer_counts() {
        let lagging = |unfinished: &[BackendId], missed: &[BackendId], recorded: &[BackendId]| {
            joined(&[0, 1, 2], &own(unfinished, missed), recorded.to_vec())
        };
        assert_eq!(lagging(&[1], &[2], &[1]), [1, 2, 1]);
        // 0 has taken what is under way, and missed what was before.
        assert_eq!(lagging(&[1, 2], &[], &[0]), [1, 2]);
        assert_eq!(lagging(&[1], &[2], &[0]), [1, 2]);
        // Nobody has taken it yet.
        assert_eq!(lagging(&[0, 1, 2], &[], &[0]), [0]);
        // What 0 missed is older than what another gateway has recorded since.
        assert_eq!(lagging(&[], &[0], &[1, 2]), [1, 2]);
        assert_eq!(lagging(&[0, 1, 2], &[], &[]), [0, 1, 2]);
    }
}

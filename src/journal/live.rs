//! The writes that a gateway has under way, by object: whoever has something to tell of one learns whether others are
//! there, and the journal of their intents, if it has not yet.
//!
//! Objects are told apart by a hash. Two that share one look like one object with two writes: that costs a record that
//! says nothing, never one that is missed.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Intent, Object, WriteId};

const SHARDS: usize = 64;

/// Writes under way. There are as many as requests, or objects that those name.
#[derive(Debug)]
pub struct Live {
    shards: Vec<Mutex<HashMap<u64, Vec<Write>>>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Write {
    id: WriteId,
    /// The journal has its intent, or will have it before what it is told next.
    told: bool,
    /// What others may tell of it. Nothing, where its own request is about to, or to tell of its end.
    intent: Option<Arc<Intent>>,
}

/// What there is beside a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// The journal has been told of the write already, or will have been.
    pub told: bool,
    /// Other writes to the object are under way.
    pub others: bool,
}

impl Default for Live {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Live { shards, hasher: RandomState::new() }
    }
}

impl Live {
    /// A write is about to be sent; the journal has been `told` of it, or not. It is to [`leave`](Self::leave).
    pub fn enter(&self, intent: &Arc<Intent>, told: bool) {
        let (hash, mut shard) = self.shard(&intent.object);
        shard.entry(hash).or_default().push(Write { id: intent.id, told, intent: Some(intent.clone()) });
    }

    /// From now on nobody else tells the journal of the write: it does so itself.
    pub fn claim(&self, object: &Object, id: WriteId) -> Beside {
        let (hash, mut shard) = self.shard(object);
        let Some(writes) = shard.get_mut(&hash) else { return Beside { told: false, others: false } };
        let own = writes.iter_mut().find(|write| write.id == id);
        let told = own.is_some_and(|own| {
            own.intent = None;
            own.told
        });
        Beside { told, others: writes.iter().any(|write| write.id != id) }
    }

    /// The journal has been told of the write that was claimed, or could not be. Others may tell of it again.
    pub fn unclaim(&self, intent: &Arc<Intent>, told: bool) {
        let (hash, mut shard) = self.shard(&intent.object);
        let own = shard.get_mut(&hash).into_iter().flatten().find(|write| write.id == intent.id);
        own.into_iter().for_each(|own| (own.told, own.intent) = (told, Some(intent.clone())));
    }

    /// Tells once more of all writes of which the journal was told, and whose ends are not about to be.
    pub fn repeat(&self, tell: impl Fn(&Arc<Intent>)) {
        for shard in &self.shards {
            // Under the lock: none of them is told to have ended before it is told to be under way.
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let told = shard.values().flatten().filter(|write| write.told);
            told.filter_map(|write| write.intent.as_ref()).for_each(&tell);
        }
    }

    /// Tells of all writes to the object but one, where it was not told yet; `tell` says whether it could be, `lost`
    /// whether the journal may not have one any more of which it was told. False = it does not have all.
    pub fn introduce(
        &self,
        object: &Object,
        but: WriteId,
        tell: impl Fn(&Arc<Intent>) -> bool,
        lost: impl Fn(WriteId) -> bool,
    ) -> bool {
        // Under the lock: none of them ends before it is told that it has begun.
        let (hash, mut shard) = self.shard(object);
        let others = shard.get_mut(&hash).into_iter().flatten().filter(|write| write.id != but);
        others.fold(true, |all, write| {
            write.told = write.told || write.intent.as_ref().is_some_and(&tell);
            all && write.told && !lost(write.id)
        })
    }

    /// Whether a write to the object is under way, or has ended and not said all that there is to say of it.
    pub fn has(&self, object: &Object) -> bool {
        let (hash, shard) = self.shard(object);
        shard.contains_key(&hash)
    }

    /// The write is over, and what there is to say of it has been said.
    pub fn leave(&self, object: &Object, id: WriteId) {
        let (hash, mut shard) = self.shard(object);
        let Some(writes) = shard.get_mut(&hash) else { return };
        writes.retain(|write| write.id != id);
        if writes.is_empty() {
            shard.remove(&hash);
        }
    }

    fn shard(&self, object: &Object) -> (u64, MutexGuard<'_, HashMap<u64, Vec<Write>>>) {
        let hash = self.hasher.hash_one(object);
        let shard = &self.shards[hash as usize % SHARDS];
        (hash, shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::journal::fixture;

    fn intent(key: &str, number: i64) -> Arc<Intent> {
        Arc::new(fixture::intent(key, number))
    }

    #[test]
    fn a_write_sees_the_others_of_its_object_and_not_itself() {
        let live = Live::default();
        let writes = [intent("k", 1), intent("k", 2), intent("other", 3)];
        let [one, two, other] = &writes;
        live.enter(one, true);
        live.enter(other, false);
        let contested = |write: &Intent| live.claim(&write.object, write.id).others;
        assert!(!contested(one));
        live.enter(two, false);
        assert!(contested(one) && contested(two) && !contested(other));
        live.leave(&one.object, one.id);
        assert!(!contested(two) && live.has(&two.object));
        writes.iter().for_each(|write| live.leave(&write.object, write.id));
        assert!(!live.has(&two.object));
        assert!(live.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn others_are_told_once_and_not_when_they_do_so_themselves() {
        let live = Live::default();
        let [told, untold, claimed] = [intent("k", 1), intent("k", 2), intent("k", 3)];
        live.enter(&told, true);
        live.enter(&untold, false);
        live.enter(&claimed, false);
        let heard = RefCell::new(Vec::new());
        let introduce = |but: &Intent, room: bool| {
            let tell = |intent: &Arc<Intent>| {
                heard.borrow_mut().extend(room.then_some(intent.id.number));
                room
            };
            live.introduce(&but.object, but.id, tell, |_| false)
        };
        assert!(!introduce(&told, false), "there is no room");
        assert_eq!(live.claim(&claimed.object, claimed.id), Beside { told: false, others: true });
        assert!(!introduce(&told, true), "one tells of itself");
        assert!(introduce(&claimed, true));
        assert_eq!(*heard.borrow(), [2]);
        assert_eq!(live.claim(&untold.object, untold.id), Beside { told: true, others: true });
        // It could not.
        live.unclaim(&claimed, false);
        assert!(introduce(&told, true));
        assert_eq!(*heard.borrow(), [2, 3]);
    }

    #[test]
    fn what_was_told_can_be_told_again_until_its_request_tells_its_end() {
        let live = Live::default();
        let [told, untold, claimed, ending] = [1, 2, 3, 4].map(|number| intent("k", number));
        live.enter(&told, true);
        live.enter(&untold, false);
        live.enter(&claimed, false);
        live.enter(&ending, true);
        live.claim(&claimed.object, claimed.id);
        live.claim(&ending.object, ending.id);
        let repeated = || {
            let heard = RefCell::new(Vec::new());
            live.repeat(|intent| heard.borrow_mut().push(intent.id.number));
            heard.into_inner()
        };
        assert_eq!(repeated(), [1]);
        live.unclaim(&claimed, true);
        assert_eq!(repeated(), [1, 3]);
        assert_eq!(Arc::strong_count(&ending), 1, "its record would be a copy");
    }
}

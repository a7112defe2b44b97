//! The writes that a gateway has under way, by object: whoever ends learns whether another is still there.
//!
//! Objects are told apart by a hash. Two that share one look like one object with two writes: that costs a record that
//! says nothing, never one that is missed.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Object;

const SHARDS: usize = 64;

/// Writes under way. There are as many as requests, or objects that those name.
#[derive(Debug)]
pub struct Live {
    shards: Vec<Mutex<HashMap<u64, Count>>>,
    hasher: RandomState,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    told: usize,
    untold: usize,
}

/// What other writes to an object are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    None,
    /// The journal has the intents of all of them, or will have them before it has what is told next.
    Told,
    /// It does not have those of all.
    Untold,
}

impl Default for Live {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Live { shards, hasher: RandomState::new() }
    }
}

impl Live {
    /// A write is about to be sent; the journal has been `told` of it, or not. It is to [`leave`](Self::leave).
    pub fn enter(&self, object: &Object, told: bool) {
        let (hash, mut shard) = self.shard(object);
        let count = shard.entry(hash).or_default();
        match told {
            true => count.told += 1,
            false => count.untold += 1,
        }
    }

    /// Those beside a write that has entered, and was `told` or not.
    pub fn others(&self, object: &Object, told: bool) -> Others {
        let (hash, shard) = self.shard(object);
        let count = shard.get(&hash).copied().unwrap_or_default();
        match (count.told, count.untold, told) {
            (0 | 1, 0, true) | (0, 0 | 1, false) => Others::None,
            (_, 0, _) | (_, 1, false) => Others::Told,
            _ => Others::Untold,
        }
    }

    /// The write is over, and what there is to say of it has been said.
    pub fn leave(&self, object: &Object, told: bool) {
        let (hash, mut shard) = self.shard(object);
        let Some(count) = shard.get_mut(&hash) else { return };
        let own = if told { &mut count.told } else { &mut count.untold };
        *own = own.saturating_sub(1);
        if (count.told, count.untold) == (0, 0) {
            shard.remove(&hash);
        }
    }

    fn shard(&self, object: &Object) -> (u64, MutexGuard<'_, HashMap<u64, Count>>) {
        let hash = self.hasher.hash_one(object);
        let shard = &self.shards[hash as usize % SHARDS];
        (hash, shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str) -> Object {
        Object { cluster: "c".into(), bucket: b"b".into(), key: key.into() }
    }

    #[test]
    fn a_write_sees_the_others_of_its_object_and_not_itself() {
        let live = Live::default();
        let (one, other) = (object("1"), object("2"));
        live.enter(&other, false);
        for told in [true, false] {
            live.enter(&one, told);
            assert_eq!(live.others(&one, told), Others::None);
            live.enter(&one, true);
            assert_eq!(live.others(&one, told), Others::Told);
            live.enter(&one, false);
            assert_eq!((live.others(&one, true), live.others(&one, told)), (Others::Untold, Others::Untold));
            live.leave(&one, false);
            live.leave(&one, true);
            live.leave(&one, told);
            assert_eq!(live.others(&one, true), Others::None);
        }
        live.leave(&other, false);
        assert!(live.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}

//! Limits on requests that are under way at once, in all or for each key.
//!
//! A permit is a value: it is given back when the exchange that holds it is gone, however that
//! ended. Memory is bounded by the requests under way, because a key is forgotten with the
//! last of its permits.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// Shards of the table of keys: workers rarely meet at one.
const SHARDS: usize = 16;

/// Requests under way, shared by all workers.
#[derive(Debug)]
pub struct Places {
    most: u32,
    all: AtomicU32,
    by_key: [Mutex<HashMap<u64, u32>>; SHARDS],
    hasher: RandomState,
}

/// One request's place, given back on drop.
#[derive(Debug)]
pub struct Permit {
    places: Arc<Places>,
    /// `None`: of those for all.
    key: Option<u64>,
}

impl Places {
    /// `most` at once.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            all: AtomicU32::new(0),
            by_key: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// A place among those for all; `None`: there is none.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        let more = |open| (open < self.most).then_some(open + 1);
        self.all.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Permit { places: Arc::clone(self), key: None })
    }

    /// A place among those of this key; `None`: there is none.
    pub fn enter_as(self: &Arc<Self>, key: &(impl Hash + ?Sized)) -> Option<Permit> {
        let key = self.hasher.hash_one(key);
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        match shard.entry(key) {
            Entry::Occupied(open) if *open.get() >= self.most => return None,
            Entry::Occupied(mut open) => *open.get_mut() += 1,
            Entry::Vacant(none) => {
                none.insert(1);
            }
        }
        Some(Permit { places: Arc::clone(self), key: Some(key) })
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, u32>> {
        &self.by_key[key as usize % SHARDS]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(key) = self.key else {
            self.places.all.fetch_sub(1, Relaxed);
            return;
        };
        let shard = self.places.shard(key);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut open) = shard.entry(key) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Arc::new(Places::new(2));
        let first = places.enter().unwrap();
        let second = places.enter().unwrap();
        assert!(places.enter().is_none());
        drop(first);
        assert!(places.enter().is_some());
        drop(second);
        assert_eq!(places.all.load(Relaxed), 0);
    }

    #[test]
    fn keys_have_places_of_their_own_and_are_forgotten() {
        let places = Arc::new(Places::new(1));
        let ada = places.enter_as("ada").unwrap();
        assert!(places.enter_as("ada").is_none());
        let others: Vec<_> = (0..1000).filter_map(|key| places.enter_as(&key)).collect();
        assert_eq!(others.len(), 1000);
        drop((ada, others));
        let left: usize = places.by_key.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(left, 0);
        assert!(places.enter_as("ada").is_some());
    }
}

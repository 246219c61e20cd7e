//! A part of the memory tier, and its policy: S3-FIFO (Yang et al., SOSP 2023), by bytes.
//!
//! What is new comes into a small queue, a tenth of all. At its end it goes on to the main queue
//! if it was asked for meanwhile, and out otherwise; what went out and comes back soon goes to the
//! main queue at once. There it stays for as many rounds as it was asked for. So what is asked
//! for once, be it a scan of a million things, passes through a tenth of the memory. A hit moves
//! nothing: it counts to three.
//!
//! Implements: REQ-CACHE-002

use hashbrown::HashTable;

use super::{
    Slot, Value,
    ghost::Ghost,
    list::{List, Place},
};
use crate::cache::store::key::Spread;

/// One in so many bytes is for what is new.
const SMALL_SHARE: usize = 10;

/// Beyond this it does not matter how often something is asked for.
const MOST_WANTED: u8 = 3;

/// Entries of one part, under one lock.
#[derive(Debug)]
pub(super) struct Shard<V> {
    table: HashTable<u32>,
    list: List<V>,
    ghost: Ghost,
    spread: Spread,
    /// Entries that are heads.
    pub(super) heads: usize,
}

/// What a step of eviction came to.
#[derive(Debug)]
pub(super) enum Step<V> {
    /// This went out.
    Evicted(V),
    /// Something was given another chance.
    Moved,
    /// There is nothing here.
    Empty,
}

impl<V: Value> Shard<V> {
    pub(super) fn new(spread: Spread) -> Self {
        Self {
            table: HashTable::new(),
            list: List::new(),
            ghost: Ghost::default(),
            spread,
            heads: 0,
        }
    }

    /// What the tables take, in bytes.
    pub(super) fn allocated(&self) -> usize {
        self.table.allocation_size() + self.list.allocated() + self.ghost.allocated()
    }

    /// What the entries take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.list.queue(Place::Small).bytes + self.list.queue(Place::Main).bytes
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Finds an entry, which is then wanted.
    pub(super) fn get(&mut self, slot: &Slot, hash: u64) -> Option<&V> {
        let at = self.find(slot, hash)?;
        let node = self.list.get_mut(at)?;
        node.wanted = (node.wanted + 1).min(MOST_WANTED);
        Some(&node.value)
    }

    /// Whether it is there; it is not wanted for that.
    pub(super) fn peek(&self, slot: &Slot, hash: u64) -> Option<&V> {
        Some(&self.list.get(self.find(slot, hash)?)?.value)
    }

    /// Puts an entry in, or another value in its place, which is returned.
    pub(super) fn insert(&mut self, slot: Slot, hash: u64, value: V) -> Option<V> {
        let bytes = value.bytes();
        if let Some(at) = self.find(&slot, hash) {
            self.list.resize(at, bytes);
            return Some(std::mem::replace(&mut self.list.get_mut(at)?.value, value));
        }
        let place = if self.ghost.recall(hash) { Place::Main } else { Place::Small };
        let at = self.list.push(slot, value, bytes, place);
        self.heads += usize::from(slot.is_head());
        let (list, spread) = (&self.list, self.spread);
        let hashed = |at: &u32| list.get(*at).map_or(0, |n| spread.hash(n.slot.fingerprint()));
        self.table.insert_unique(hash, at, hashed);
        None
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, slot: &Slot, hash: u64) -> Option<V> {
        let at = self.find(slot, hash)?;
        self.take(at, hash)
    }

    /// Takes out what `is_meant` says of so many places from `from` on, into `out`. Where to go
    /// on, if there are more.
    pub(super) fn remove_some(
        &mut self,
        from: u32,
        count: u32,
        is_meant: impl Fn(&V) -> bool,
        out: &mut Vec<V>,
    ) -> Option<u32> {
        let to = from.saturating_add(count).min(self.list.places());
        for at in from..to {
            let Some(node) = self.list.get(at).filter(|node| is_meant(&node.value)) else {
                continue;
            };
            let hash = self.spread.hash(node.slot.fingerprint());
            out.extend(self.take(at, hash));
        }
        if self.list.len() == 0 {
            self.table = HashTable::new();
        }
        (to < self.list.places()).then_some(to)
    }

    /// Looks at the entry that is to go next. `now` in seconds since 1970.
    pub(super) fn step(&mut self, now: u64) -> Step<V> {
        let small = self.list.queue(Place::Small).bytes;
        let main = self.list.queue(Place::Main).bytes;
        let over = small > (small + main) / SMALL_SHARE;
        let place = if over || main == 0 { Place::Small } else { Place::Main };
        let other = if place == Place::Small { Place::Main } else { Place::Small };
        let (oldest, place) = match self.list.oldest(place) {
            Some(at) => (at, place),
            None => match self.list.oldest(other) {
                Some(at) => (at, other),
                None => return Step::Empty,
            },
        };
        let Some(node) = self.list.get_mut(oldest) else { return Step::Empty };
        // What somebody still has is in memory whether it is listed here or not.
        let kept = node.value.is_shared() || (node.wanted > 0 && !node.value.is_over(now));
        if kept {
            node.wanted = match place {
                Place::Small => 0,
                Place::Main => node.wanted.saturating_sub(1),
            };
            self.list.requeue(oldest, Place::Main);
            return Step::Moved;
        }
        let hash = self.spread.hash(node.slot.fingerprint());
        if place == Place::Small {
            self.ghost.remember(hash, self.list.len());
        }
        self.take(oldest, hash).map_or(Step::Empty, Step::Evicted)
    }

    fn find(&self, slot: &Slot, hash: u64) -> Option<u32> {
        let same = |at: &u32| self.list.get(*at).is_some_and(|node| node.slot == *slot);
        self.table.find(hash, same).copied()
    }

    /// Gives back what the table takes beyond what its entries need, where that is much.
    fn shrink(&mut self) {
        if self.table.len() < self.table.capacity() / 8 {
            let (list, spread) = (&self.list, self.spread);
            let hashed = |at: &u32| list.get(*at).map_or(0, |n| spread.hash(n.slot.fingerprint()));
            self.table.shrink_to(self.table.len() * 2, hashed);
        }
    }

    fn take(&mut self, at: u32, hash: u64) -> Option<V> {
        self.table.find_entry(hash, |other| *other == at).ok()?.remove();
        self.shrink();
        let node = self.list.remove(at)?;
        self.heads -= usize::from(node.slot.is_head());
        Some(node.value)
    }
}

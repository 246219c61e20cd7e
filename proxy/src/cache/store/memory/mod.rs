//! The memory tier: heads and blocks by their names, within a budget.
//!
//! It is divided into parts with a lock each, which is held for the time of a look-up and no
//! longer: what is evicted is freed after it is let go. The budget is one for all parts, so that
//! it holds whatever the sizes are; who wants room takes it from one part after the other.
//!
//! Implements: REQ-CACHE-002

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::*},
    },
    time::{SystemTime, UNIX_EPOCH},
};

mod ghost;
mod list;
mod looks;
mod shard;
#[cfg(test)]
mod tests;

use super::{
    account::{Account, Charge, WORKING_BYTES},
    arena::{Arena, Extents},
    key::{Slot, Spread},
};
use looks::{Looks, MOST_HELD};
use shard::{Shard, Step};

/// A part for so many bytes of the budget, and 64 parts at most.
const PART_BYTES: usize = 16 << 20;

/// Pieces that an entry is cut into at most, and how many once more has been evicted for it than
/// it takes: each piece is sent apart.
const PIECES: u32 = 64;
const MOST_PIECES: u32 = 256;

/// Entries that are looked at while workers wait for the lock.
const SWEEP: u32 = 512;

/// What the tier keeps.
pub(super) trait Value: Clone {
    /// What it takes in memory, with all that it points to.
    fn bytes(&self) -> usize;

    /// Whether somebody else has it too, so that to evict it would free nothing.
    fn is_shared(&self) -> bool;

    /// Whether nobody is going to want it at this time, in seconds since 1970.
    fn is_over(&self, now: u64) -> bool;

    /// Whether it is only where something is, and makes room for that.
    fn gives_way(&self) -> bool {
        false
    }
}

/// The tier.
#[derive(Debug)]
pub(super) struct Memory<V> {
    parts: Box<[Part<V>]>,
    spread: Spread,
    account: Arc<Account>,
    arena: Arc<Arena>,
    /// What finds no room here is somewhere else.
    spills: bool,
    /// Where room was taken last.
    hand: AtomicUsize,
    pub(super) evicted: AtomicU64,
}

/// Apart, so that workers do not share a line of their processors' caches.
#[derive(Debug)]
#[repr(align(128))]
struct Part<V>(Mutex<Charged<V>>);

#[derive(Debug)]
struct Charged<V> {
    shard: Shard<V>,
    /// For the tables.
    tables: Charge,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) entries: usize,
    pub(super) heads: usize,
    pub(super) bytes: usize,
}

impl<V: Value> Memory<V> {
    /// `spills`: what finds no room need not come in, for it is found elsewhere.
    pub(super) fn new(account: Arc<Account>, spills: bool) -> Self {
        let spread = Spread::new();
        let parts = (account.budget() / PART_BYTES).clamp(1, 64).next_power_of_two();
        let part = |_| {
            let tables = account.charge(0);
            Part(Mutex::new(Charged { shard: Shard::new(spread), tables }))
        };
        let parts = (0..parts).map(part).collect();
        let (hand, evicted) = (AtomicUsize::new(0), AtomicU64::new(0));
        let arena = Arena::new(Arc::clone(&account));
        Self { parts, spread, account, arena, spills, hand, evicted }
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<V> {
        let hash = self.spread.hash(slot.fingerprint());
        self.lock(self.part(hash)).shard.get(slot, hash).cloned()
    }

    /// Whether it is there, without wanting it; not if it would give way.
    pub(super) fn has(&self, slot: &Slot) -> bool {
        let hash = self.spread.hash(slot.fingerprint());
        self.lock(self.part(hash)).shard.peek(slot, hash).is_some_and(|value| !value.gives_way())
    }

    /// Puts an entry in if `may` agrees, which is shown what is in its place. It is asked under the
    /// lock that [`Self::remove_all`] takes: what that has gone past does not come in behind it.
    /// Returns whether it agreed.
    pub(super) fn insert(
        &self,
        slot: Slot,
        value: V,
        may: impl FnOnce(Option<&V>) -> bool,
    ) -> bool {
        let hash = self.spread.hash(slot.fingerprint());
        let comes_in = !self.spills || self.make_room();
        let mut part = self.lock(self.part(hash));
        if !may(part.shard.peek(&slot, hash)) {
            return false;
        }
        let before = match comes_in {
            true => part.shard.insert(slot, hash, value),
            false => part.shard.remove(&slot, hash),
        };
        part.charge_tables();
        drop(part);
        drop(before);
        // Tables may have grown, which they do seldom and by much.
        self.evict_excess(&mut Looks::for_tables());
        self.arena.trim();
        true
    }

    /// The same for what was found elsewhere: it does not take the place of what is there, which
    /// is newer, unless that gives way. `may` is asked all the same.
    pub(super) fn promote(&self, slot: Slot, value: V, may: impl FnOnce() -> bool) {
        let hash = self.spread.hash(slot.fingerprint());
        let comes_in = self.make_room();
        let mut part = self.lock(self.part(hash));
        let is_free = part.shard.peek(&slot, hash).is_none_or(Value::gives_way);
        if may() && comes_in && is_free {
            let before = part.shard.insert(slot, hash, value);
            part.charge_tables();
            drop(part);
            drop(before);
            self.make_room();
        }
    }

    pub(super) fn remove(&self, slot: &Slot) -> Option<V> {
        let hash = self.spread.hash(slot.fingerprint());
        let mut part = self.lock(self.part(hash));
        let removed = part.shard.remove(slot, hash);
        part.charge_tables();
        removed
    }

    /// Takes out all that `is_meant` says, and tells how many. What comes in meanwhile is asked
    /// about by whoever puts it in.
    pub(super) fn remove_all(&self, is_meant: impl Fn(&V) -> bool) -> usize {
        let mut removed = 0;
        for part in &self.parts {
            let mut next = Some(0);
            while let Some(from) = next {
                let mut out = Vec::new();
                let mut part = self.lock(part);
                next = part.shard.remove_some(from, SWEEP, &is_meant, &mut out);
                part.charge_tables();
                drop(part);
                removed += out.len();
            }
        }
        removed
    }

    /// A charge for `bytes` that fits into the budget: what has to go for it goes. `None` if there
    /// is no room to be had.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Charge> {
        if bytes > self.account.budget() {
            return None;
        }
        let charge = self.account.charge(bytes);
        let has_room = self.evict_excess(&mut Looks::of(bytes));
        self.arena.trim();
        has_room.then_some(charge)
    }

    /// Memory of the arena for an entry of so many bytes, of which `header` lie in one piece, and
    /// all unless it `may_part`: what has to go for it goes. `beyond`: if there is none to be had
    /// within the budget, it may be so much more. `None`: nor is there then.
    pub(super) fn allocate(
        &self,
        (header, bytes): (usize, usize),
        may_part: bool,
        beyond: bool,
    ) -> Option<Extents> {
        let taken = Taken::new(&self.account, Arena::cost(bytes));
        let fits = bytes <= self.account.budget();
        let mut looks = Looks::of(bytes);
        let mut more = 0;
        while fits && self.evict_excess(&mut looks) {
            let pieces = match (may_part, more > bytes) {
                (false, _) => 1,
                (true, false) => PIECES,
                (true, true) => MOST_PIECES,
            };
            let missing = match self.arena.take((header, bytes), pieces, 0) {
                Ok(extents) => {
                    self.arena.trim();
                    return taken.keep(extents);
                }
                Err(missing) => missing,
            };
            // There is room, and not in so few pieces: something more has to go, and enough of it
            // for another try to be worth it.
            let Some(evicted) = self.evict_bytes(missing / 8, &mut looks) else { break };
            more += evicted;
        }
        if !beyond || self.account.excess() > WORKING_BYTES {
            return None;
        }
        let pieces = if may_part { MOST_PIECES } else { 1 };
        taken.keep(self.arena.take((header, bytes), pieces, WORKING_BYTES).ok()?)
    }

    /// Evicts until what is held is within the budget; whether it is.
    pub(super) fn make_room(&self) -> bool {
        let has_room = self.evict_excess(&mut Looks::of(0));
        self.arena.trim();
        has_room
    }

    fn evict_excess(&self, looks: &mut Looks) -> bool {
        while self.account.excess() > 0 {
            if self.evict(looks).is_none() {
                return self.account.excess() == 0;
            }
        }
        true
    }

    /// Evicts so much at least, and one entry if that is nothing: how much it was. `None`: there is
    /// not so much to be had.
    fn evict_bytes(&self, least: usize, looks: &mut Looks) -> Option<usize> {
        let mut evicted = self.evict(looks)?;
        while evicted < least {
            evicted += self.evict(looks)?;
        }
        Some(evicted)
    }

    /// Evicts one entry: how much it was. `None`: it has looked at enough, or there are none.
    fn evict(&self, looks: &mut Looks) -> Option<usize> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut empty = 0;
        looks.begin();
        while empty < self.parts.len() {
            let at = self.hand.fetch_add(1, Relaxed) % self.parts.len();
            let mut part = self.lock(&self.parts[at]);
            // In one part until something goes, for a part has an order and they have none; but
            // workers want it too.
            let mut held = 0;
            let step = loop {
                if !looks.take() {
                    return None;
                }
                held += 1;
                match part.shard.step(now) {
                    Step::Moved if held < MOST_HELD => {}
                    step => break step,
                }
            };
            part.charge_tables();
            drop(part);
            match step {
                Step::Evicted(value) => {
                    let bytes = value.bytes();
                    drop(value);
                    self.evicted.fetch_add(1, Relaxed);
                    return Some(bytes);
                }
                Step::Moved => {}
                Step::Empty => empty += 1,
            }
        }
        None
    }

    /// What takes memory of the arena, in bytes.
    pub(super) fn touched(&self) -> usize {
        self.arena.touched()
    }

    pub(super) fn contents(&self) -> Contents {
        let mut all = Contents::default();
        for part in &self.parts {
            let part = self.lock(part);
            all.entries += part.shard.len();
            all.heads += part.shard.heads;
            all.bytes += part.shard.bytes();
        }
        all
    }

    fn part(&self, hash: u64) -> &Part<V> {
        // The table of a part goes by the lower bits, and by the upper seven.
        &self.parts[(hash >> 40) as usize & (self.parts.len() - 1)]
    }

    fn lock<'a>(&self, part: &'a Part<V>) -> MutexGuard<'a, Charged<V>> {
        part.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A charge for memory of the arena that is yet to be had.
struct Taken<'a> {
    account: &'a Account,
    bytes: usize,
}

impl<'a> Taken<'a> {
    fn new(account: &'a Account, bytes: usize) -> Self {
        account.take(bytes);
        Self { account, bytes }
    }

    /// The memory is charged by it from now on.
    fn keep(mut self, extents: Extents) -> Option<Extents> {
        self.bytes = 0;
        Some(extents)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.account.give(self.bytes);
    }
}

impl<V: Value> Charged<V> {
    fn charge_tables(&mut self) {
        let bytes = self.shard.allocated();
        if bytes != self.tables.bytes() {
            self.tables.set(bytes);
        }
    }
}

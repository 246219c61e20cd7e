//! What the cache holds in memory, to the byte, by whoever holds it.
//!
//! A charge lives as long as the bytes it stands for: a block that has been evicted and is still
//! being sent to a slow client counts until the client has it. So the budget bounds memory that is
//! allocated, not the sum of what is listed in a table.
//!
//! What is stored lies in the arena, whose memory is bounded by what is charged here; what is not (the
//! tables, and what fills hold) is from the allocator of the process, and is charged as well.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::*},
};

/// What may be held beyond the budget by what is on its way: reads from the disk, blocks that wait
/// to be written, fills. In bytes.
pub const WORKING_BYTES: usize = 16 << 20;

/// Memory of one store.
#[derive(Debug)]
pub(super) struct Account {
    budget: usize,
    live: AtomicUsize,
    /// Of it, what lies in the arena.
    stored: AtomicUsize,
}

impl Account {
    pub(super) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self { budget, live: AtomicUsize::new(0), stored: AtomicUsize::new(0) })
    }

    /// What the memory tier may hold.
    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    /// What is held at this moment, by the tier or by anybody else.
    pub(super) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// How much more is held than the budget allows.
    pub(super) fn excess(&self) -> usize {
        self.live().saturating_sub(self.budget)
    }

    /// What of it does not lie in the arena.
    pub(super) fn others(&self) -> usize {
        self.live().saturating_sub(self.stored.load(Relaxed))
    }

    /// Charges bytes of the arena, whatever is held already. To be given back by [`Self::give`].
    pub(super) fn take(&self, bytes: usize) {
        self.stored.fetch_add(bytes, Relaxed);
        self.live.fetch_add(bytes, Relaxed);
    }

    /// Bytes of the arena are free again.
    pub(super) fn give(&self, bytes: usize) {
        self.live.fetch_sub(bytes, Relaxed);
        self.stored.fetch_sub(bytes, Relaxed);
    }

    /// Charges `bytes`, whatever is held already. The caller makes room, or gives it back.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.live.fetch_add(bytes, Relaxed);
        Charge { account: Arc::clone(self), bytes }
    }

    /// Charges `bytes` for something on its way; `None` if too much is under way already.
    pub(super) fn charge_working(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let charge = self.charge(bytes);
        (self.excess() <= WORKING_BYTES).then_some(charge)
    }
}

/// A part of what is held, of memory of the cache. Given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Charge {
    /// How many bytes it stands for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it a charge for so many bytes, whether they are to be had or not.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.account.live.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.account.live.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.live.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_given_back_whoever_held_it() {
        let account = Account::new(100);
        let mut first = account.charge(60);
        let second = account.charge(60);
        assert_eq!((account.live(), account.excess()), (120, 20));
        first.set(10);
        assert_eq!((account.live(), account.excess(), first.bytes()), (70, 0, 10));
        first.set(30);
        assert_eq!(account.live(), 90);
        drop((first, second));
        assert_eq!(account.live(), 0);
    }

    #[test]
    fn what_is_on_its_way_has_a_bound_of_its_own() {
        let account = Account::new(100);
        let held = account.charge_working(100 + WORKING_BYTES).expect("just so much");
        assert!(account.charge_working(1).is_none());
        assert_eq!(account.live(), held.bytes(), "what was refused is not charged");
    }
}

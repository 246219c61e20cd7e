//! What the cache holds in memory, to the byte, by whoever holds it.
//!
//! A charge lives as long as the bytes it stands for: a block that has been evicted and is still
//! being sent to a slow client counts until the client has it. So the budget bounds memory that is
//! allocated, not the sum of what is listed in a table.
//!
//! It does not bound what the allocator keeps of what was freed: glibc has a share of its memory for
//! each thread, and does not lend from one to the other. Where several threads fill and evict, the
//! process may take twice the budget.

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
}

impl Account {
    pub(super) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self { budget, live: AtomicUsize::new(0) })
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

/// What an allocation of `bytes` takes from the allocator: malloc(3) of glibc puts 8 bytes in
/// front and rounds up to 16, maps large ones by pages, with 16 in front.
pub fn allocated(bytes: usize) -> usize {
    const LARGE: usize = 128 << 10;
    match bytes {
        0 => 0,
        1..LARGE => (bytes + 8).next_multiple_of(16).max(32),
        _ => (bytes + 16).next_multiple_of(4096),
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

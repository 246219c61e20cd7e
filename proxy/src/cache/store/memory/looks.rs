//! How many entries are looked at to make room, so that it takes a bounded time.
//!
//! What is wanted or in use is looked at and stays. Where that goes on for long, whoever wants room
//! does not get it: what is there is worth more. But what does go may be much smaller than what
//! comes, and then one after the other has to.

/// Entries that are looked at for one that goes.
const FOR_ONE: usize = 256;

/// Bytes of the smallest entry there can be.
const LEAST_ENTRY: usize = 64;

/// Entries that are looked at however much room is wanted.
const MOST: usize = 64 * FOR_ONE;

/// Entries that are looked at while workers wait for a lock.
pub(super) const MOST_HELD: usize = 256;

/// A number of looks.
#[derive(Debug)]
pub(super) struct Looks {
    left: usize,
    for_one: usize,
    /// For the one that is being looked for.
    now: usize,
}

impl Looks {
    /// For room for so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        let left = (FOR_ONE + bytes / LEAST_ENTRY).min(MOST);
        Self { left, for_one: FOR_ONE, now: 0 }
    }

    /// For what tables have grown by.
    pub(super) fn for_tables() -> Self {
        Self { left: MOST, for_one: MOST, now: 0 }
    }

    /// Begins to look for another one that goes.
    pub(super) fn begin(&mut self) {
        self.now = self.for_one;
    }

    /// One look; false if there have been enough.
    pub(super) fn take(&mut self) -> bool {
        if self.left == 0 || self.now == 0 {
            return false;
        }
        self.left -= 1;
        self.now -= 1;
        true
    }
}

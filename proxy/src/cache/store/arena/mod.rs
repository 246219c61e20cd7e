//! Memory of the cache alone: one range of addresses, out of which all entries are cut.
//!
//! An allocator for everything keeps what is freed: in the sizes in which it was freed, between
//! what is not, and for the thread that had it. So a process whose cache holds what it may would
//! take half as much again, or more when the sizes change. Here the range itself is the bound: what
//! is free in it and has been touched counts as taken ([`Arena::may_touch`]), so that something is
//! evicted rather than more of it touched, and a body that finds no room in one piece is cut into
//! several. What is free and beyond the bound, since tables have grown, is given back to the kernel,
//! by one thread at a time and with no lock held that others want.
//!
//! Sockets send large parts of it without a copy (`lend.rs` of the crate): what was lent is taken out
//! by whoever drops it, before its place is anybody else's, and touched again when it is written.
//!
//! Files: `space.rs` (what is free, pure) and `classes.rs` (where it is found), `region.rs` (the
//! range), `held.rs` (values in it).
//!
//! Implements: REQ-CACHE-002

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::*},
};

mod classes;
mod held;
mod region;
mod space;
#[cfg(test)]
mod tests;

pub(super) use held::Held;
use region::Region;
use space::{Space, Taken, UNIT};

use super::account::{Account, Charge, WORKING_BYTES};

/// Bytes of a piece at least, where something is cut into several.
const LEAST_PIECE: u32 = (1024 / UNIT) as u32;

/// From this length on something may be lent, and is placed for that.
const ENDING_BYTES: usize = 32 << 10;

/// What may be free and touched beyond the budget: a share of it, so that not each hole has to be
/// filled before something is evicted.
const SLACK_SHARE: usize = 32;

/// So much more than that is not worth a call of the kernel.
const TRIM_BYTES: usize = 2 << 20;

/// Given back by whoever asks for memory, in bytes: the kernel takes each page by itself.
const MOST_TRIMMED: usize = 8 << 20;

/// The range.
#[derive(Debug)]
pub(super) struct Arena {
    region: Region,
    account: Arc<Account>,
    books: Mutex<Books>,
    /// For who gives memory back to the kernel.
    trims: Mutex<()>,
    /// As [`Space::touched`], in bytes.
    touched: AtomicUsize,
}

#[derive(Debug)]
struct Books {
    space: Space,
    /// For the table of `space`.
    table: Charge,
}

/// A part of the range, charged for as long as somebody has it.
#[derive(Debug)]
pub(super) struct Extent {
    arena: Arc<Arena>,
    node: u32,
    at: u32,
    units: u32,
}

/// Parts of it that are one after the other to whoever wants them.
#[derive(Debug)]
pub(super) struct Extents {
    pub(super) first: Extent,
    pub(super) more: Box<[Extent]>,
}

/// Bytes of a page of memory.
pub(super) fn page() -> usize {
    Region::page()
}

impl Arena {
    /// One for all that the account may have. Where there is no range to be had nothing is kept
    /// in memory.
    pub(super) fn new(account: Arc<Account>) -> Arc<Self> {
        let wanted = account.budget() + account.budget() / SLACK_SHARE + WORKING_BYTES;
        let page = Region::page();
        let most = u32::MAX as usize * UNIT / page * page;
        let len = wanted.min(most).next_multiple_of(page).min(most);
        let (region, len) = match Region::new(len) {
            Ok(region) => (region, len),
            Err(error) => {
                tracing::error!(
                    "cache: no {len} bytes of addresses, memory keeps nothing: {error}"
                );
                (Region::none(), 0)
            }
        };
        let space = Space::new((len / UNIT) as u32, (page / UNIT) as u32);
        let books = Mutex::new(Books { space, table: account.charge(0) });
        let (trims, touched) = (Mutex::new(()), AtomicUsize::new(0));
        Arc::new(Self { region, account, books, trims, touched })
    }

    /// What `bytes` are charged.
    pub(super) fn cost(bytes: usize) -> usize {
        bytes.next_multiple_of(UNIT)
    }

    /// Takes memory that is charged already, [`Self::cost`] of so many bytes; in this many pieces at
    /// most, of which the first has `header` bytes at least. `beyond`: so much more than the budget
    /// may be touched.
    ///
    /// # Errors
    /// If there is none that is in so few pieces: how many bytes are missing.
    pub(super) fn take(
        self: &Arc<Self>,
        (header, bytes): (usize, usize),
        pieces: u32,
        beyond: usize,
    ) -> Result<Extents, usize> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| bytes)?;
        let mut books = self.books();
        let extent =
            |Taken { node, at, len }| Extent { arena: Arc::clone(self), node, at, units: len };
        let may_touch = self.may_touch(&books, beyond);
        // What is lent ends where a page does: nothing is left of it that needs a call of its own.
        let ending =
            (bytes >= ENDING_BYTES).then(|| books.space.take_ending(units, may_touch)).flatten();
        if let Some(taken) = ending.or_else(|| books.space.take(units, may_touch)) {
            self.settle(books);
            return Ok(Extents { first: extent(taken), more: Box::default() });
        }
        let least = LEAST_PIECE.max(units / pieces).max(header.div_ceil(UNIT) as u32);
        if pieces == 1 || units <= least {
            return Err(bytes);
        }
        let mut parts = Vec::new();
        let mut left = units;
        while left > 0 {
            let may_touch = self.may_touch(&books, beyond);
            // The last one may be short.
            let Some(taken) = books.space.take_part(left, least.min(left), may_touch) else {
                break;
            };
            left -= taken.len;
            parts.push(taken);
        }
        if left > 0 {
            parts.into_iter().for_each(|taken| books.space.give(taken.node));
            self.settle(books);
            return Err(left as usize * UNIT);
        }
        self.settle(books);
        let mut parts = parts.into_iter().map(extent);
        let first = parts.next().ok_or(bytes)?;
        Ok(Extents { first, more: parts.collect() })
    }

    /// Units that may be touched yet.
    fn may_touch(&self, books: &Books, beyond: usize) -> u32 {
        let touched = books.space.touched() as usize * UNIT;
        let may = (self.may_have() + beyond).saturating_sub(touched);
        u32::try_from(may / UNIT).unwrap_or(u32::MAX)
    }

    /// What may be touched, in bytes: what the tables and others leave of the budget.
    fn may_have(&self) -> usize {
        let budget = self.account.budget();
        (budget + budget / SLACK_SHARE).saturating_sub(self.account.others())
    }

    /// Gives back what is free and touched beyond the budget, unless somebody else does: no more at
    /// once than a worker has time for.
    pub(super) fn trim(&self) {
        if self.excess() < TRIM_BYTES {
            return;
        }
        let Ok(_alone) = self.trims.try_lock() else { return };
        let mut left = self.excess().min(MOST_TRIMMED);
        while left > 0 {
            let most = (left / UNIT) as u32;
            let Some(Taken { node, at, len }) = self.books().space.release(most) else { return };
            let (at, len) = (at as usize * UNIT, len as usize * UNIT);
            // Nobody's meanwhile, and others take and give what they like.
            self.region.release(at, len);
            let mut books = self.books();
            books.space.is_released(node);
            self.settle(books);
            left = left.saturating_sub(len);
        }
    }

    /// What is touched beyond what may be, in bytes.
    fn excess(&self) -> usize {
        self.touched.load(Relaxed).saturating_sub(self.may_have())
    }

    /// What takes memory of the range, in bytes.
    pub(super) fn touched(&self) -> usize {
        self.touched.load(Relaxed)
    }

    /// What the table of what is free takes, in bytes.
    #[cfg(test)]
    pub(super) fn table(&self) -> usize {
        self.books().table.bytes()
    }

    fn settle(&self, mut books: MutexGuard<'_, Books>) {
        self.touched.store(books.space.touched() as usize * UNIT, Relaxed);
        let table = books.space.allocated();
        if table != books.table.bytes() {
            books.table.set(table);
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing between two writes of it can panic but for a lack of memory, which aborts.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Extent {
    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        self.units as usize * UNIT
    }

    /// The bytes: what somebody has left there, where they have not been written since.
    pub(super) fn bytes(&self) -> &[u8] {
        let len = self.len();
        let start = self.arena.region.place(self.at as usize * UNIT, len);
        // SAFETY: of this extent alone, and whoever writes has it by `&mut`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// Has sockets given the bytes as they are. Nobody writes them any more.
    pub(super) fn lend(&self) {
        self.arena.region.lend(self.at as usize * UNIT, self.len());
    }

    /// The bytes, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        let start = self.arena.region.place(self.at as usize * UNIT, len);
        // SAFETY: of this extent alone, which the caller has by `&mut`.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        if !self.arena.region.reuse(self.at as usize * UNIT, self.len()) {
            // Stays taken, and charged.
            return;
        }
        let mut books = self.arena.books();
        books.space.give(self.node);
        self.arena.settle(books);
        self.arena.account.give(self.len());
    }
}

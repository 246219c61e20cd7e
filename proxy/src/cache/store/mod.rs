//! Where stored responses are: in memory, within a budget, on the disk, and where a fleet shares
//! them.
//!
//! A response is an *object*: a [`Head`], found by a [`Key`], and blocks of a fixed size, found by
//! the object and their number. So a slice of a body, a reader who is slower than the fill, and a
//! body that is larger than the memory are all the same: blocks, some of which are here. A body of
//! one block is kept with its head, and found with one look-up.
//!
//! A response comes in by a [`Fill`]: its blocks are there for whoever knows the object, and its
//! head when it is committed; dropped before that it leaves nothing. Nothing is pinned: any block
//! may be gone when it is asked for, and then it is fetched again.
//!
//! A worker calls all of this; none of it waits. What is in memory is answered at once, and so is
//! what is on the disk where the kernel has it in memory; the rest with a [`Reading`] to await.
//!
//! Files: `account.rs` (what is held, to the byte), `arena/` (the memory itself), `block.rs`,
//! `head.rs`, `key.rs` (what there is), `memory/` (who stays in memory), `disk/` (the second
//! tier), `fleet/` (the third, which several proxies share), `record.rs` and `meta_view.rs` (what
//! both of these have of it), `reading.rs` and `waiter.rs` (the two ends of waiting for them),
//! `fill.rs` (how it comes in), `purge.rs` and `purge_record.rs` (how it goes, and how that is noted),
//! `statistics.rs` (how much there is), `table.rs` (rows that keep their numbers).
//!
//! Implements: REQ-CACHE-002

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::*},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::Shared};
use tokio::sync::oneshot;

mod account;
mod arena;
mod block;
mod disk;
mod fill;
mod fleet;
mod head;
mod key;
mod memory;
mod meta_view;
mod purge;
mod purge_record;
mod reading;
mod record;
mod statistics;
mod table;
#[cfg(test)]
mod tests;
mod waiter;

pub use account::{Charge, WORKING_BYTES};
pub use block::{Anchor, Block, Form};
pub use disk::{LEAST_DISK_BYTES, MOST_BLOCK_BYTES, Options as DiskOptions};
pub use fill::Fill;
pub use fleet::{OLDEST as OLDEST_SHARED, Options as FleetOptions, Redis, S3, Secret, Service};
pub use head::{Entry, Head, Meta, Stored};
pub use key::{Key, ObjectId};
pub use purge::What;
pub use reading::Reading;
pub use statistics::{DiskStatistics, FleetStatistics, Statistics};

use account::Account;
use arena::Extents;
use disk::{Disk, Untold};
use fleet::{Fleet, Wall};
use head::Kept;
use key::Slot;
use memory::Memory;
use purge::Epochs;

/// What a store is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// What may be kept in memory, tables included. What is on its way may take
    /// [`WORKING_BYTES`] more.
    pub memory_bytes: usize,
    /// Bytes of a block; the last of an object is shorter. [`MOST_BLOCK_BYTES`] at most where
    /// there is a disk.
    pub block_bytes: usize,
    /// The second tier, if there is one.
    pub disk: Option<DiskOptions>,
    /// The third, if there is one.
    pub fleet: Option<FleetOptions>,
}

/// Bytes of a block where nothing else is said. A quarter of a megabyte: what a reader waits for
/// on the disk, and what a range may fetch too much at both ends; and 4096 of them are a gigabyte.
pub const BLOCK_BYTES: usize = 256 << 10;

/// How long the end of the process waits for a disk that has stalled.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The same for what a fleet shares, which has it from elsewhere if it does not get it.
const CLOSE_FLEET_LIMIT: Duration = Duration::from_secs(2);

/// File in the folder of the disk that says which purges of the fleet are known.
const SEEN_PURGES: &str = "fleet-purges";

/// What there is of something that was asked for.
#[derive(Debug)]
pub enum Found<T> {
    /// It is here.
    Memory(T),
    /// It was on the disk, and is here now.
    Read(T),
    /// It is on the disk, if that can be read.
    Disk(Reading<T>),
    /// The fleet may have it, if it can be asked.
    Fleet(Reading<T>),
    /// It is not stored.
    Absent,
}

/// What a purge came to.
#[derive(Debug)]
pub struct Purged {
    /// Responses that went from memory. How many on the disk are meant is not known: they are
    /// found out when they are read.
    pub removed: usize,
    written: Option<Written>,
}

/// Says whether something has been written; dropped, and an error, if nobody is going to.
type Written = Shared<oneshot::Receiver<bool>>;

impl Purged {
    /// Waits until the purge is on the disk, so that it survives the end of the process. `false`
    /// if the disk does not take it for now: it goes on being tried, and what is meant is not found
    /// by this process either way.
    pub async fn written(&mut self) -> bool {
        match self.written.clone() {
            None => true,
            Some(written) => {
                let limit = Duration::from_secs(5);
                tokio::time::timeout(limit, written).await.is_ok_and(|told| told.unwrap_or(false))
            }
        }
    }
}

/// A store. All clones are the same one.
#[derive(Debug)]
pub struct Store<M>(Arc<Inner<M>>);

impl<M> Clone for Store<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<M> {
    block_bytes: usize,
    account: Arc<Account>,
    memory: Arc<Memory<Kept<M>>>,
    epochs: Epochs,
    refused: AtomicU64,
    disk: Option<Disk<M>>,
    /// Set once, by [`Store::new`].
    fleet: OnceLock<Fleet<M>>,
}

impl<M: Meta> Store<M> {
    /// A store: empty in memory, and with what is on the disk as soon as that has been read. A
    /// folder that cannot be used is tried again for as long as the store is there.
    pub fn new(options: &Options) -> Self {
        let account = Account::new(options.memory_bytes);
        let memory = Arc::new(Memory::new(Arc::clone(&account), options.disk.is_some()));
        let start = |disk| Disk::start(disk, Arc::clone(&memory));
        // Without threads there is a memory still.
        let failed = |error: &_| tracing::error!("cache: no threads for the disk: {error}");
        let started = options.disk.as_ref().map(start).transpose();
        let disk = started.inspect_err(failed).ok().flatten();
        let most =
            if disk.is_some() || options.fleet.is_some() { MOST_BLOCK_BYTES } else { usize::MAX };
        let inner = Arc::new(Inner {
            block_bytes: options.block_bytes.min(most),
            memory,
            account,
            epochs: Epochs::new(),
            refused: AtomicU64::new(0),
            disk,
            fleet: OnceLock::new(),
        });
        if let Some(fleet) = &options.fleet {
            let seen = options.disk.as_ref().map(|disk| disk.directory.join(SEEN_PURGES));
            match Fleet::start(fleet, inner.block_bytes, seen, Arc::downgrade(&inner)) {
                Ok(fleet) => _ = inner.fleet.set(fleet),
                Err(error) => tracing::error!("cache: no thread for the fleet: {error}"),
            }
        }
        Self(inner)
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.0.block_bytes
    }

    /// The response with this key, which was made of `text`, with its body in this form.
    pub fn head(&self, key: Key, text: &str, form: Form) -> Found<Stored<M>> {
        self.look(key, text, form).unwrap_or(Found::Absent)
    }

    /// The same for somebody to whom it matters that the disk cannot tell.
    fn look(&self, key: Key, text: &str, form: Form) -> Result<Found<Stored<M>>, Untold> {
        let slot = Slot::head(key);
        match self.0.memory.get(&slot) {
            Some(Kept::Block(_)) => return Ok(Found::Absent),
            Some(Kept::Head(head)) if head.text() != text => return Ok(Found::Absent),
            Some(Kept::Head(head)) if !head.is_in_file() => return Ok(Found::Memory(head)),
            Some(Kept::Head(head)) if form.has(head.body.as_ref()) => {
                return Ok(self.found_in_file(head));
            }
            // It has to be read.
            Some(Kept::Head(_)) | None => {}
        }
        let Some(disk) = &self.0.disk else { return Ok(Found::Absent) };
        Ok(match disk.queued(&slot) {
            None => return disk.head(slot, text, form),
            // It waits to be written, and may have been purged meanwhile.
            Some(Kept::Head(head))
                if self.is_allowed(key, &head)
                    && head.text() == text
                    && (!head.is_in_file() || form.has(head.body.as_ref())) =>
            {
                Found::Memory(head)
            }
            Some(_) => Found::Absent,
        })
    }

    fn found_in_file<T>(&self, found: T) -> Found<T> {
        self.0.disk.as_ref().inspect(|disk| disk.found_in_file());
        Found::Read(found)
    }

    /// A block of an object: bytes from `number * block_bytes` on.
    pub fn block(&self, object: ObjectId, number: u32, form: Form) -> Found<Block> {
        self.find_block(object, number, form, false)
    }

    /// The same for somebody who has no other way to it: the disk may take as long as it likes. What
    /// is [`Found::Absent`] so, or resolves to nothing, may be asked for again in a while if the
    /// store [keeps](Self::keeps_block) it.
    pub fn block_awaited(&self, object: ObjectId, number: u32, form: Form) -> Found<Block> {
        self.find_block(object, number, form, true)
    }

    fn find_block(&self, object: ObjectId, number: u32, form: Form, waits: bool) -> Found<Block> {
        let slot = Slot::block(object, number);
        match self.0.memory.get(&slot) {
            Some(Kept::Head(_)) => return Found::Absent,
            Some(Kept::Block(block)) if !block.is_in_file() => return Found::Memory(block),
            Some(Kept::Block(block)) if form.has(Some(&block)) => return self.found_in_file(block),
            // It has to be read.
            Some(Kept::Block(_)) | None => {}
        }
        let Some(disk) = &self.0.disk else { return Found::Absent };
        match disk.queued(&slot) {
            None => disk.block(slot, form, waits),
            Some(Kept::Block(block)) => Found::Memory(block),
            Some(Kept::Head(_)) => Found::Absent,
        }
    }

    /// Whether a block is stored. It may be gone when it is asked for.
    pub fn has_block(&self, object: ObjectId, number: u32) -> bool {
        self.is_there(object, number, false)
    }

    /// The same of one that the disk does not give for now.
    pub fn keeps_block(&self, object: ObjectId, number: u32) -> bool {
        self.is_there(object, number, true)
    }

    fn is_there(&self, object: ObjectId, number: u32, waits: bool) -> bool {
        let slot = Slot::block(object, number);
        let on_disk = |disk: &Disk<M>| disk.has(&slot, waits);
        self.0.memory.has(&slot) || self.0.disk.as_ref().is_some_and(on_disk)
    }

    /// A block of these bytes, copied: see [`Block`]. `None` if there is no memory for it, or they
    /// are more than a block may have.
    pub fn copy(&self, pieces: &[Bytes]) -> Option<Block> {
        let len = pieces.iter().map(Bytes::len).sum();
        let size = (Block::HEADER, Block::size(len));
        let memory = (len <= self.0.block_bytes).then(|| self.allocate(size, true)).flatten();
        Some(Block::copy(self.or_refused(memory)?, pieces, len))
    }

    /// Charges for memory that somebody else holds for the cache, as what a fill has of a block
    /// that is not whole. `None` if too much is under way already.
    pub fn hold(&self, bytes: usize) -> Option<Charge> {
        self.reserve(bytes).or_else(|| self.0.account.charge_working(bytes))
    }

    /// Begins to store a response that is asked for now.
    pub fn fill(&self) -> Fill<M> {
        Fill::new(self, ObjectId::next(), true)
    }

    /// Begins to store more of a response that is there: blocks that were missing, or another head
    /// for the same body. What is stored by it stays when it is dropped.
    pub fn refill(&self, object: ObjectId) -> Fill<M> {
        Fill::new(self, object, false)
    }

    /// Forgets the response with this key. One that is asked for already is not stored.
    pub fn remove(&self, key: Key) {
        self.0.epochs.remove(key);
        self.0.fleet.get().inspect(|fleet| fleet.remove(key, Wall::now()));
        self.forget(Slot::head(key));
    }

    /// Forgets all that is meant, and has a fleet forget it; what of it is asked for already is not
    /// stored. Takes a time that grows with what is stored: not for a worker.
    pub fn purge(&self, what: &What) -> Purged {
        let fleet = self.0.fleet.get();
        let begun = fleet.map(|fleet| (fleet, fleet.begin_purge(what)));
        let purged = self.purge_here(what);
        begun.inspect(|(fleet, purge)| fleet.end_purge(purge, purged.written.clone()));
        purged
    }

    /// The same for what only this process has.
    fn purge_here(&self, what: &What) -> Purged {
        // In this order. Whoever stores now is refused, or has stored before memory is looked
        // through, and then its write waits before the one that ends the purge.
        self.0.epochs.purge(what.clone());
        let before = self.0.epochs.now();
        let disk = self.0.disk.as_ref();
        disk.inspect(|disk| disk.begin_purge(what));
        let removed = self.0.memory.remove_all(|kept| match kept {
            Kept::Head(head) => head.epoch < before && what.means(head.text(), head.tags()),
            Kept::Block(_) => false,
        });
        Purged { removed, written: disk.map(|disk| disk.end_purge(what).shared()) }
    }

    /// Waits until all that was to be written is, or was given up. Nothing to wait for where there
    /// is no disk.
    pub async fn flush(&self) {
        if let Some(disk) = &self.0.disk {
            let _ = disk.flush().await;
        }
    }

    /// Writes what waits, for some seconds at most, and lets go of the folder. Blocks. From then
    /// on the store is one of memory.
    pub fn close(&self) {
        // First: some of what it waits for may be on the disk.
        self.0.fleet.get().inspect(|fleet| fleet.close(CLOSE_FLEET_LIMIT));
        if self.0.disk.as_ref().is_some_and(|disk| disk.close(CLOSE_LIMIT)) {
            self.0.fleet.get().inspect(|fleet| fleet.note_the_end());
        }
    }

    /// How much is stored.
    pub fn statistics(&self) -> Statistics {
        let contents = self.0.memory.contents();
        Statistics {
            memory_bytes: self.0.account.live() as u64,
            memory_resident_bytes: self.0.memory.touched() as u64,
            memory_listed_bytes: contents.bytes as u64,
            memory_objects: contents.heads as u64,
            memory_entries: contents.entries as u64,
            memory_evictions: self.0.memory.evicted.load(Relaxed),
            memory_refusals: self.0.refused.load(Relaxed),
            disk: self.0.disk.as_ref().map(Disk::statistics),
            fleet: self.0.fleet.get().map(Fleet::statistics),
        }
    }

    /// Memory within the budget, or, where there is a disk that can take what memory cannot, beyond
    /// it for as long as it is on its way.
    fn reserve(&self, bytes: usize) -> Option<Charge> {
        let working = || self.0.disk.as_ref().and_then(|_| self.0.account.charge_working(bytes));
        self.0.memory.reserve(bytes).or_else(working)
    }

    /// The same of the arena, for an entry.
    fn allocate(&self, size: (usize, usize), may_part: bool) -> Option<Extents> {
        self.0.memory.allocate(size, may_part, self.0.disk.is_some())
    }

    fn or_refused<T>(&self, had: Option<T>) -> Option<T> {
        if had.is_none() {
            self.0.refused.fetch_add(1, Relaxed);
        }
        had
    }

    fn is_allowed(&self, key: Key, stored: &Stored<M>) -> bool {
        self.0.epochs.allow(stored.epoch, key, stored.text(), stored.tags())
    }

    fn keep_block(&self, object: ObjectId, number: u32, block: Block, on_disk: bool) {
        let slot = Slot::block(object, number);
        if let Some(disk) = self.0.disk.as_ref().filter(|_| on_disk) {
            disk.put(slot, Kept::Block(block.clone()));
        }
        self.0.memory.insert(slot, Kept::Block(block), |_| true);
    }

    /// Keeps a head, unless it has been purged since it was asked for, or what memory has in its
    /// place `stays`.
    fn keep_head(
        &self,
        key: Key,
        stored: &Stored<M>,
        stays: impl FnOnce(Option<&Kept<M>>) -> bool,
    ) -> bool {
        let slot = Slot::head(key);
        self.0.memory.insert(slot, Kept::Head(stored.clone()), |there| {
            let allowed = self.is_allowed(key, stored) && !stays(there);
            if let (true, Some(disk)) = (allowed, &self.0.disk) {
                disk.put(slot, Kept::Head(stored.clone()));
            }
            allowed
        })
    }

    fn forget(&self, slot: Slot) {
        // Memory last: what is read from the disk just now comes in before that, or not at all.
        if let Some(disk) = &self.0.disk {
            disk.remove(slot);
        }
        self.0.memory.remove(&slot);
    }
}

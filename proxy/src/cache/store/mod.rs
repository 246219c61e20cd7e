//! Where stored responses are: in memory, within a budget, and on the disk.
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
//! A worker calls all of this; none of it waits. What is in memory is answered at once, what is on
//! the disk with a [`Reading`] to await.
//!
//! Files: `account.rs` (what is held, to the byte), `block.rs`, `head.rs`, `key.rs` (what there
//! is), `memory/` (who stays in memory), `fill.rs` (how it comes in), `purge.rs` (how it goes).
//!
//! Implements: REQ-CACHE-002

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::*},
};

use bytes::Bytes;

mod account;
mod block;
mod fill;
mod head;
mod key;
mod memory;
mod purge;
mod reading;
#[cfg(test)]
mod tests;

pub use account::{Charge, WORKING_BYTES, allocated};
pub use block::Block;
pub use fill::Fill;
pub use head::{Head, Meta, Stored};
pub use key::{Key, ObjectId};
pub use purge::What;
pub use reading::Reading;

use account::Account;
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
    /// Bytes of a block; the last of an object is shorter.
    pub block_bytes: usize,
}

/// Bytes of a block where nothing else is said. A quarter of a megabyte: what a reader waits for
/// on the disk, and what a range may fetch too much at both ends; and 4096 of them are a gigabyte.
pub const BLOCK_BYTES: usize = 256 << 10;

/// What there is of something that was asked for.
#[derive(Debug)]
pub enum Found<T> {
    /// It is here.
    Memory(T),
    /// It is on the disk, if that can be read.
    Disk(Reading<T>),
    /// It is not stored.
    Absent,
}

/// How much is stored, and what has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What is held in memory, by the tier and by whoever still has what it gave.
    pub memory_bytes: u64,
    /// Of it, what is listed and can be evicted.
    pub memory_listed_bytes: u64,
    /// Responses in memory.
    pub memory_objects: u64,
    /// Responses and blocks in memory.
    pub memory_entries: u64,
    /// Entries that left memory for others.
    pub memory_evictions: u64,
    /// What was to be stored and found no room in memory.
    pub memory_refusals: u64,
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
    memory: Memory<Kept<M>>,
    epochs: Epochs,
    refused: AtomicU64,
}

impl<M: Meta> Store<M> {
    /// An empty store.
    pub fn new(options: &Options) -> Self {
        let account = Account::new(options.memory_bytes);
        Self(Arc::new(Inner {
            block_bytes: options.block_bytes,
            memory: Memory::new(Arc::clone(&account)),
            account,
            epochs: Epochs::new(),
            refused: AtomicU64::new(0),
        }))
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.0.block_bytes
    }

    /// The response with this key, which was made of `text`.
    pub fn head(&self, key: Key, text: &str) -> Found<Arc<Stored<M>>> {
        match self.0.memory.get(&Slot::head(key)) {
            Some(Kept::Head(head)) if *head.text == *text => Found::Memory(head),
            _ => Found::Absent,
        }
    }

    /// A block of an object: bytes from `number * block_bytes` on.
    pub fn block(&self, object: ObjectId, number: u32) -> Found<Block> {
        match self.0.memory.get(&Slot::block(object, number)) {
            Some(Kept::Block(block)) => Found::Memory(block),
            _ => Found::Absent,
        }
    }

    /// Whether a block is stored. It may be gone when it is asked for.
    pub fn has_block(&self, object: ObjectId, number: u32) -> bool {
        self.0.memory.has(&Slot::block(object, number))
    }

    /// A block of these bytes, copied: see [`Block`]. `None` if there is no memory for it, or they
    /// are more than a block may have.
    pub fn copy(&self, pieces: &[Bytes]) -> Option<Block> {
        let len = pieces.iter().map(Bytes::len).sum();
        let charge = if len > self.0.block_bytes { None } else { self.reserve(Block::cost(len)) };
        Some(Block::copy(pieces, self.or_refused(charge)?))
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
        self.0.memory.remove(&Slot::head(key));
    }

    /// Forgets all that is meant; what of it is asked for already is not stored. Returns how many
    /// responses went from memory. Takes a time that grows with what is stored: not for a worker.
    pub fn purge(&self, what: &What) -> usize {
        // In this order: see `Memory::insert`.
        self.0.epochs.purge(what.clone());
        let before = self.0.epochs.now();
        self.0.memory.remove_all(|kept| match kept {
            Kept::Head(head) => head.epoch < before && what.means(&head.text, &head.tags),
            Kept::Block(_) => false,
        })
    }

    /// How much is stored.
    pub fn statistics(&self) -> Statistics {
        let contents = self.0.memory.contents();
        Statistics {
            memory_bytes: self.0.account.live() as u64,
            memory_listed_bytes: contents.bytes as u64,
            memory_objects: contents.heads as u64,
            memory_entries: contents.entries as u64,
            memory_evictions: self.0.memory.evicted.load(Relaxed),
            memory_refusals: self.0.refused.load(Relaxed),
        }
    }

    fn reserve(&self, bytes: usize) -> Option<Charge> {
        self.0.memory.reserve(bytes)
    }

    fn or_refused<T>(&self, had: Option<T>) -> Option<T> {
        if had.is_none() {
            self.0.refused.fetch_add(1, Relaxed);
        }
        had
    }

    /// Keeps a block in memory.
    fn keep_block(&self, object: ObjectId, number: u32, block: Block) {
        self.0.memory.insert(Slot::block(object, number), Kept::Block(block), || true);
    }

    /// Keeps a head in memory, unless it has been purged since it was asked for.
    fn keep_head(&self, key: Key, stored: &Arc<Stored<M>>) -> bool {
        let allowed = || self.0.epochs.allow(stored.epoch, key, &stored.text, &stored.tags);
        self.0.memory.insert(Slot::head(key), Kept::Head(Arc::clone(stored)), allowed)
    }
}

//! A response on its way into the store.
//!
//! One that turns out not to be stored may have readers yet who count on its blocks: it stays a fill
//! for as long as they do, which nobody finds and whose blocks are as good as any others, and may be
//! evicted as these are.
//!
//! Implements: REQ-CACHE-002

use std::mem;

use super::{
    Found, Store, Wall,
    block::{Block, Form},
    disk::Location,
    head::{Head, Kept, Meta, Stored},
    key::{Key, ObjectId, Slot},
};

/// A response that is being stored: blocks as they are whole, in any order, and then its head.
/// Dropped without a head it takes its blocks with it, unless it belongs to an object that was
/// there before.
#[derive(Debug)]
pub struct Fill<M: Meta> {
    store: Store<M>,
    object: ObjectId,
    /// The object is only known by this, so far.
    is_new: bool,
    is_for_us_alone: bool,
    epoch: u64,
    /// When its response was asked for, for those who share it.
    asked: Wall,
    /// Blocks that were put, from the first to behind the last.
    put: std::ops::Range<u32>,
}

impl<M: Meta> Fill<M> {
    pub(super) fn new(store: &Store<M>, object: ObjectId, is_new: bool) -> Self {
        let (epoch, asked) = (store.0.epochs.now(), Wall::now());
        Self {
            store: store.clone(),
            object,
            is_new,
            is_for_us_alone: false,
            epoch,
            asked,
            put: 0..0,
        }
    }

    /// The object, by whose blocks others can follow the fill.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Stores a block. Of an object that is there everybody can have it from now on.
    pub fn put(&mut self, number: u32, block: Block) {
        self.count(number);
        // Those of a new one go with its head, if it gets one.
        if let Some(fleet) = self.store.0.fleet.get().filter(|_| !self.is_new) {
            fleet.share_block(Slot::block(self.object, number), &block, self.asked);
        }
        self.store.keep_block(self.object, number, block, true);
    }

    /// Keeps a block in memory only, of a response that is not going to be stored.
    pub fn put_aside(&mut self, number: u32, block: Block) {
        self.count(number);
        self.store.keep_block(self.object, number, block, false);
    }

    fn count(&mut self, number: u32) {
        self.put = match self.put.is_empty() {
            true => number..number + 1,
            false => self.put.start.min(number)..self.put.end.max(number + 1),
        };
    }

    /// Forgets the blocks before this one, of a response that is not going to be stored.
    pub fn forget_before(&mut self, number: u32) {
        for number in self.put.start..number.min(self.put.end) {
            self.store.forget(Slot::block(self.object, number));
            self.put.start = number + 1;
        }
    }

    /// What it stores is not given to a fleet, if there is one.
    pub fn for_us_alone(&mut self) {
        self.is_for_us_alone = true;
    }

    /// Stores the head: from now on the response is found by its key, in the place of any other.
    /// `None` if it is not, because it was purged since it was asked for, or there is no memory;
    /// what was there before stays.
    pub fn commit(mut self, key: Key, head: Head<M>) -> Option<Stored<M>> {
        self.try_commit(key, head)
    }

    /// The same for somebody who keeps it if it is refused.
    pub fn try_commit(&mut self, key: Key, head: Head<M>) -> Option<Stored<M>> {
        self.commit_by(key, head, |store, stored| store.keep_head(key, stored, |_| false))
    }

    /// The same in the place of what `is_it`, and of nothing else that has come in meanwhile.
    pub fn commit_over(
        mut self,
        key: Key,
        head: Head<M>,
        is_it: impl Fn(&Stored<M>) -> bool,
    ) -> Option<Stored<M>> {
        self.commit_by(key, head, |store, stored| {
            let before = store.place(key);
            let is_there = match store.head(key, stored.text(), Form::Memory) {
                Found::Memory(there) | Found::Read(there) => is_it(&there),
                Found::Disk(_) | Found::Fleet(_) | Found::Absent => false,
            };
            is_there && store.replace(key, stored, before, |there| !is_it(there))
        })
    }

    fn commit_by(
        &mut self,
        key: Key,
        head: Head<M>,
        keep: impl FnOnce(&Store<M>, &Stored<M>) -> bool,
    ) -> Option<Stored<M>> {
        let size = head.size();
        let memory = self.store.allocate((size, size), false);
        let memory = self.store.or_refused(memory)?;
        let stored = Stored::new(memory.first, head, self.object, self.epoch);
        if !keep(&self.store, &stored) {
            return None;
        }
        if self.is_for_us_alone {
            self.is_new = false;
            return Some(stored);
        }
        let blocks = if mem::take(&mut self.is_new) { self.put.clone() } else { 0..0 };
        self.store.share(key, &stored, blocks, self.asked);
        Some(stored)
    }
}

impl<M: Meta> Store<M> {
    /// Where a head is on the disk.
    pub(super) fn place(&self, key: Key) -> Option<Location> {
        self.0.disk.as_ref().and_then(|disk| disk.place(&Slot::head(key)))
    }

    /// Keeps a head in the place of what has been compared, which was there `before` on the disk,
    /// unless what is there now `stays`.
    pub(super) fn replace(
        &self,
        key: Key,
        stored: &Stored<M>,
        before: Option<Location>,
        stays: impl Fn(&Stored<M>) -> bool,
    ) -> bool {
        let queued = || self.0.disk.as_ref().and_then(|disk| disk.queued(&Slot::head(key)));
        // Compared again under the lock by which everything comes in. What memory has no more, and
        // is not where it was on the disk, may be newer than what has been compared.
        self.keep_head(key, stored, |there| match there {
            Some(Kept::Head(there)) => stays(there),
            Some(Kept::Block(_)) => false,
            None => match queued() {
                Some(Kept::Head(there)) => stays(&there),
                Some(Kept::Block(_)) => false,
                None => self.place(key) != before,
            },
        })
    }
}

impl<M: Meta> Drop for Fill<M> {
    fn drop(&mut self) {
        if self.is_new {
            for number in mem::take(&mut self.put) {
                self.store.forget(Slot::block(self.object, number));
            }
        }
    }
}

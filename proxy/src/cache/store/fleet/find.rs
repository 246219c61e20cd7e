//! What the rest of the cache asks: first what is here, and then what the fleet has.
//!
//! What comes from the fleet comes in as a fill does: it is refused if it was purged since it was
//! asked for.

use std::{ops::Range, sync::Arc};

use super::{Fleet, Hears, Wall};
use crate::cache::store::{
    Found, Store,
    block::{Block, Form},
    disk::{Disk, Untold},
    head::{Kept, Meta, Stored},
    key::{Key, ObjectId, Slot},
    purge::What,
};

impl<M: Meta> Store<M> {
    /// Whether a fleet shares what is stored.
    pub fn shares(&self) -> bool {
        self.0.fleet.get().is_some()
    }

    /// Whether a fleet has yet to be told of something that was purged here.
    pub fn is_any_purge_untold(&self) -> bool {
        self.0.fleet.get().is_some_and(Fleet::is_any_untold)
    }

    /// Has `what` told of each purge of others that has been applied here. The first one only.
    pub fn on_purge_elsewhere(&self, what: impl Fn(&What) + Send + Sync + 'static) {
        if let Some(fleet) = self.0.fleet.get() {
            let _ = fleet.shared.hears.set(Hears(Arc::new(what)));
        }
    }

    /// Asks the fleet for a head, whatever of it is [here](Self::head). What comes is to be
    /// [adopted](Self::adopt).
    pub fn seek(&self, key: Key, text: &str) -> Found<Stored<M>> {
        let epoch = self.0.epochs.now();
        let Some(fleet) = self.0.fleet.get() else { return Found::Absent };
        // What waits for the disk is newer.
        let is_queued = |disk: &Disk<M>| disk.queued(&Slot::head(key)).is_some();
        match self.0.disk.as_ref().is_some_and(is_queued) {
            true => Found::Absent,
            false => fleet.head(key, text, epoch),
        }
    }

    /// Keeps a head that the fleet has given, unless something is here that is not `older`. Whether
    /// it may be used: it may have been purged since.
    pub fn adopt(
        &self,
        key: Key,
        stored: &Stored<M>,
        form: Form,
        older: impl Fn(&Stored<M>) -> bool,
    ) -> bool {
        let stays = |there: &Stored<M>| there.text() == stored.text() && !older(there);
        // Known before what is there is read: what comes later is somewhere else.
        let before = self.place(key);
        let is_kept = match self.look(key, stored.text(), form) {
            Ok(Found::Memory(there) | Found::Read(there)) => stays(&there),
            // It cannot be compared at this time.
            Ok(Found::Disk(_) | Found::Fleet(_)) => true,
            Ok(Found::Absent) => false,
            Err(Untold) => before.is_some(),
        };
        if is_kept {
            return false;
        }
        let is_adopted = self.replace(key, stored, before, stays);
        if is_adopted {
            self.0.fleet.get().inspect(|fleet| fleet.knows(stored));
        }
        is_adopted
    }

    /// As [`Self::block`], and what is not here is asked for where a fleet shares it. `last`: the
    /// last block of the object that is going to be wanted.
    pub fn seek_block(&self, object: ObjectId, number: u32, last: u32, form: Form) -> Found<Block> {
        let slot = Slot::block(object, number);
        match (self.block(object, number, form), self.0.fleet.get()) {
            (Found::Absent, Some(fleet)) if fleet.has(slot) => {
                let is_here = |slot: Slot| self.has_block(object, slot.number());
                fleet.block(slot, last, self.0.epochs.now(), is_here)
            }
            (found, _) => found,
        }
    }

    /// As [`Self::has_block`], or the fleet may have it. Only for somebody who can have it
    /// elsewhere.
    pub fn may_have_block(&self, object: ObjectId, number: u32) -> bool {
        let elsewhere = |slot| self.0.fleet.get().is_some_and(|fleet| fleet.has(slot));
        self.has_block(object, number) || elsewhere(Slot::block(object, number))
    }

    /// Keeps a block that the fleet has given.
    pub(super) fn take_in(&self, slot: Slot, block: &Block) {
        if let Some(disk) = &self.0.disk {
            disk.put(slot, Kept::Block(block.clone()));
        }
        self.0.memory.insert(slot, Kept::Block(block.clone()), |_| true);
    }

    /// Has those who share get a head, and these blocks of it, which were asked for then.
    pub(in crate::cache::store) fn share(
        &self,
        key: Key,
        stored: &Stored<M>,
        blocks: Range<u32>,
        asked: Wall,
    ) {
        if let Some(fleet) = self.0.fleet.get() {
            fleet.share(key, stored, blocks, asked);
        }
    }
}

//! What the service is to keep or to forget, between workers and the thread that tells it.
//!
//! Whoever stores leaves it here and goes on; what finds no room is not shared. Several things are
//! under way at a time, each name always in the same lane, so that what was removed after it had
//! been stored is gone in the end.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::*},
};

use tokio::sync::mpsc;

use super::record::Wall;
use crate::cache::store::{
    block::Block,
    head::{Kept, Stored},
    key::{Key, Slot},
    memory::Value as _,
};

/// Lanes.
pub(super) const LANES: usize = 8;

/// So many things may wait: what is to be removed has no bytes.
pub(super) const MOST_ITEMS: usize = 16 << 10;

/// Something to do.
#[derive(Debug)]
pub(super) enum Item<M> {
    /// Keep a head, and before that these blocks of it, as far as they are still here.
    Head { key: Key, stored: Stored<M>, asked: Wall, blocks: Range<u32> },
    /// Keep a block of something that it has.
    Block { slot: Slot, block: Block, asked: Wall },
    /// Forget a head that was removed.
    Gone { slot: Slot },
}

/// The end of a lane where things come out.
pub(super) type Lane<M> = mpsc::UnboundedReceiver<(Item<M>, usize)>;

/// All of them.
#[derive(Debug)]
pub(super) struct Lanes<M> {
    lanes: Vec<mpsc::UnboundedSender<(Item<M>, usize)>>,
    bytes: AtomicUsize,
    items: AtomicUsize,
    most_bytes: usize,
}

impl<M> Lanes<M> {
    /// With their ends. No more than so many bytes of memory wait.
    pub(super) fn new(most_bytes: usize) -> (Self, Vec<Lane<M>>) {
        let (lanes, ends) = (0..LANES).map(|_| mpsc::unbounded_channel()).unzip();
        let (bytes, items) = (AtomicUsize::new(0), AtomicUsize::new(0));
        (Self { lanes, bytes, items, most_bytes }, ends)
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Whether nothing waits, nor is under way.
    pub(super) fn are_empty(&self) -> bool {
        self.items.load(SeqCst) == 0
    }

    /// Leaves something to be done. Whether it found room.
    pub(super) fn push(&self, item: Item<M>) -> bool {
        let bytes = match &item {
            Item::Head { stored, .. } => Kept::Head(stored.clone()).bytes(),
            Item::Block { block, .. } => Kept::<M>::Block(block.clone()).bytes(),
            Item::Gone { .. } => 0,
        };
        let items = self.items.fetch_add(1, SeqCst);
        let all = self.bytes.fetch_add(bytes, SeqCst) + bytes;
        let fits = items < MOST_ITEMS && (bytes == 0 || all <= self.most_bytes);
        let lane = &self.lanes[item.slot().fingerprint() as usize % LANES];
        let is_left = fits && lane.send((item, bytes)).is_ok();
        if !is_left {
            self.done(bytes);
        }
        is_left
    }

    /// Something of so many bytes has been done, or given up.
    pub(super) fn done(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, SeqCst);
        self.items.fetch_sub(1, SeqCst);
    }
}

impl<M> Item<M> {
    /// What it is about.
    pub(super) fn slot(&self) -> Slot {
        match self {
            Self::Head { key, .. } => Slot::head(*key),
            Self::Block { slot, .. } | Self::Gone { slot } => *slot,
        }
    }
}

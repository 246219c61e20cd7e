//! Which objects have something at the service, as far as that has been seen.
//!
//! A table with one place for many: of two objects for one place the later one is known, and of the
//! other one missing blocks are fetched from the origin. Nothing is wrong by that, and it takes
//! half a megabyte whatever there is.

use std::sync::atomic::{AtomicU64, Ordering::*};

use crate::cache::store::key::Slot;

const PLACES: usize = 64 << 10;

/// The table. An object stands in it by any of its blocks.
#[derive(Debug)]
pub(super) struct Known(Box<[AtomicU64]>);

impl Known {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// The object of this block is one of them.
    pub(super) fn add(&self, block: Slot) {
        self.place(block).store(block.of_object(), Relaxed);
    }

    /// It is none of them any more.
    pub(super) fn remove(&self, block: Slot) {
        let object = block.of_object();
        let _ = self.place(block).compare_exchange(object, 0, Relaxed, Relaxed);
    }

    pub(super) fn has(&self, block: Slot) -> bool {
        self.place(block).load(Relaxed) == block.of_object()
    }

    fn place(&self, block: Slot) -> &AtomicU64 {
        // Objects of one process are counted: they have places side by side.
        &self.0[block.of_object().rotate_right(32) as usize % PLACES]
    }
}

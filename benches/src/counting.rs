//! A global allocator that counts per thread, so that the proxy's workers can be told
//! from the load generator beside them.
//!
//! Invariant: counting never allocates and never locks. Each thread takes a slot at its
//! first allocation; whose slot it is gets known only when it is read, by the thread's
//! name in `/proc`.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ops::Sub,
    sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Threads that can be told apart. Those beyond it are not counted.
const SLOTS: usize = 256;
const UNASSIGNED: usize = usize::MAX;

struct Slot {
    thread: AtomicI32,
    allocations: AtomicU64,
    bytes: AtomicU64,
}

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static TABLE: [Slot; SLOTS] = [const {
    Slot { thread: AtomicI32::new(0), allocations: AtomicU64::new(0), bytes: AtomicU64::new(0) }
}; SLOTS];

thread_local! {
    // Constant and without a destructor: reading it does not allocate, and it can be
    // read while the thread ends.
    static MINE: Cell<usize> = const { Cell::new(UNASSIGNED) };
}

/// The system's allocator, counted.
#[derive(Debug, Clone, Copy)]
pub struct Counting;

// SAFETY: every call goes to `System` unchanged; the counters touch no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(bytes: usize) {
    let slot = MINE.get();
    let slot = if slot == UNASSIGNED { assign() } else { slot };
    if let Some(slot) = TABLE.get(slot) {
        slot.allocations.fetch_add(1, Relaxed);
        slot.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

#[cold]
fn assign() -> usize {
    let slot = TAKEN.fetch_add(1, Relaxed).min(SLOTS);
    MINE.set(slot);
    if let Some(slot) = TABLE.get(slot) {
        slot.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
    }
    slot
}

/// What has been allocated. Growing a block counts as one, with the bytes it grows by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Calls of the allocator.
    pub allocations: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            allocations: self.allocations - earlier.allocations,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

impl Count {
    /// By how much it is more than `other`, 0 where it is not.
    pub fn beyond(self, other: Self) -> Self {
        Self {
            allocations: self.allocations.saturating_sub(other.allocations),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What the threads whose name begins with `prefix` have allocated so far.
pub fn of_threads(prefix: &str) -> Count {
    let mut sum = Count::default();
    for slot in &TABLE[..TAKEN.load(Relaxed).min(SLOTS)] {
        let thread = slot.thread.load(Relaxed);
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
        if name.is_ok_and(|name| name.starts_with(prefix)) {
            sum.allocations += slot.allocations.load(Relaxed);
            sum.bytes += slot.bytes.load(Relaxed);
        }
    }
    sum
}

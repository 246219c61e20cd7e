//! The allocator of the process: the system's, behind magazines of free blocks that each worker has.
//!
//! A request or stream takes a dozen blocks of memory, up to its task of some kilobytes, and gives
//! them back soon, dozens of requests at a time. glibc keeps seven free blocks of a size for a
//! thread, and only up to 1,032 bytes (`tcache`); beyond these it locks, splits and joins. So a
//! worker keeps more of them, by size, in the manner of Bonwick and Adams ("Magazines and Vmem",
//! USENIX 2001). mimalloc, which does that too, keeps much more memory while nothing happens.
//!
//! Invariant: a block in a magazine is one of the system's allocator, of the size and alignment of
//! its class, that nobody has. Only a thread that has [`open`]ed its magazines keeps any, at most
//! [`LIMIT`] bytes; what it has had no use for goes back at [`settle`], and all of it when it ends.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    marker::PhantomData,
    ptr,
};

/// Most that one thread keeps, bytes: what some hundreds of requests at a time give back.
pub const LIMIT: usize = 1024 * 1024;

/// Largest block that is kept, bytes.
const LARGEST: usize = 16 * 1024;

/// Up to here a class is sixteen bytes wide; above, a quarter of a power of two.
const SMALL: usize = 128;

const SMALL_CLASSES: usize = SMALL / 16;
const SIZES: usize = SMALL_CLASSES + 4 * (LARGEST / SMALL).ilog2() as usize;

/// What everything of the system's allocator is aligned to (`max_align_t`).
const ALIGN: usize = 16;

/// Tasks of tokio are aligned to two lines of the CPU's cache. Blocks of this alignment have
/// classes of their own, behind those of the same sizes.
const WIDE_ALIGN: usize = 128;

const CLASSES: usize = 2 * SIZES;

/// The magazines of a thread.
struct Magazines {
    /// The first block of each, which begins with the address of the next one.
    first: [Cell<*mut u8>; CLASSES],
    /// All of these, bytes.
    kept: Cell<usize>,
    /// The least that was kept since the last [`settle`].
    least: Cell<usize>,
    limit: Cell<usize>,
}

thread_local! {
    // Constant and without a destructor: to reach it allocates nothing, and it can be reached
    // while the thread ends.
    static MINE: Magazines = const {
        Magazines {
            first: [const { Cell::new(ptr::null_mut()) }; CLASSES],
            kept: Cell::new(0),
            least: Cell::new(0),
            limit: Cell::new(0),
        }
    };
}

impl Magazines {
    #[inline]
    fn take(&self, class: Class) -> Option<*mut u8> {
        let first = &self.first[class.index];
        let block = first.get();
        if block.is_null() {
            return None;
        }
        // SAFETY: a block that nobody has begins with the address of the next one.
        first.set(unsafe { block.cast::<*mut u8>().read() });
        let kept = self.kept.get() - class.size;
        self.kept.set(kept);
        self.least.set(self.least.get().min(kept));
        Some(block)
    }

    /// Whether there was room for it.
    ///
    /// # Safety
    /// The block is one of `class` that was given back.
    #[inline]
    unsafe fn keep(&self, block: *mut u8, class: Class) -> bool {
        let kept = self.kept.get() + class.size;
        if kept > self.limit.get() {
            return false;
        }
        let first = &self.first[class.index];
        // SAFETY: it is nobody's now, and large enough.
        unsafe { block.cast::<*mut u8>().write(first.get()) };
        first.set(block);
        self.kept.set(kept);
        true
    }

    /// Gives blocks back, the largest first, until so many bytes have gone, or all.
    fn give_back(&self, bytes: usize) {
        let least = self.kept.get().saturating_sub(bytes);
        let classes = (0..SIZES).rev().flat_map(|size| [size, size + SIZES]).map(Class::at);
        for class in classes {
            while self.kept.get() > least
                && let Some(block) = self.take(class)
            {
                // SAFETY: allocated so, and nobody has it.
                unsafe { System.dealloc(block, class.layout()) };
            }
        }
    }
}

/// Blocks of one size and alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Class {
    index: usize,
    /// Bytes.
    size: usize,
}

impl Class {
    /// That of a block, if such are kept.
    #[inline]
    fn of(layout: Layout) -> Option<Self> {
        let (size, align) = (layout.size(), layout.align());
        if size > LARGEST || size == 0 {
            return None;
        }
        let class = Self::of_size(size);
        match align {
            0..=ALIGN => Some(class),
            // Where the size is small, the alignment would be most of it.
            ..=WIDE_ALIGN if size > SMALL => Some(Self { index: class.index + SIZES, ..class }),
            _ => None,
        }
    }

    #[inline]
    fn of_size(size: usize) -> Self {
        let last = size - 1;
        if size <= SMALL {
            let index = last / 16;
            return Self { index, size: (index + 1) * 16 };
        }
        // A power of two, and which quarter of the way to the next one.
        let power = last.ilog2();
        let quarter = last >> (power - 2);
        let index = SMALL_CLASSES + 4 * (power - SMALL.ilog2()) as usize + (quarter - 4);
        Self { index, size: (quarter + 1) << (power - 2) }
    }

    fn at(index: usize) -> Self {
        let of = index % SIZES;
        let size = match of.checked_sub(SMALL_CLASSES) {
            None => (of + 1) * 16,
            Some(above) => (above % 4 + 5) << (above / 4 + SMALL.ilog2() as usize - 2),
        };
        Self { index, size }
    }

    /// What the system is asked for.
    #[inline]
    fn layout(self) -> Layout {
        let align = if self.index < SIZES { ALIGN } else { WIDE_ALIGN };
        // SAFETY: a power of two, and a size that is far from overflowing.
        unsafe { Layout::from_size_align_unchecked(self.size, align) }
    }
}

/// The allocator of the process.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

// SAFETY: a block is the system's, at least of the size and alignment that were asked for, and one of
// a magazine is taken out of it before anybody has it. Which class one is of depends on its layout
// alone, so that it goes back as it was allocated. None is inlined: there are thousands of callers, and
// the text of the program grew by a seventh.
unsafe impl GlobalAlloc for Allocator {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout) {
            Some(class) => MINE
                .with(|mine| mine.take(class))
                // SAFETY: its size is not zero.
                .unwrap_or_else(|| unsafe { System.alloc(class.layout()) }),
            // SAFETY: the caller's promises are `System`'s.
            None => unsafe { System.alloc(layout) },
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match Class::of(layout) {
            Some(class) => {
                // SAFETY: the caller has it from `alloc`, and gives it up.
                if !MINE.with(|mine| unsafe { mine.keep(block, class) }) {
                    // SAFETY: allocated so.
                    unsafe { System.dealloc(block, class.layout()) }
                }
            }
            // SAFETY: the caller's promises are `System`'s.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Class::of(layout).is_none() {
            // The system knows of pages that are zero anyway.
            // SAFETY: the caller's promises are `System`'s.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as above.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: it is so large.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Class::of(layout), Class::of(new)) {
            // SAFETY: the caller's promises are `System`'s.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (from, to) if from == to => block,
            _ => {
                // SAFETY: the caller promises that the size is not zero.
                let moved = unsafe { self.alloc(new) };
                if !moved.is_null() {
                    // SAFETY: two blocks, each at least so large; the old one is given up.
                    unsafe {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                }
                moved
            }
        }
    }
}

/// As long as it is there, its thread has magazines.
#[derive(Debug)]
pub struct Open {
    /// Of this thread.
    here: PhantomData<*const ()>,
}

/// Has this thread keep blocks that are given back on it.
#[must_use]
pub fn open() -> Open {
    MINE.with(|mine| mine.limit.set(LIMIT));
    Open { here: PhantomData }
}

impl Drop for Open {
    fn drop(&mut self) {
        MINE.with(|mine| mine.limit.set(0));
        empty();
    }
}

/// Gives back everything.
pub fn empty() {
    MINE.with(|mine| mine.give_back(usize::MAX));
}

/// Gives back what was not needed since the last call, which whoever has magazines calls from time
/// to time.
pub fn settle() {
    MINE.with(|mine| {
        mine.give_back(mine.least.get());
        mine.least.set(mine.kept.get());
    });
}

#[cfg(test)]
mod tests;

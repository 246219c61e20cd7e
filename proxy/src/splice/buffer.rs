//! Copy buffers and the pool of each worker.
//!
//! Invariant: a [`Buffer`] goes back to the pool of the thread it is dropped on, whatever
//! it still holds; the pool never keeps more than [`IDLE_BUFFERS`]. Off the path once
//! warm: taking and giving back is a push and a pop.

use std::cell::{Cell, RefCell};

use super::{BUFFER_BYTES, IDLE_BUFFERS};

thread_local! {
    static IDLE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// A buffer and the part of it that is still to be sent.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Buffers of this thread that are in use.
pub fn in_use() -> usize {
    IN_USE.get()
}

impl Buffer {
    /// An empty one.
    pub(super) fn take() -> Self {
        let bytes = IDLE
            .with_borrow_mut(Vec::pop)
            // Zeroed once in its life; later users overwrite before they read.
            .unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
        IN_USE.set(IN_USE.get() + 1);
        Self { bytes, start: 0, end: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What is to be sent.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `n` bytes of [`Self::pending`] have been sent.
    pub(super) fn sent(&mut self, n: usize) {
        assert!(n <= self.end - self.start, "sent more than was there");
        self.start += n;
    }

    /// The whole room, of an empty buffer.
    pub(super) fn room(&mut self) -> &mut [u8] {
        assert!(self.is_empty(), "filled before it was drained");
        (self.start, self.end) = (0, 0);
        &mut self.bytes
    }

    /// The first `n` bytes of [`Self::room`] have been written.
    pub(super) fn filled(&mut self, n: usize) {
        assert!(n <= self.bytes.len(), "filled beyond the end");
        self.end = n;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A worker that ends drops its tunnels and its pool in no certain order.
        let _ = IN_USE.try_with(|count| count.set(count.get() - 1));
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < IDLE_BUFFERS {
                idle.push(std::mem::take(&mut self.bytes));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let first = Buffer::take();
        let address = first.bytes.as_ptr();
        drop(first);
        assert_eq!(in_use(), 0);
        assert_eq!(Buffer::take().bytes.as_ptr(), address);
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<_> = (0..IDLE_BUFFERS + 5).map(|_| Buffer::take()).collect();
        assert_eq!(in_use(), IDLE_BUFFERS + 5);
        drop(many);
        assert_eq!(IDLE.with_borrow(Vec::len), IDLE_BUFFERS);
    }
}

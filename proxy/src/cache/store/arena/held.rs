//! A value in memory of the arena, with bytes behind it, shared by all who have it.
//!
//! As `Arc`, but that it lies where the arena says: an entry of the cache takes nothing of the
//! allocator of the process.

use std::{
    fmt,
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::*, fence},
};

use super::Extent;

/// The value. All clones are the same one; its memory is given back with the last of them.
pub(in crate::cache::store) struct Held<T>(NonNull<Inner<T>>, PhantomData<Inner<T>>);

#[repr(C)]
struct Inner<T> {
    refs: AtomicUsize,
    /// The memory that this lies in.
    extent: Extent,
    value: T,
}

// SAFETY: as `Arc<T>`: it gives out `&T`, and drops `T` on the thread of the last one.
unsafe impl<T: Send + Sync> Send for Held<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Held<T> {}

impl<T> Held<T> {
    /// Bytes in front of those that lie behind it.
    pub(in crate::cache::store) const HEADER: usize = size_of::<Inner<T>>();

    /// Puts a value into the first [`Self::HEADER`] bytes. What the rest holds is to be written
    /// before.
    ///
    /// # Panics
    /// If there are fewer.
    pub(in crate::cache::store) fn new(mut extent: Extent, value: T) -> Self {
        const { assert!(align_of::<Inner<T>>() <= super::space::UNIT) };
        let at = extent.bytes_mut();
        assert!(at.len() >= Self::HEADER, "too short");
        let at = NonNull::from(at).cast::<Inner<T>>();
        // SAFETY: as long as it has to be, aligned as units are, and of nobody else.
        unsafe { at.write(Inner { refs: AtomicUsize::new(1), extent, value }) };
        Self(at, PhantomData)
    }

    /// What lies behind it, up to the end of its memory.
    pub(in crate::cache::store) fn behind(&self) -> &[u8] {
        let len = self.inner().extent.len() - Self::HEADER;
        // SAFETY: within the extent, behind `Inner`; nobody writes there while there are handles.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>().add(Self::HEADER), len) }
    }

    /// Has sockets given what lies behind it as it is.
    pub(in crate::cache::store) fn lend_behind(&self) {
        // The count of handles goes on being written: it is in a page that no slice of what lies
        // behind has for itself.
        self.inner().extent.lend();
    }

    /// What its memory is charged, in bytes.
    pub(in crate::cache::store) fn charged(&self) -> usize {
        self.inner().extent.len()
    }

    /// Whether somebody else has it too.
    pub(in crate::cache::store) fn is_shared(&self) -> bool {
        self.inner().refs.load(Relaxed) > 1
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: there is a handle, so the value has not been dropped.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        self.inner().refs.fetch_add(1, Relaxed);
        Self(self.0, PhantomData)
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if self.inner().refs.fetch_sub(1, Release) != 1 {
            return;
        }
        fence(Acquire);
        // SAFETY: nobody else has it. It is moved out before its memory is given back, which
        // happens with `extent`.
        drop(unsafe { self.0.read() });
    }
}

impl<T: fmt::Debug> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

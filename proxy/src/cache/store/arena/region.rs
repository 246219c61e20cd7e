//! A range of the process's addresses. It takes memory where it has been written.
//!
//! Sockets may be given its pages themselves (`lend.rs`), where the system has such memory for us.

use std::{
    io, ptr,
    ptr::NonNull,
    sync::{Arc, Once},
};

use crate::lend::Pages;

/// A mapping of its own, unmapped when it is dropped.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
    /// `None`: nothing of it is lent.
    pages: Option<Arc<Pages>>,
}

// SAFETY: addresses, which all threads share. What lies there is handed out by `Arena`.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// So many bytes of zeros.
    ///
    /// # Errors
    /// As mmap(2): if a limit of the process or the system forbids it.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        match Pages::new(len, Self::page()) {
            Ok(pages) => Ok(Self { start: pages.start(), len, pages: Some(pages) }),
            Err(error) => {
                tracing::info!("cache: its memory is not lent to sockets but copied: {error}");
                Self::anonymous(len)
            }
        }
    }

    fn anonymous(len: usize) -> io::Result<Self> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, in the place of none.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, kind, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Pages of two megabytes would take memory where nothing was written.
        // SAFETY: of this mapping; a hint, and nothing is lost if it is not taken.
        unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, pages: None })
    }

    /// Bytes of a page of the kernel's: 4096, or more on some processors. What is unknown is
    /// taken for the largest that Linux has: what is given back has to be whole pages.
    pub(super) fn page() -> usize {
        // SAFETY: sysconf(3) reads a number.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(1 << 16)
    }

    /// No bytes.
    pub(super) fn none() -> Self {
        Self { start: NonNull::dangling(), len: 0, pages: None }
    }

    /// Where so many bytes from `at` on are.
    pub(super) fn place(&self, at: usize, len: usize) -> NonNull<u8> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "outside of the region");
        // SAFETY: within the mapping, as has just been looked at.
        unsafe { self.start.add(at) }
    }

    /// Gives the memory of these bytes back: whole pages ([`Self::page`]), which are zeros from then
    /// on. Nobody may have any of them. Takes a time that grows with their number: not for who holds a
    /// lock that others want.
    pub(super) fn release(&self, at: usize, len: usize) {
        if let Some(pages) = &self.pages {
            // What stays is written again, as if it had never been tried.
            let _ = pages.release(at, len);
            return;
        }
        let start = self.place(at, len);
        // SAFETY: of this mapping; nobody has any of it, says the caller, who keeps the books.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED) };
    }
}

impl Region {
    /// Has sockets given these bytes as they are, of one owner who does not write them before
    /// [`Self::reuse`].
    pub(super) fn lend(&self, at: usize, len: usize) {
        if let Some(pages) = &self.pages {
            pages.lend(at, len);
        }
    }

    /// Whether these bytes, of one owner who has done with them, may be written again.
    pub(super) fn reuse(&self, at: usize, len: usize) -> bool {
        let done = self.pages.as_ref().map_or(Ok(()), |pages| pages.reuse(at, len));
        if let Err(error) = &done {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::error!(
                    "cache: memory that was lent is lost, and none is lent now: {error}"
                );
            });
        }
        done.is_ok()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.len > 0 && self.pages.is_none() {
            // SAFETY: whoever has a part of it has the arena too, and so this.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where no file in memory is to be had.
    #[test]
    fn without_a_file_it_is_memory_that_is_not_lent() {
        let len = 4 * Region::page();
        let region = Region::anonymous(len).unwrap();
        let first = region.place(0, len);
        // SAFETY: within the mapping, which nobody else has.
        unsafe { first.write_bytes(1, len) };
        region.lend(0, len);
        assert!(region.reuse(0, len));
        // SAFETY: as above.
        assert_eq!(unsafe { first.read_volatile() }, 1, "nothing had to be taken out");
        region.release(0, len);
        // SAFETY: as above.
        assert_eq!(unsafe { first.read_volatile() }, 0);
    }
}

//! Memory that sockets send as it is: a file in memory, mapped, whose pages sendfile(2) hands to
//! TCP instead of a copy of them.
//!
//! Copying is most of what a large answer out of memory costs. But what is lent is read later: when
//! it is sent, or sent again, or on loopback when the peer reads it, and nobody tells when that was.
//! So **a page that may be lent is never written again**: before its owner uses the addresses for
//! anything else the page is taken out of the file ([`Pages::reuse`]), and whoever still has to send
//! it has it for himself. For that whole pages are lent only, of which every byte is the sender's;
//! what is in front of them and behind is copied.
//!
//! To take pages out and to touch others in their place costs as much as twenty copies of them. So
//! nothing is lent but what its owner says is worth it ([`Pages::lend`]).
//!
//! Not where bytes are changed on their way (TLS), and not where a BPF program may have them (local
//! bypass): there they are copied in any case.
//!
//! `window.rs` has the same of files on a disk, `loan.rs` is how either is sent.

use std::{
    io,
    os::fd::OwnedFd,
    ptr::{self, NonNull},
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
};

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate,
        memfd_create, sendfile,
    },
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
    process::{Resource, getrlimit},
};

mod loan;
mod window;

pub(crate) use loan::Loan;
pub use window::{Window, Windows};

/// Below it a copy is cheaper than the second system call, in bytes.
const LEAST: usize = 24 << 10;

/// What lies between two borders of this many bytes is one's own: memory is handed out in such
/// units.
pub const UNIT: usize = 64;

/// All that there are, of which a slice may be a part.
static ALL: RwLock<Vec<Weak<Pages>>> = RwLock::new(Vec::new());

/// Where the first of them begins, and the last one ends: most slices lie elsewhere.
static SPAN: [AtomicUsize; 2] = [AtomicUsize::new(usize::MAX), AtomicUsize::new(0)];

/// Bytes that were lent.
static LENT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Addresses whose pages can be lent.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    page: usize,
    /// Whether a page did not come back: nothing is lent any more.
    is_over: AtomicBool,
    /// A bit for each page that may be lent, and so may be on its way.
    lent: Box<[AtomicU64]>,
}

// SAFETY: addresses, which all threads share. What lies there is its owner's business.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// So many bytes of zeros, in pages of `page` bytes.
    ///
    /// # Errors
    /// As memfd_create(2) (Linux 3.17) and mmap(2); where the process may not make a file of that
    /// length, where the system does not promise more memory than it has, and where pages cannot be
    /// taken out of such a file.
    pub fn new(len: usize, page: usize) -> io::Result<Arc<Self>> {
        if getrlimit(Resource::Fsize).current.is_some_and(|most| most < len as u64) {
            // The kernel would end the process (SIGXFSZ).
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if std::fs::read("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.starts_with(b"2"))
        {
            // Such a file is promised nothing: for want of memory the process would be ended
            // (SIGBUS) when it writes.
            return Err(io::Error::other("vm.overcommit_memory is 2"));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Before Linux 6.3 there is no such flag; since then some systems insist on it.
        let file = memfd_create("underpass-cache", flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| memfd_create("underpass-cache", flags))?;
        ftruncate(&file, len as u64)?;
        // Nobody makes it shorter under us. That it may be written goes with taking pages out.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let (protection, kind) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping, in the place of none.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, kind, &file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let lent = (0..len.div_ceil(page).div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let this = Self { start, len, file, page, is_over: AtomicBool::new(false), lent };
        this.try_out()?;
        SPAN[0].fetch_min(start.as_ptr() as usize, Relaxed);
        SPAN[1].fetch_max(start.as_ptr() as usize + len, Relaxed);
        let this = Arc::new(this);
        let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|pages| pages.strong_count() > 0);
        all.push(Arc::downgrade(&this));
        Ok(this)
    }

    /// Whether its pages are small ones, and can be taken out: what all this depends on.
    fn try_out(&self) -> io::Result<()> {
        // A page of two megabytes would take memory where nothing was written, and a part of it
        // that is taken out is overwritten in place as long as somebody has it.
        // SAFETY: of this mapping.
        let small =
            unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxNoHugepage) };
        // EINVAL: this kernel has no others.
        small.or_else(|error| if error == Errno::INVAL { Ok(()) } else { Err(error) })?;
        if self.len < self.page {
            return Ok(());
        }
        // SAFETY: the first byte of the mapping, which nobody has yet.
        unsafe { self.start.as_ptr().write_volatile(1) };
        self.release(0, self.page)?;
        // SAFETY: as above.
        match unsafe { self.start.as_ptr().read_volatile() } {
            0 => Ok(()),
            _ => Err(io::Error::other("a page that was taken out is still there")),
        }
    }

    /// Where they begin.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Has whole pages of these bytes lent from now on. They have to be one owner's, who does not
    /// write them before [`Self::reuse`].
    pub fn lend(&self, at: usize, len: usize) {
        for page in at.div_ceil(self.page)..(at + len) / self.page {
            self.lent[page / 64].fetch_or(1 << (page % 64), Relaxed);
        }
    }

    /// Has the owner of these bytes write them again: pages that may be on their way are taken out,
    /// and are zeros from then on.
    ///
    /// # Errors
    /// If the kernel will not: then they must not be written.
    pub fn reuse(&self, at: usize, len: usize) -> io::Result<()> {
        let (first, end) = (at.div_ceil(self.page), (at + len) / self.page);
        if !(first..end).any(|page| self.is_lent(page)) {
            return Ok(());
        }
        self.release(first * self.page, (end - first) * self.page).inspect_err(|_| {
            self.is_over.store(true, Relaxed);
        })?;
        for page in first..end {
            self.lent[page / 64].fetch_and(!(1 << (page % 64)), Relaxed);
        }
        Ok(())
    }

    /// Takes whole pages out: they are zeros from then on, and their memory is the system's.
    ///
    /// # Errors
    /// If the kernel will not.
    pub fn release(&self, at: usize, len: usize) -> io::Result<()> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "outside of the pages");
        // SAFETY: within the mapping; whoever has any of it is the caller.
        let removed =
            unsafe { madvise(self.start.add(at).as_ptr().cast(), len, Advice::LinuxRemove) };
        // Not of memory that is locked (mlockall(2)), for one.
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(removed.or_else(|_| fallocate(&self.file, punch, at as u64, len as u64))?)
    }

    /// Whether a page may be lent.
    fn is_lent(&self, page: usize) -> bool {
        self.lent[page / 64].load(Relaxed) & 1 << (page % 64) != 0
    }

    /// What of these bytes can be lent: where it begins in them, and its place and length.
    fn within(&self, bytes: &[u8]) -> Option<(usize, usize, usize)> {
        let at = (bytes.as_ptr() as usize).checked_sub(self.start.as_ptr() as usize)?;
        let end = at + bytes.len();
        if end > self.len {
            return None;
        }
        let first = at.next_multiple_of(self.page);
        // Bytes behind the last one, up to the border of a unit, are nobody else's.
        let whole = end.next_multiple_of(UNIT) / self.page * self.page;
        let last = whole.min(end);
        // All of them are one owner's, who has them lent together.
        let is_worth_it = last >= first + LEAST && self.is_lent(first / self.page);
        (is_worth_it && !self.is_over.load(Relaxed)).then(|| (first - at, first, last - first))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: whoever has a part of it has this.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// To be called by a thread that will lend, before tunnels have taken pipes: sendfile(2) has one of
/// its own for each thread, made the first time and kept, and beyond `fs.pipe-user-pages-soft` it
/// gets one of two pages, which is worse than a copy. Where it fails there is no such file either.
pub fn get_ready() {
    let sent = memfd_create("underpass-ready", MemfdFlags::CLOEXEC).and_then(|file| {
        ftruncate(&file, 1)?;
        let nowhere =
            rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        sendfile(&nowhere, &file, Some(&mut 0), 1)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "no pipe for sendfile(2)");
    }
}

/// Bytes that were sent without a copy, by the whole process.
pub fn lent_bytes() -> u64 {
    LENT_BYTES.load(Relaxed)
}

/// Bytes of files that were to be sent so and had left memory: a thread has read them again.
pub fn reread_bytes() -> u64 {
    window::reread_bytes()
}

#[cfg(test)]
mod tests;

//! Memory that sockets send as it is: a file in memory, mapped, whose pages sendfile(2) hands to
//! TCP instead of a copy of them.
//!
//! Copying is most of what a large answer out of memory costs. But what is lent is read later: when
//! it is sent, or sent again, or on loopback when the peer reads it, and nobody tells when that was.
//! So **a lent page is never written again**: before its owner uses the addresses for anything else
//! the page is taken out of the file ([`Pages::reuse`]), and whoever still has to send it has it for
//! himself. For that whole pages are lent only, of which every byte is the sender's; what is in front
//! of them and behind is copied.
//!
//! Not where bytes are changed on their way (TLS), and not where a BPF program may have them (local
//! bypass): there they are copied in any case.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering::*},
    },
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create, sendfile},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
    process::{Resource, getrlimit},
};

/// Below it a copy is cheaper than the second system call, in bytes.
const LEAST: usize = 24 << 10;

/// What lies between two borders of this many bytes is one's own: memory is handed out in such
/// units.
pub const UNIT: usize = 64;

/// All that there are, of which a slice may be a part.
static ALL: RwLock<Vec<Weak<Pages>>> = RwLock::new(Vec::new());

/// Bytes that were lent.
static LENT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Addresses whose pages can be lent.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    page: usize,
    /// A bit for each page that may be on its way.
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
    /// As memfd_create(2) (Linux 3.17) and mmap(2), and where the process may not make a file of
    /// that length.
    pub fn new(len: usize, page: usize) -> io::Result<Arc<Self>> {
        if getrlimit(Resource::Fsize).current.is_some_and(|most| most < len as u64) {
            // The kernel would end the process (SIGXFSZ).
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let flags = MemfdFlags::CLOEXEC;
        // Before Linux 6.3 there is no such flag; since then some systems insist on it.
        let file = memfd_create("underpass-cache", flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| memfd_create("underpass-cache", flags))?;
        ftruncate(&file, len as u64)?;
        let (protection, kind) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping, in the place of none.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, kind, &file, 0) }?;
        // A page of two megabytes would take memory where nothing was written, and a part of it
        // that is taken out is overwritten in place as long as somebody has it.
        // SAFETY: of this mapping. It fails where there are no such pages.
        let _ = unsafe { madvise(start, len, Advice::LinuxNoHugepage) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let lent = (0..len.div_ceil(page).div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let this = Arc::new(Self { start, len, file, page, lent });
        let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|pages| pages.strong_count() > 0);
        all.push(Arc::downgrade(&this));
        Ok(this)
    }

    /// Where they begin.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Has these bytes be written again: pages that were lent are taken out, and are zeros from
    /// then on. They have to be one owner's, as everything that was lent of them was.
    ///
    /// # Errors
    /// If the kernel will not: then they must not be written.
    pub fn reuse(&self, at: usize, len: usize) -> io::Result<()> {
        let (first, end) = (at.div_ceil(self.page), (at + len) / self.page);
        if !(first..end).any(|page| self.is_lent(page)) {
            return Ok(());
        }
        self.release(first * self.page, (end - first) * self.page)?;
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
        Ok(unsafe { madvise(self.start.add(at).as_ptr().cast(), len, Advice::LinuxRemove) }?)
    }

    /// Whether a page may be on its way.
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
        (last >= first + LEAST).then(|| (first - at, first, last - first))
    }

    /// To be said before any of them is sent.
    fn are_lent(&self, at: usize, len: usize) {
        for page in at / self.page..(at + len).div_ceil(self.page) {
            // Many are lent again and again.
            if !self.is_lent(page) {
                self.lent[page / 64].fetch_or(1 << (page % 64), Relaxed);
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: whoever has a part of it has this.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A part of some slices that can be lent.
#[derive(Debug)]
pub(crate) struct Loan {
    pages: Arc<Pages>,
    /// The slice that it is in, and where it begins there.
    slice: usize,
    offset: usize,
    at: usize,
    len: usize,
}

impl Loan {
    /// The first part that can be lent, if there is any.
    pub(crate) fn of(slices: &[IoSlice<'_>]) -> Option<Self> {
        let long = |(slice, bytes): (usize, &IoSlice<'_>)| {
            (bytes.len() >= LEAST).then(|| Self::of_slice(slice, bytes))?
        };
        slices.iter().enumerate().find_map(long)
    }

    fn of_slice(slice: usize, bytes: &[u8]) -> Option<Self> {
        let all = ALL.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).find_map(|pages| {
            let (offset, at, len) = pages.within(bytes)?;
            Some(Self { pages, slice, offset, at, len })
        })
    }

    /// Sends what is in front of it, and then as much of it as there is room for: how many bytes
    /// of both.
    ///
    /// # Errors
    /// As sendmsg(2), if nothing was sent.
    pub(crate) fn send(&self, socket: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let copy = |slices: &[IoSlice<'_>], flags| {
            sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), flags)
        };
        let mut front = [IoSlice::new(&[]); MOST_SLICES];
        let (before, here) = (slices.get(..self.slice), &slices[self.slice]);
        let before = before.unwrap_or_default();
        let in_front: usize = before.iter().map(|slice| slice.len()).sum::<usize>() + self.offset;
        let mut sent = 0;
        if in_front > 0 {
            if before.len() >= MOST_SLICES {
                return Ok(copy(slices, flags)?);
            }
            front[..before.len()].copy_from_slice(before);
            front[before.len()] = IoSlice::new(&here[..self.offset]);
            sent = copy(&front[..=before.len()], flags | SendFlags::MORE)?;
            if sent < in_front {
                return Ok(sent);
            }
        }
        self.pages.are_lent(self.at, self.len);
        let mut at = self.at as u64;
        match sendfile(&socket, &self.pages.file, Some(&mut at), self.len) {
            Ok(lent) if lent > 0 => {
                LENT_BYTES.fetch_add(lent as u64, Relaxed);
                Ok(sent + lent)
            }
            _ if sent > 0 => Ok(sent),
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
                Err(error.into())
            }
            // Whatever it does not take by reference.
            _ => Ok(copy(&[IoSlice::new(&here[self.offset..])], flags)?),
        }
    }
}

/// Slices in front of a loan that are sent with it: a head, and what a codec puts before a body.
const MOST_SLICES: usize = 8;

/// Bytes that were sent without a copy, by the whole process.
pub fn lent_bytes() -> u64 {
    LENT_BYTES.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{Ipv4Addr, TcpListener, TcpStream},
    };

    use super::*;

    const PAGE: usize = 4096;
    const LEN: usize = 16 * PAGE;
    const HEAD: &[u8] = b"a head: ";

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// Writes all of a stretch.
    fn fill(pages: &Pages, at: usize, len: usize, byte: u8) -> &'static [u8] {
        assert!(at + len <= pages.len);
        // SAFETY: within the mapping, which the test keeps for as long as it has the slice.
        unsafe {
            let start = pages.start.as_ptr().add(at);
            start.write_bytes(byte, len);
            std::slice::from_raw_parts(start, len)
        }
    }

    /// What is there now.
    fn there(pages: &Pages, at: usize) -> u8 {
        // SAFETY: within the mapping.
        unsafe { pages.start.as_ptr().add(at).read_volatile() }
    }

    fn read(from: &mut TcpStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        from.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[mantra_macros::req_test("REQ-CACHE-007")]
    #[test]
    fn what_is_on_its_way_stays_what_it_was() {
        let pages = Pages::new(4 * LEN, PAGE).unwrap();
        for is_given_back in [true, false] {
            let bytes = fill(&pages, 100, LEN, b'a');
            let (near, mut far) = pair();
            let slices = [IoSlice::new(HEAD), IoSlice::new(bytes)];
            let loan = Loan::of(&slices).unwrap();
            assert_eq!((loan.slice, loan.offset, loan.at), (1, PAGE - 100, PAGE));
            let sent = loan.send(&near, &slices).unwrap();
            assert!(sent > HEAD.len() + loan.offset + LEAST, "{sent} bytes fit");
            if is_given_back {
                pages.reuse(100, LEN).unwrap();
            }
            fill(&pages, 100, LEN, b'b');
            let seen = read(&mut far, sent);
            assert!(seen.starts_with(HEAD));
            let is_whole = seen[HEAD.len()..].iter().all(|byte| *byte == b'a');
            // What happens without: the reason for all this.
            assert_eq!(is_whole, is_given_back);
            pages.reuse(100, LEN).unwrap();
        }
    }

    #[test]
    fn whole_pages_are_lent_and_no_byte_of_anybody_else() {
        let pages = Pages::new(4 * LEN, PAGE).unwrap();
        let within = |at: usize, len: usize| pages.within(fill(&pages, at, len, b'x'));
        assert_eq!(within(0, LEN), Some((0, 0, LEN)));
        assert_eq!(within(64, LEN), Some((PAGE - 64, PAGE, LEN - PAGE)));
        // The rest of the last unit belongs to whoever has its beginning.
        assert_eq!(within(0, LEN - 63), Some((0, 0, LEN - 63)));
        assert_eq!(within(0, LEN - 64), Some((0, 0, LEN - PAGE)));
        assert_eq!(within(0, LEAST - 1), None);
        assert_eq!(within(1, LEAST), None);
        assert_eq!(pages.within(&[0; 100]), None);
        assert!(Loan::of(&[IoSlice::new(&vec![0; LEN])]).is_none(), "memory of others");
    }

    #[test]
    fn only_what_was_lent_is_taken_out() {
        let pages = Pages::new(4 * LEN, PAGE).unwrap();
        fill(&pages, 0, 2 * LEN, b'x');
        pages.reuse(0, 2 * LEN).unwrap();
        assert_eq!((there(&pages, 0), there(&pages, LEN)), (b'x', b'x'), "nothing was lent");
        pages.are_lent(PAGE, PAGE);
        pages.reuse(0, LEN).unwrap();
        assert_eq!((there(&pages, PAGE), there(&pages, LEN)), (0, b'x'));
        // Once.
        fill(&pages, 0, LEN, b'y');
        pages.reuse(0, LEN).unwrap();
        assert_eq!(there(&pages, PAGE), b'y');
    }

    #[test]
    fn a_process_that_may_not_have_such_a_file_is_told() {
        let error = Pages::new(usize::MAX / 2 + 1, PAGE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

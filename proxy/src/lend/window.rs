//! Files that sockets send from: addresses that stand for their bytes.
//!
//! A body is `Bytes` from where it is found to where it is written. So a file is mapped, a body in
//! it is a slice of that, and the socket, which knows the addresses, has sendfile(2) give TCP the
//! pages that the kernel has of the file. Nobody in the process reads there: a page that is not in memory
//! would be waited for, and one that cannot be read would end the process (SIGBUS).
//!
//! Invariant: what is sent was compared with its sum since it came from the disk. Whoever makes a
//! [view](Window::view) has compared it, and knows that the kernel has all of it in memory. Before
//! each write that is more than a moment later mincore(2) says whether it still has; if not, a
//! thread reads the body again, compares it, and what it has read is sent. Where that is something
//! else nothing of the file is lent any more. The file is read without reading ahead
//! (`POSIX_FADV_RANDOM`), so that pages come into memory by reads that are compared.
//!
//! What this does not see is a page that goes and comes back damaged within a moment, or that comes
//! back with a neighbour that shares it, or because somebody outside reads the file.
//!
//! A file is only appended to, and unlinked at the end: a page that TCP has is never written again.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt as _,
    },
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap},
    process::{Resource, getrlimit},
};
use tokio::sync::oneshot;

/// Pages that mincore(2) is asked about at once.
const ASKED: usize = 512;

/// Bytes that are read again for one socket, so that what a slow reader has in memory is bounded.
const PIECE: usize = 32 << 10;

/// What the thread reads at once.
const PART: usize = 64 << 10;

/// For so long what was in memory is taken to be there: the call that would tell costs as much as a
/// write.
const MOMENT: Duration = Duration::from_millis(1);

/// All that there are.
static ALL: RwLock<Vec<Weak<Windows>>> = RwLock::new(Vec::new());

/// Where the first of them begins, and the last one ends.
static SPAN: [AtomicUsize; 2] = [AtomicUsize::new(usize::MAX), AtomicUsize::new(0)];

/// Bytes that had left memory when their turn came.
static REREAD_BYTES: AtomicU64 = AtomicU64::new(0);

pub(super) fn reread_bytes() -> u64 {
    REREAD_BYTES.load(Relaxed)
}

pub(super) fn span() -> &'static [AtomicUsize; 2] {
    &SPAN
}

/// A range of addresses, in windows of one length. It takes no memory.
#[derive(Debug)]
pub struct Windows {
    start: NonNull<u8>,
    each: usize,
    page: usize,
    open: Box<[Mutex<Weak<Window>>]>,
    free: Mutex<Vec<u32>>,
    /// One at a time waits for each socket.
    again: Sender<Again>,
}

// SAFETY: addresses, at which nobody writes.
unsafe impl Send for Windows {}
// SAFETY: as above.
unsafe impl Sync for Windows {}

/// A file at its addresses, for as long as anybody has this.
#[derive(Debug)]
pub struct Window {
    of: Arc<Windows>,
    number: u32,
    file: Arc<File>,
    /// Something in it was not what had been written: nothing of it is taken to be in memory.
    is_spoilt: AtomicBool,
    /// Bodies that somebody has a view of, by their places.
    viewed: Mutex<BTreeMap<usize, Viewed>>,
}

#[derive(Debug, Clone, Copy)]
struct Viewed {
    len: usize,
    sum: u32,
    views: usize,
    /// When it was known to be in memory.
    seen: Instant,
}

impl Windows {
    /// `count` windows of so many bytes each, rounded up to pages of `page` bytes, and a thread that
    /// reads again.
    ///
    /// # Errors
    /// As mmap(2) and clone(2); where a limit of the process is set to its addresses.
    pub fn new(each: usize, count: u32, page: usize) -> io::Result<Arc<Self>> {
        if getrlimit(Resource::As).current.is_some() {
            // What is left of it others need.
            return Err(io::Error::other("the addresses of the process are limited (RLIMIT_AS)"));
        }
        let each = each.next_multiple_of(page);
        let len = each.checked_mul(count as usize).ok_or(io::ErrorKind::OutOfMemory)?;
        let kind = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, in the place of none.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), kind) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let (again, asked) = channel();
        let open = (0..count).map(|_| Mutex::default()).collect();
        let free = Mutex::new((0..count).rev().collect());
        let this = Arc::new(Self { start, each, page, open, free, again });
        thread::Builder::new().name("cache-again".into()).spawn(move || read_all(&asked))?;
        SPAN[0].fetch_min(start.as_ptr() as usize, Relaxed);
        SPAN[1].fetch_max(start.as_ptr() as usize + len, Relaxed);
        let mut all = ALL.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|windows| windows.strong_count() > 0);
        all.push(Arc::downgrade(&this));
        Ok(this)
    }

    /// A window on a file that nobody writes but at its end.
    ///
    /// # Errors
    /// `ResourceBusy` if all are in use. Else it is never to be had: as mmap(2), if the file is
    /// longer, or where the kernel does not say what of it is in memory.
    pub fn open(self: &Arc<Self>, file: &Arc<File>) -> io::Result<Arc<Window>> {
        let number = lock(&self.free).pop().ok_or(io::ErrorKind::ResourceBusy)?;
        // SAFETY: within the range, at a window that nobody has.
        let mapped = unsafe {
            let at = self.address(number).cast();
            mmap(at, self.each, ProtFlags::READ, MapFlags::SHARED | MapFlags::FIXED, file, 0)
        };
        let viewed = Mutex::default();
        let (of, file) = (Arc::clone(self), Arc::clone(file));
        let is_spoilt = AtomicBool::new(false);
        // From here on it is closed again by dropping it.
        let window = Arc::new(Window { of, number, file, is_spoilt, viewed });
        mapped?;
        window.try_out()?;
        *lock(&self.open[number as usize]) = Arc::downgrade(&window);
        Ok(window)
    }

    fn address(&self, number: u32) -> *mut u8 {
        // SAFETY: within the range.
        unsafe { self.start.as_ptr().add(number as usize * self.each) }
    }

    /// The window that this address lies in, and the place in its file.
    fn at(&self, address: usize) -> Option<(Arc<Window>, usize)> {
        let within = address.checked_sub(self.start.as_ptr() as usize)?;
        let window = lock(self.open.get(within / self.each)?).upgrade()?;
        Some((window, within % self.each))
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        // SAFETY: whoever has a part of it has this.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.each * self.open.len()) };
    }
}

impl Window {
    /// Whether all this works with the file.
    fn try_out(&self) -> io::Result<()> {
        let last = self.of.each - self.of.page;
        if self.file.metadata()?.len() > last as u64 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // Where something is read there in spite of all, nothing around it is to come along. A hint.
        // SAFETY: within this window.
        unsafe {
            let at = self.of.address(self.number).cast();
            let _ = madvise(at, self.of.each, Advice::Random);
        }
        // Of a file that is another user's Linux says, since 5.2, that all is in memory (mincore(2)).
        match self.told_resident(last, 1) {
            0 => Ok(()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    /// The window that these bytes are a part of, and where in its file they begin.
    pub(super) fn of(bytes: &[u8]) -> Option<(Arc<Self>, usize)> {
        let all = ALL.read().unwrap_or_else(PoisonError::into_inner);
        let at = bytes.as_ptr() as usize;
        all.iter().filter_map(Weak::upgrade).find_map(|windows| windows.at(at))
    }

    /// The file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether these bytes may be lent, if they are in memory.
    pub fn lends(&self, at: usize, len: usize) -> bool {
        self.fits(at, len) && !self.is_spoilt.load(Relaxed)
    }

    /// Whether they are in the window.
    fn fits(&self, at: usize, len: usize) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.of.each)
    }

    /// Has nothing of it sent as it is any more without being compared.
    pub fn spoil(&self) {
        self.is_spoilt.store(true, Relaxed);
    }

    /// `len` bytes from `at` on, which have this sum (CRC-32C) and are in memory, for a socket that
    /// lends: nobody else is to read them. Empty if they are not in the window.
    pub fn view(self: &Arc<Self>, at: usize, len: usize, sum: u32) -> Bytes {
        if !self.fits(at, len) {
            return Bytes::new();
        }
        let mut viewed = lock(&self.viewed);
        let seen = Instant::now();
        let body = viewed.entry(at).or_insert(Viewed { len, sum, views: 0, seen });
        (body.views, body.seen) = (body.views + 1, seen);
        drop(viewed);
        Bytes::from_owner(View { window: Arc::clone(self), at, len })
    }

    /// How many of these bytes, from the first on, the kernel has in memory.
    pub fn resident(&self, at: usize, len: usize) -> usize {
        if !self.lends(at, len) {
            return 0;
        }
        self.told_resident(at, len)
    }

    /// The same, as the kernel says.
    fn told_resident(&self, at: usize, len: usize) -> usize {
        let page = self.of.page;
        let (mut from, end) = (at / page * page, at + len);
        while from < end {
            let asked = (end - from).div_ceil(page).min(ASKED);
            let mut told = [0; ASKED];
            // SAFETY: within this window, which is mapped; `told` has a byte for each page.
            let answered = unsafe {
                let address = self.of.address(self.number).add(from);
                libc::mincore(address.cast(), asked * page, told.as_mut_ptr())
            };
            let here = match answered {
                0 => told[..asked].iter().take_while(|told| **told & 1 != 0).count(),
                _ => 0,
            };
            from += here * page;
            if here < asked {
                break;
            }
        }
        from.min(end).saturating_sub(at)
    }

    /// The same of what somebody has a view of, and is about to write.
    pub(super) fn still_resident(&self, at: usize, len: usize) -> usize {
        let seen = self.viewed_at(at).map(|(_, body)| body.seen);
        match seen {
            Some(seen) if seen.elapsed() < MOMENT && !self.is_spoilt.load(Relaxed) => len,
            _ => self.resident(at, len),
        }
    }

    /// The body that this byte is in.
    fn viewed_at(&self, at: usize) -> Option<(usize, Viewed)> {
        let viewed = lock(&self.viewed);
        let (start, body) = viewed.range(..=at).next_back()?;
        (at - start < body.len).then_some((*start, *body))
    }

    /// Appends bytes of the file.
    ///
    /// # Errors
    /// As read(2), or if there are not so many.
    pub fn read(&self, at: usize, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let from = out.len();
        out.resize(from + len, 0);
        self.file.read_exact_at(&mut out[from..], at as u64).inspect_err(|_| out.truncate(from))
    }

    /// Has bytes from `at` on read by a thread, `most` of them, or fewer. Nothing comes if they cannot
    /// be read, or are not what was viewed.
    pub(super) fn read_again(self: Arc<Self>, at: usize, most: usize) -> oneshot::Receiver<Bytes> {
        let (answer, answered) = oneshot::channel();
        if let Some(body) = self.viewed_at(at) {
            let (sender, most) = (self.of.again.clone(), most.min(PIECE));
            // Without the thread nothing comes.
            let _ = sender.send(Again { window: self, body, at, most, answer });
        }
        answered
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *lock(&self.of.open[self.number as usize]) = Weak::new();
        let kind = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: of this window, which nobody has any more.
        let closed = unsafe {
            let at = self.of.address(self.number).cast();
            mmap_anonymous(at, self.of.each, ProtFlags::empty(), kind)
        };
        // What cannot be closed stays as it is, and is not used again.
        if closed.is_ok() {
            lock(&self.of.free).push(self.number);
        }
    }
}

/// A body in a window.
struct View {
    window: Arc<Window>,
    at: usize,
    len: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: within the window, which is mapped for as long as this is there. The file is not
        // written there again, and it is ours alone: others that cut it would have to ignore its lock.
        unsafe {
            let at = self.window.of.address(self.window.number).add(self.at);
            std::slice::from_raw_parts(at, self.len)
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut viewed = lock(&self.window.viewed);
        if let Some(body) = viewed.get_mut(&self.at) {
            body.views -= 1;
            if body.views == 0 {
                viewed.remove(&self.at);
            }
        }
    }
}

/// A body of which something is to be read again.
#[derive(Debug)]
struct Again {
    window: Arc<Window>,
    body: (usize, Viewed),
    /// From here on, and no more than so many.
    at: usize,
    most: usize,
    answer: oneshot::Sender<Bytes>,
}

/// Reads until nobody can ask any more.
fn read_all(asked: &Receiver<Again>) {
    while let Ok(again) = asked.recv() {
        match again.read() {
            Ok(piece) => {
                REREAD_BYTES.fetch_add(piece.len() as u64, Relaxed);
                // Who asked may have gone.
                let _ = again.answer.send(piece);
            }
            Err(error) => tracing::warn!(%error, "cache: an answer from the disk is cut"),
        }
    }
}

impl Again {
    /// Reads the body to its end, and keeps a piece of it.
    fn read(&self) -> io::Result<Bytes> {
        let (start, Viewed { len, sum, .. }) = self.body;
        let (mut at, mut found, mut piece) = (start, 0, Vec::new());
        let mut part = vec![0; PART];
        while at < start + len {
            let part = &mut part[..PART.min(start + len - at)];
            self.window.file.read_exact_at(part, at as u64)?;
            found = crc32c::crc32c_append(found, part);
            let wanted = part.get(self.at.saturating_sub(at)..).unwrap_or_default();
            piece.extend_from_slice(&wanted[..wanted.len().min(self.most - piece.len())]);
            at += part.len();
        }
        match found == sum && !piece.is_empty() {
            true => Ok(piece.into()),
            false => {
                // It is in memory now, and would be taken for what was compared.
                self.window.spoil();
                Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what was stored"))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

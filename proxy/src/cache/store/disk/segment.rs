//! Segments: files that are only appended to, numbered in the order in which they were begun.
//!
//! `00000000000000a7.seg`. A segment begins with a header of its own, which has the salt of its
//! records. A process appends only to segments that it has begun itself. What does not fit any more
//! is made room for by removing the oldest: so a later record about a name is always the true one,
//! and a removal outlives what it removes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::*},
    },
};

use rustix::{
    fs::{Advice, FallocateFlags, fadvise, fallocate},
    io::{Errno, ReadWriteFlags, preadv2},
};

use crate::{
    cache::store::{
        key::random,
        record::{ALIGN, HEADER, Header, Kind, Reader},
    },
    lend::{self, Windows},
};

const MAGIC: &[u8; 16] = b"underpass-cache1";

/// Where a record is, over all segments there ever were.
pub(super) type Position = (u64, u64);

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) salt: u64,
    pub(super) path: PathBuf,
    file: Arc<File>,
    /// Up to here there are whole records.
    end: AtomicU64,
    /// What sockets are lent of it by, once it is wanted and to be had; `None`: it never will be.
    window: OnceLock<Option<Arc<lend::Window>>>,
}

/// What a walk over a segment came across.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Something that is no record, with records behind it.
    pub(super) has_hole: bool,
    pub(super) records: usize,
}

impl Segment {
    /// Begins one.
    ///
    /// # Errors
    /// As open(2) and write(2); a file of this name is none of ours.
    pub(super) fn create(directory: &Path, number: u64) -> io::Result<Self> {
        let path = directory.join(format!("{number:016x}.seg"));
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        let salt = random();
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(MAGIC);
        header[16..24].copy_from_slice(&salt.to_le_bytes());
        header[24..32].copy_from_slice(&number.to_le_bytes());
        let crc = crc32c::crc32c(&header[..32]);
        header[32..36].copy_from_slice(&crc.to_le_bytes());
        let segment = Self::new((number, salt), path, file, HEADER as u64);
        if let Err(error) = segment.file.write_all_at(&header, 0) {
            let _ = segment.remove();
            return Err(error);
        }
        Ok(segment)
    }

    /// Opens one that another process has written.
    ///
    /// # Errors
    /// As open(2) and read(2); `InvalidData` if it does not begin as one.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).open(path)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let mut rest = Reader(&header[16..]);
        let (salt, named, crc) = (rest.u64(), rest.u64(), rest.u32());
        let is_ours = &header[..16] == MAGIC
            && named == Some(number)
            && crc == Some(crc32c::crc32c(&header[..32]));
        let salt = salt.filter(|_| is_ours).ok_or(io::ErrorKind::InvalidData)?;
        let end = file.metadata()?.len();
        Ok(Self::new((number, salt), path.to_owned(), file, end))
    }

    fn new((number, salt): (u64, u64), path: PathBuf, file: File, end: u64) -> Self {
        // A record is read whole, and nothing behind it is anybody's business. A hint.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let (file, end) = (Arc::new(file), AtomicU64::new(end));
        Self { number, salt, path, file, end, window: OnceLock::new() }
    }

    /// What sockets are lent of it by.
    pub(super) fn window(&self, windows: &Arc<Windows>) -> Option<&Arc<lend::Window>> {
        if self.window.get().is_none() {
            let opened = windows.open(&self.file);
            if let Err(error) = &opened {
                tracing::debug!(%error, "cache: nothing of {} is lent", self.path.display());
                if error.kind() == io::ErrorKind::ResourceBusy {
                    return None;
                }
            }
            // Who comes second has opened one for nothing.
            let _ = self.window.set(opened.ok());
        }
        self.window.get()?.as_ref()
    }

    /// Has nothing of it lent without being compared.
    pub(super) fn spoil(&self) {
        self.window.get().and_then(Option::as_ref).inspect(|window| window.spoil());
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> u64 {
        self.end.load(Acquire)
    }

    /// Whether there is no record in it.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes() <= HEADER as u64
    }

    /// Appends whole records. By one thread at a time.
    ///
    /// # Errors
    /// As write(2). What came of it is cut off again, or behind the end for good.
    pub(super) fn append(&self, records: &[u8]) -> io::Result<u64> {
        let at = self.bytes();
        if let Err(error) = self.file.write_all_at(records, at) {
            self.file.set_len(at)?;
            return Err(error);
        }
        self.end.store(at + records.len() as u64, Release);
        Ok(at)
    }

    /// Tries that so many bytes more are to be had, without taking them.
    ///
    /// # Errors
    /// As fallocate(2), but for a file system that does not have it.
    pub(super) fn try_room(&self, bytes: u64) -> io::Result<()> {
        let tried = fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.bytes(), bytes);
        self.file.set_len(self.bytes())?;
        match tried {
            Err(Errno::OPNOTSUPP) => Ok(()),
            tried => Ok(tried?),
        }
    }

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// As read(2), or if there are not so many.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// The same of what the kernel has in memory.
    ///
    /// # Errors
    /// As [`Self::read`]; `WouldBlock` if some of it would have to be waited for, `Unsupported` if
    /// the file system cannot tell (preadv2(2), `RWF_NOWAIT`, Linux 4.14).
    pub(super) fn read_now(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let mut into = [io::IoSliceMut::new(out)];
            match preadv2(&self.file, &mut into, offset, ReadWriteFlags::NOWAIT) {
                // Of what it does not have Linux 5.9 and 5.10 say so (readv(2), BUGS). A true end is
                // found by who waits.
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(read) => {
                    offset += read as u64;
                    out = &mut out[read..];
                }
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the file. Who has it open can go on reading it.
    ///
    /// # Errors
    /// As unlink(2), but not if it is gone already.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Tells of all records in their order, by their headers alone; bodies are not read. `visit`
    /// has the offset of a record in the file. Padding is not told of, and what is no record is
    /// stepped over.
    ///
    /// # Errors
    /// As read(2), or as `visit`.
    pub(super) fn walk(
        &self,
        mut visit: impl FnMut(u64, &Header) -> io::Result<()>,
    ) -> io::Result<Walked> {
        let end = self.bytes();
        let mut window = Window { from: 0, bytes: Vec::new() };
        let (mut at, mut in_hole, mut last) = (HEADER as u64, false, ALIGN);
        let mut walked = Walked::default();
        while at + HEADER as u64 <= end {
            let bytes = window.at(&self.file, at, end, last)?;
            let fits = |header: &Header| at + header.record_bytes() as u64 <= end;
            match Header::decode(bytes, self.salt).filter(fits) {
                Some(header) => {
                    walked.has_hole |= std::mem::take(&mut in_hole);
                    if header.kind != Kind::Padding {
                        walked.records += 1;
                        visit(at, &header)?;
                    }
                    last = header.record_bytes();
                    at += last as u64;
                }
                None => {
                    (in_hole, last) = (true, ALIGN);
                    at += ALIGN as u64;
                }
            }
        }
        Ok(walked)
    }
}

/// A piece of a file.
struct Window {
    from: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The bytes of a header at `at`, which is a header's length before `end` at least. Where
    /// records are small many of them are read at once.
    fn at(&mut self, file: &File, at: u64, end: u64, last: usize) -> io::Result<&[u8]> {
        let have = self.from..self.from + self.bytes.len() as u64;
        if !(have.contains(&at) && have.end - at >= HEADER as u64) {
            let ahead = if last > 16 << 10 { 4 << 10 } else { 256 << 10 };
            let bytes = (end - at).min(ahead);
            self.bytes.resize(bytes as usize, 0);
            file.read_exact_at(&mut self.bytes, at)?;
            self.from = at;
        }
        let from = (at - self.from) as usize;
        Ok(&self.bytes[from..from + HEADER])
    }
}

/// All files of a folder that are named as segments, the oldest first, with their numbers.
///
/// # Errors
/// As readdir(3).
pub(super) fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_suffix(".seg")) else {
            continue;
        };
        let Ok(number) = u64::from_str_radix(digits, 16) else { continue };
        // Links and folders that are named so are not ours.
        if digits.len() == 16 && entry.file_type()?.is_file() {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

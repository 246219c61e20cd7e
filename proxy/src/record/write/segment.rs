//! Segments: files that are only appended to, each begun by one process and closed for good.
//!
//! `20260203T040506.789Z-4711-0.jsonl`: the time it was begun, the process, and a number; the names
//! sort by age (`name.rs`). With Zstandard (`.jsonl.zst`) every batch is a frame of its own with a
//! checksum, so a reader knows where the last whole one ends.
//!
//! A write that fails half way is taken back by ftruncate(2), or the segment is given up and the
//! next one begun: a torn line is the last of its segment, if there is one at all. A segment is
//! locked (flock(2)) while it is written, and who removes old ones leaves locked ones alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use rustix::fs::{Advice, FlockOperation, Mode, OFlags, fadvise, flock};
use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::name::Name;
use crate::{
    access_log::timestamp::Rfc3339,
    config::{
        Record,
        record::{Compression, Sync},
    },
    record::{metrics::Counters, ship::Cursor},
};

/// Level of Zstandard: the fast end, a few hundred megabytes a second on one core.
const LEVEL: i32 = 1;

/// How much of a segment stays in the page cache, about. Pages that are used again are in the CPU's
/// caches and have memory behind them; new ones for every byte cost more than all else that the
/// writer does, and push out what others need.
const CACHED_BYTES: u64 = 8 << 20;

/// The segments of this process.
pub(in crate::record) struct Segments {
    directory: PathBuf,
    limits: crate::config::record::Segments,
    counters: Counters,
    /// Whether they are sent to a server as well.
    ship: bool,
    current: Option<Segment>,
    /// The last one that was begun.
    last: Option<Name>,
    packer: Option<Compressor<'static>>,
    packed: Vec<u8>,
}

struct Segment {
    file: File,
    path: PathBuf,
    inode: u64,
    /// Bytes that are whole lines or frames.
    whole: u64,
    /// Of these, those that were there when the page cache was last asked to let go.
    let_go: u64,
    since: Instant,
}

impl Segments {
    /// Makes the folder, if it is not there, and tries that a file can be made in it.
    ///
    /// # Errors
    /// As mkdir(2) and open(2), or if there is no memory for compression.
    pub(in crate::record) fn open(config: &Record, counters: &Counters) -> io::Result<Self> {
        let mut limits = config.segments;
        // One that is written and one that may be removed.
        limits.bytes = limits.bytes.min(limits.total_bytes / 2);
        let packer = match limits.compression {
            Compression::None => None,
            Compression::Zstd => {
                let mut packer = Compressor::new(LEVEL)?;
                packer.set_parameter(CParameter::ChecksumFlag(true))?;
                Some(packer)
            }
        };
        let mut segments = Self {
            directory: config.directory.clone(),
            limits,
            counters: counters.clone(),
            ship: config.ship.is_some(),
            current: None,
            last: None,
            packer,
            packed: Vec::new(),
        };
        if let Some(parent) = config.directory.parent() {
            fs::create_dir_all(parent)?;
        }
        segments.begin()?;
        Ok(segments)
    }

    /// Appends lines, all of them or none. Returns how many bytes that took.
    ///
    /// # Errors
    /// As write(2), open(2), fdatasync(2); it may be tried again.
    pub(in crate::record) fn write(&mut self, lines: &[u8]) -> io::Result<u64> {
        let full = |segment: &Segment, limits: &crate::config::record::Segments| {
            segment.whole >= limits.bytes
                || segment.since.elapsed() >= limits.age
                || !segment.is_there()
        };
        if self.current.as_ref().is_some_and(|segment| full(segment, &self.limits)) {
            self.close();
        }
        if self.current.is_none() {
            self.begin()?;
        }
        let bytes = match &mut self.packer {
            None => lines,
            Some(packer) => {
                self.packed.clear();
                self.packed.reserve(zstd::zstd_safe::compress_bound(lines.len()));
                packer.compress_to_buffer(lines, &mut self.packed)?;
                &self.packed
            }
        };
        let Some(segment) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let mut wrote = segment.file.write_all(bytes);
        if wrote.is_ok() && self.limits.sync == Sync::Batch {
            wrote = segment.file.sync_data();
        }
        if let Err(error) = wrote {
            if segment.file.set_len(segment.whole).is_err() {
                self.current = None;
            }
            return Err(error);
        }
        segment.whole += bytes.len() as u64;
        if segment.whole - segment.let_go >= CACHED_BYTES {
            segment.lets_go();
        }
        let written = bytes.len() as u64;
        self.packed.shrink_to(1 << 20);
        Ok(written)
    }

    /// Closes the segment if it is too old to be gone on with.
    pub(in crate::record) fn look_at_the_age(&mut self) {
        if self
            .current
            .as_ref()
            .is_some_and(|s| s.whole > 0 && s.since.elapsed() >= self.limits.age)
        {
            self.close();
        }
    }

    /// Closes the segment.
    pub(in crate::record) fn close(&mut self) {
        let Some(mut segment) = self.current.take() else { return };
        if segment.whole == 0 {
            let _ = fs::remove_file(&segment.path);
        } else if self.limits.sync != Sync::Never && segment.file.sync_data().is_err() {
            // What was written is there for whoever reads; a crash of the machine may take it.
            self.counters.failures.inc();
        }
        segment.lets_go();
    }

    fn begin(&mut self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let there = list(&self.directory).unwrap_or_default();
        let named = |(path, _): &(PathBuf, u64)| Name::parse(path.file_name()?.to_str()?);
        let newest = there.last().and_then(named).max(self.last.take());
        self.remove_old(there);
        let time = Rfc3339(SystemTime::now()).to_string().replace(['-', ':'], "");
        let (process, packed) = (std::process::id(), self.packer.is_some());
        let name = Name::above(newest.as_ref(), time, process, packed);
        let path = self.directory.join(name.to_string());
        self.last = Some(name);
        let mut options = OpenOptions::new();
        let file = options.create_new(true).append(true).mode(0o600).open(&path)?;
        // Nobody else has it; where locks cannot be had, old segments are told by age alone.
        let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
        let inode = file.metadata()?.ino();
        self.current =
            Some(Segment { file, path, inode, whole: 0, let_go: 0, since: Instant::now() });
        Ok(())
    }

    /// Removes the oldest of `segments`, so that with a new one all stay below the cap.
    fn remove_old(&self, mut segments: Vec<(PathBuf, u64)>) {
        let mut total: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
        segments.reverse();
        let mut sent = None;
        while total + self.limits.bytes > self.limits.total_bytes {
            let Some((path, bytes)) = segments.pop() else { return };
            // What has been put in its place since is not followed, and not waited for.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let unlocked = rustix::fs::open(&path, flags, Mode::empty())
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
            if unlocked && fs::remove_file(&path).is_ok() {
                self.counters.removed.inc();
                let cursor = || Cursor::load(&self.directory);
                if self.ship && !sent.get_or_insert_with(cursor).has_sent(&path, bytes) {
                    self.counters.ship_lost.inc();
                }
                total -= bytes;
            }
        }
    }
}

impl Segment {
    /// Has the page cache give up what is on the disk, and begin to write the rest, which nobody
    /// waits for: that goes the next time.
    fn lets_go(&mut self) {
        self.let_go = self.whole;
        // Where that cannot be had, it stays as long as the kernel likes.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
    }

    /// Whether it is still where it was begun: a folder that was moved away goes on being
    /// written otherwise.
    fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }
}

/// All segments of a folder with their sizes, the oldest first: regular files that are named as
/// one, and nothing else that may be there.
///
/// # Errors
/// As readdir(3).
pub(in crate::record) fn list(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(Name::parse) else { continue };
        // One that has just been removed is none. Links are not followed.
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            found.push((name, entry.path(), metadata.len()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path, bytes)| (path, bytes)).collect())
}

/// Whether the segment `name` comes after the one called `before`, as far as both are names.
pub(in crate::record) fn is_after(name: &str, before: &str) -> bool {
    Name::parse(name) > Name::parse(before)
}

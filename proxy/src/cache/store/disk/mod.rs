//! The tier on the disk: segments in a folder, an index of them in memory.
//!
//! A worker looks into the index, takes what the kernel has in memory, and leaves a job for what it
//! has not (`jobs.rs`), or something to be written (`queue.rs`), all without waiting. Threads of its
//! own do the rest: one writes (`write.rs`, `batch.rs`, `evict.rs`), some read (`reader.rs`). `recover.rs` makes the index of what another
//! process has left; `segment.rs` is the format, of records as in `../record.rs`, `purges.rs` what was purged.
//!
//! What is written is not synced, but for purges: what the kernel has, survives the end of the
//! process in any form, and what is lost with the machine is noticed by its checksum.
//!
//! Implements: REQ-CACHE-002, REQ-CACHE-007

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

mod batch;
mod evict;
mod index;
mod jobs;
mod purges;
mod queue;
mod reader;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod write;

pub(super) use index::Location;
pub(super) use reader::Untold;

use index::{ENTRY_BYTES, Index};
use jobs::Jobs;
use purges::Purges;
use queue::Queue;
use segment::Segment;
use write::Writer;

use super::{
    DiskStatistics, Found, arena,
    block::{Block, Form},
    head::{Kept, Meta, Stored},
    key::Slot,
    memory::Memory,
    purge::What,
    reading::{Patience, Reading},
    waiter::Waiter,
};
use crate::lend::Windows;

/// The least that the tier may take: eight segments of which none is too small.
pub const LEAST_DISK_BYTES: u64 = 32 << 20;

/// A block may be so large where there is a disk.
pub const MOST_BLOCK_BYTES: usize = 1 << 20;

/// Threads that read.
const READERS: usize = 4;

/// A segment is a sixteenth of all, within these bounds; more where there would be too many.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4 << 20..=64 << 20;
const MOST_SEGMENTS: u64 = 32 << 10;

/// Of so many sockets may be lent something.
const MOST_WINDOWS: u64 = 4 << 10;

/// What a tier on the disk is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder. It is made if it is not there, and locked.
    pub directory: PathBuf,
    /// What its files may take; [`LEAST_DISK_BYTES`] at least.
    pub bytes: u64,
    /// What the index may take in memory, beside the budget of the memory tier. Where it is full
    /// the oldest goes as if the disk were.
    pub index_bytes: usize,
}

/// See [`DiskStatistics`].
#[derive(Debug, Default)]
struct Counters {
    written: Counter,
    promoted: Counter,
    in_files: Counter,
    damaged: Counter,
    evicted: Counter,
    dropped: Counter,
    busy: Counter,
    errors: Counter,
}

/// The tier.
#[derive(Debug)]
pub(super) struct Disk<M> {
    shared: Arc<Shared<M>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What all threads of the tier share.
#[derive(Debug)]
pub(super) struct Shared<M> {
    directory: PathBuf,
    most_bytes: u64,
    segment_bytes: u64,
    most_entries: usize,
    memory: Arc<Memory<Kept<M>>>,
    index: Index,
    segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
    /// Addresses for what sockets are lent of them; `None`: nothing is.
    windows: Option<Arc<Windows>>,
    /// The one that is being filled; `u64::MAX` for none.
    active: AtomicU64,
    queue: Queue<M>,
    jobs: Jobs<M>,
    purges: Purges,
    counters: Counters,
    /// The index says what is there.
    readable: AtomicBool,
    write_fails: AtomicBool,
    read_fails: AtomicBool,
    /// The file system can tell what would have to be waited for.
    reads_now: AtomicBool,
    patience: Arc<Patience>,
}

impl<M: Meta> Disk<M> {
    /// Starts the threads. The folder is opened by them.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn start(options: &Options, memory: Arc<Memory<Kept<M>>>) -> io::Result<Self> {
        let bytes = options.bytes.max(LEAST_DISK_BYTES);
        let (least, most) = (*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        let segment_bytes = (bytes / 16).clamp(least, most).max(bytes / MOST_SEGMENTS);
        // What is written again comes in addition; some are gone that somebody still reads, and some
        // are short, for each process begins its own.
        let longest = (segment_bytes + segment_bytes / 4) as usize + 2 * MOST_BLOCK_BYTES;
        let count = (2 * (bytes / segment_bytes) + 8).min(MOST_WINDOWS) as u32;
        let failed = |error: &_| tracing::info!("cache: nothing is sent from files: {error}");
        let windows = Windows::new(longest, count, arena::page()).inspect_err(failed).ok();
        let shared = Arc::new(Shared {
            directory: options.directory.clone(),
            most_bytes: bytes,
            segment_bytes,
            most_entries: (options.index_bytes / ENTRY_BYTES).max(1),
            memory,
            index: Index::new(),
            segments: Mutex::default(),
            windows,
            active: AtomicU64::new(u64::MAX),
            queue: Queue::new(),
            jobs: Jobs::new(),
            purges: Purges::default(),
            counters: Counters::default(),
            readable: AtomicBool::new(false),
            write_fails: AtomicBool::new(false),
            read_fails: AtomicBool::new(false),
            reads_now: AtomicBool::new(true),
            patience: Arc::default(),
        });
        for _ in 0..READERS {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("cache-read".into()).spawn(move || reader::run(&shared))?;
        }
        let writer = Writer::new(Arc::clone(&shared));
        let writer =
            thread::Builder::new().name("cache-write".into()).spawn(move || writer.run())?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// What waits to be written.
    pub(super) fn queued(&self, slot: &Slot) -> Option<Kept<M>> {
        self.shared.queue.get(slot)
    }

    /// A head that is on the disk, with its body in this form.
    pub(super) fn head(
        &self,
        slot: Slot,
        text: &str,
        form: Form,
    ) -> Result<Found<Stored<M>>, Untold> {
        let head = |kept| match kept {
            Kept::Head(head) => Some(head).filter(|head: &Stored<M>| head.text() == text),
            Kept::Block(_) => None,
        };
        self.ask(slot, (form, false), head, |sender| Waiter::Head(text.into(), sender))
    }

    /// The same for a block. `waits`: for as long as the disk takes, whatever became of others who
    /// waited for it.
    pub(super) fn block(&self, slot: Slot, form: Form, waits: bool) -> Found<Block> {
        let block = |kept| match kept {
            Kept::Block(block) => Some(block),
            Kept::Head(_) => None,
        };
        self.ask(slot, (form, waits), block, Waiter::Block).unwrap_or(Found::Absent)
    }

    /// Counts what the tier in memory knew to be in a file.
    pub(super) fn found_in_file(&self) {
        self.shared.counters.in_files.inc();
    }

    /// Whether it is there, without wanting it; for somebody who `waits`, or not.
    pub(super) fn has(&self, slot: &Slot, waits: bool) -> bool {
        self.shared.queue.get(slot).is_some()
            || self.is_readable(waits) && self.shared.index.peek(slot.fingerprint()).is_some()
    }

    /// Where it is; something else of this name is somewhere else.
    pub(super) fn place(&self, slot: &Slot) -> Option<Location> {
        self.shared.index.peek(slot.fingerprint()).map(|(at, _)| at)
    }

    fn ask<T>(
        &self,
        slot: Slot,
        (form, waits): (Form, bool),
        is: impl FnOnce(Kept<M>) -> Option<T>,
        waiter: impl FnOnce(oneshot::Sender<Option<T>>) -> Waiter<M>,
    ) -> Result<Found<T>, Untold> {
        if !self.is_readable(waits) {
            return Err(Untold);
        }
        let Some(at) = self.shared.index.get(slot.fingerprint()) else {
            return Ok(Found::Absent);
        };
        // Another thread would take longer to be woken than this.
        if let Some(read) = reader::read_now(&self.shared, slot, at, form) {
            return read.map(|kept| kept.and_then(is).map_or(Found::Absent, Found::Read));
        }
        let (sender, reading) = Reading::new((!waits).then(|| Arc::clone(&self.shared.patience)));
        if self.shared.jobs.ask(slot, at, waiter(sender)) {
            return Ok(Found::Disk(reading));
        }
        self.shared.counters.busy.inc();
        Err(Untold)
    }

    fn is_readable(&self, waits: bool) -> bool {
        self.shared.readable.load(SeqCst) && (waits || !self.shared.patience.is_lost())
    }

    /// Has it written.
    pub(super) fn put(&self, slot: Slot, kept: Kept<M>) {
        if !self.shared.queue.put(slot, kept, &self.shared.index) {
            self.shared.counters.dropped.inc();
        }
    }

    pub(super) fn remove(&self, slot: Slot) {
        self.shared.queue.remove(slot, &self.shared.index);
    }

    /// From now on nothing that is on the disk is found if it is meant.
    pub(super) fn begin_purge(&self, what: &What) {
        self.shared.purges.begin(what.clone());
    }

    /// Has the purge written down, behind all that is to be written before it.
    pub(super) fn end_purge(&self, what: &What) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        self.shared.queue.purge(what.clone(), sender);
        receiver
    }

    /// Says when all that waits now is written, or given up.
    pub(super) fn flush(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.shared.queue.flush(sender);
        receiver
    }

    /// Writes what is left, for so long at most; whether it was enough. Nothing is found on the disk
    /// afterwards.
    pub(super) fn close(&self, limit: Duration) -> bool {
        self.stop();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let deadline = Instant::now() + limit;
        while writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
            if Instant::now() >= deadline {
                tracing::warn!("cache: the disk stalled, what waited for it is lost");
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn stop(&self) {
        self.shared.readable.store(false, SeqCst);
        self.shared.jobs.stop();
        self.shared.queue.stop();
    }

    pub(super) fn statistics(&self) -> DiskStatistics {
        let Shared { index, counters, queue, jobs, write_fails, .. } = &*self.shared;
        DiskStatistics {
            works: self.is_readable(false) && !write_fails.load(Relaxed),
            bytes: self.shared.segments().values().map(|segment| segment.bytes()).sum(),
            objects: index.heads() as u64,
            entries: index.entries() as u64,
            index_bytes: index.allocated() as u64,
            queued_bytes: queue.bytes() as u64,
            queued_reads: jobs.len() as u64,
            written_bytes: counters.written.get(),
            promotions: counters.promoted.get(),
            in_files: counters.in_files.get(),
            evictions: counters.evicted.get(),
            dropped: counters.dropped.get(),
            busy: counters.busy.get(),
            damaged: counters.damaged.get(),
            errors: counters.errors.get(),
        }
    }
}

impl<M> Drop for Disk<M> {
    fn drop(&mut self) {
        self.shared.readable.store(false, SeqCst);
        self.shared.jobs.stop();
        self.shared.queue.stop();
    }
}

impl<M> Shared<M> {
    fn segments(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment whose number ends so.
    fn segment(&self, lower: u16) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let first = *segments.keys().next()?;
        let number = first + u64::from(lower.wrapping_sub(first as u16));
        segments.get(&number).cloned()
    }

    fn oldest_sealed(&self) -> Option<Arc<Segment>> {
        let (segments, active) = (self.segments(), self.active.load(Relaxed));
        segments.values().find(|segment| segment.number != active).cloned()
    }

    /// What a segment that is begun has to have free: itself, and what is written again into it
    /// before what it was in is removed.
    fn reserve(&self) -> u64 {
        self.segment_bytes + self.segment_bytes / 4
    }

    /// Bytes of all segments but the one that is being filled.
    fn sealed_bytes(&self) -> u64 {
        let (segments, active) = (self.segments(), self.active.load(Relaxed));
        segments.values().filter(|s| s.number != active).map(|s| s.bytes()).sum()
    }

    /// Removes a segment, and what is in it.
    fn forget(&self, segment: &Segment) -> io::Result<()> {
        self.index.retain(|at| at.segment != segment.number as u16);
        // Not the next one before this one is gone: it may have what removes something of this.
        segment.remove()?;
        self.segments().remove(&segment.number);
        self.counters.evicted.inc();
        Ok(())
    }

    /// Removes the oldest segment, if there is one that is not being filled.
    fn forget_oldest(&self) -> io::Result<bool> {
        match self.oldest_sealed() {
            Some(oldest) => self.forget(&oldest).map(|()| true),
            None => Ok(false),
        }
    }

    /// Nothing is known of what is on the disk.
    fn forget_all(&self) {
        self.index.retain(|_| false);
        self.segments().clear();
    }

    fn writing_failed(&self, error: &io::Error) {
        self.counters.errors.inc();
        if !self.write_fails.swap(true, Relaxed) {
            let directory = self.directory.display();
            tracing::warn!("cache: nothing can be written to {directory}, memory goes on: {error}");
        }
    }

    fn writing_fails(&self) -> bool {
        self.write_fails.load(Relaxed)
    }

    fn writing_works(&self) {
        if self.write_fails.swap(false, Relaxed) {
            tracing::info!("cache: {} is written again", self.directory.display());
        }
    }

    fn reading_failed(&self, error: &io::Error) {
        self.counters.errors.inc();
        if !self.read_fails.swap(true, Relaxed) {
            let directory = self.directory.display();
            tracing::warn!("cache: {directory} cannot be read, the origin is asked: {error}");
        }
    }

    fn reading_works(&self) {
        if self.read_fails.load(Relaxed) {
            self.read_fails.store(false, Relaxed);
        }
    }
}

//! Between a worker and the thread that writes: one lane per worker, with a budget in bytes.
//!
//! A lane has two buffers ([`Pair`]), one of which is always free for the worker. What has been
//! appended is charged to the budget until it is written: the memory of the recorder is bounded
//! whatever the disk does.
//!
//! What only the end of an exchange frees, and the writer cannot, is charged apart and has a share
//! of the budget at most ([`Lane::reserve`]): room for ends, and exchanges that are not known to be
//! recorded. So whoever waits for the writer waits for something that it can do, and many
//! undecided exchanges do not starve those that are recorded.
//!
//! Invariant: a worker never waits here. An exchange of the mode `standard` may (`wait.rs`).

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{
    event::{Buffer, EVENT_BYTES, Why},
    metrics::Counters,
    redact::Heads,
};
use crate::{
    config::Record,
    scribe::{Bell, Pair},
};

/// What a lane may hold at least, however many there are.
const LEAST_BYTES: usize = 64 << 10;

/// What lanes and writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Record,
    pub(super) heads: Heads,
    pub(super) counters: Counters,
    /// Names this run in the ids of its records.
    pub(super) run: String,
    /// Locked when a worker starts and once per batch.
    pub(super) lanes: Mutex<Vec<Arc<Queue>>>,
    pub(super) bell: Arc<Bell>,
    /// The disk takes nothing.
    pub(super) failing: AtomicBool,
}

impl Shared {
    pub(super) fn new(config: &Record, counters: Counters, run: String) -> Self {
        Self {
            config: config.clone(),
            heads: Heads::new(&config.redact),
            counters,
            run,
            lanes: Mutex::default(),
            bell: Arc::default(),
            failing: AtomicBool::new(false),
        }
    }
}

/// The part of a lane that the writer sees.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Queue {
    pub(super) worker: usize,
    pub(super) buffers: Pair<Buffer>,
    /// Bytes that were ever charged. Only the worker writes it, so that charging is a plain store.
    charged: AtomicUsize,
    /// Of these, those that are written. Only the writer writes it.
    freed: AtomicUsize,
    /// Events that have been written, of all that were ever pushed.
    pub(super) written: AtomicU64,
    /// Exchanges that could not even begin a record, and have not been told of.
    pub(super) unrecorded: AtomicU64,
    /// Who waits for one of these to change.
    waiting: Mutex<Vec<Waker>>,
}

/// A worker's end of the recorder. For one thread.
#[derive(Debug)]
pub struct Lane {
    pub(super) queue: Arc<Queue>,
    pub(super) shared: Arc<Shared>,
    limit: usize,
    /// Bytes that are charged and that the writer cannot free.
    pub(super) reserved: Cell<usize>,
    /// Of these, for exchanges that are not known to be recorded.
    undecided: Cell<usize>,
    /// Somebody has waited in vain while this was all that had been written.
    stalled: Cell<Option<u64>>,
    next: Cell<u64>,
    pushed: Cell<u64>,
    /// A moment by both clocks; the wall's in microseconds since 1970.
    clocks: Cell<(Instant, u64)>,
}

impl Lane {
    pub(super) fn new(shared: &Arc<Shared>, worker: usize, workers: usize) -> Self {
        let queue = Arc::new(Queue {
            worker,
            buffers: Default::default(),
            charged: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            waiting: Mutex::default(),
        });
        lock(&shared.lanes).push(Arc::clone(&queue));
        let limit = (shared.config.memory_bytes / workers.max(1)).max(LEAST_BYTES);
        let shared = Arc::clone(shared);
        Self {
            queue,
            shared,
            limit,
            reserved: Cell::new(0),
            undecided: Cell::new(0),
            stalled: Cell::new(None),
            next: Cell::new(0),
            pushed: Cell::new(0),
            clocks: Cell::new(both_clocks()),
        }
    }

    /// A moment by the wall clock, in microseconds since 1970. That clock is looked at once a
    /// second: what it is turned by reaches the records within one.
    pub(super) fn wall(&self, at: Instant) -> u64 {
        if at.saturating_duration_since(self.clocks.get().0) >= Duration::from_secs(1) {
            self.clocks.set(both_clocks());
        }
        let (instant, wall) = self.clocks.get();
        match at.checked_duration_since(instant) {
            Some(since) => wall + since.as_micros() as u64,
            None => wall.saturating_sub((instant - at).as_micros() as u64),
        }
    }

    /// A number for a record, of this worker.
    pub(super) fn next(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// What has been charged. Only this thread adds to it.
    fn charged(&self) -> usize {
        self.queue.held() + self.reserved.get()
    }

    /// Charges so many bytes, if they are to be had.
    pub(super) fn charge(&self, bytes: usize) -> bool {
        let fits = self.charged() + bytes <= self.limit;
        if fits {
            self.queue.hold(bytes);
        }
        fits
    }

    /// Charges what its owner has waited for.
    pub(super) fn overcharge(&self, bytes: usize) -> bool {
        let fits = self.charged() < self.limit;
        if fits {
            self.queue.hold(bytes);
        }
        fits
    }

    /// Charges what the end of its exchange frees, or [`Self::pushes`]: of half the budget.
    /// `undecided`: of an exchange that is not known to be recorded; all of these have the
    /// greater part of it, and leave the others the rest.
    pub(super) fn reserve(&self, bytes: usize, undecided: bool) -> bool {
        let most = self.limit / 2;
        let fits = self.charged() + bytes <= self.limit
            && self.reserved.get() + bytes <= most
            && (!undecided || self.undecided.get() + bytes <= most / 4 * 3);
        if fits {
            self.reserved.set(self.reserved.get() + bytes);
            self.undecided.set(self.undecided.get() + if undecided { bytes } else { 0 });
        }
        fits
    }

    /// Gives back what was reserved.
    pub(super) fn free(&self, bytes: usize, undecided: bool) {
        self.reserved.set(self.reserved.get() - bytes);
        self.undecided.set(self.undecided.get() - if undecided { bytes } else { 0 });
    }

    /// What was reserved is pushed: the writer frees it from here on.
    pub(super) fn pushes(&self, bytes: usize, undecided: bool) {
        self.free(bytes, undecided);
        self.queue.hold(bytes);
    }

    /// Of what is reserved, so much is no longer for an exchange that may be forgotten.
    pub(super) fn decides(&self, bytes: usize) {
        self.undecided.set(self.undecided.get() - bytes);
    }

    /// An exchange that was to be recorded has found no room even to begin.
    pub(super) fn misses_one(&self) {
        self.shared.counters.unrecorded.inc();
        self.queue.unrecorded.fetch_add(1, Relaxed);
    }

    /// Why nothing is to be had.
    pub(super) fn why(&self) -> Why {
        if self.takes_nothing() { Why::Disk } else { Why::Budget }
    }

    /// Whether writes fail, or nothing has been written since somebody waited in vain.
    fn takes_nothing(&self) -> bool {
        self.shared.failing.load(Acquire) || self.stalled.get() == Some(self.written())
    }

    /// Events that have been written.
    pub(super) fn written(&self) -> u64 {
        self.queue.written.load(Acquire)
    }

    /// Somebody has waited for as long as one may, since so many events had been written.
    pub(super) fn waited_in_vain(&self, written: u64) {
        if self.written() == written {
            self.stalled.set(Some(written));
            // The others wait for the same.
            self.queue.wake_all();
        }
    }

    /// Appends events by `write`, which charges what they cost and returns how many they are.
    /// Returns the number of the last of them.
    pub(super) fn push(&self, write: impl FnOnce(&mut Buffer) -> usize) -> u64 {
        let mut buffer = self.queue.buffers.free();
        let count = write(&mut buffer);
        let first = count > 0 && buffer.events.len() == count;
        let batch = &self.shared.config.batch;
        let full = buffer.events.len() >= batch.entries || buffer.bytes.len() >= batch.bytes;
        drop(buffer);
        self.pushed.set(self.pushed.get() + count as u64);
        if first || full {
            self.shared.bell.ring(full);
        }
        self.pushed.get()
    }

    /// Resolves when there is room in the budget, or no hope of it.
    pub(super) fn poll_below(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, |lane| lane.charged() < lane.limit)
    }

    /// Resolves when so many events have been written, or will not be.
    pub(super) fn poll_written(&self, events: u64, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, |lane| lane.written() >= events)
    }

    fn poll(&self, cx: &Context<'_>, done: impl Fn(&Self) -> bool) -> Poll<()> {
        let done = || done(self) || self.takes_nothing();
        if done() {
            return Poll::Ready(());
        }
        let mut waiting = lock(&self.queue.waiting);
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        // The writer may have been there in between.
        if done() {
            return Poll::Ready(());
        }
        self.shared.bell.ring(true);
        Poll::Pending
    }
}

impl Queue {
    /// Bytes that have been charged and not been written.
    pub(super) fn held(&self) -> usize {
        let freed = self.freed.load(Acquire);
        self.charged.load(Relaxed).wrapping_sub(freed)
    }

    /// For the worker: so many more, before the writer can see what they are for.
    fn hold(&self, bytes: usize) {
        self.charged.store(self.charged.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// So many events of so many bytes are written, or given up.
    pub(super) fn release(&self, events: u64, bytes: usize) {
        self.freed.store(self.freed.load(Relaxed).wrapping_add(bytes), Release);
        self.written.fetch_add(events, Release);
        self.wake_all();
    }

    /// Has everybody who waits look again.
    pub(super) fn wake_all(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether all that it had has been taken.
    pub(super) fn is_told(&self) -> bool {
        self.unrecorded.load(Relaxed) == 0 && self.buffers.are(Buffer::is_empty)
    }
}

/// What a chunk of so many bytes costs.
pub(super) fn chunk_cost(bytes: usize) -> usize {
    EVENT_BYTES + bytes
}

fn both_clocks() -> (Instant, u64) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), wall.as_micros() as u64)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Between a worker and the thread that writes: one lane per worker, with a budget in bytes.
//!
//! A lane has two buffers. The worker takes the one that is free, without waiting, and appends its
//! event; the writer takes one at a time, just long enough to swap in an empty one, so one of the
//! two is always free (`access_log/queue.rs` has the same, and says why the order stays). What has
//! been appended is charged to the budget until it is written: the memory of the recorder is
//! bounded whatever the disk does.
//!
//! Invariant: a worker never waits here. An exchange of the mode `standard` may, by
//! [`Lane::poll_below`] and [`Lane::poll_written`].

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*},
    },
    task::{Context, Poll, Waker},
    thread::Thread,
};

use super::{
    event::{Buffer, EVENT_BYTES, Why},
    metrics::Counters,
    redact::Heads,
};
use crate::config::{Record, record::RecordMode};

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
    /// A batch is there: write now.
    pub(super) urgent: AtomicBool,
    pub(super) stopping: AtomicBool,
    /// The disk takes nothing.
    pub(super) failing: AtomicBool,
    pub(super) thread: OnceLock<Thread>,
}

/// The part of a lane that the writer sees.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Queue {
    pub(super) worker: usize,
    pub(super) buffers: [Mutex<Buffer>; 2],
    /// Bytes that have been charged and not been written.
    pub(super) held: AtomicUsize,
    /// Events that have been written, of all that were ever pushed.
    pub(super) written: AtomicU64,
    /// Exchanges that could not even begin a record.
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
    next: Cell<u64>,
    pushed: Cell<u64>,
}

impl Lane {
    pub(super) fn new(shared: &Arc<Shared>, worker: usize, workers: usize) -> Self {
        let queue = Arc::new(Queue {
            worker,
            buffers: Default::default(),
            held: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            waiting: Mutex::default(),
        });
        lock(&shared.lanes).push(Arc::clone(&queue));
        let limit = (shared.config.memory_bytes / workers.max(1)).max(LEAST_BYTES);
        let shared = Arc::clone(shared);
        Self { queue, shared, limit, next: Cell::new(0), pushed: Cell::new(0) }
    }

    /// A number for a record, of this worker.
    pub(super) fn next(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Charges so many bytes, if they are to be had.
    pub(super) fn charge(&self, bytes: usize) -> bool {
        // Only this thread adds.
        if self.queue.held.load(Relaxed) + bytes > self.limit {
            return false;
        }
        self.queue.held.fetch_add(bytes, Relaxed);
        true
    }

    /// Charges for a head. Where exchanges wait, heads have as much again: they come before
    /// anything that could wait.
    pub(super) fn charge_head(&self, bytes: usize) -> bool {
        let waits =
            self.shared.config.mode == RecordMode::Standard && !self.shared.failing.load(Relaxed);
        let limit = if waits { 2 * self.limit } else { self.limit };
        if self.queue.held.load(Relaxed) + bytes > limit {
            return false;
        }
        self.queue.held.fetch_add(bytes, Relaxed);
        true
    }

    /// Charges what its owner has waited for.
    pub(super) fn overcharge(&self, bytes: usize) -> bool {
        if self.queue.held.load(Relaxed) >= self.limit {
            return false;
        }
        self.queue.held.fetch_add(bytes, Relaxed);
        true
    }

    /// Gives back what was charged for something that is not pushed.
    pub(super) fn refund(&self, bytes: usize) {
        self.queue.held.fetch_sub(bytes, Relaxed);
    }

    /// Why nothing is to be had.
    pub(super) fn why(&self) -> Why {
        if self.shared.failing.load(Relaxed) { Why::Disk } else { Why::Budget }
    }

    /// Appends events by `write`, which returns how many; what they cost has been charged.
    /// Returns the number of the last of them.
    pub(super) fn push(&self, write: impl FnOnce(&mut Buffer) -> usize) -> u64 {
        let mut buffer = self.free_buffer();
        let first = buffer.is_empty();
        let count = write(&mut buffer);
        let batch = &self.shared.config.batch;
        let full = buffer.events.len() >= batch.entries || buffer.bytes.len() >= batch.bytes;
        drop(buffer);
        self.pushed.set(self.pushed.get() + count as u64);
        if first || full {
            self.wake(full);
        }
        self.pushed.get()
    }

    fn free_buffer(&self) -> MutexGuard<'_, Buffer> {
        for buffer in &self.queue.buffers {
            match buffer.try_lock() {
                Ok(buffer) => return buffer,
                Err(TryLockError::Poisoned(buffer)) => return buffer.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        // Not reached: the writer holds one at a time, for as long as a swap takes.
        lock(&self.queue.buffers[0])
    }

    fn wake(&self, full: bool) {
        // A flag that is up has been followed by a wake-up already.
        if full && self.shared.urgent.swap(true, AcqRel) {
            return;
        }
        if let Some(thread) = self.shared.thread.get() {
            thread.unpark();
        }
    }

    /// Resolves when there is room in the budget, or no hope of it.
    pub(super) fn poll_below(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, |lane| lane.queue.held.load(Acquire) < lane.limit)
    }

    /// Resolves when so many events have been written, or will not be.
    pub(super) fn poll_written(&self, events: u64, cx: &Context<'_>) -> Poll<()> {
        self.poll(cx, |lane| lane.queue.written.load(Acquire) >= events)
    }

    fn poll(&self, cx: &Context<'_>, done: impl Fn(&Self) -> bool) -> Poll<()> {
        let done = || done(self) || self.shared.failing.load(Acquire);
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
        self.wake(true);
        Poll::Pending
    }
}

impl Queue {
    /// So many events of so many bytes are written, or given up.
    pub(super) fn release(&self, events: u64, bytes: usize) {
        self.held.fetch_sub(bytes, Release);
        self.written.fetch_add(events, Release);
        self.wake_all();
    }

    /// Has everybody who waits look again.
    pub(super) fn wake_all(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffers.iter().all(|buffer| lock(buffer).is_empty())
    }
}

/// What a chunk of so many bytes costs.
pub(super) fn chunk_cost(bytes: usize) -> usize {
    EVENT_BYTES + bytes
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

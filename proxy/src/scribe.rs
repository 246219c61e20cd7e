//! A thread that writes what workers leave for it: the access log's and the recorder's. What it
//! is left in, how it is woken, how long it gathers, and how it ends.
//!
//! Invariant: whoever has left something and rung finds that it is written, unless the disk has
//! stalled at the end: nothing waits for that longer than [`SHUTDOWN_TIMEOUT`].

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering::*},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// How long the end of the process waits for a reader or a disk that has stalled.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Two buffers between a worker and the thread.
///
/// The worker appends to the one that is free, without waiting. The thread takes one at a time, just
/// long enough to swap in an empty one, so one of the two is always free: leaving something neither
/// blocks nor allocates once the buffers have grown. What a worker leaves keeps its order, because the
/// thread empties the first buffer before the second, and the worker turns to the second only while
/// the first is being emptied.
#[derive(Debug, Default)]
pub(crate) struct Pair<T>([Mutex<T>; 2]);

impl<T> Pair<T> {
    /// For the worker, of which there is one: the one that is free.
    pub(crate) fn free(&self) -> MutexGuard<'_, T> {
        let free = self.0.iter().find_map(|buffer| match buffer.try_lock() {
            Ok(buffer) => Some(buffer),
            Err(TryLockError::Poisoned(buffer)) => Some(buffer.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        // There is one, and where not it is not long in coming.
        free.unwrap_or_else(|| lock(&self.0[0]))
    }

    /// For the thread: gives each to `take`, which is to leave an empty one in its place.
    pub(crate) fn each(&self, mut take: impl FnMut(MutexGuard<'_, T>)) {
        self.0.iter().for_each(|buffer| take(lock(buffer)));
    }

    /// Whether all that is left is like this.
    pub(crate) fn are(&self, like: impl Fn(&T) -> bool) -> bool {
        self.0.iter().all(|buffer| like(&lock(buffer)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread is woken by. Rung by workers, which never wait.
#[derive(Debug)]
pub(crate) struct Bell {
    /// It rests, or is about to: what comes now is to wake it. Otherwise it looks again by itself.
    rests: AtomicBool,
    /// A batch is there: write now.
    urgent: AtomicBool,
    stopping: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Default for Bell {
    fn default() -> Self {
        let off = AtomicBool::default;
        // The thread begins with a look, however late.
        let rests = AtomicBool::new(true);
        Self { rests, urgent: off(), stopping: off(), thread: OnceLock::new() }
    }
}

impl Bell {
    /// There is something. `urgent`: enough of it for a batch.
    pub(crate) fn ring(&self, urgent: bool) {
        // A flag that is up has been followed by a wake-up already.
        match urgent {
            true if self.urgent.load(Acquire) || self.urgent.swap(true, AcqRel) => return,
            false if !self.rests.load(Acquire) => return,
            _ => {}
        }
        self.wake();
    }

    /// Has the thread look around, for what is no batch.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether it has looked, and waits for company of what it knows to be there.
    #[cfg(test)]
    pub(crate) fn waits_for_company(&self) -> bool {
        !self.rests.load(Acquire)
    }

    /// The end is near: what is left now is the last.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// For the thread: has it `look` for what there is, and write it, again and again until the end;
    /// that says whether there was anything. Rests for so long at most while there is nothing, and
    /// waits for company of what has come, at most so long.
    pub(crate) fn serve(&self, rest: Duration, company: Duration, mut look: impl FnMut() -> bool) {
        loop {
            // Read before the look: what was left before the stop is then found by it.
            let last = self.is_stopping();
            self.urgent.store(false, Release);
            // Also before: who leaves something behind the look, in a buffer that this has had, sees
            // it and rings.
            self.rests.store(true, Release);
            let found = look();
            if last {
                return;
            }
            if !found {
                thread::park_timeout(rest);
            }
            self.rests.store(false, Release);
            self.gather(company);
        }
    }

    fn gather(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        while !self.urgent.load(Acquire) && !self.is_stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

/// The running thread. Dropping it has it write what is left, and waits for that.
#[derive(Debug)]
pub(crate) struct Scribe {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
    /// What is said where it is not over in time.
    stalled: &'static str,
    patience: Duration,
}

impl Scribe {
    /// Starts the thread. `run` looks at `bell`, and returns when that says that it is to.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(
        name: &str,
        stalled: &'static str,
        bell: &Arc<Bell>,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let own = Arc::clone(bell);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            // What was left before this is found by the first look.
            let _ = own.thread.set(thread::current());
            run();
        })?;
        let (bell, thread) = (Arc::clone(bell), Some(thread));
        Ok(Self { bell, thread, stalled, patience: SHUTDOWN_TIMEOUT })
    }

    /// Waits so long for its end, instead of [`SHUTDOWN_TIMEOUT`].
    pub(crate) fn patient_for(mut self, longest: Duration) -> Self {
        self.patience = longest;
        self
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.bell.stopping.store(true, Release);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        let deadline = Instant::now() + self.patience;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("{}", self.stalled);
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        // Its panic has been reported by the hook; there is nobody left to tell.
        let _ = thread.join();
    }
}

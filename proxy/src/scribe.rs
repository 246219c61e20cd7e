//! A thread that writes what workers leave for it: the access log's and the recorder's. How it is
//! woken, how long it gathers, and how it ends.
//!
//! Invariant: whoever has left something and rung finds that it is written, unless the disk has
//! stalled at the end: nothing waits for that longer than [`SHUTDOWN_TIMEOUT`].

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::*},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// How long the end of the process waits for a reader or a disk that has stalled.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What the thread is woken by. Rung by workers, which never wait.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// A batch is there: write now.
    urgent: AtomicBool,
    stopping: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// There is something. `urgent`: enough of it for a batch.
    pub(crate) fn ring(&self, urgent: bool) {
        // A flag that is up has been followed by a wake-up already.
        if urgent && self.urgent.swap(true, AcqRel) {
            return;
        }
        self.wake();
    }

    /// Has the thread look around, for what is no batch.
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The end is near: what is left now is the last.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    /// For the thread, before it looks for what there is: whether it looks for the last time.
    pub(crate) fn looks(&self) -> bool {
        // Read before the look: what was left before the stop is then found by it.
        let last = self.is_stopping();
        self.urgent.store(false, Release);
        last
    }

    /// For the thread: waits for company of what has come, at most so long.
    pub(crate) fn gather(&self, longest: Duration) {
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
        Ok(Self { bell: Arc::clone(bell), thread: Some(thread), stalled })
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.bell.stopping.store(true, Release);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
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

//! Between the workers and the thread that writes.
//!
//! Every worker has a lane of two buffers ([`Pair`]), one of which is always free for its lines.
//!
//! The thread sleeps while there is nothing to write; the first line wakes it, it gathers
//! for [`FLUSH_INTERVAL`] and writes whole batches.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Write},
    marker::PhantomData,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::*},
    },
    thread,
    time::{Duration, SystemTime},
};

use prometheus_client::metrics::counter::Counter;

use super::{Exchange, Form, format};
use crate::scribe::{Bell, Pair, Scribe};

/// Most that one buffer of a lane holds: some 4000 lines, a tenth of a second of a busy
/// worker. Two buffers per worker and one of the thread make the bound of the memory.
pub(super) const QUEUE_BYTES: usize = 1024 * 1024;

/// How long a line may wait for company. Promised: 200 ms; the rest is for the write.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// How long the thread sleeps where nothing is logged: for no reason but that it is bounded.
const REST: Duration = Duration::from_secs(3600);

/// Pause before writing again to a descriptor that somebody made non-blocking.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(5);

/// The running log.
#[derive(Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
    /// Dropped, it writes what is left.
    _scribe: Scribe,
}

/// One worker's end of the log. Not to be shared between threads, so that its lane has
/// one user besides the thread that writes.
#[derive(Debug)]
pub struct Writer {
    lane: Arc<Lane>,
    shared: Arc<Shared>,
    not_sync: PhantomData<Cell<()>>,
}

#[derive(Debug)]
struct Shared {
    form: Form,
    queue_bytes: usize,
    dropped: Counter,
    /// Locked when a worker starts and once per batch; never by a line.
    lanes: Mutex<Vec<Arc<Lane>>>,
    bell: Arc<Bell>,
    /// Whether lines go anywhere.
    on: AtomicBool,
    /// Where they go from the next pass on.
    next: Mutex<Option<File>>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(Pair<Vec<u8>>);

impl Queue {
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        form: Form,
        queue_bytes: usize,
        dropped: Counter,
        on: bool,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            form,
            queue_bytes,
            dropped,
            lanes: Mutex::default(),
            bell: Arc::default(),
            on: AtomicBool::new(on),
            next: Mutex::default(),
        });
        let drained = Drainer { shared: shared.clone(), out: Out::new(sink), batch: Vec::new() };
        let stalled = "access log: reader stalled, last lines are lost";
        let scribe = Scribe::start("access-log", stalled, &shared.bell, || drained.run())?;
        Ok(Self { shared, _scribe: scribe })
    }

    /// Writes to another file, once what has been logged so far is in the one before; `None`:
    /// nowhere.
    pub(super) fn switch(&self, to: Option<File>) {
        self.shared.on.store(to.is_some(), Relaxed);
        if let Some(file) = to {
            *lock(&self.shared.next) = Some(file);
            self.shared.bell.wake();
        }
    }
}

impl Writer {
    pub(super) fn new(queue: &Queue) -> Self {
        let lane = Arc::<Lane>::default();
        lock(&queue.shared.lanes).push(lane.clone());
        Self { lane, shared: queue.shared.clone(), not_sync: PhantomData }
    }

    /// Whether lines go anywhere. Where not, nothing need be gathered for one.
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Relaxed)
    }

    /// Leaves a line to be written, or counts it as dropped. Never waits.
    ///
    /// Implements: REQ-CTRL-005
    pub fn log(&self, exchange: &Exchange<'_>) {
        let Self { lane, shared, .. } = self;
        if !self.is_on() || !shared.form.keeps(exchange) {
            return;
        }
        if shared.bell.is_stopping() {
            shared.dropped.inc();
            return;
        }
        shared.append(lane.0.free(), exchange);
    }
}

impl Shared {
    fn append(&self, mut buffer: MutexGuard<'_, Vec<u8>>, exchange: &Exchange<'_>) {
        let before = buffer.len();
        if before < self.queue_bytes {
            format::line(&mut buffer, &self.form, SystemTime::now(), exchange);
        }
        if before >= self.queue_bytes || buffer.len() > self.queue_bytes {
            buffer.truncate(before);
            self.dropped.inc();
            return;
        }
        let half_full = buffer.len() >= self.queue_bytes / 2;
        drop(buffer);
        if before == 0 || half_full {
            self.bell.ring(half_full);
        }
    }
}

/// The thread's own state.
struct Drainer<W> {
    shared: Arc<Shared>,
    out: Out<W>,
    batch: Vec<u8>,
}

impl<W: Write> Drainer<W> {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.bell.serve(REST, FLUSH_INTERVAL, || {
            // First: what was logged before it was given goes where it was to go.
            let next = lock(&self.shared.next).take();
            let found = self.drain();
            if let Some(file) = next {
                self.out.switch(file);
            }
            found
        });
    }

    /// Writes what all lanes hold; whether there was anything.
    fn drain(&mut self) -> bool {
        let lanes = {
            let mut lanes = lock(&self.shared.lanes);
            // A lane that only this list holds has lost its worker.
            lanes.retain(|lane| Arc::strong_count(lane) > 1 || !lane.is_empty());
            lanes.clone()
        };
        let mut found = false;
        for lane in &lanes {
            lane.0.each(|mut buffer| {
                mem::swap(&mut *buffer, &mut self.batch);
                drop(buffer);
                if !self.batch.is_empty() {
                    found = true;
                    let lost = self.out.write_lines(&self.batch);
                    self.shared.dropped.inc_by(lost);
                    self.batch.clear();
                }
            });
        }
        found
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.0.are(Vec::is_empty)
    }
}

/// Where lines go: where they were sent at the start, or later.
enum Sink<W> {
    First(W),
    Later(File),
}

/// Where lines go, and what state the last failure left it in.
struct Out<W> {
    sink: Sink<W>,
    /// The last write ended inside a line.
    torn: bool,
    failing: bool,
}

impl<W: Write> Out<W> {
    fn new(sink: W) -> Self {
        Self { sink: Sink::First(sink), torn: false, failing: false }
    }

    fn switch(&mut self, to: File) {
        *self = Self { sink: Sink::Later(to), torn: false, failing: false };
    }

    /// Writes whole lines; returns how many were lost.
    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        if self.torn {
            // The next line must not be glued to the rest of the torn one.
            match self.write(b"\n") {
                Ok(()) => self.torn = false,
                Err(_) => return count_lines(lines),
            }
        }
        match self.write(lines) {
            Ok(()) => {
                self.failing = false;
                0
            }
            Err((written, error)) => {
                self.torn = written > 0 && lines[written - 1] != b'\n';
                if !mem::replace(&mut self.failing, true) {
                    tracing::warn!("access log: lines are lost: {error}");
                }
                count_lines(&lines[written..])
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            let wrote = match &mut self.sink {
                Sink::First(sink) => sink.write(rest),
                Sink::Later(file) => file.write(rest),
            };
            match wrote {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(WOULD_BLOCK_PAUSE);
                }
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

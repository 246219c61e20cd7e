//! Where the process log goes: into a bounded queue, and from there to stderr by a thread of its own.
//!
//! Invariant: nobody who logs waits for whoever reads stderr. What finds the queue full is dropped
//! and counted, and when there is room again a line says how much. The end of the process and
//! panics are told by the same way, so that they come behind what was logged before and cannot
//! block either ([`finish`] waits, if not for long).

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd as _,
    panic,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::*},
    },
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use crate::scribe::{Bell, Scribe};

/// Most that waits, some 8000 lines; what is being written may be as much again.
const QUEUE_BYTES: usize = 1024 * 1024;

/// How long the thread sleeps where nothing is logged: for no reason but that it is bounded.
const REST: Duration = Duration::from_secs(3600);

/// How long the end of the process waits for a reader that has stalled. Where the access log goes
/// to stderr as well it has waited for that already.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause before writing again to a descriptor that somebody made non-blocking.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(5);

/// Panics and the last words of the process have nothing else to reach it by.
static LOG: OnceLock<Running> = OnceLock::new();

static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

struct Running {
    queue: Arc<Queue>,
    scribe: Mutex<Option<Scribe>>,
    finished: AtomicBool,
}

/// The end that lines are left at; shared by all threads.
#[derive(Debug, Clone)]
pub(crate) struct Lines(Arc<Queue>);

/// Between those who log and the thread that writes. Locked for as long as a line takes to copy.
#[derive(Debug)]
pub(crate) struct Queue {
    most: usize,
    waiting: Mutex<Waiting>,
    bell: Arc<Bell>,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Lines that are gone, and of which nothing has been said.
    dropped: u64,
}

/// Starts the thread, and has panics told by it. What is logged goes to what this returns.
///
/// # Errors
/// If there is no thread or no descriptor to be had.
pub(crate) fn start() -> io::Result<Lines> {
    // A descriptor of its own: the lock of `io::stderr` is not to be held while a reader stalls.
    let sink = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = Queue::new(QUEUE_BYTES, DROPPED.clone());
    let own = Arc::clone(&queue);
    let stalled = "process log: reader stalled, last lines are lost";
    let run = move || own.write_to(sink, say_dropped);
    let scribe = Scribe::start("process-log", stalled, &queue.bell, run)?.patient_for(PATIENCE);
    let lines = Lines(Arc::clone(&queue));
    let scribe = Mutex::new(Some(scribe));
    if LOG.set(Running { queue, scribe, finished: AtomicBool::new(false) }).is_ok() {
        panic::set_hook(Box::new(panicked));
    }
    Ok(lines)
}

/// What lines that were dropped are counted in.
pub(crate) fn dropped() -> Counter {
    DROPPED.clone()
}

/// Tells something on stderr that is no event: behind what was logged, where anything was.
pub(crate) fn tell(text: &str) {
    match LOG.get().filter(|log| !log.finished.load(Acquire)) {
        // However full it is: what ends the process is worth more than what came before.
        Some(log) => log.queue.leave(text.as_bytes(), usize::MAX),
        // stderr may be closed; there is no better place to say so.
        None => _ = io::stderr().lock().write_all(text.as_bytes()),
    }
}

/// Writes what was logged. Waits at most a few seconds for a reader that has stalled.
pub(crate) fn finish() {
    if let Some(log) = LOG.get() {
        drop(lock(&log.scribe).take());
        log.finished.store(true, Release);
    }
}

fn say_dropped(lines: u64) {
    tracing::warn!("process log: {lines} lines were dropped, for nobody read them");
}

/// As the hook of the standard library, which would wait for a reader of stderr.
fn panicked(panic: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    let text = match backtrace.status() {
        BacktraceStatus::Captured => format!("\nthread '{name}' {panic}\n{backtrace}\n"),
        _ => format!("\nthread '{name}' {panic}\n"),
    };
    tell(&text);
}

impl Queue {
    fn new(most: usize, dropped: Counter) -> Arc<Self> {
        let (waiting, bell) = (Mutex::default(), Arc::default());
        Arc::new(Self { most, waiting, bell, dropped })
    }

    fn leave(&self, line: &[u8], most: usize) {
        let mut waiting = lock(&self.waiting);
        if waiting.lines.len().saturating_add(line.len()) > most {
            waiting.dropped += 1;
            self.dropped.inc();
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        self.bell.ring(false);
    }

    /// For the thread: writes until the end. `say` is told how many lines were dropped.
    fn write_to(&self, mut sink: impl Write, say: impl Fn(u64)) {
        let (mut batch, mut failing) = (Vec::new(), false);
        self.bell.serve(REST, Duration::ZERO, || {
            let mut found = false;
            // Again at once: what is said of lines that were dropped is a line as well.
            while self.pass(&mut batch, &mut sink, &mut failing, &say) {
                found = true;
            }
            found
        });
    }

    /// Writes what waits. False: nothing did.
    fn pass(
        &self,
        batch: &mut Vec<u8>,
        sink: &mut impl Write,
        failing: &mut bool,
        say: &impl Fn(u64),
    ) -> bool {
        batch.clear();
        let mut waiting = lock(&self.waiting);
        mem::swap(batch, &mut waiting.lines);
        // Where nothing can be written this would be lost as well, and say so for ever.
        let dropped = if *failing { 0 } else { mem::take(&mut waiting.dropped) };
        drop(waiting);
        if dropped > 0 {
            // It belongs behind what was taken, before all that comes now.
            say(dropped);
        }
        if batch.is_empty() {
            return dropped > 0;
        }
        // One by one: a pipe keeps lines of 4 KiB and less whole, whoever else writes to it.
        for line in batch.split_inclusive(|byte| *byte == b'\n') {
            *failing = write(sink, line).is_err();
            if *failing {
                lock(&self.waiting).dropped += 1;
                self.dropped.inc();
            }
        }
        true
    }
}

/// As [`Write::write_all`], also where the descriptor does not block.
fn write(sink: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(WOULD_BLOCK_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> Self::Writer {
        &self.0
    }
}

/// An event comes as one write.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.leave(line, self.most);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a write when it is let.
    struct Sink {
        lets: mpsc::Receiver<bool>,
        has: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.lets.recv() {
                Ok(true) => lock(&self.has).extend_from_slice(bytes),
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Queue, its thread, what lets that write, and what it has written.
    type Rig = (Arc<Queue>, Scribe, mpsc::Sender<bool>, Arc<Mutex<Vec<u8>>>);

    /// A queue of 16 bytes, whose thread writes when it is let.
    fn rig() -> Rig {
        let queue = Queue::new(16, Counter::default());
        let (tell, lets) = mpsc::channel();
        let has = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Sink { lets, has: Arc::clone(&has) };
        let (own, saying) = (Arc::clone(&queue), Arc::clone(&queue));
        let run = move || {
            own.write_to(sink, |lines| {
                (&*saying).write_all(format!("lost {lines}\n").as_bytes()).unwrap();
            });
        };
        let scribe = Scribe::start("log", "stalled", &queue.bell, run).unwrap();
        (queue, scribe, tell, has)
    }

    /// Until the thread has taken what waits.
    fn taken(queue: &Queue) {
        while !lock(&queue.waiting).lines.is_empty() {
            thread::yield_now();
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_told_in_its_place() {
        let (queue, scribe, lets, has) = rig();
        let log = |line: &str| (&*queue).write_all(line.as_bytes()).unwrap();
        log("first\n");
        taken(&queue);
        // The thread waits for its reader now, and nobody else does.
        log("2345678\n");
        log("9abcdefgh\n");
        log("3456789\n");
        log("x\n");
        assert_eq!(queue.dropped.get(), 2);
        for _ in 0..4 {
            lets.send(true).unwrap();
        }
        drop(scribe);
        let has = String::from_utf8(lock(&has).clone()).unwrap();
        assert_eq!(has, "first\n2345678\n3456789\nlost 2\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_it_can() {
        let (queue, scribe, lets, has) = rig();
        let log = |line: &str| (&*queue).write_all(line.as_bytes()).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            lets.send(line == "c\n").unwrap();
            log(line);
            taken(&queue);
        }
        lets.send(true).unwrap();
        drop(scribe);
        assert_eq!(queue.dropped.get(), 2);
        assert_eq!(lock(&has).as_slice(), b"c\nlost 2\n");
    }

    #[test]
    fn the_end_waits_for_what_was_left() {
        let (queue, scribe, lets, has) = rig();
        queue.leave(b"longer than the queue may be\n", usize::MAX);
        lets.send(true).unwrap();
        drop(scribe);
        assert_eq!(lock(&has).as_slice(), b"longer than the queue may be\n");
    }
}

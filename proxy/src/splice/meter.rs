//! What can be seen of a lane while it runs: bytes, engine, and why that one.
//!
//! Written by the worker that owns the lane, read by anybody. Relaxed throughout: these
//! are figures for people and metrics, nothing is ordered by them.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use proxy_ebpf::Protection;
use serde::Serialize;

use super::{
    figures::Figures,
    hop::Excluded,
    kernel::{Kernel, LaneSlot},
    why::Why,
    without::without,
};

/// What moves the bytes of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// read(2) and write(2).
    Copy,
    /// splice(2) through a pipe.
    Pipe,
    /// BPF, from socket to socket of ours.
    Kernel,
    /// BPF, from one application of this host to the other.
    Bypass,
    /// BPF, from an application of this host out on our connection.
    HalfBypass,
}

/// Why a direction has changed its engine last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It carries bulk.
    Bulk,
    /// It carries small messages.
    Small,
    /// It carries small messages, and the other direction nothing.
    Stream,
    /// Its messages are answered one by one.
    Answered,
    /// Applications of this host are at its ends, or one is.
    Local,
    /// `--splice kernel`.
    Asked,
    /// The engine that it had is not to be had any more: [`Why`] says so.
    Gone,
}

impl Cause {
    const ALL: [(Self, &str); 7] = [
        (Self::Bulk, "bulk"),
        (Self::Small, "small messages"),
        (Self::Stream, "stream of small messages"),
        (Self::Answered, "messages that are answered"),
        (Self::Local, "application of this host"),
        (Self::Asked, "asked for"),
        (Self::Gone, "engine not to be had"),
    ];
}

impl Engine {
    /// All of them, each at its own index.
    pub const ALL: [Engine; 5] =
        [Engine::Copy, Engine::Pipe, Engine::Kernel, Engine::Bypass, Engine::HalfBypass];

    /// Stable name, as in `--splice` and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Copy => "copy",
            Engine::Pipe => "pipe",
            Engine::Kernel => "kernel",
            Engine::Bypass => "bypass",
            Engine::HalfBypass => "half_bypass",
        }
    }
}

/// Why a direction is not bypassed, or not wholly, where local bypass was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    /// This kernel cannot, as the probe found.
    Unable,
    /// The client's application stays out.
    Client(Excluded),
    /// The server's application stays out.
    Server(Excluded),
    /// It was, and what went past it was bulk without a pause (`leave.rs`).
    Bulk,
}

/// Every such reason with its stable text: what [`Meter`] keeps is an index, plus one.
const OUTSIDE: [(Outside, &str); 14] = [
    (Outside::Unable, "local bypass does not work here, see doctor"),
    (Outside::Client(Excluded::NotAllowed), "client: local_bypass is off"),
    (Outside::Client(Excluded::Remote), "client: not on this host"),
    (Outside::Client(Excluded::Translated), "client: behind address translation"),
    (Outside::Client(Excluded::Refused), "client: socket refused by the kernel"),
    (Outside::Client(Excluded::Blocking), "client: socket in blocking mode"),
    (Outside::Client(Excluded::LowWater), "client: SO_RCVLOWAT is set"),
    (Outside::Server(Excluded::NotAllowed), "server: local_bypass is off"),
    (Outside::Server(Excluded::Remote), "server: not on this host"),
    (Outside::Server(Excluded::Translated), "server: behind address translation"),
    (Outside::Server(Excluded::Refused), "server: socket refused by the kernel"),
    (Outside::Server(Excluded::Blocking), "server: socket in blocking mode"),
    (Outside::Server(Excluded::LowWater), "server: SO_RCVLOWAT is set"),
    (Outside::Bulk, "bulk without a pause"),
];

/// What the programs did in one direction, as they counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KernelShare {
    /// Bytes that they moved.
    pub bytes: u64,
    /// In so many messages (sends or segments).
    pub messages: u64,
    /// Messages that went by userspace because something before them still did.
    pub passed_for_order: u64,
    /// Because the receiver had as much as it may.
    pub passed_for_bound: u64,
    /// Because the receiver's socket was gone.
    pub passed_without_target: u64,
    /// Bytes that were passed to this process and that it has not written on yet. What is
    /// queued in the kernel beyond that is not known without asking it.
    pub waiting_bytes: u64,
}

/// Every engine with every reason it can stand with: what [`Meter`] keeps is an index.
const STANDINGS: [(Engine, Option<Why>); 16] = [
    (Engine::Copy, None),
    (Engine::Pipe, None),
    (Engine::Copy, Some(Why::H2Downstream)),
    (Engine::Copy, Some(Why::H2Upstream)),
    (Engine::Copy, Some(Why::Tls)),
    (Engine::Copy, Some(Why::TlsOff)),
    (Engine::Copy, Some(Why::TlsKernel)),
    (Engine::Copy, Some(Why::TlsSuite)),
    (Engine::Copy, Some(Why::TlsRefused)),
    (Engine::Copy, Some(Why::Recorded)),
    (Engine::Copy, Some(Why::NoPipe)),
    (Engine::Copy, Some(Why::NoSplice)),
    (Engine::Copy, Some(Why::Urgent)),
    (Engine::Kernel, None),
    (Engine::Bypass, None),
    (Engine::HalfBypass, None),
];

/// Those of the kernel are the last in [`Engine::ALL`].
const KERNEL_ENGINES: usize = Engine::ALL.len() - FIRST_KERNEL;
const FIRST_KERNEL: usize = Engine::Kernel as usize;

/// Counters of one direction.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Moved by read(2) and write(2).
    copied: AtomicU64,
    /// Moved by splice(2).
    piped: AtomicU64,
    standing: AtomicU8,
    /// Index of the kernel's engine that goes before it, 0 for none.
    kernel: AtomicU8,
    /// The kernel's engine that was shown last, by its place in [`Engine::ALL`]; 0 for none.
    last_kernel: AtomicU8,
    /// What engines of the kernel before the last had moved: `Kernel`, `Bypass`, `HalfBypass`.
    earlier: [AtomicU64; KERNEL_ENGINES],
    /// Index in [`OUTSIDE`] plus one, 0 for none.
    outside: AtomicU8,
    changes: AtomicU32,
    /// Index in [`Cause::ALL`] plus one, 0 for none.
    cause: AtomicU8,
    slot: OnceLock<Arc<LaneSlot>>,
}

impl Meter {
    /// Bytes handed to the socket (or stream) they are for, by the kernel's programs or by
    /// this process.
    pub(crate) fn bytes(&self) -> u64 {
        self.copied.load(Relaxed) + self.piped.load(Relaxed) + self.kernel_bytes()
    }

    /// Bytes that this process has moved.
    pub(super) fn by_userspace(&self) -> u64 {
        self.copied.load(Relaxed) + self.piped.load(Relaxed)
    }

    /// Messages that the programs have moved.
    pub(super) fn kernel_messages(&self) -> u64 {
        self.slot.get().map_or(0, |slot| slot.moved_messages())
    }

    /// Bytes that the programs have moved.
    pub(crate) fn kernel_bytes(&self) -> u64 {
        self.slot.get().map_or(0, |slot| slot.moved_bytes())
    }

    /// What the programs did in this direction, if they ever had it.
    pub(crate) fn kernel(&self) -> Option<KernelShare> {
        let slot = self.slot.get()?;
        let [order, bound, target] = slot.refused();
        Some(KernelShare {
            bytes: slot.moved_bytes(),
            messages: slot.moved_messages(),
            passed_for_order: order,
            passed_for_bound: bound,
            passed_without_target: target,
            // Two counters that move: what was taken meanwhile had been passed before.
            waiting_bytes: slot.passed_bytes().saturating_sub(slot.taken_bytes()),
        })
    }

    /// Time since the programs have last moved bytes of this direction.
    pub(crate) fn kernel_idle(&self) -> Option<Duration> {
        let at = self.slot.get()?.moved_at();
        (at > 0 && !without(Protection::Activity))
            .then(|| monotonic().saturating_sub(Duration::from_nanos(at)))
    }

    /// The engine now, and why.
    pub(crate) fn standing(&self) -> (Engine, Option<Why>) {
        match self.kernel.load(Relaxed) {
            0 => STANDINGS[usize::from(self.standing.load(Relaxed))],
            kernel => STANDINGS[usize::from(kernel)],
        }
    }

    /// Why the engine is not a faster one, where that is known.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        let (engine, why) = self.standing();
        let outside = || {
            let at = usize::from(self.outside.load(Relaxed)).checked_sub(1)?;
            (engine != Engine::Bypass).then_some(OUTSIDE[at].1)
        };
        why.map(Why::name).or_else(outside)
    }

    /// Bytes by engine, and what else is summed up over tunnels. Never less than at the call
    /// before, each figure by itself.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures { changes: self.changes().into(), ..Figures::default() };
        figures.bytes[Engine::Copy as usize] = self.copied.load(Relaxed);
        figures.bytes[Engine::Pipe as usize] = self.piped.load(Relaxed);
        if let Some(slot) = self.slot.get() {
            figures.passed = slot.refused();
            // Before the others: an engine that takes over meanwhile gets no byte too many.
            let moved = slot.moved_bytes();
            let last = usize::from(self.last_kernel.load(Acquire)).max(FIRST_KERNEL);
            let earlier = self.earlier.each_ref().map(|bytes| bytes.load(Acquire));
            figures.bytes[FIRST_KERNEL..].copy_from_slice(&earlier);
            figures.bytes[last] += moved.saturating_sub(earlier.iter().sum());
        }
        figures
    }

    /// How often the engine has changed.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Relaxed)
    }

    /// Why it has changed last, if it has.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        let at = usize::from(self.cause.load(Relaxed)).checked_sub(1)?;
        Some(Cause::ALL[at].1)
    }

    fn changed(&self, cause: Cause) {
        let at = Cause::ALL.iter().position(|(known, _)| *known == cause);
        self.cause.store(at.map_or(0, |at| at as u8 + 1), Relaxed);
        // One writer, as for the bytes.
        self.changes.store(self.changes.load(Relaxed) + 1, Relaxed);
    }

    /// The direction's place among the programs' lanes, the same as long as it lives.
    pub(super) fn slot(&self, kernel: &Kernel) -> Option<Arc<LaneSlot>> {
        if self.slot.get().is_none() {
            // Set by the tunnel's own task only.
            let _ = self.slot.set(Arc::new(kernel.lane()?));
        }
        self.slot.get().cloned()
    }

    /// This process has moved bytes, by [`Engine::Pipe`] or else by [`Engine::Copy`].
    pub(super) fn add(&self, engine: Engine, bytes: usize) {
        let counter = if engine == Engine::Pipe { &self.piped } else { &self.copied };
        // One writer: no read-modify-write needed, hence no locked instruction per chunk.
        counter.store(counter.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// Why the direction stays out of local bypass, or half out.
    pub(super) fn show_outside(&self, outside: Option<Outside>) {
        let at = OUTSIDE.iter().position(|(known, _)| Some(*known) == outside);
        self.outside.store(at.map_or(0, |at| at as u8 + 1), Relaxed);
    }

    /// What the direction begins with is known now; no change.
    pub(super) fn settle(&self, engine: Engine, why: Option<Why>) {
        self.standing.store(code(engine, why), Relaxed);
    }

    pub(super) fn show(&self, engine: Engine, why: Option<Why>) {
        // A reason that a pipe was not to be had may outlast it; only `copy` needs one.
        let why = why.filter(|_| engine == Engine::Copy);
        let code = code(engine, why);
        if self.standing.swap(code, Relaxed) != code {
            self.changed(match (engine, why) {
                (Engine::Pipe, _) => Cause::Bulk,
                (_, None) => Cause::Small,
                (_, Some(_)) => Cause::Gone,
            });
        }
    }

    /// The programs move this direction, or no longer. What they pass goes on by the engine
    /// that was shown last.
    pub(super) fn show_kernel(&self, engine: Option<Engine>, cause: Cause) {
        let code = STANDINGS.iter().position(|standing| Some(standing.0) == engine);
        let code = code.unwrap_or_default() as u8;
        if let Some(engine) = engine {
            self.credit(engine as u8);
        }
        if self.kernel.swap(code, Relaxed) != code {
            self.changed(cause);
        }
    }
}

impl Meter {
    /// What the programs move from now on is another engine's.
    fn credit(&self, engine: u8) {
        let last = self.last_kernel.load(Relaxed);
        if last != engine && last > 0 {
            let before: u64 = self.earlier.iter().map(|bytes| bytes.load(Relaxed)).sum();
            let more = self.kernel_bytes().saturating_sub(before);
            self.earlier[usize::from(last) - FIRST_KERNEL].fetch_add(more, Release);
        }
        self.last_kernel.store(engine, Release);
    }
}

/// Index in [`STANDINGS`].
fn code(engine: Engine, why: Option<Why>) -> u8 {
    let at = STANDINGS.iter().position(|standing| *standing == (engine, why));
    at.expect("every standing is in the table") as u8
}

/// CLOCK_MONOTONIC, which the programs' times are of.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_seen() {
        let meter = Meter::default();
        assert_eq!(meter.standing(), (Engine::Copy, None));
        for shown in STANDINGS {
            meter.show(shown.0, shown.1);
            assert_eq!(meter.standing(), shown);
        }
        let changes = meter.changes();
        meter.show(Engine::HalfBypass, None);
        assert_eq!(meter.changes(), changes);
    }

    #[test]
    fn a_change_has_a_cause() {
        let meter = Meter::default();
        assert_eq!(meter.cause(), None);
        meter.show(Engine::Pipe, None);
        assert_eq!((meter.cause(), meter.changes()), (Some("bulk"), 1));
        meter.show(Engine::Pipe, None);
        assert_eq!(meter.changes(), 1);
        for (cause, text) in Cause::ALL {
            let engine = (meter.changes() % 2 == 1).then_some(Engine::Kernel);
            meter.show_kernel(engine, cause);
            assert_eq!(meter.cause(), Some(text));
        }
        meter.show_kernel(None, Cause::Bulk);
        meter.show(Engine::Copy, None);
        assert_eq!(meter.cause(), Some("small messages"));
    }

    #[test]
    fn bytes_are_counted_for_the_engine_that_moved_them() {
        let meter = Meter::default();
        meter.add(Engine::Copy, 5);
        meter.add(Engine::Pipe, 70);
        meter.add(Engine::Copy, 1);
        assert_eq!(meter.bytes(), 76);
        assert_eq!(meter.figures().bytes, [6, 70, 0, 0, 0]);
        for (at, engine) in Engine::ALL.into_iter().enumerate() {
            assert_eq!(engine as usize, at);
        }
    }

    #[test]
    fn the_reason_for_staying_out_goes_when_nothing_stays_out() {
        let meter = Meter::default();
        for (outside, text) in OUTSIDE {
            meter.show_outside(Some(outside));
            assert_eq!(meter.reason(), Some(text));
        }
        meter.show_kernel(Some(Engine::HalfBypass), Cause::Local);
        assert!(meter.reason().is_some());
        meter.show_kernel(Some(Engine::Bypass), Cause::Local);
        assert_eq!(meter.reason(), None);
        meter.show_kernel(None, Cause::Bulk);
        meter.show(Engine::Copy, Some(Why::NoPipe));
        assert_eq!(meter.reason(), Some("no pipe to be had"));
        meter.show(Engine::Pipe, None);
        meter.show_outside(None);
        assert_eq!(meter.reason(), None);
    }
}

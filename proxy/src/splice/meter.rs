//! What can be seen of a lane while it runs: bytes, engine, and why that one.
//!
//! Written by the worker that owns the lane, read by anybody. Relaxed throughout: these
//! are figures for people and metrics, nothing is ordered by them.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;

use super::kernel::{Kernel, LaneSlot};

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

/// Why a direction is with `copy` that could have been elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An HTTP/2 stream has no socket of its own.
    H2Downstream,
    /// EMFILE, or the worker's budget is spent; tried again later.
    NoPipe,
    /// splice(2) was refused.
    NoSplice,
}

impl Engine {
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

impl Why {
    /// Stable text for `/tunnels`.
    pub fn name(self) -> &'static str {
        match self {
            Why::H2Downstream => "h2 downstream",
            Why::NoPipe => "no pipe to be had",
            Why::NoSplice => "splice(2) refused",
        }
    }
}

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
}

/// Every engine with every reason it can stand with: what [`Meter`] keeps is an index.
const STANDINGS: [(Engine, Option<Why>); 8] = [
    (Engine::Copy, None),
    (Engine::Pipe, None),
    (Engine::Copy, Some(Why::H2Downstream)),
    (Engine::Copy, Some(Why::NoPipe)),
    (Engine::Copy, Some(Why::NoSplice)),
    (Engine::Kernel, None),
    (Engine::Bypass, None),
    (Engine::HalfBypass, None),
];

/// Counters of one direction.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    standing: AtomicU8,
    /// Index of the kernel's engine that goes before it, 0 for none.
    kernel: AtomicU8,
    changes: AtomicU32,
    slot: OnceLock<Arc<LaneSlot>>,
}

impl Meter {
    /// Bytes handed to the socket (or stream) they are for, by the kernel's programs or by
    /// this process.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed) + self.kernel_bytes()
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
        })
    }

    /// Time since the programs have last moved bytes of this direction.
    pub(crate) fn kernel_idle(&self) -> Option<Duration> {
        let at = self.slot.get()?.moved_at();
        (at > 0).then(|| monotonic().saturating_sub(Duration::from_nanos(at)))
    }

    /// The engine now, and why.
    pub(crate) fn standing(&self) -> (Engine, Option<Why>) {
        match self.kernel.load(Relaxed) {
            0 => STANDINGS[usize::from(self.standing.load(Relaxed))],
            kernel => STANDINGS[usize::from(kernel)],
        }
    }

    /// How often the engine has changed.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Relaxed)
    }

    /// The direction's place among the programs' lanes, the same as long as it lives.
    pub(super) fn slot(&self, kernel: &Kernel) -> Option<Arc<LaneSlot>> {
        if self.slot.get().is_none() {
            // Set by the tunnel's own task only.
            let _ = self.slot.set(Arc::new(kernel.lane()?));
        }
        self.slot.get().cloned()
    }

    pub(super) fn add(&self, bytes: usize) {
        // One writer: no read-modify-write needed, hence no locked instruction per chunk.
        self.bytes.store(self.bytes.load(Relaxed) + bytes as u64, Relaxed);
    }

    pub(super) fn show(&self, engine: Engine, why: Option<Why>) {
        // A reason that a pipe was not to be had may outlast it; only `copy` needs one.
        let why = why.filter(|_| engine == Engine::Copy);
        let code = STANDINGS.iter().position(|standing| *standing == (engine, why));
        let code = code.expect("every standing is in the table") as u8;
        if self.standing.swap(code, Relaxed) != code {
            self.changes.store(self.changes.load(Relaxed) + 1, Relaxed);
        }
    }

    /// The programs move this direction, or no longer. What they pass goes on by the engine
    /// that was shown last.
    pub(super) fn show_kernel(&self, engine: Option<Engine>) {
        let code = STANDINGS.iter().position(|standing| Some(standing.0) == engine);
        let code = code.unwrap_or_default() as u8;
        if self.kernel.swap(code, Relaxed) != code {
            self.changes.store(self.changes.load(Relaxed) + 1, Relaxed);
        }
    }
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
}

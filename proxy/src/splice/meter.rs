//! What can be seen of a lane while it runs: bytes, engine, and why that one.
//!
//! Written by the worker that owns the lane, read by anybody. Relaxed throughout: these
//! are figures for people and metrics, nothing is ordered by them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// What moves the bytes of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// read(2) and write(2).
    Copy,
    /// splice(2) through a pipe.
    Pipe,
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

/// Counters of one direction.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    standing: AtomicU8,
}

impl Meter {
    /// Bytes handed to the socket (or stream) they are for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The engine now, and why.
    pub(crate) fn standing(&self) -> (Engine, Option<Why>) {
        match self.standing.load(Relaxed) {
            1 => (Engine::Pipe, None),
            2 => (Engine::Copy, Some(Why::H2Downstream)),
            3 => (Engine::Copy, Some(Why::NoPipe)),
            4 => (Engine::Copy, Some(Why::NoSplice)),
            _ => (Engine::Copy, None),
        }
    }

    pub(super) fn add(&self, bytes: usize) {
        // One writer: no read-modify-write needed, hence no locked instruction per chunk.
        self.bytes.store(self.bytes.load(Relaxed) + bytes as u64, Relaxed);
    }

    pub(super) fn show(&self, engine: Engine, why: Option<Why>) {
        let code = match (engine, why) {
            (Engine::Pipe, _) => 1,
            (Engine::Copy, None) => 0,
            (Engine::Copy, Some(Why::H2Downstream)) => 2,
            (Engine::Copy, Some(Why::NoPipe)) => 3,
            (Engine::Copy, Some(Why::NoSplice)) => 4,
        };
        self.standing.store(code, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_seen() {
        let meter = Meter::default();
        assert_eq!(meter.standing(), (Engine::Copy, None));
        for shown in [
            (Engine::Pipe, None),
            (Engine::Copy, None),
            (Engine::Copy, Some(Why::H2Downstream)),
            (Engine::Copy, Some(Why::NoPipe)),
            (Engine::Copy, Some(Why::NoSplice)),
        ] {
            meter.show(shown.0, shown.1);
            assert_eq!(meter.standing(), shown);
        }
    }
}

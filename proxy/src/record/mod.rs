//! The recorder: what goes through the proxy, as it came and when, without the traffic feeling
//! it.
//!
//! An exchange that is recorded has a [`Recording`] ([`tap`](self)), which its worker tells of
//! heads, chunks and the end. It appends events to the worker's [`Lane`], never waiting, within a
//! budget of memory; a thread of its own makes lines of them and appends these to segments in a
//! folder. What found no room is marked in the record and counted. Nothing parses a body until
//! somebody asks to see it: `read/` understands the files, `show/` and `export/` what is in them.
//!
//! On the way: `tap.rs` (decides and tells; `frames.rs` finds frames in tunnels) → `event.rs`, `note.rs` (how) → `lane.rs` (where to) →
//! `write/` (lines, segments). `redact/` blanks heads in the first and bodies in the last of them.
//!
//! Implements: REQ-REC-001, REQ-REC-002, REQ-REC-003

use std::{
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

mod about;
mod event;
pub mod export;
mod frames;
mod lane;
mod metrics;
mod note;
pub mod read;
mod redact;
mod ship;
pub mod show;
mod tap;
#[cfg(test)]
mod tests;
mod wait;
mod write;

pub use about::{Begin, Chosen, End};
pub use event::Side;
pub use frames::Frames;
pub use lane::Lane;
pub use metrics::Counters;
pub use redact::redact_shown;
pub use ship::{Destination, ShipFormat, Shipper};
pub use tap::Recording;

use crate::{config::Record, scribe::Scribe};

/// The recorder of the process.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<lane::Shared>,
    workers: usize,
    /// Dropped, it writes what is left.
    _scribe: Scribe,
}

impl Recorder {
    /// Makes the folder and starts the thread that writes.
    ///
    /// # Errors
    /// If nothing can be written to the folder, or there is no thread to be had.
    pub fn start(config: &Record, workers: usize, counters: Counters) -> io::Result<Self> {
        let segments = write::Segments::open(config, &counters)?;
        let shared = Arc::new(lane::Shared::new(config, counters, run()));
        let writer = Arc::clone(&shared);
        let stalled = "recorder: the disk stalled, the last records are lost";
        let run = || write::Writer::new(writer, segments).run();
        let scribe = Scribe::start("recorder", stalled, &shared.bell, run)?;
        Ok(Self { shared, workers, _scribe: scribe })
    }

    /// The end that a worker writes to. One for each thread.
    pub fn lane(&self, worker: usize) -> Lane {
        Lane::new(&self.shared, worker, self.workers)
    }

    /// Writes all that was recorded before this call, then closes. Waits at most five seconds for
    /// a disk that has stalled. The same as dropping it, said aloud.
    pub fn shutdown(self) {
        drop(self);
    }
}

/// A name for this run of the process, which sorts by time: milliseconds since 1970 to the base
/// of 36.
fn run() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut left = since.as_millis() as u64;
    let mut digits = Vec::new();
    while left > 0 {
        digits.push(char::from_digit((left % 36) as u32, 36).unwrap_or('0'));
        left /= 36;
    }
    digits.iter().rev().collect()
}

//! The thread that writes: from the lanes of all workers to lines, from lines to segments.
//!
//! It sleeps while there is nothing to write; the first event wakes it, it gathers for as long as
//! a batch may take and writes. Where the disk takes nothing it keeps what it has, tries again, and
//! says so once; the lanes fill meanwhile and mark in each record what found no room. So nothing
//! has to be known here of what is lost, and nothing is lost that there was memory for.
//!
//! Implements: REQ-REC-002, REQ-REC-005

use std::{
    io,
    sync::{Arc, atomic::Ordering::*},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{getpriority_process, setpriority_process};

use super::{
    event::Buffer,
    lane::{Queue, Shared, lock},
};
use crate::config::record::RecordMode;

mod entry;
mod json;
mod lines;
mod name;
mod open;
mod order;
mod said;
mod segment;

use lines::Lines;
pub(in crate::record) use segment::{Segments, is_after, list};

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How long the end of the process waits for a disk that takes nothing.
const LAST_TRIES: Duration = Duration::from_secs(1);

/// By how much it is nicer than the workers where traffic does not wait for it: what it is late with
/// waits in memory. A quarter of a processor is still its own where they want all of it.
const NICER: i32 = 5;

/// How long the thread sleeps where nothing happens, before it looks at the age of its segment.
const LOOK: Duration = Duration::from_secs(10);

/// The thread's own state.
pub(in crate::record) struct Writer {
    shared: Arc<Shared>,
    segments: Segments,
    lines: Lines,
    batch: Buffer,
    out: Vec<u8>,
}

impl Writer {
    pub(in crate::record) fn new(shared: Arc<Shared>, segments: Segments) -> Self {
        let lines = Lines::new(&shared);
        Self { shared, segments, lines, batch: Buffer::default(), out: Vec::new() }
    }

    /// Writes until the recorder is stopped, and then what is left.
    pub(in crate::record) fn run(mut self) {
        if self.shared.config.mode == RecordMode::ZeroLatency {
            // Of this thread alone (setpriority(2)), which works without as well.
            let _ = getpriority_process(None)
                .and_then(|nice| setpriority_process(None, (nice + NICER).min(19)));
        }
        let shared = Arc::clone(&self.shared);
        shared.bell.serve(LOOK, shared.config.batch.delay, || {
            let found = self.drain();
            if !found {
                self.segments.look_at_the_age();
            }
            found
        });
        self.segments.close();
    }

    /// Writes what all lanes hold; whether there was anything.
    fn drain(&mut self) -> bool {
        let lanes = {
            let mut lanes = lock(&self.shared.lanes);
            // A lane that only this list holds has lost its worker.
            lanes.retain(|lane| Arc::strong_count(lane) > 1 || !lane.is_told());
            lanes.clone()
        };
        let held: usize = lanes.iter().map(|lane| lane.held()).sum();
        self.shared.counters.queued.set(held as u64);
        let mut found = false;
        // Two buffers a lane: half of the budget at most is kept for the next batches.
        let kept = self.shared.config.memory_bytes / lanes.len().max(1) / 8;
        for lane in &lanes {
            lane.buffers.each(|mut buffer| {
                std::mem::swap(&mut *buffer, &mut self.batch);
                drop(buffer);
                if !self.batch.is_empty() {
                    found = true;
                    self.write(lane);
                    self.batch.clear(kept.max(self.shared.config.batch.bytes / 2));
                }
            });
            // Also where the lane has nothing else to tell.
            self.out.clear();
            lines::unrecorded(lane, &mut self.out);
            self.store();
        }
        found
    }

    /// Writes the batch, in pieces.
    fn write(&mut self, lane: &Queue) {
        let limits = self.shared.config.batch;
        let mut from = 0;
        while from < self.batch.events.len() {
            let (mut to, mut cost) = (from, 0);
            while to < self.batch.events.len()
                && (to == from || (to - from < limits.entries && cost < limits.bytes))
            {
                cost += self.batch.cost(&self.batch.events[to]);
                to += 1;
            }
            self.out.clear();
            self.lines.encode(lane.worker, &self.batch, from..to, &mut self.out);
            self.store();
            lane.release((to - from) as u64, cost);
            from = to;
        }
        self.out.shrink_to(2 * limits.bytes);
    }

    /// Writes the lines, however long it takes; at the end of the process not for ever.
    fn store(&mut self) {
        let mut stopping_since = None;
        while !self.out.is_empty() {
            let failure = match self.segments.write(&self.out) {
                Ok(written) => {
                    self.shared.counters.written.inc_by(written);
                    return self.succeeded();
                }
                Err(error) => error,
            };
            self.failed(&failure);
            if self.shared.bell.is_stopping() {
                let since = *stopping_since.get_or_insert_with(Instant::now);
                if since.elapsed() > LAST_TRIES {
                    tracing::error!("records are lost at the end: {failure}");
                    return;
                }
            }
            thread::park_timeout(RETRY);
        }
    }

    fn succeeded(&self) {
        if self.shared.failing.swap(false, AcqRel) {
            self.shared.counters.failing.set(0);
            tracing::info!("records are written again");
        }
    }

    fn failed(&self, error: &io::Error) {
        self.shared.counters.failures.inc();
        if !self.shared.failing.swap(true, AcqRel) {
            self.shared.counters.failing.set(1);
            let directory = self.shared.config.directory.display();
            tracing::warn!("records cannot be written to {directory}: {error}");
            // Who waits for the disk need not wait for this one.
            lock(&self.shared.lanes).iter().for_each(|lane| lane.wake_all());
        }
    }
}

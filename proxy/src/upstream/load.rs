//! How much a server has to do and how long it takes, over all workers.
//!
//! Counted only for rules that go by it ([`crate::config::Choice::counts_load`]): these are
//! the atomics that workers share for each request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::state::{ServerState, now};

/// For how long a slow answer is remembered: after this time 1/e of it is left.
const MEMORY_MS: f64 = 10_000.0;

/// What a request that failed counts as having taken at least, in milliseconds. An error that
/// comes at once must not look like a server that is fast.
const FAILURE_MS: f64 = 1000.0;

/// Load and latency of one server. Alone on its cache lines, for it is written often.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauge {
    in_flight: AtomicUsize,
    /// Milliseconds, the bits of an `f64`.
    latency: AtomicU64,
    /// When that was so, by [`now`].
    at: AtomicU64,
}

impl Gauge {
    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Expected time to the head of an answer in milliseconds; 0: none has come yet. Falls
    /// while nothing is measured, so that a server that was slow is tried again.
    pub fn latency(&self, now: u64) -> f64 {
        f64::from_bits(self.latency.load(Relaxed)) * self.left(now)
    }

    /// What is left by now of what was measured last.
    fn left(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.at.load(Relaxed));
        (-(age as f64) / MEMORY_MS).exp()
    }

    /// Two that write at the same moment lose one measurement, and nothing else.
    fn measured(&self, took: f64, now: u64) {
        let (known, left) = (f64::from_bits(self.latency.load(Relaxed)), self.left(now));
        // Up at once, down slowly.
        let latency = if took > known { took } else { known * left + took * (1.0 - left) };
        self.latency.store(latency.to_bits(), Relaxed);
        self.at.store(now, Relaxed);
    }
}

/// A request under way to a server, counted until this is dropped.
#[derive(Debug)]
pub struct Load {
    state: Arc<ServerState>,
    since: Instant,
    /// No answer yet.
    waiting: bool,
}

impl Load {
    /// Counts a request.
    pub(super) fn begin(state: &Arc<ServerState>) -> Self {
        state.gauge.in_flight.fetch_add(1, Relaxed);
        Self { state: Arc::clone(state), since: Instant::now(), waiting: true }
    }

    /// The head of its answer is there.
    pub fn answered(&mut self) {
        self.waiting = false;
        self.state.gauge.measured(self.since.elapsed().as_secs_f64() * 1000.0, now());
    }

    /// The server has failed it.
    pub fn failed(&mut self) {
        self.waiting = false;
        let took = self.since.elapsed().as_secs_f64() * 1000.0;
        self.state.gauge.measured(took.max(FAILURE_MS), now());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.state.gauge.in_flight.fetch_sub(1, Relaxed);
        if self.waiting {
            // Given up by the client: it took at least as long.
            let took = self.since.elapsed().as_secs_f64() * 1000.0;
            if took > self.state.gauge.latency(now()) {
                self.state.gauge.measured(took, now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_rises_at_once_and_falls_slowly() {
        let gauge = Gauge::default();
        assert_eq!(gauge.latency(1), 0.0);
        gauge.measured(10.0, 1000);
        gauge.measured(100.0, 1001);
        assert_eq!(gauge.latency(1001), 100.0);
        // One fast answer does not make up for it, ten seconds of them do for the most part.
        gauge.measured(10.0, 1101);
        assert!(gauge.latency(1101) > 98.0);
        for second in 0..100 {
            gauge.measured(10.0, 1101 + second * 100);
        }
        assert!((10.0..50.0).contains(&gauge.latency(11_001)), "{}", gauge.latency(11_001));
        // Without any it is forgotten.
        assert!(gauge.latency(111_001) < 0.01);
    }

    #[test]
    fn a_request_counts_until_it_is_over_however_it_ends() {
        let server = crate::config::value::server("a:1").unwrap();
        let state = ServerState::new(server);
        let (mut answered, mut failed) = (Load::begin(&state), Load::begin(&state));
        let given_up = Load::begin(&state);
        assert_eq!(state.gauge.in_flight(), 3);
        answered.answered();
        drop((answered, given_up));
        assert_eq!(state.gauge.in_flight(), 1);
        assert!(state.gauge.latency(now()) < FAILURE_MS);
        failed.failed();
        drop(failed);
        assert_eq!(state.gauge.in_flight(), 0);
        assert!(state.gauge.latency(now()) > FAILURE_MS * 0.9);
    }
}

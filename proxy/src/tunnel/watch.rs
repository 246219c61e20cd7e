//! Looks at the open tunnels once in a while: rates for `/tunnels`, and a line in the log
//! for those that last.
//!
//! Runs on the control plane and reads the tunnels' atomics: it wakes no worker and no
//! tunnel. Ten thousand lines due at once are written at once, by the control plane alone.

use std::{sync::PoisonError, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::registry::{Entry, Registry};

/// Time between two looks, and what a rate is taken over.
pub const SAMPLE: Duration = Duration::from_secs(1);

/// A tunnel as it was when it was last looked at.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    /// To the server, to the client.
    bytes: [u64; 2],
    rates: [u64; 2],
    logged: Instant,
}

impl Sample {
    pub(super) fn new(opened: Instant) -> Self {
        Self { at: opened, bytes: [0; 2], rates: [0; 2], logged: opened }
    }

    /// Bytes per second between the last two looks: to the server, to the client.
    pub(super) fn rates(&self) -> [u64; 2] {
        self.rates
    }

    /// Takes another look. Whether a line for the log is due.
    fn take(&mut self, now: Instant, bytes: [u64; 2], log_interval: Duration) -> bool {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        // Opened a moment ago: too short to tell.
        if seconds >= SAMPLE.as_secs_f64() / 2.0 {
            for (direction, bytes) in bytes.into_iter().enumerate() {
                let more = bytes.saturating_sub(self.bytes[direction]);
                self.rates[direction] = (more as f64 / seconds) as u64;
            }
            (self.at, self.bytes) = (now, bytes);
        }
        let due = now.saturating_duration_since(self.logged) >= log_interval;
        if due {
            self.logged = now;
        }
        due
    }
}

/// Looks at all tunnels every [`SAMPLE`], for ever.
///
/// Implements: REQ-TUN-004
pub async fn watch(registry: Registry) {
    let mut tick = interval(SAMPLE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        for (id, entry) in registry.entries() {
            if look(&entry, now) {
                log(&entry, id, now);
            }
        }
    }
}

fn look(entry: &Entry, now: Instant) -> bool {
    let mut sample = entry.sample.lock().unwrap_or_else(PoisonError::into_inner);
    sample.take(now, entry.bytes(), entry.info.log_interval)
}

fn log(entry: &Entry, id: u64, now: Instant) {
    let view = entry.view(id);
    tracing::info!(
        id,
        kind = view.kind.name(),
        client = %view.client,
        upstream = %view.upstream,
        listener = %view.listener,
        engine_up = view.engine.to_upstream.name.name(),
        engine_down = view.engine.to_downstream.name.name(),
        bytes_up = view.bytes.to_upstream,
        bytes_down = view.bytes.to_downstream,
        rate_up = view.bytes_per_second.to_upstream,
        rate_down = view.bytes_per_second.to_downstream,
        idle_seconds = view.idle_seconds as u64,
        age_seconds = now.saturating_duration_since(entry.opened).as_secs(),
        "tunnel open"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_time_between_two_looks() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let never = Duration::MAX;
        let mut sample = Sample::new(start);
        // Too early to tell; what came then counts at the next look.
        sample.take(at(10), [1_000_000, 0], never);
        assert_eq!(sample.rates(), [0, 0]);
        sample.take(at(2_000), [3_000_000, 50], never);
        assert_eq!(sample.rates(), [1_500_000, 25]);
        sample.take(at(3_000), [3_000_000, 50], never);
        assert_eq!(sample.rates(), [0, 0]);
    }

    #[test]
    fn lines_are_due_once_in_each_interval() {
        let start = Instant::now();
        let mut sample = Sample::new(start);
        let due: Vec<u64> = (1..=30)
            .filter(|s| {
                sample.take(start + Duration::from_secs(*s), [0; 2], Duration::from_secs(10))
            })
            .collect();
        assert_eq!(due, [10, 20, 30]);
    }
}

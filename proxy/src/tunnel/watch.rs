//! Looks at the open tunnels once in a while: rates for `/tunnels`, and a line in the log
//! for those that last.
//!
//! Runs on the control plane and reads the tunnels' atomics: it wakes no worker and no
//! tunnel. Ten thousand lines due at once are written at once, by the control plane alone.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::registry::{Entry, Registry};

/// Time between two looks, and what a rate is taken over.
pub const SAMPLE: Duration = Duration::from_secs(1);

/// A tunnel as it was when it was last looked at. Times are milliseconds from its opening:
/// there may be very many tunnels, and none is open for longer than a `u32` of them, 49 days,
/// without anybody minding that its rate is wrong for a moment then.
#[derive(Debug, Default)]
pub(super) struct Sample {
    at_ms: AtomicU32,
    logged_ms: AtomicU32,
    /// To the server, to the client.
    bytes: [AtomicU64; 2],
    rates: [AtomicU64; 2],
}

impl Sample {
    /// Bytes per second between the last two looks: to the server, to the client.
    pub(super) fn rates(&self) -> [u64; 2] {
        self.rates.each_ref().map(|rate| rate.load(Relaxed))
    }

    /// Takes another look at a tunnel of this age. Whether a line for the log is due.
    fn take(&self, age: Duration, bytes: [u64; 2], log_interval: Duration) -> bool {
        let now = age.as_millis() as u32;
        let since = |then: &AtomicU32| now.wrapping_sub(then.load(Relaxed));
        let elapsed = since(&self.at_ms);
        // Opened a moment ago: too short to tell.
        if u128::from(elapsed) >= SAMPLE.as_millis() / 2 {
            for (direction, bytes) in bytes.into_iter().enumerate() {
                let more = bytes.saturating_sub(self.bytes[direction].load(Relaxed));
                self.rates[direction].store(more * 1000 / u64::from(elapsed), Relaxed);
                self.bytes[direction].store(bytes, Relaxed);
            }
            self.at_ms.store(now, Relaxed);
        }
        let due = u128::from(since(&self.logged_ms)) >= log_interval.as_millis();
        if due {
            self.logged_ms.store(now, Relaxed);
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
    let age = now.saturating_duration_since(entry.opened);
    entry.sample.take(age, entry.bytes(), entry.info.log_interval)
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
        let ms = Duration::from_millis;
        let never = Duration::MAX;
        let sample = Sample::default();
        // Too early to tell; what came then counts at the next look.
        sample.take(ms(10), [1_000_000, 0], never);
        assert_eq!(sample.rates(), [0, 0]);
        sample.take(ms(2_000), [3_000_000, 50], never);
        assert_eq!(sample.rates(), [1_500_000, 25]);
        sample.take(ms(3_000), [3_000_000, 50], never);
        assert_eq!(sample.rates(), [0, 0]);
        let weeks = Duration::from_millis(u64::from(u32::MAX) + 2_000);
        sample.take(weeks, [3_000_000, 50], never);
        sample.take(weeks + ms(1_000), [3_001_000, 50], never);
        assert_eq!(sample.rates(), [1_000, 0]);
    }

    #[test]
    fn lines_are_due_once_in_each_interval() {
        let sample = Sample::default();
        let due: Vec<u64> = (1..=30)
            .filter(|s| sample.take(Duration::from_secs(*s), [0; 2], Duration::from_secs(10)))
            .collect();
        assert_eq!(due, [10, 20, 30]);
    }
}

//! Waiting with a bound: the only place where the tests look at the clock.
//!
//! Bounds are generous because the suite runs in parallel on few cores; they are there to
//! turn a hang into a readable failure, not to measure.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// What every wait is multiplied by: `UNDERPASS_TEST_TIME_SCALE` when the tests are compiled,
/// else 1. An emulated processor (`cargo xtask vm-test`) is that much slower.
pub const SCALE: u32 = match option_env!("UNDERPASS_TEST_TIME_SCALE") {
    Some(text) => number(text),
    None => 1,
};

/// How long a peer waits for something that should come at once.
pub const BOUND: Duration = scaled(Duration::from_secs(15));

/// How long nothing may move before a writer counts as stalled.
pub const STALL: Duration = scaled(Duration::from_millis(400));

/// A time on this machine that is `time` on an ordinary one.
pub const fn scaled(time: Duration) -> Duration {
    Duration::from_nanos(time.as_nanos() as u64 * SCALE as u64)
}

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number @ 1..) => number,
        _ => panic!("UNDERPASS_TEST_TIME_SCALE is a whole number from 1"),
    }
}

/// Resolves with the future, or fails the test naming `what` was waited for.
pub async fn within<T>(bound: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {bound:?} for {what}"),
    }
}

/// Asks again and again until `check` is true, at most [`BOUND`].
///
/// For state that can only be looked at from outside (`/proc`, the admin endpoint).
pub async fn eventually<F>(what: &str, mut check: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let begin = Instant::now();
    while !check().await {
        assert!(begin.elapsed() < BOUND, "waited {BOUND:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

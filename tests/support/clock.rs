//! Waiting with a bound: the only place where the tests look at the clock.
//!
//! Bounds are generous because the suite runs in parallel on few cores; they are there to
//! turn a hang into a readable failure, not to measure.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long a peer waits for something that should come at once.
pub const BOUND: Duration = Duration::from_secs(15);

/// How long nothing may move before a writer counts as stalled.
pub const STALL: Duration = Duration::from_millis(400);

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

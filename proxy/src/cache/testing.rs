//! What tests of several parts of the cache have in common.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Waits for something that other threads do; ten seconds at most.
pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "{what}: not in ten seconds");
        thread::sleep(Duration::from_millis(2));
    }
}

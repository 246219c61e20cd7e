//! Targets whose last answer was for one request only: nobody waits for the next one, for a
//! while. In a fixed amount of memory, without a lock.
//!
//! A place holds 40 bits of a key and a time. Two keys in one place push each other out; two that
//! share the 40 bits as well are taken for each other, which costs a join, and nothing else.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::store::Key;

/// Places: 128 KiB.
const PLACES: usize = 1 << 14;

/// Bits of the time: seconds since the start, half a year.
const TIME_BITS: u32 = 24;

/// The targets.
#[derive(Debug)]
pub struct Uncacheable {
    start: Instant,
    ttl: Duration,
    places: Box<[AtomicU64]>,
}

impl Uncacheable {
    /// None yet; each is remembered for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { start: Instant::now(), ttl, places }
    }

    /// Remembers one.
    pub fn add(&self, text: &str) {
        let (place, tag) = self.place(text);
        // At least the second that has begun.
        let until = self.now() + self.ttl.as_secs().max(1);
        place.store(tag << TIME_BITS | (until & mask()), Relaxed);
    }

    /// Forgets one: its answer could be stored.
    pub fn remove(&self, text: &str) {
        let (place, tag) = self.place(text);
        let found = place.load(Relaxed);
        if found >> TIME_BITS == tag {
            // Somebody else's that has just come: it is a join more.
            let _ = place.compare_exchange(found, 0, Relaxed, Relaxed);
        }
    }

    /// Whether it is one.
    pub fn has(&self, text: &str) -> bool {
        let (place, tag) = self.place(text);
        let found = place.load(Relaxed);
        found != 0 && found >> TIME_BITS == tag && self.now() < (found & mask())
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn place(&self, text: &str) -> (&AtomicU64, u64) {
        let hash = Key::of(text).0;
        (&self.places[hash as usize % PLACES], (hash >> 64) as u64 >> TIME_BITS)
    }
}

const fn mask() -> u64 {
    (1 << TIME_BITS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_for_a_while_and_forgotten_when_told_so() {
        let known = Uncacheable::new(Duration::from_secs(100));
        assert!(!known.has("a"));
        known.add("a");
        assert!(known.has("a") && !known.has("b"));
        known.remove("b");
        assert!(known.has("a"));
        known.remove("a");
        assert!(!known.has("a"));
    }
}

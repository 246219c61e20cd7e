//! Rate limits: the generic cell rate algorithm over a table of fixed size.
//!
//! A key's whole state is one number, the *theoretical arrival time* (ITU-T I.371, annex A.1):
//! when a source that keeps exactly to the rate would send what it has sent by now. A request
//! is admitted if that lies no more than the burst ahead of the clock, and moves it on by the
//! time of one request. So a limit is a token bucket without a timer that fills it.
//!
//! All workers share the table, and none of them waits for another: both words of an entry
//! are atomics. Invariant: memory is what was asked for, whatever keys come. Each key has a
//! set of eight entries; where all are taken the one that has the least on its account
//! makes room, one that is at rest first, which loses nothing. A flood of keys can so be
//! forgiving to others, and never unjust.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Entries that a key may be in: one cache line and a half are looked through.
const WAYS: usize = 8;

/// Nobody's.
const FREE: u64 = 0;

/// How many requests in what time, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per [`Self::per`], at least 1.
    pub requests: u32,
    /// The time that they are counted over.
    pub per: Duration,
    /// Requests that may come at once after a rest, at least 1.
    pub burst: u32,
}

/// The accounts of a limit.
#[derive(Debug)]
pub struct Table {
    sets: Box<[[Entry; WAYS]]>,
    hasher: RandomState,
    /// The clock's zero.
    began: Instant,
    /// Nanoseconds that one request takes.
    each: u64,
    /// Nanoseconds that an account may be ahead.
    tolerance: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// The key's hash, never [`FREE`].
    tag: AtomicU64,
    /// Nanoseconds since the table began.
    arrival: AtomicU64,
}

impl Table {
    /// Accounts for at least `keys` keys; 16 bytes each.
    pub fn new(rate: Rate, keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).next_power_of_two();
        let each = (rate.per.as_nanos() / u128::from(rate.requests.max(1))).max(1);
        let each = u64::try_from(each).unwrap_or(u64::MAX);
        Self {
            sets: (0..sets).map(|_| Default::default()).collect(),
            hasher: RandomState::new(),
            began: Instant::now(),
            each,
            tolerance: each.saturating_mul(u64::from(rate.burst.max(1)) - 1),
        }
    }

    /// Counts a request of `key`, or says how long it has to wait.
    ///
    /// # Errors
    /// The time after which the next request of this key is admitted.
    pub fn admit(&self, key: &(impl Hash + ?Sized)) -> Result<(), Duration> {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.admit_at(key, now)
    }

    fn admit_at(&self, key: &(impl Hash + ?Sized), now: u64) -> Result<(), Duration> {
        let tag = self.hasher.hash_one(key).max(FREE + 1);
        let set = &self.sets[(tag >> 32) as usize & (self.sets.len() - 1)];
        let entry = set.iter().find(|entry| entry.tag.load(Relaxed) == tag);
        match entry {
            Some(entry) => self.count(entry, now),
            None => {
                self.open(set, tag, now);
                Ok(())
            }
        }
    }

    fn count(&self, entry: &Entry, now: u64) -> Result<(), Duration> {
        let mut arrival = entry.arrival.load(Relaxed);
        loop {
            let from = arrival.max(now);
            if from - now > self.tolerance {
                return Err(Duration::from_nanos(from - now - self.tolerance));
            }
            let to = from.saturating_add(self.each);
            match entry.arrival.compare_exchange_weak(arrival, to, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => arrival = other,
            }
        }
    }

    /// Another worker may do the same for the same key: then it has two accounts for a while,
    /// of which the first is found.
    fn open(&self, set: &[Entry; WAYS], tag: u64, now: u64) {
        let owed = |entry: &Entry| match entry.tag.load(Relaxed) {
            FREE => 0,
            _ => entry.arrival.load(Relaxed),
        };
        let mut least = &set[0];
        let mut owes = owed(least);
        for entry in &set[1..] {
            let other = owed(entry);
            if other < owes {
                (least, owes) = (entry, other);
            }
        }
        least.arrival.store(now.saturating_add(self.each), Relaxed);
        least.tag.store(tag, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn table(requests: u32, per: Duration, burst: u32, keys: usize) -> Table {
        Table::new(Rate { requests, per, burst }, keys)
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let table = table(10, Duration::from_secs(1), 5, 64);
        for _ in 0..5 {
            assert_eq!(table.admit_at("ada", SECOND), Ok(()));
        }
        assert_eq!(table.admit_at("ada", SECOND), Err(Duration::from_millis(100)));
        assert_eq!(table.admit_at("bob", SECOND), Ok(()), "another has an account of its own");
        // A tenth of a second is one request, and not two.
        assert_eq!(table.admit_at("ada", SECOND + SECOND / 10), Ok(()));
        assert_eq!(table.admit_at("ada", SECOND + SECOND / 10), Err(Duration::from_millis(100)));
        // After a rest there is a burst again, and no more than one.
        let later = 100 * SECOND;
        let admitted = (0..100).filter(|_| table.admit_at("ada", later).is_ok()).count();
        assert_eq!(admitted, 5);
    }

    #[test]
    fn over_time_the_rate_is_what_it_says() {
        let table = table(7, Duration::from_secs(3), 4, 64);
        let step = SECOND / 100;
        let admitted = (0..100 * 60).filter(|i| table.admit_at("a", i * step).is_ok()).count();
        // A minute of 7 in 3 seconds, and the burst before it.
        assert!((140..=144).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_flood_of_keys_takes_no_memory_and_hardly_an_account() {
        let table = table(1, Duration::from_secs(3600), 2, 4096);
        let size = table.sets.len() * WAYS;
        assert_eq!(size, 4096);
        // One that has used up what it may, many times over the time of a flood of others.
        assert_eq!(table.admit_at("heavy", 0), Ok(()));
        assert_eq!(table.admit_at("heavy", 0), Ok(()));
        for key in 0..100_000_u32 {
            assert_eq!(table.admit_at(&key, 1), Ok(()));
        }
        assert!(table.admit_at("heavy", 2).is_err(), "who owes more is kept longer");
        assert_eq!(table.sets.len() * WAYS, size);
    }

    #[test]
    fn those_at_rest_make_room_first() {
        let table = table(1, Duration::from_secs(1), 1, WAYS);
        for key in 0..WAYS {
            assert_eq!(table.admit_at(&key, 0), Ok(()));
        }
        let later = 2 * SECOND;
        assert_eq!(table.admit_at(&0, later), Ok(()));
        for key in 100..100 + WAYS - 1 {
            assert_eq!(table.admit_at(&key, later), Ok(()));
        }
        assert!(table.admit_at(&0, later).is_err(), "its account is still there");
    }

    #[test]
    fn workers_at_once_admit_no_more_than_one_would() {
        let table = table(1, Duration::from_secs(3600), 1000, 64);
        assert_eq!(table.admit_at("one", 0), Ok(()));
        let admitted: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| table.admit_at("one", 0).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 999);
    }
}

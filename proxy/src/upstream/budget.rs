//! How much may be sent again: a part of all requests, and a few each second besides.
//!
//! Without it retries would multiply the load of servers that fail because they have too
//! much. Each request pays in its part at the worker that sends it, and each retry takes one
//! out; what was not used is kept up to a hundred retries. The few each second are the
//! process's, so that an upstream with hardly any requests has retries too.

use std::{cell::Cell, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};

/// Retries that can be saved up at a worker, in hundredths.
const MOST_SAVED: u64 = 100 * 100;

/// The part of a worker. In hundredths of a retry.
#[derive(Debug, Default)]
pub struct Savings(Cell<u64>);

impl Savings {
    /// A request is sent for the first time: so many percent of a retry.
    pub fn pay_in(&self, percent: u32) {
        self.0.set((self.0.get() + u64::from(percent)).min(MOST_SAVED));
    }

    /// Whether there is a retry to be had.
    pub fn take(&self) -> bool {
        let left = self.0.get().checked_sub(100);
        left.is_some_and(|left| {
            self.0.set(left);
            true
        })
    }
}

/// What there is each second, for all workers: the second, and how many it has had.
#[derive(Debug, Default)]
pub struct EachSecond(AtomicU64);

impl EachSecond {
    /// Whether this second has a retry left, of so many; `now` in milliseconds.
    pub fn take(&self, most: u32, now: u64) -> bool {
        let second = (now / 1000) << 32;
        let taken = self.0.fetch_update(Relaxed, Relaxed, |had| {
            let had = if had & !0xffff_ffff == second { had } else { second };
            (had & 0xffff_ffff < u64::from(most)).then_some(had + 1)
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_part_of_all_requests() {
        let savings = Savings::default();
        assert!(!savings.take());
        let mut taken = 0;
        for _ in 0..1000 {
            savings.pay_in(20);
            taken += u32::from(savings.take());
        }
        assert_eq!(taken, 200);
        // A quiet day is worth no more than so many.
        (0..1_000_000).for_each(|_| savings.pay_in(20));
        assert_eq!((0..1000).filter(|_| savings.take()).count(), 100);
    }

    #[test]
    fn each_second_has_its_own() {
        let each = EachSecond::default();
        let taken = |now| (0..10).filter(|_| each.take(3, now)).count();
        assert_eq!([taken(1000), taken(1999), taken(2000), taken(9000)], [3, 0, 3, 3]);
        assert!(!each.take(0, 10_000));
    }
}

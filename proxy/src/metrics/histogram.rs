//! A histogram of durations that its one writer updates without a lock.
//!
//! `prometheus_client`'s own has a mutex that a scrape holds while it encodes; a worker
//! must never find it taken. Here an observation is two relaxed additions. A scrape may
//! see one of them without the other: the sum is then off by one observation, the count
//! never disagrees with the buckets because it is made of them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds. Fine below a millisecond, where the proxy's own share is; reaching to
/// minutes, where answers of language models end.
pub(super) const BOUNDS: [Duration; 20] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];

/// One bucket more than bounds: what lies beyond the last.
const BUCKETS: usize = BOUNDS.len() + 1;

/// Observed durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration);
        self.buckets[bucket].fetch_add(1, Relaxed);
        // 584 years of requests fit.
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }
}

/// Several histograms added up.
#[derive(Debug, Default)]
pub(super) struct Totals {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
}

impl Totals {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.load(Relaxed);
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(histogram.sum_nanos.load(Relaxed));
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_nanos).as_secs_f64()
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bound in seconds and count of each bucket, not cumulative.
    pub(super) fn buckets(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|i| {
            let bound = BOUNDS.get(i).map_or(f64::INFINITY, Duration::as_secs_f64);
            (bound, self.buckets[i])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_beyond_the_last_is_infinity() {
        let histogram = Histogram::default();
        histogram.observe(Duration::ZERO);
        histogram.observe(BOUNDS[0]);
        histogram.observe(BOUNDS[0] + Duration::from_nanos(1));
        histogram.observe(Duration::from_secs(100_000));
        let mut totals = Totals::default();
        totals.add(&histogram);
        totals.add(&histogram);
        let buckets = totals.buckets();
        assert_eq!(buckets[0], (0.0001, 4));
        assert_eq!(buckets[1], (0.00025, 2));
        assert_eq!(buckets[BUCKETS - 1], (f64::INFINITY, 2));
        assert_eq!(totals.count(), 8);
        assert!((totals.sum_seconds() - 200_000.000_4).abs() < 1e-6);
    }
}

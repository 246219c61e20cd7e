//! What a soak says: trends, what is left at the end, and whether that is well. Pure.
//!
//! Memory fails where it surely grows by more than 1 % an hour: the lower end of the slope's
//! confidence interval (95 %) is above that. And it must have grown by more than the step
//! in which the allocator asks the kernel for memory, or a run of minutes would make a leak
//! of one step; a run tells the smallest growth that it can see.

use super::{
    fit::{Point, Slope},
    load::Outcome,
    sample::{Gauge, Sample},
};

/// Share of its level by which memory may grow in an hour (REQ: under 1 %).
const MOST_PER_HOUR: f64 = 0.01;
/// What glibc's allocator takes at once: M_TOP_PAD (mallopt(3)) and a page.
const STEP_BYTES: f64 = 132.0 * 1024.0;
/// Of what a kind of load does, so much may fail.
const MOST_FAILURES: f64 = 0.01;

/// A gauge over the whole run.
#[derive(Debug, Clone)]
pub(crate) struct Trend {
    pub(crate) gauge: Gauge,
    /// Median.
    pub(crate) level: f64,
    /// `None` where there were too few samples.
    pub(crate) slope: Option<Slope>,
    /// Of the samples that were fitted.
    pub(crate) hours: f64,
}

impl Trend {
    /// Of its samples.
    pub(crate) fn of(gauge: Gauge, samples: &[Point]) -> Self {
        let hours = match (samples.first(), samples.last()) {
            (Some(first), Some(last)) => last.0 - first.0,
            _ => 0.0,
        };
        let level = crate::stats::median(samples.iter().map(|sample| sample.1));
        Self { gauge, level, slope: super::fit::slope(samples), hours }
    }

    /// Growth in an hour as a share of the level.
    pub(crate) fn share(&self, per_hour: f64) -> f64 {
        per_hour / self.level.max(1.0)
    }

    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        if !matches!(self.gauge, Gauge::Rss | Gauge::Anon) {
            return None;
        }
        let slope = self.slope?;
        let grown = slope.per_hour * self.hours;
        (self.share(slope.low) > MOST_PER_HOUR && grown > STEP_BYTES).then(|| {
            format!(
                "{} grows by {:.1} % per hour, by {:.1} at least",
                self.gauge.name(),
                100.0 * self.share(slope.per_hour),
                100.0 * self.share(slope.low)
            )
        })
    }

    /// The smallest growth of memory per hour that can fail a run, as a share.
    pub(crate) fn visible(&self) -> f64 {
        self.share(STEP_BYTES / self.hours.max(f64::MIN_POSITIVE)).max(MOST_PER_HOUR)
    }
}

/// Everything that is wrong; `pipes` is what the pools may keep beyond the base.
pub(crate) fn faults(
    trends: &[Trend],
    outcomes: &[Outcome],
    (base, end): (&Sample, &Sample),
    pipes: f64,
) -> Vec<String> {
    let mut faults: Vec<String> = trends.iter().filter_map(Trend::fault).collect();
    for outcome in outcomes {
        let all = outcome.done + outcome.failed;
        if outcome.done == 0 || outcome.failed as f64 > MOST_FAILURES * all as f64 {
            let reason = outcome.reason.as_deref().unwrap_or("none was finished");
            faults.push(format!("{}: {} of {all} failed: {reason}", outcome.name, outcome.failed));
        }
    }
    faults.extend(left(base, end, pipes));
    faults
}

/// What has not come back to its base.
pub(crate) fn left(base: &Sample, end: &Sample, pipes: f64) -> Vec<String> {
    let of = |sample: &Sample, gauge| sample.get(&gauge).copied().unwrap_or(0.0);
    [
        (Gauge::Tunnels, 0.0),
        (Gauge::Sockets, 0.0),
        (Gauge::ToOrigin, 0.0),
        (Gauge::OtherFds, 0.0),
        (Gauge::Threads, 0.0),
        (Gauge::Pipes, pipes),
    ]
    .into_iter()
    .filter(|&(gauge, more)| of(end, gauge) > of(base, gauge) + more)
    .map(|(gauge, _)| {
        format!("{}: {} at the end, {} before", gauge.name(), of(end, gauge), of(base, gauge))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    fn memory(hours: f64, per_hour: f64) -> Trend {
        let samples: Vec<Point> = (0..200)
            .map(|index| f64::from(index) * hours / 199.0)
            .map(|hour| (hour, 20.0 * MB + per_hour * hour))
            .collect();
        Trend::of(Gauge::Anon, &samples)
    }

    fn outcome(done: u64, failed: u64) -> Outcome {
        Outcome { name: "404", done, failed, reason: Some("a reason".into()) }
    }

    #[test]
    fn memory_that_grows_by_more_than_a_hundredth_an_hour_fails() {
        let none = Sample::new();
        let judge = |trend| faults(&[trend], &[], (&none, &none), 0.0).len();
        assert_eq!(judge(memory(1.0, 0.5 * MB)), 1);
        assert_eq!(judge(memory(1.0, 0.1 * MB)), 0);
        assert_eq!(judge(memory(1.0, -5.0 * MB)), 0);
        // In a minute that is less than the allocator's step: nobody can tell.
        let short = memory(1.0 / 60.0, 0.5 * MB);
        assert!(short.visible() > 0.3);
        assert_eq!(judge(short), 0);
        assert_eq!(judge(memory(1.0 / 60.0, 20.0 * MB)), 1);
    }

    #[test]
    fn other_things_than_memory_may_rise_meanwhile() {
        let sockets: Vec<Point> = (0..100).map(|i| (f64::from(i), f64::from(i))).collect();
        let trend = Trend::of(Gauge::Sockets, &sockets);
        assert!(trend.slope.unwrap().low > 0.9);
        assert_eq!(trend.fault(), None);
    }

    #[test]
    fn what_does_not_come_back_is_told() {
        let base = Sample::from([(Gauge::Sockets, 10.0), (Gauge::Pipes, 0.0)]);
        let mut end = base.clone();
        assert_eq!(left(&base, &end, 4.0), Vec::<String>::new());
        end.insert(Gauge::Pipes, 4.0);
        assert_eq!(left(&base, &end, 4.0), Vec::<String>::new());
        end.extend([(Gauge::Pipes, 5.0), (Gauge::Sockets, 11.0), (Gauge::Tunnels, 1.0)]);
        assert_eq!(left(&base, &end, 4.0).len(), 3);
    }

    #[test]
    fn a_load_that_does_not_run_is_no_soak() {
        let none = Sample::new();
        for (outcome, wanted) in [(outcome(100, 1), 0), (outcome(100, 2), 1), (outcome(0, 0), 1)] {
            let found = faults(&[], &[outcome], (&none, &none), 0.0);
            assert_eq!(found.len(), wanted, "{found:?}");
        }
    }
}

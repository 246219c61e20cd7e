//! Other work on the machine: measurements that it disturbed are made again, and how much
//! of it there was is told.

use anyhow::Context as _;

use crate::stats::median;

/// A measurement during which others kept more CPUs busy than this is made again.
const DISTURBED_CPUS: f64 = 0.15;
const ATTEMPTS: u32 = 3;

/// What is left of the patience of a run with its neighbours.
#[derive(Debug)]
pub(crate) struct Calm {
    /// Measurements that may still be made again: bounds the time of a run.
    retries: u32,
}

impl Calm {
    /// Makes at most so many measurements again.
    pub(crate) fn new(retries: u32) -> Self {
        Self { retries }
    }

    /// Measures, and again if others worked too much meanwhile; the calmest attempt counts.
    ///
    /// # Errors
    /// As `measure`.
    pub(crate) fn measure<T>(
        &mut self,
        others_cpus: impl Fn(&T) -> f64,
        mut measure: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut best: Option<T> = None;
        for _ in 0..ATTEMPTS {
            let one = measure()?;
            let others = others_cpus(&one);
            if best.as_ref().is_none_or(|best| others < others_cpus(best)) {
                best = Some(one);
            }
            if others < DISTURBED_CPUS || self.retries == 0 {
                break;
            }
            self.retries -= 1;
        }
        best.context("not measured")
    }
}

/// The line that says how far to trust a run: CPUs that others kept busy, by measurement.
pub(crate) fn other_work(others: &[f64]) -> String {
    let most = others.iter().copied().fold(0.0, f64::max);
    format!(
        "Other work on this machine meanwhile: {:.2} CPUs (median of {} measurements), {most:.2} at most.",
        median(others.iter().copied()),
        others.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calmest_attempt_counts_and_patience_ends() {
        let mut noise = [0.9, 0.4, 0.6, 0.8, 0.1].into_iter();
        let mut next = || noise.next().context("asked too often");
        let mut calm = Calm::new(3);
        assert_eq!(calm.measure(|&noise| noise, &mut next).unwrap(), 0.4);
        // Three of them made again: none is left, so the first is taken as it is.
        assert_eq!(calm.measure(|&noise| noise, &mut next).unwrap(), 0.8);
        assert_eq!(calm.measure(|&noise| noise, &mut next).unwrap(), 0.1);
    }

    #[test]
    fn other_work_is_told_with_its_worst() {
        let text = other_work(&[0.0, 0.02, 0.5]);
        assert!(text.contains("0.02 CPUs (median of 3") && text.contains("0.50 at most"), "{text}");
    }
}

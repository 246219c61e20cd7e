//! A trend through samples that jump: Theil and Sen's slope, with its confidence.
//!
//! The slope is the median of the slopes between all pairs of points, so up to 29 % of them
//! may be wild. Its confidence interval follows from Kendall's statistic: without a trend
//! the number of rising pairs less that of falling ones is normal around 0, with a variance
//! of n(n-1)(2n+5)/18 (P. K. Sen, "Estimates of the regression coefficient based on
//! Kendall's tau", 1968). That holds for points that do not depend on each other. Samples of
//! memory do, if they are close: so they are first gathered into blocks, each of which
//! counts once, by its median.

use crate::stats::median;

/// Points that are fitted at the most: blocks are this many, or fewer.
const BLOCKS: usize = 40;
/// Below this a confidence of 95 % is not to be had.
const FEWEST: usize = 6;
/// Two-sided 95 % of the normal distribution.
const QUANTILE: f64 = 1.96;

/// A point: hours since the beginning, and a value.
pub(crate) type Point = (f64, f64);

/// A trend, in units of the value per hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    pub(crate) per_hour: f64,
    /// Within these with a confidence of 95 %.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The trend of samples in the order of time; `None` if there are too few.
pub(crate) fn slope(samples: &[Point]) -> Option<Slope> {
    let points = blocks(samples);
    let n = points.len();
    if n < FEWEST {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    for (index, (x, y)) in points.iter().enumerate() {
        slopes.extend(points[index + 1..].iter().map(|(x2, y2)| (y2 - y) / (x2 - x)));
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let (n, pairs) = (n as f64, slopes.len() as f64);
    let spread = QUANTILE * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let at = |rank: f64| slopes[(rank.round().max(0.0) as usize).min(slopes.len() - 1)];
    Some(Slope {
        low: at((pairs - spread) / 2.0 - 1.0),
        high: at((pairs + spread) / 2.0),
        per_hour: median(slopes.iter().copied()),
    })
}

/// The median of the times and of the values of each block.
fn blocks(samples: &[Point]) -> Vec<Point> {
    let size = samples.len().div_ceil(BLOCKS).max(1);
    samples
        .chunks(size)
        .map(|block| {
            (median(block.iter().map(|point| point.0)), median(block.iter().map(|point| point.1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -0.5 and 0.5 that look like chance and are the same each time.
    fn noise() -> impl Iterator<Item = f64> {
        let mut state = 1_u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / f64::from(1_u32 << 31) - 0.5
        })
    }

    fn line(count: usize, base: f64, per_hour: f64, noise_by: f64) -> Vec<Point> {
        let hours = (0..count).map(|index| index as f64 / 720.0);
        hours.zip(noise()).map(|(x, noise)| (x, base + per_hour * x + noise_by * noise)).collect()
    }

    #[test]
    fn a_line_is_its_own_slope() {
        let slope = slope(&line(400, 100.0, 7.0, 0.0)).unwrap();
        for one in [slope.per_hour, slope.low, slope.high] {
            assert!((one - 7.0).abs() < 1e-6, "{slope:?}");
        }
    }

    #[test]
    fn noise_around_a_level_is_no_growth() {
        let slope = slope(&line(400, 100.0, 0.0, 5.0)).unwrap();
        assert!(slope.low < 0.0 && slope.high > 0.0, "{slope:?}");
    }

    #[test]
    fn growth_is_seen_through_noise() {
        let slope = slope(&line(720, 100.0, 3.0, 2.0)).unwrap();
        assert!(slope.low > 0.0 && slope.low < 3.0 && slope.high > 3.0, "{slope:?}");
    }

    #[test]
    fn wild_samples_and_one_step_at_the_end_do_not_bend_it() {
        let mut samples = line(400, 100.0, 0.0, 1.0);
        for index in (0..400).step_by(7) {
            samples[index].1 += 10_000.0;
        }
        let bent = slope(&samples).unwrap();
        assert!(bent.per_hour.abs() < 1.0 && bent.low < 0.0, "{bent:?}");
        let mut samples = line(400, 100.0, 0.0, 0.0);
        samples.iter_mut().skip(380).for_each(|sample| sample.1 += 50.0);
        assert_eq!(slope(&samples).unwrap().per_hour, 0.0);
    }

    #[test]
    fn few_samples_say_nothing() {
        assert_eq!(slope(&line(FEWEST - 1, 1.0, 1.0, 0.0)), None);
        assert!(slope(&line(FEWEST, 1.0, 1.0, 0.0)).is_some());
    }
}

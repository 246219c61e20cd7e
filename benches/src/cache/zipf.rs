//! Which object is asked for next: few are popular, most are not (Zipf's law, as measured for
//! requests of the Web by Breslau et al., INFOCOM 1999). Pure; the same choices in every run.

/// Popularity falls with this power of the rank: within what Breslau et al. found, 0.64 to 0.83.
const EXPONENT: f64 = 0.8;

/// The chance of each object, summed up.
#[derive(Debug)]
pub(crate) struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    /// Of so many objects; the first is the most popular.
    pub(crate) fn new(objects: usize) -> Self {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += 1.0 / (rank as f64).powf(EXPONENT);
            sum
        };
        Self { sums: (1..=objects).map(add).collect() }
    }

    /// The object for a number between 0 and 1.
    pub(crate) fn pick(&self, share: f64) -> usize {
        let most = self.sums.last().copied().unwrap_or_default();
        let at = self.sums.partition_point(|&sum| sum <= share * most);
        at.min(self.sums.len().saturating_sub(1))
    }
}

/// Numbers between 0 and 1, one stream for each seed (SplitMix64, Steele et al. 2014).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The 53 bits that a double has.
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_asked_for_most_and_all_can_be() {
        let zipf = Zipf::new(1_000);
        assert_eq!((zipf.pick(0.0), zipf.pick(1.0)), (0, 999));
        let mut counts = vec![0_u32; 1_000];
        let mut random = Random::new(7);
        for _ in 0..100_000 {
            counts[zipf.pick(random.share())] += 1;
        }
        // By the law: twice the rank, 2^0.8 times rarer; and a tenth of them has about half.
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((ratio - 2_f64.powf(EXPONENT)).abs() < 0.2, "{ratio}");
        let popular: u32 = counts[..100].iter().sum();
        assert!((45_000..65_000).contains(&popular), "{popular}");
        assert!(counts[900..].iter().sum::<u32>() > 1_000);
    }

    #[test]
    fn streams_differ_by_their_seed() {
        let of = |seed| Random::new(seed).share();
        assert!(of(1) != of(2) && of(1) == of(1));
    }
}

//! At random, in proportion to weights. Needs no memory of earlier choices, so that many
//! proxies in front of the same servers do not walk in step.

use std::hash::{BuildHasher, RandomState};

use super::Candidate;

/// A source of chance that is fast and not for secrets: SplitMix64 (Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// One that nobody knows the beginning of.
    pub fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// One that always gives the same.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is more than 0. Off by less than 2⁻³² of a share.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// One of those that are `open`.
    pub fn choose(
        &mut self,
        candidates: &[Candidate],
        open: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let open = || candidates.iter().enumerate().filter(|(at, _)| open(*at));
        let all: u64 = open().map(|(_, candidate)| u64::from(candidate.weight)).sum();
        if all == 0 {
            return None;
        }
        let mut left = self.below(all);
        for (at, candidate) in open() {
            match left.checked_sub(u64::from(candidate.weight)) {
                None => return Some(at),
                Some(less) => left = less,
            }
        }
        None
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{CRITICAL, candidates, chi_square},
        *,
    };

    #[test]
    fn shares_follow_the_weights() {
        for weights in [&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1][..], &[1, 2, 3, 10], &[1000, 1]] {
            let candidates = candidates(weights);
            let (mut random, mut counts) = (Random::from_seed(7), vec![0; weights.len()]);
            for _ in 0..100_000 {
                counts[random.choose(&candidates, |_| true).unwrap()] += 1;
            }
            let statistic = chi_square(&counts, weights);
            assert!(statistic < CRITICAL[weights.len() - 2], "{counts:?}: {statistic}");
        }
    }

    #[test]
    fn two_sources_do_not_walk_in_step() {
        let (mut one, mut other) = (Random::new(), Random::new());
        assert_ne!([one.bits(), one.bits()], [other.bits(), other.bits()]);
    }
}

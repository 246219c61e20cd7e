//! One after the other, each in proportion to its weight: smooth weighted round robin.
//!
//! Each turn every candidate gains its weight, and the one that has most is chosen and pays
//! all that was gained. So a server of weight 5 among two of weight 1 is chosen as
//! `a a b a c a a`, not five times in a row, and over as many turns as the weights sum up
//! to, each has exactly its share.

use super::{Candidate, Now};

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turns {
    /// What each has gained and not yet paid, in the order of the candidates.
    credit: Vec<i64>,
}

impl Turns {
    /// For so many candidates. `first` staggers workers, so that they do not all begin with
    /// the same one.
    pub fn new(candidates: &[Candidate], first: usize) -> Self {
        let mut turns = Self { credit: vec![0; candidates.len()] };
        for _ in 0..first % candidates.len().max(1) {
            turns.advance(candidates, |_| true);
        }
        turns
    }

    /// The next of those that are open, by its place among the candidates.
    pub fn next(&mut self, candidates: &[Candidate], now: &impl Now) -> Option<usize> {
        self.advance(candidates, |at| now.is_open(at))
    }

    /// Goes on with the turns of `before`, where the candidates are the same: weights that
    /// change a little every moment must not begin anew each time.
    pub fn go_on(&mut self, before: Self) {
        if before.credit.len() == self.credit.len() {
            *self = before;
        }
    }

    fn advance(&mut self, candidates: &[Candidate], open: impl Fn(usize) -> bool) -> Option<usize> {
        let mut gained = 0;
        let mut chosen: Option<usize> = None;
        for (at, candidate) in candidates.iter().enumerate().filter(|(at, _)| open(*at)) {
            let weight = i64::from(candidate.weight);
            gained += weight;
            self.credit[at] += weight;
            if chosen.is_none_or(|best| self.credit[at] > self.credit[best]) {
                chosen = Some(at);
            }
        }
        self.credit[chosen?] -= gained;
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Played, candidates},
        *,
    };

    fn turns(weights: &[u32], first: usize, n: usize) -> Vec<usize> {
        let candidates = candidates(weights);
        let mut turns = Turns::new(&candidates, first);
        let now = Played::idle(weights.len());
        (0..n).map(|_| turns.next(&candidates, &now).unwrap()).collect()
    }

    #[test]
    fn equal_weights_take_turns_and_workers_begin_elsewhere() {
        assert_eq!(turns(&[1, 1, 1], 0, 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&[1, 1, 1], 4, 6), [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn weights_are_met_exactly_and_without_bursts() {
        assert_eq!(turns(&[5, 1, 1], 0, 7), [0, 0, 1, 0, 2, 0, 0]);
        let chosen = turns(&[700, 200, 100], 0, 10_000);
        for (server, share) in [(0, 7000), (1, 2000), (2, 1000)] {
            assert_eq!(chosen.iter().filter(|at| **at == server).count(), share);
        }
        // At no time is anybody a whole turn ahead of its share or behind it.
        for (n, window) in (1..=chosen.len()).map(|n| (n, &chosen[..n])) {
            let had = window.iter().filter(|at| **at == 2).count() as f64;
            assert!((had - n as f64 / 10.0).abs() <= 1.0, "{had} of {n}");
        }
    }

    #[test]
    fn who_is_not_open_is_passed_over() {
        let candidates = candidates(&[1, 1, 1]);
        let mut turns = Turns::new(&candidates, 0);
        let now = Played { closed: vec![1], ..Played::idle(3) };
        let chosen: Vec<_> = (0..4).map(|_| turns.next(&candidates, &now).unwrap()).collect();
        assert_eq!(chosen, [0, 2, 0, 2]);
    }
}

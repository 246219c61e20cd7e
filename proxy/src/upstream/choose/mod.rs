//! The rules by which one of several servers is chosen. Pure: what is known of the candidates
//! goes in, a place among them comes out.
//!
//! What each rule promises is in its file, with the test that holds it to that.

pub mod hash;
pub mod least;
pub mod peak;
pub mod random;
pub mod turns;

use random::Random;
use turns::Turns;

use crate::config::Balance;

/// A server that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place among the servers of the upstream.
    pub server: usize,
    /// Its share in proportion to the others'; more than 0.
    pub weight: u32,
    /// What it is for a hash: of its address, so the same in every worker and every process.
    pub id: u64,
}

/// What is known of the candidates just now, each by its place.
pub trait Now {
    /// Whether it may be chosen for this request.
    fn is_open(&self, at: usize) -> bool;
    /// Requests under way to it, of all workers.
    fn in_flight(&self, at: usize) -> usize;
    /// How long it takes to answer, in milliseconds; 0 as long as that is not known.
    fn latency(&self, at: usize) -> f64;
}

/// A rule and what it remembers between two choices.
#[derive(Debug)]
pub enum Chooser {
    /// One after the other.
    RoundRobin(Turns),
    /// At random.
    Random(Random),
    /// Who has least to do.
    LeastConnections(Random),
    /// The better of two.
    PeakEwma(Random),
    /// Always the same for the same key, of which none may have more than so many percent of
    /// its share; at random for requests without one.
    Hash(Option<u32>, Random),
}

impl Chooser {
    /// The rule for these candidates, at the worker of this number. `bound`: the most load of
    /// [`Balance::Hash`], in percent of a fair share.
    pub fn new(
        balance: Balance,
        bound: Option<u32>,
        candidates: &[Candidate],
        worker: usize,
    ) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin(Turns::new(candidates, worker)),
            Balance::Random => Self::Random(Random::new()),
            Balance::LeastConnections => Self::LeastConnections(Random::new()),
            Balance::PeakEwma => Self::PeakEwma(Random::new()),
            Balance::Hash => Self::Hash(bound, Random::new()),
        }
    }

    /// Goes on with what `before` remembered of the same candidates.
    pub fn go_on(&mut self, before: Self) {
        if let (Self::RoundRobin(turns), Self::RoundRobin(before)) = (self, before) {
            turns.go_on(before);
        }
    }

    /// Whether it asks for latencies, which depend on the time.
    pub fn goes_by_time(&self) -> bool {
        matches!(self, Self::PeakEwma(_))
    }

    /// One of those that are open, by its place among the candidates. `key` is the hash of
    /// what the request is known by.
    pub fn choose(
        &mut self,
        candidates: &[Candidate],
        key: Option<u64>,
        now: &impl Now,
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(turns) => turns.next(candidates, now),
            Self::Random(random) => random.choose(candidates, |at| now.is_open(at)),
            Self::LeastConnections(random) => least::choose(candidates, random, now),
            Self::PeakEwma(random) => peak::choose(candidates, random, now),
            Self::Hash(bound, random) => match key {
                Some(key) => hash::choose(candidates, key, *bound, now),
                None => random.choose(candidates, |at| now.is_open(at)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Candidates of these weights.
    pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let of = |(server, &weight): (usize, &u32)| {
            let id = hash::of(format!("10.0.0.{server}:80").as_bytes());
            Candidate { server, weight, id }
        };
        weights.iter().enumerate().map(of).collect()
    }

    /// Servers as a test wants them.
    #[derive(Debug, Default)]
    pub(super) struct Played {
        pub(super) closed: Vec<usize>,
        pub(super) in_flight: Vec<Cell<usize>>,
        pub(super) latency: Vec<f64>,
    }

    impl Played {
        /// So many servers without load.
        pub(super) fn idle(servers: usize) -> Self {
            Self {
                closed: Vec::new(),
                in_flight: vec![Cell::new(0); servers],
                latency: vec![1.0; servers],
            }
        }

        /// A request begins at a server.
        pub(super) fn begin(&self, at: usize) {
            self.in_flight[at].set(self.in_flight[at].get() + 1);
        }

        /// One ends.
        pub(super) fn end(&self, at: usize) {
            self.in_flight[at].set(self.in_flight[at].get() - 1);
        }

        pub(super) fn loads(&self) -> Vec<usize> {
            self.in_flight.iter().map(Cell::get).collect()
        }
    }

    impl Now for Played {
        fn is_open(&self, at: usize) -> bool {
            !self.closed.contains(&at)
        }
        fn in_flight(&self, at: usize) -> usize {
            self.in_flight[at].get()
        }
        fn latency(&self, at: usize) -> f64 {
            self.latency[at]
        }
    }

    /// Pearson's statistic of counts against shares in proportion to weights.
    pub(super) fn chi_square(counts: &[usize], weights: &[u32]) -> f64 {
        let (all, sum) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<u32>() as f64);
        let term = |(count, weight): (&usize, &u32)| {
            let wanted = all * f64::from(*weight) / sum;
            (*count as f64 - wanted).powi(2) / wanted
        };
        counts.iter().zip(weights).map(term).sum()
    }

    /// Passed by one in a thousand where the counts do follow the weights: critical values of
    /// the chi-square distribution for 1 to 9 degrees of freedom, at 0.001.
    pub(super) const CRITICAL: [f64; 9] =
        [10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88];

    #[test]
    fn no_rule_chooses_who_is_not_open() {
        let candidates = candidates(&[1, 2, 3]);
        let rules = [
            Balance::RoundRobin,
            Balance::Random,
            Balance::LeastConnections,
            Balance::PeakEwma,
            Balance::Hash,
        ];
        for rule in rules {
            let mut chooser = Chooser::new(rule, Some(125), &candidates, 0);
            for (closed, wanted) in
                [(vec![0, 2], Some(1)), (vec![0, 1], Some(2)), (vec![0, 1, 2], None)]
            {
                let now = Played { closed, ..Played::idle(3) };
                for key in [None, Some(1), Some(u64::MAX)] {
                    assert_eq!(chooser.choose(&candidates, key, &now), wanted, "{rule:?}");
                }
            }
        }
    }
}

//! The rules by which one of several servers is chosen. Pure: candidates in, a place out.

pub mod turns;

use turns::Turns;

use crate::config::Balance;

/// A server that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place among the servers of the upstream.
    pub server: usize,
    /// Its share in proportion to the others'; more than 0.
    pub weight: u32,
}

/// A rule and what it remembers between two choices.
#[derive(Debug)]
pub enum Chooser {
    /// One after the other.
    RoundRobin(Turns),
}

impl Chooser {
    /// The rule for these candidates, at the worker of this number.
    pub fn new(balance: Balance, candidates: &[Candidate], worker: usize) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin(Turns::new(candidates, worker)),
        }
    }

    /// One of those that are `open`, by its place among the candidates.
    pub fn choose(
        &mut self,
        candidates: &[Candidate],
        open: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(turns) => turns.next(candidates, open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Candidate;

    /// Candidates of these weights.
    pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().enumerate().map(|(server, &weight)| Candidate { server, weight }).collect()
    }
}

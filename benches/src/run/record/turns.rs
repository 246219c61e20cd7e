//! Rounds that take turns between targets, and what each says beside the first of them.

use anyhow::Context as _;

use super::targets::Target;
use crate::stats::median;

/// The figures of every target, round by round.
pub(super) struct Turns<const N: usize>(Vec<Vec<[f64; N]>>);

/// Has `measure` give the figures of one round of a target, in turns.
///
/// # Errors
/// As `measure`.
pub(super) fn in_turns<const N: usize>(
    targets: &[Target],
    rounds: usize,
    measure: impl Fn(&Target) -> anyhow::Result<[f64; N]>,
) -> anyhow::Result<Turns<N>> {
    let mut figures = vec![Vec::new(); targets.len()];
    for round in 0..rounds {
        for turn in 0..targets.len() {
            let at = (round + turn) % targets.len();
            let figure = measure(&targets[at]);
            figures[at].push(figure.with_context(|| targets[at].name.to_owned())?);
        }
    }
    Ok(Turns(figures))
}

impl<const N: usize> Turns<N> {
    /// The median of a column.
    pub(super) fn of(&self, target: usize, column: usize) -> f64 {
        median(self.0[target].iter().map(|round| round[column]))
    }

    /// The median of what each round is of the first target's.
    pub(super) fn ratio(&self, target: usize, column: usize) -> f64 {
        self.beside(target, column, |one, off| one / off)
    }

    /// The median of what each round has more than the first target's.
    pub(super) fn added(&self, target: usize, column: usize) -> f64 {
        self.beside(target, column, |one, off| one - off)
    }

    fn beside(&self, target: usize, column: usize, compare: impl Fn(f64, f64) -> f64) -> f64 {
        let pairs = self.0[target].iter().zip(&self.0[0]);
        median(pairs.map(|(one, off)| compare(one[column], off[column])))
    }
}

//! What directions have moved, by engine: the sums behind the metrics.

use std::ops::AddAssign;

use super::meter::Engine;

/// Figures of one direction, or the sums of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Bytes handed on, by engine in the order of [`Engine::ALL`].
    pub(crate) bytes: [u64; Engine::ALL.len()],
    /// Changes of the engine.
    pub(crate) changes: u64,
    /// Messages that programs passed to userspace, in the order of [`PASSED`].
    pub(crate) passed: [u64; PASSED.len()],
}

/// Why programs pass messages to userspace, as a label: something before them still goes
/// there; the receiver has as much as it may; the receiver's socket is gone.
pub(crate) const PASSED: [&str; 3] = ["order", "bound", "target"];

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.bytes.iter_mut().zip(other.bytes).for_each(|(sum, more)| *sum += more);
        self.changes += other.changes;
        self.passed.iter_mut().zip(other.passed).for_each(|(sum, more)| *sum += more);
    }
}

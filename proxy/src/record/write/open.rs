//! What is known of records that have begun and not ended, from one batch to the next.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::record::{
    event::{Gap, Why},
    redact::{Body, Framing},
};

/// A record that has begun.
#[derive(Default)]
pub(super) struct Open {
    /// That it has so far.
    pub(super) lines: u64,
    pub(super) sides: [Direction; 2],
}

#[derive(Default)]
pub(super) struct Direction {
    pub(super) body: Body,
    /// Its head has come, and says that it is in no coding.
    pub(super) is_plain: bool,
    /// Where JSON ends for sure, as far as its head says.
    pub(super) framing: Framing,
    /// Bytes are missing, and what comes may be anywhere in a value that is to be blanked.
    pub(super) is_lost: bool,
    /// What was left out because it cannot be searched.
    pub(super) left_out: Gap,
}

impl Direction {
    pub(super) fn leaves_out(&mut self, why: Why, bytes: usize) {
        self.left_out.why = why;
        self.left_out.bytes += bytes as u64;
        self.left_out.chunks += 1;
    }
}

/// All of them, by the worker and their number.
#[derive(Default)]
pub(super) struct Table(HashMap<(usize, u64), Open, BuildHasherDefault<Numbers>>);

impl Table {
    pub(super) fn get(&mut self, worker: usize, record: u64) -> Option<&mut Open> {
        self.0.get_mut(&(worker, record))
    }

    pub(super) fn insert(&mut self, worker: usize, record: u64, open: Open) {
        self.0.insert((worker, record), open);
    }

    pub(super) fn remove(&mut self, worker: usize, record: u64) {
        self.0.remove(&(worker, record));
    }
}

/// Hashes numbers that count up: they are ours, and nobody can choose them so that they collide.
#[derive(Default)]
struct Numbers(u64);

impl Numbers {
    fn add(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(32) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Numbers {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.add(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, hash::Hash as _};

    use super::*;

    /// Tables take the lowest bits for the place and the highest for a first look.
    #[test]
    fn numbers_that_count_up_are_told_apart_by_both_ends_of_their_hash() {
        let (mut low, mut high) = (BTreeSet::new(), BTreeSet::new());
        for worker in 0..4_usize {
            for record in 0..256_u64 {
                let mut hash = Numbers::default();
                (worker, record).hash(&mut hash);
                low.insert(hash.finish() & 0x3ff);
                high.insert(hash.finish() >> 54);
            }
        }
        // Of 1,024 numbers at random some 650 are different.
        assert!(low.len() > 500 && high.len() > 500, "{} {}", low.len(), high.len());
    }
}

//! What was evicted lately without having been wanted: a few bytes for each, in a table that
//! forgets what others are written over.
//!
//! It may mistake one entry for another (one in four thousand million) or forget early. Then an
//! entry is believed to be wanted more than it is, or less: nothing is served by it.

/// Fingerprints of what was evicted.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    marks: Vec<u32>,
}

/// So many at least.
const LEAST: usize = 64;

impl Ghost {
    /// What the table takes, in bytes.
    pub(super) fn allocated(&self) -> usize {
        self.marks.capacity() * size_of::<u32>()
    }

    /// Remembers an entry by its hash. `entries`: how many are in memory, for it is worth to
    /// remember about as many.
    pub(super) fn remember(&mut self, hash: u64, entries: usize) {
        let wanted = entries.next_power_of_two().max(LEAST);
        if self.marks.len() < wanted || self.marks.len() > wanted * 8 {
            // What it knew is lost, which is seldom: the table doubles or is far too large.
            self.marks = vec![0; wanted];
        }
        let at = self.place(hash);
        self.marks[at] = mark(hash);
    }

    /// Whether it was evicted lately. Asked once: it is forgotten.
    pub(super) fn recall(&mut self, hash: u64) -> bool {
        if self.marks.is_empty() {
            return false;
        }
        let at = self.place(hash);
        let known = self.marks[at] == mark(hash);
        if known {
            self.marks[at] = 0;
        }
        known
    }

    fn place(&self, hash: u64) -> usize {
        // The upper half is the mark.
        hash as u32 as usize & (self.marks.len() - 1)
    }
}

/// Never 0, which is an empty place.
fn mark(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_once_and_has_a_bound() {
        let mut ghost = Ghost::default();
        assert!(!ghost.recall(1 << 40));
        ghost.remember(1 << 40, 10);
        assert!(ghost.recall(1 << 40));
        assert!(!ghost.recall(1 << 40));
        for hash in 0..100_000u64 {
            ghost.remember(hash << 33 | hash, 1000);
        }
        assert_eq!(ghost.allocated(), 4096);
        ghost.remember(1 << 40, 10);
        assert_eq!(ghost.allocated(), 4 * LEAST, "it follows what is in memory down as well");
    }
}

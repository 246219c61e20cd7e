//! Free blocks by their length, so that one that fits is found without a search.
//!
//! Classes are as far apart as an eighth of their length, and have a list each; a bit for each list
//! says whether there is anything in it.

/// No block.
pub(super) const NONE: u32 = u32::MAX;

/// Classes of all lengths of 32 bits: seven of one length each, and eight for each power of two.
const CLASSES: usize = 8 + 29 * 8;

/// Lists of one kind of blocks.
#[derive(Debug)]
pub(super) struct Classes {
    some: [u64; CLASSES.div_ceil(64)],
    first: Box<[u32; CLASSES]>,
}

impl Default for Classes {
    fn default() -> Self {
        Self { some: Default::default(), first: Box::new([NONE; CLASSES]) }
    }
}

impl Classes {
    /// The class of blocks of this length.
    pub(super) fn of(len: u32) -> usize {
        match len.checked_ilog2() {
            None | Some(0..=2) => len as usize,
            Some(power) => {
                let eighth = (len >> (power - 3)) as usize & 7;
                (power as usize - 2) * 8 + eighth
            }
        }
    }

    /// The first of a class.
    pub(super) fn first(&self, class: usize) -> u32 {
        self.first[class]
    }

    /// Sets it.
    pub(super) fn set_first(&mut self, class: usize, node: u32) {
        self.first[class] = node;
        let bit = 1 << (class % 64);
        match node {
            NONE => self.some[class / 64] &= !bit,
            _ => self.some[class / 64] |= bit,
        }
    }

    /// The first of the least class above this one that has any.
    pub(super) fn above(&self, class: usize) -> Option<u32> {
        let from = class + 1;
        let mut word = from / 64;
        let mut bits = self.some.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.some.get(word)?;
        }
        Some(self.first[word * 64 + bits.trailing_zeros() as usize])
    }

    /// The first of the highest class that has any.
    pub(super) fn highest(&self) -> Option<u32> {
        let (word, bits) = self.some.iter().enumerate().rfind(|(_, bits)| **bits != 0)?;
        Some(self.first[word * 64 + 63 - bits.leading_zeros() as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_in_the_order_of_lengths() {
        let mut before = 0;
        for len in (0..5000).chain((0..32).map(|power| (1u32 << power).saturating_sub(1).max(5000)))
        {
            let class = Classes::of(len);
            assert!(class >= before && class < CLASSES, "{len}: {class} after {before}");
            before = class;
        }
        assert!(Classes::of(u32::MAX) < CLASSES);
    }

    #[test]
    fn what_is_above_and_what_is_highest_is_found() {
        let mut classes = Classes::default();
        assert_eq!((classes.above(0), classes.highest()), (None, None));
        classes.set_first(3, 30);
        classes.set_first(130, 1300);
        assert_eq!((classes.above(2), classes.above(3)), (Some(30), Some(1300)));
        assert_eq!((classes.above(130), classes.highest()), (None, Some(1300)));
        classes.set_first(130, NONE);
        assert_eq!(classes.highest(), Some(30));
    }
}

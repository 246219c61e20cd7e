//! Numbers and bytes that one seed decides.
//!
//! Every byte of a [`Stream`] depends on its place and on the stream, so a byte that is
//! lost, repeated, moved or of another tunnel is found at its exact offset, and where it
//! belongs can be told.

use std::fmt;

/// How far from its place a piece of a stream is looked for.
const NEAR: u64 = 4 << 20;

/// Bytes that make a piece unmistakable.
const TELLING: usize = 12;

/// splitmix64 (Steele, Lea, Flood 2014): every seed gives a good sequence.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A sequence of its own for each list of labels.
    pub fn new(seed: u64, labels: &[u64]) -> Self {
        Self(labels.iter().fold(mix(seed), |state, label| mix(state ^ mix(*label))))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// Whether something of this probability happens.
    pub fn percent(&mut self, probability: u64) -> bool {
        self.number() % 100 < probability
    }

    /// One of `low..=high`, every order of magnitude alike.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let doublings = (high / low).max(1).ilog2() as u64;
        let top = low << self.between(0, doublings);
        self.between(low, (2 * top).min(high))
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One direction of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    /// A stream of its own for each list of labels.
    pub fn new(seed: u64, labels: &[u64]) -> Self {
        Self(Rng::new(seed ^ 0x5eed_5eed, labels).number())
    }

    /// Writes what stands at `offset`.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let word = |index: u64| mix(self.0 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let within = (offset % 8) as usize;
        let (head, rest) = bytes.split_at_mut(((8 - within) % 8).min(bytes.len()));
        let first = word(offset / 8).to_le_bytes();
        head.copy_from_slice(&first[within..within + head.len()]);
        let start = (offset + head.len() as u64) / 8;
        let mut words = rest.chunks_exact_mut(8);
        let mut index = start;
        for chunk in &mut words {
            chunk.copy_from_slice(&word(index).to_le_bytes());
            index += 1;
        }
        let tail = words.into_remainder();
        tail.copy_from_slice(&word(index).to_le_bytes()[..tail.len()]);
    }

    /// Whether `got` is what stands at `offset`.
    ///
    /// # Errors
    /// The first byte that is not.
    pub fn check(self, offset: u64, got: &[u8]) -> Result<(), Wrong> {
        let mut wanted = [0; 4096];
        let mut at = offset;
        for piece in got.chunks(wanted.len()) {
            let wanted = &mut wanted[..piece.len()];
            self.fill(at, wanted);
            if piece != wanted {
                let same = piece.iter().zip(&*wanted).take_while(|(g, w)| g == w).count();
                let wrong = at + same as u64;
                let from = &got[(wrong - offset) as usize..];
                return Err(Wrong { offset: wrong, belongs_at: self.find(wrong, from) });
            }
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Where the beginning of `piece` stands near `offset`.
    fn find(self, offset: u64, piece: &[u8]) -> Option<u64> {
        let telling = piece.get(..TELLING)?;
        let start = offset.saturating_sub(NEAR);
        let mut window = vec![0; (offset - start + NEAR) as usize];
        self.fill(start, &mut window);
        let mut from = 0;
        while let Some(at) = window[from..].iter().position(|byte| *byte == telling[0]) {
            if window[from + at..].starts_with(telling) {
                return Some(start + (from + at) as u64);
            }
            from += at + 1;
        }
        None
    }
}

/// A byte that is not the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// Its place among the bytes received.
    pub offset: u64,
    /// Where in the stream it and the bytes behind it stand, if anywhere near.
    pub belongs_at: Option<u64>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, belongs_at } = *self;
        write!(f, "byte {offset} is wrong: ")?;
        match belongs_at {
            Some(at) if at > offset => write!(f, "{} bytes are missing before it", at - offset),
            Some(at) => write!(f, "it was {} bytes earlier already", offset - at),
            None => write!(f, "it belongs nowhere near"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_and_place_fit_together() {
        let stream = Stream::new(7, &[1]);
        let mut whole = vec![0; 10_000];
        stream.fill(0, &mut whole);
        for (start, length) in [(0, 1), (1, 3), (5, 20), (8, 8), (13, 4096), (4095, 5905)] {
            let mut piece = vec![0; length];
            stream.fill(start as u64, &mut piece);
            assert_eq!(piece, whole[start..start + length]);
            assert_eq!(stream.check(start as u64, &piece), Ok(()));
        }
        assert!(Stream::new(7, &[2]).check(0, &whole[..8]).is_err());
    }

    #[test]
    fn a_fault_is_found_at_its_offset_and_named() {
        let stream = Stream::new(7, &[1]);
        let mut whole = vec![0; 100_000];
        stream.fill(0, &mut whole);
        let lost = [&whole[..70_001], &whole[70_004..]].concat();
        let wrong = stream.check(0, &lost).unwrap_err();
        assert_eq!(wrong, Wrong { offset: 70_001, belongs_at: Some(70_004) });
        let repeated = [&whole[..50_000], &whole[49_000..]].concat();
        let wrong = stream.check(0, &repeated).unwrap_err();
        assert_eq!(wrong, Wrong { offset: 50_000, belongs_at: Some(49_000) });
        whole[99_999] ^= 1;
        let wrong = stream.check(0, &whole).unwrap_err();
        assert_eq!(wrong, Wrong { offset: 99_999, belongs_at: None });
    }

    #[test]
    fn numbers_stay_in_their_range_and_repeat_with_the_seed() {
        let mut one = Rng::new(3, &[1, 2]);
        let mut same = Rng::new(3, &[1, 2]);
        let mut other = Rng::new(3, &[2, 1]);
        assert_ne!(same.clone().number(), other.number());
        for _ in 0..1000 {
            let size = one.magnitude(1, 256 * 1024);
            assert!((1..=256 * 1024).contains(&size));
            assert_eq!(size, same.magnitude(1, 256 * 1024));
        }
    }
}

//! Numbers and bytes that one seed decides.
//!
//! Every byte of a [`Stream`] depends on its place and on the stream, so a byte that is
//! lost, repeated, moved or of another tunnel is found at its exact offset, and where it
//! belongs can be told.

use std::{fmt, sync::OnceLock};

/// Bytes after which a stream repeats: a prime, so that no buffer and no budget is a
/// multiple of it. Streams are the same bytes from different places on. Taking them from
/// memory costs a copy or a compare, which leaves the processor to what is tested.
const PERIOD: u64 = 4_194_301;

/// How far from its place a piece of a stream is looked for; within it, a place is unique.
const NEAR: u64 = PERIOD / 2;

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

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    // Two periods, so that a slice of up to one starts anywhere.
    BLOCK.get_or_init(|| {
        let mut rng = Rng(0);
        let mut period = Vec::with_capacity(2 * PERIOD as usize);
        while period.len() < PERIOD as usize {
            period.extend_from_slice(&rng.number().to_le_bytes());
        }
        period.truncate(PERIOD as usize);
        period.extend_from_within(..);
        period
    })
}

/// One direction of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    /// A stream of its own for each list of labels.
    pub fn new(seed: u64, labels: &[u64]) -> Self {
        Self(Rng::new(seed ^ 0x5eed_5eed, labels).number() % PERIOD)
    }

    /// What stands at `offset`, at most a period of it.
    fn at(self, offset: u64, length: usize) -> &'static [u8] {
        let start = ((self.0 + offset) % PERIOD) as usize;
        &block()[start..start + length.min(PERIOD as usize)]
    }

    /// Writes what stands at `offset`.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        for piece in bytes.chunks_mut(PERIOD as usize) {
            piece.copy_from_slice(self.at(at, piece.len()));
            at += piece.len() as u64;
        }
    }

    /// Whether `got` is what stands at `offset`.
    ///
    /// # Errors
    /// The first byte that is not.
    pub fn check(self, offset: u64, got: &[u8]) -> Result<(), Wrong> {
        let mut at = offset;
        for piece in got.chunks(PERIOD as usize) {
            let wanted = self.at(at, piece.len());
            if piece != wanted {
                let same = piece.iter().zip(wanted).take_while(|(g, w)| g == w).count();
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
        let window = self.at(start, PERIOD as usize);
        let found = window.windows(TELLING).position(|bytes| bytes == telling);
        found.map(|at| start + at as u64)
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

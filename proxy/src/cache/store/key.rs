//! Names of what is stored: keys of responses, objects, and the blocks of these.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::*},
};

use siphasher::sip128::SipHasher13;

/// What a response is found by: 128 bits of a hash of its text. Texts that share a key do no harm:
/// the text is stored, and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub u128);

impl Key {
    /// The key of a text. The same in every process, as it is stored.
    pub fn of(text: &str) -> Self {
        Self(SipHasher13::new().hash(text.as_bytes()).as_u128())
    }
}

/// One stored response. No two have the same, over all processes: a random number for the process
/// and one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId(pub(super) u128);

impl ObjectId {
    pub(super) fn next() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let process = *PROCESS.get_or_init(random);
        Self(u128::from(process) << 64 | u128::from(NEXT.fetch_add(1, Relaxed)))
    }
}

/// 64 bits that nobody outside can guess.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // Two, for one of them differs by a counter from others of its thread.
    let (first, second) = (RandomState::new(), RandomState::new());
    first.hash_one(std::process::id())
        ^ second.hash_one(std::time::SystemTime::now()).rotate_left(32)
}

/// Where a head or a block is kept, in either tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    id: [u64; 2],
    number: u32,
}

impl Slot {
    /// No block has this number: bodies are shorter.
    const HEAD: u32 = u32::MAX;

    /// What it takes where it is written.
    pub(super) const BYTES: usize = 20;

    pub(super) fn head(key: Key) -> Self {
        Self { id: halves(key.0), number: Self::HEAD }
    }

    /// `number` is below [`Self::HEAD`].
    pub(super) fn block(object: ObjectId, number: u32) -> Self {
        Self { id: halves(object.0), number }
    }

    /// One that stands for all heads with this fingerprint, to say that they are gone.
    pub(super) fn like(fingerprint: u64) -> Self {
        let number = Self { id: [0, 0], number: Self::HEAD }.fingerprint();
        Self { id: [fingerprint ^ number, 0], number: Self::HEAD }
    }

    /// As it is on the disk.
    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.id[0].to_le_bytes());
        out[8..16].copy_from_slice(&self.id[1].to_le_bytes());
        out[16..].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    pub(super) fn decode(from: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *from;
        let [i, j, k, l, m, n, o, p, number @ ..] = rest;
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let second = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        Self { id: [first, second], number: u32::from_le_bytes(number) }
    }

    pub(super) fn is_head(&self) -> bool {
        self.number == Self::HEAD
    }

    /// Which block it is.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The block of the same object that is so many behind it, if there can be one.
    pub(super) fn behind(&self, blocks: u32) -> Option<Self> {
        let number = self.number.checked_add(blocks).filter(|number| *number < Self::HEAD)?;
        Some(Self { number, ..*self })
    }

    /// The same for all blocks of one object.
    pub(super) fn of_object(&self) -> u64 {
        Self { number: 0, ..*self }.fingerprint()
    }

    /// 64 bits that stand for it where there is no room for more. Others may have the same.
    pub(super) fn fingerprint(&self) -> u64 {
        let number = u64::from(self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.id[0] ^ self.id[1].rotate_left(32) ^ number
    }
}

fn halves(id: u128) -> [u64; 2] {
    [(id >> 64) as u64, id as u64]
}

/// Spreads fingerprints over tables, in a way that nobody outside can foresee: keys are made from
/// what clients send, and many in one place would make it slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread(u64);

impl Spread {
    pub(super) fn new() -> Self {
        Self(random() | 1)
    }

    pub(super) fn hash(&self, fingerprint: u64) -> u64 {
        let product = u128::from(fingerprint ^ self.0) * u128::from(self.0.rotate_left(23) | 1);
        (product >> 64) as u64 ^ product as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_in_every_process() {
        // On disk: another value would lose what is stored.
        assert_eq!(
            Key::of("GET https://example.org/").0,
            0x5bfa_f246_6aaa_5aab_6c81_2068_7d96_5380
        );
    }

    #[test]
    fn what_stands_for_a_head_has_its_fingerprint() {
        let slot = Slot::head(Key::of("https://example.org/"));
        assert_eq!(Slot::like(slot.fingerprint()).fingerprint(), slot.fingerprint());
        assert_eq!(Slot::decode(&slot.encode()), slot);
    }

    #[test]
    fn objects_blocks_and_heads_differ() {
        let (a, b) = (ObjectId::next(), ObjectId::next());
        assert_ne!(a, b);
        let slots = [Slot::block(a, 0), Slot::block(a, 1), Slot::block(b, 0), Slot::head(Key(a.0))];
        for (i, one) in slots.iter().enumerate() {
            for other in &slots[i + 1..] {
                assert_ne!(one, other);
                assert_ne!(one.fingerprint(), other.fingerprint());
            }
        }
    }
}

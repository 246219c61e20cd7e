//! A block: bytes of a body, in memory of the arena.
//!
//! What comes from a connection is a slice of its read buffer, and a slice of a hundred bytes keeps
//! sixteen kilobytes alive; how many cannot be seen from it. So a block is a copy, made once, and
//! from then on shared: memory is what it is charged for. The copy is beside the path: the client
//! was sent the slices.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;

use super::arena::{Extent, Extents, Held};

/// Uses of a block after which sockets are given its pages instead of copies ([`crate::lend`]): what
/// is evicted before has cost nothing more, and later ones have saved as much as it costs then.
const LENT_AFTER: u32 = 16;

/// Bytes that are charged for as long as anybody has them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Block(Held<Body>);

/// The first part lies behind it.
#[derive(Debug)]
struct Body {
    len: usize,
    /// How often it was used, up to [`LENT_AFTER`] and some.
    uses: AtomicU32,
    /// Where there is no room for all of it in one piece.
    more: Box<[Extent]>,
}

impl Block {
    /// Bytes that the first part has to have at least.
    pub(super) const HEADER: usize = Held::<Body>::HEADER;

    /// What a block of `len` bytes takes of the arena.
    pub(super) fn size(len: usize) -> usize {
        Self::HEADER + len
    }

    /// A block of `len` bytes, which `fill` writes, part by part. The memory is [`Self::size`].
    ///
    /// # Errors
    /// If `fill` has failed.
    pub(super) fn new<E>(
        Extents { mut first, mut more }: Extents,
        len: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let parts = std::iter::once(&mut first.bytes_mut()[Self::HEADER..]);
        let parts = parts.chain(more.iter_mut().map(Extent::bytes_mut));
        let mut left = len;
        for part in parts {
            let of_it = left.min(part.len());
            fill(&mut part[..of_it])?;
            left -= of_it;
        }
        assert_eq!(left, 0, "too little memory");
        Ok(Self(Held::new(first, Body { len, uses: AtomicU32::new(0), more })))
    }

    /// Copies `pieces` together, which have `len` bytes.
    pub(super) fn copy(extents: Extents, pieces: &[Bytes], len: usize) -> Self {
        let mut from = pieces.iter().map(|piece| &piece[..]);
        let mut piece: &[u8] = &[];
        let filled: Result<Self, ()> = Self::new(extents, len, |mut to| {
            while !to.is_empty() {
                if piece.is_empty() {
                    piece = from.next().ok_or(())?;
                    continue;
                }
                let bytes = to.len().min(piece.len());
                let (now, rest) = to.split_at_mut(bytes);
                now.copy_from_slice(&piece[..bytes]);
                (to, piece) = (rest, &piece[bytes..]);
            }
            Ok(())
        });
        filled.expect("as many bytes as are said")
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, in parts that are one after the other.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.len();
        let all = std::iter::once(self.0.behind());
        all.chain(self.0.more.iter().map(Extent::bytes)).filter_map(move |part| {
            let part = &part[..left.min(part.len())];
            left -= part.len();
            (!part.is_empty()).then_some(part)
        })
    }

    /// The bytes from `at` on, to be sent: as many as lie together, none behind the end. The block
    /// is in use for as long as these are there, or any slice of them. Costs an allocation of some
    /// bytes, for which the store knows what is in use.
    pub fn bytes(&self, at: usize) -> Bytes {
        self.is_used();
        let mut start = 0;
        for (part, bytes) in self.parts().enumerate() {
            if at < start + bytes.len() {
                let view = View { block: self.clone(), part };
                return Bytes::from_owner(view).slice(at - start..);
            }
            start += bytes.len();
        }
        Bytes::new()
    }

    fn is_used(&self) {
        let uses = &self.0.uses;
        // Once it is lent it is counted no more, whoever else is about to.
        if uses.load(Relaxed) <= LENT_AFTER && uses.fetch_add(1, Relaxed) == LENT_AFTER {
            self.0.lend_behind();
            self.0.more.iter().for_each(Extent::lend);
        }
    }

    /// What its memory is charged.
    pub(super) fn charged(&self) -> usize {
        self.0.charged() + self.0.more.iter().map(Extent::len).sum::<usize>()
    }

    /// Whether somebody else has it too, or a part of it.
    pub(super) fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    /// All of it.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.parts().flatten().copied().collect()
    }
}

/// A part of a block, for `Bytes`.
struct View {
    block: Block,
    part: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self.block.parts().nth(self.part).unwrap_or_default()
    }
}

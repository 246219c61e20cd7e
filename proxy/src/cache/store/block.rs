//! A block: bytes of a body, in memory of the arena.
//!
//! What comes from a connection is a slice of its read buffer, and a slice of a hundred bytes keeps
//! sixteen kilobytes alive; how many cannot be seen from it. So a block is a copy, made once, and
//! from then on shared: memory is what it is charged for. The copy is beside the path: the client
//! was sent the slices.
//!
//! Of one that is on the disk and is only sent, nothing need be in memory but where it is: a socket
//! sends it from the file ([`crate::lend::Window`]).

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use super::arena::{Extent, Extents, Held};
use crate::lend::Window;

/// Uses of a block after which sockets are given its pages instead of copies ([`crate::lend`]): what
/// is evicted before has cost nothing more, and later ones have saved as much as it costs then.
const LENT_AFTER: u32 = 16;

/// Bytes that are charged for as long as anybody has them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Block(Held<Body>);

/// What is known of it: 32 bytes, for most bodies are small.
#[derive(Debug)]
struct Body {
    len: u32,
    /// How often it was used, up to [`LENT_AFTER`] and some.
    uses: AtomicU32,
    /// Of one in a file: where it is there, and its sum (CRC-32C).
    at: u32,
    sum: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The first part lies behind this, the others where there is no room for all in one piece.
    Here(Box<[Extent]>),
    File(Weak<Window>),
}

const _: () = assert!(size_of::<Body>() == 32);

/// In which form a block is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In memory.
    Memory,
    /// For a socket that lends, and for nobody who reads it: it may be [in a file](Block::is_in_file).
    Socket,
}

impl Form {
    /// Whether a block that is in a file can be had in this form, without waiting for the disk.
    pub(super) fn has(self, block: Option<&Block>) -> bool {
        self == Self::Socket && block.is_some_and(Block::is_resident)
    }
}

/// A file in which a block is, which stays for as long as anybody has this.
#[derive(Debug, Clone)]
pub struct Anchor(#[expect(dead_code, reason = "held")] Arc<Window>);

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
        let uses = AtomicU32::new(0);
        let len = u32::try_from(len).expect("a block is shorter than 4 GiB");
        Ok(Self(Held::new(first, Body { len, uses, at: 0, sum: 0, place: Place::Here(more) })))
    }

    /// A block of `len` bytes with this sum, which are in a file from `at` on. The memory is
    /// [`Self::HEADER`].
    pub(super) fn in_file(
        memory: Extent,
        (window, at): (&Arc<Window>, u32),
        len: u32,
        sum: u32,
    ) -> Self {
        let place = Place::File(Arc::downgrade(window));
        Self(Held::new(memory, Body { len, uses: AtomicU32::new(0), at, sum, place }))
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
        self.0.len as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is in a file, of which only sockets are to be given anything.
    pub fn is_in_file(&self) -> bool {
        matches!(self.0.place, Place::File(_))
    }

    /// Has the file stay that it is in. `None` if it has gone; or if there is none.
    pub fn anchor(&self) -> Option<Anchor> {
        self.window().map(|(window, _)| Anchor(window))
    }

    /// Whether the kernel has all of it in memory.
    pub(super) fn is_resident(&self) -> bool {
        self.window().is_some_and(|(window, at)| window.resident(at, self.len()) == self.len())
    }

    fn window(&self) -> Option<(Arc<Window>, usize)> {
        match &self.0.place {
            Place::File(window) => Some((window.upgrade()?, self.0.at as usize)),
            Place::Here(_) => None,
        }
    }

    /// Appends the bytes, wherever they are.
    ///
    /// # Errors
    /// As read(2), or if they are not what they were.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.is_in_file() {
            self.parts().for_each(|part| out.extend_from_slice(part));
            return Ok(());
        }
        let from = out.len();
        let (window, at) = self.window().ok_or(io::ErrorKind::NotFound)?;
        window.read(at, self.len(), out)?;
        if crc32c::crc32c(&out[from..]) != self.0.sum {
            out.truncate(from);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// The bytes that are here, in parts that are one after the other.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = if self.is_in_file() { 0 } else { self.len() };
        let all = std::iter::once(self.0.behind());
        all.chain(self.more().iter().map(Extent::bytes)).filter_map(move |part| {
            let part = &part[..left.min(part.len())];
            left -= part.len();
            (!part.is_empty()).then_some(part)
        })
    }

    /// The bytes from `at` on, to be sent: as many as lie together, none behind the end, nor of a
    /// file that has gone. The block, or the file that it is in, is in use for as long as these are
    /// there, or any slice of them. Costs an allocation of some bytes, for which the store knows what is in use.
    pub fn bytes(&self, at: usize) -> Bytes {
        if self.is_in_file() {
            let Some((window, start)) = self.window() else { return Bytes::new() };
            let all = window.view(start, self.len(), self.0.sum);
            return all.slice(at.min(all.len())..);
        }
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

    /// Its parts but the first.
    fn more(&self) -> &[Extent] {
        match &self.0.place {
            Place::Here(more) => more,
            Place::File(_) => &[],
        }
    }

    fn is_used(&self) {
        let uses = &self.0.uses;
        // Once it is lent it is counted no more, whoever else is about to.
        if uses.load(Relaxed) <= LENT_AFTER && uses.fetch_add(1, Relaxed) == LENT_AFTER {
            self.0.lend_behind();
            self.more().iter().for_each(Extent::lend);
        }
    }

    /// What its memory is charged.
    pub(super) fn charged(&self) -> usize {
        self.0.charged() + self.more().iter().map(Extent::len).sum::<usize>()
    }

    /// Whether somebody else has it too, or a part of it.
    pub(super) fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    /// All of it.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.append_to(&mut all).map_or(Vec::new(), |()| all)
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

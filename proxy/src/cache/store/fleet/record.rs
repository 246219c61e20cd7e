//! What the service keeps: a record as on the disk, behind what a fleet has to know of it.
//!
//! ```text
//! object  = magic crc32c asked record           asked: milliseconds since 1970
//! ```
//!
//! The record is sealed with the size of a block, so that one of another size is none. Nothing is
//! believed before its checksums are compared, and its name with the one that was asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cache::store::{
    block::Block,
    head::{Meta, Stored},
    key::Slot,
    meta_view::MetaView,
    record::{self, Draft, HEADER, Header, Kind, MAX_META, Reader},
};

const MAGIC: u32 = u32::from_le_bytes(*b"UPf1");

/// Bytes before the record.
const FRONT: usize = 16;

/// A point in time by the machine's clock: milliseconds since 1970. The members of a fleet have
/// nothing else in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cache::store) struct Wall(pub(super) u64);

impl Wall {
    pub(in crate::cache::store) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_millis() as u64)
    }

    pub(super) fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// Bytes that an object may have at most, where blocks have so many.
pub(super) fn most_bytes(block_bytes: usize) -> usize {
    FRONT + HEADER + MAX_META + block_bytes + record::ALIGN
}

/// A block that was asked for then. `None`: it is not to be had any more.
pub(super) fn of_block(
    slot: Slot,
    block: &Block,
    asked: Wall,
    block_bytes: usize,
) -> Option<Vec<u8>> {
    sealed(asked, block_bytes, &Draft::block(slot, block))
}

/// A head, with its body where that is one block. `None`: it is too long.
pub(super) fn of_head<M: Meta>(
    slot: Slot,
    stored: &Stored<M>,
    asked: Wall,
    block_bytes: usize,
) -> Option<Vec<u8>> {
    sealed(asked, block_bytes, &Draft::head(slot, stored)?)
}

fn sealed(asked: Wall, block_bytes: usize, record: &Draft<'_>) -> Option<Vec<u8>> {
    let (front, body) = record.layout();
    let mut out = Vec::with_capacity(FRONT + front + body + record::ALIGN);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&asked.0.to_le_bytes()).to_le_bytes());
    out.extend_from_slice(&asked.0.to_le_bytes());
    if record.write(&mut out) == 0 {
        return None;
    }
    record::seal(&mut out[FRONT..FRONT + HEADER], block_bytes as u64);
    Some(out)
}

/// An object that has come, as far as it has been compared.
#[derive(Debug)]
pub(super) struct View<'a> {
    header: Header,
    /// When its response was asked for.
    pub(super) asked: Wall,
    /// What is known of it, if it is a head.
    pub(super) head: Option<MetaView<'a>>,
    body: &'a [u8],
}

impl<'a> View<'a> {
    /// `None`: it is not what was written under this name.
    pub(super) fn decode(from: &'a [u8], slot: Slot, block_bytes: usize) -> Option<Self> {
        let mut front = Reader(from);
        let (magic, crc, asked) = (front.u32()?, front.u32()?, front.u64()?);
        if magic != MAGIC || crc != crc32c::crc32c(&asked.to_le_bytes()) {
            return None;
        }
        let header = Header::decode(front.0, block_bytes as u64)?;
        if header.slot != slot || header.body_len as usize > block_bytes {
            return None;
        }
        let (meta_len, body_len) = (header.meta_len as usize, header.body_len as usize);
        if meta_len > MAX_META || front.0.len() != header.record_bytes() {
            return None;
        }
        let rest = front.0.get(HEADER..)?;
        let (meta, rest) = rest.split_at_checked(meta_len)?;
        let (body, asked) = (rest.get(..body_len)?, Wall(asked));
        let head = match header.kind {
            Kind::Block => None,
            Kind::Head => Some(MetaView::decode(meta).filter(|_| header.is_meta(meta))?),
            Kind::Removed | Kind::Padding => return None,
        };
        Some(Self { header, asked, head, body })
    }

    /// The body, or the block, which is to be compared by [`Self::is`] when it is in its place.
    pub(super) fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether this is the body that was written.
    pub(super) fn is(&self, block: &Block) -> bool {
        self.header.is_body(block)
    }
}

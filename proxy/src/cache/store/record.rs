//! What the tiers outside of memory have: one record for a block, a head with its body, a removal, or
//! for room between others.
//!
//! ```text
//! record  = header meta body zeros            to a multiple of 64 bytes
//! header  = magic crc32c salt id number kind meta_len body_len crc(meta) crc(body) keep_until
//! meta    = what `meta_view.rs` has, of a head
//! ```
//!
//! All numbers are little-endian. The salt of a record on the disk is that of its segment: a random
//! number that nobody has seen who could have made a body look like a record.

use super::{
    block::Block,
    head::{Meta, Stored},
    key::Slot,
    meta_view,
};

/// Records begin at multiples of so many bytes.
pub(super) const ALIGN: usize = 64;
/// Bytes of a header.
pub(super) const HEADER: usize = 64;
/// A head may be so long, its body apart.
pub(super) const MAX_META: usize = 256 << 10;

const MAGIC: u32 = u32::from_le_bytes(*b"UPr1");

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block = 1,
    Head = 2,
    /// There is no head of this name any more.
    Removed = 3,
    /// Nothing: so that what is behind it begins where it is to begin.
    Padding = 4,
}

/// The beginning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) slot: Slot,
    pub(super) kind: Kind,
    pub(super) meta_len: u32,
    pub(super) body_len: u32,
    meta_crc: u32,
    body_crc: u32,
    /// As [`super::Head::keep_until`].
    pub(super) keep_until: u64,
}

impl Header {
    /// Bytes of the record, padding included.
    pub(super) fn record_bytes(&self) -> usize {
        (HEADER + self.meta_len as usize + self.body_len as usize).next_multiple_of(ALIGN)
    }

    /// To be sealed.
    fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[16..36].copy_from_slice(&self.slot.encode());
        out[36] = self.kind as u8;
        out[40..44].copy_from_slice(&self.meta_len.to_le_bytes());
        out[44..48].copy_from_slice(&self.body_len.to_le_bytes());
        out[48..52].copy_from_slice(&self.meta_crc.to_le_bytes());
        out[52..56].copy_from_slice(&self.body_crc.to_le_bytes());
        out[56..].copy_from_slice(&self.keep_until.to_le_bytes());
        out
    }

    /// `None` if this is no header of a segment with this salt.
    pub(super) fn decode(from: &[u8], salt: u64) -> Option<Self> {
        let mut from = Reader(from.get(..HEADER)?);
        let (magic, crc, rest) = (from.u32()?, from.u32()?, from.0);
        if magic != MAGIC || from.u64()? != salt || crc != crc32c::crc32c(rest) {
            return None;
        }
        let slot = Slot::decode(from.take(20)?.try_into().ok()?);
        let kind = match from.u32()? {
            1 => Kind::Block,
            2 => Kind::Head,
            3 => Kind::Removed,
            4 => Kind::Padding,
            _ => return None,
        };
        let header = Self {
            slot,
            kind,
            meta_len: from.u32()?,
            body_len: from.u32()?,
            meta_crc: from.u32()?,
            body_crc: from.u32()?,
            keep_until: from.u64()?,
        };
        let agrees = header.slot.is_head() != (kind == Kind::Block);
        (agrees || kind == Kind::Padding).then_some(header)
    }

    pub(super) fn is_meta(&self, meta: &[u8]) -> bool {
        meta.len() == self.meta_len as usize && crc32c::crc32c(meta) == self.meta_crc
    }

    pub(super) fn is_body(&self, body: &Block) -> bool {
        let sum = body.parts().fold(0, crc32c::crc32c_append);
        body.len() == self.body_len as usize && sum == self.body_crc
    }

    /// The sum that its body has to have.
    pub(super) fn body_sum(&self) -> u32 {
        self.body_crc
    }
}

/// A record that is to be written.
pub(super) struct Draft<'a> {
    named: (Slot, Kind, u64),
    meta: Vec<u8>,
    body: Option<&'a Block>,
}

impl<'a> Draft<'a> {
    /// Of a block.
    pub(super) fn block(slot: Slot, block: &'a Block) -> Self {
        Self { named: (slot, Kind::Block, 0), meta: Vec::new(), body: Some(block) }
    }

    /// Of a head; `None` if it is too long, or has too many tags.
    pub(super) fn head<M: Meta>(slot: Slot, stored: &'a Stored<M>) -> Option<Self> {
        let meta = meta_view::encode(stored);
        let fits = meta.len() <= MAX_META && stored.tags().count() <= meta_view::MOST_TAGS;
        let body = stored.body.as_ref();
        fits.then_some(Self { named: (slot, Kind::Head, stored.keep_until), meta, body })
    }

    /// Of a removal.
    pub(super) fn removed(slot: Slot) -> Self {
        Self { named: (slot, Kind::Removed, 0), meta: Vec::new(), body: None }
    }

    /// Bytes in front of its body, and those of that.
    pub(super) fn layout(&self) -> (usize, usize) {
        (HEADER + self.meta.len(), self.body.map_or(0, Block::len))
    }

    /// Appends it, to be sealed. Returns its length; 0, and nothing is written, if its body is not to
    /// be had any more.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> usize {
        let Self { named: (slot, kind, keep_until), meta, body } = self;
        let from = out.len();
        let behind = from + HEADER + meta.len();
        out.resize(from + HEADER, 0);
        out.extend_from_slice(meta);
        if let Some(Err(error)) = body.map(|body| body.append_to(out)) {
            tracing::debug!(%error, "cache: a body that was on the disk cannot be written again");
            out.truncate(from);
            return 0;
        }
        let header = Header {
            slot: *slot,
            kind: *kind,
            meta_len: meta.len() as u32,
            body_len: body.map_or(0, Block::len) as u32,
            meta_crc: crc32c::crc32c(meta),
            body_crc: crc32c::crc32c(&out[behind..]),
            keep_until: *keep_until,
        };
        out[from..from + HEADER].copy_from_slice(&header.encode());
        out.resize(from + header.record_bytes(), 0);
        header.record_bytes()
    }
}

/// Appends a record of so many bytes that says nothing, to be sealed: a multiple of [`ALIGN`], and
/// of [`HEADER`] at least.
pub(super) fn write_padding(slot: Slot, bytes: usize, out: &mut Vec<u8>) {
    let from = out.len();
    let header = Header {
        slot,
        kind: Kind::Padding,
        meta_len: 0,
        body_len: (bytes - HEADER) as u32,
        meta_crc: 0,
        body_crc: 0,
        keep_until: 0,
    };
    out.extend_from_slice(&header.encode());
    out.resize(from + bytes, 0);
}

/// Gives a header its salt.
pub(super) fn seal(header: &mut [u8], salt: u64) {
    header[8..16].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&header[8..HEADER]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads numbers from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let bytes = self.u32()? as usize;
        std::str::from_utf8(self.take(bytes)?).ok()
    }
}

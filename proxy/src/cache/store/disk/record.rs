//! What is written: one record for a block, a head with its body, or a removal.
//!
//! ```text
//! record  = header meta body padding          to a multiple of 64 bytes
//! header  = magic crc32c salt id number kind meta_len body_len crc(meta) crc(body) keep_until
//! meta    = object length keep_until text tags policy      of a head
//! ```
//!
//! All numbers are little-endian. The salt is that of the segment: a random number that nobody has
//! seen who could have made a body look like a record.

use crate::cache::store::{
    block::Block,
    head::{Meta, Stored},
    key::{ObjectId, Slot},
};

/// Records begin at multiples of so many bytes.
pub(in crate::cache::store) const ALIGN: usize = 64;
/// Bytes of a header.
pub(in crate::cache::store) const HEADER: usize = 64;
/// A head may be so long, its body apart.
pub(in crate::cache::store) const MAX_META: usize = 256 << 10;

const MAGIC: u32 = u32::from_le_bytes(*b"UPr1");

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache::store) enum Kind {
    Block = 1,
    Head = 2,
    /// There is no head of this name any more.
    Removed = 3,
}

/// The beginning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache::store) struct Header {
    pub(in crate::cache::store) slot: Slot,
    pub(in crate::cache::store) kind: Kind,
    pub(in crate::cache::store) meta_len: u32,
    pub(in crate::cache::store) body_len: u32,
    meta_crc: u32,
    body_crc: u32,
    /// As [`crate::cache::store::Head::keep_until`].
    pub(in crate::cache::store) keep_until: u64,
}

impl Header {
    /// Bytes of the record, padding included.
    pub(in crate::cache::store) fn record_bytes(&self) -> usize {
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
    pub(in crate::cache::store) fn decode(from: &[u8], salt: u64) -> Option<Self> {
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
        (header.slot.is_head() != (kind == Kind::Block)).then_some(header)
    }

    pub(in crate::cache::store) fn is_meta(&self, meta: &[u8]) -> bool {
        meta.len() == self.meta_len as usize && crc32c::crc32c(meta) == self.meta_crc
    }

    pub(in crate::cache::store) fn is_body(&self, body: &Block) -> bool {
        let sum = body.parts().fold(0, crc32c::crc32c_append);
        body.len() == self.body_len as usize && sum == self.body_crc
    }

    /// The sum that its body has to have.
    pub(in crate::cache::store) fn body_sum(&self) -> u32 {
        self.body_crc
    }
}

/// Appends the record of a block, to be sealed as all of these. Returns its length.
pub(in crate::cache::store) fn write_block(slot: Slot, block: &Block, out: &mut Vec<u8>) -> usize {
    write((slot, Kind::Block, 0), &[], Some(block), out)
}

/// Appends the record of a head; nothing if it is too long, or its body is not to be had. Returns
/// its length.
pub(in crate::cache::store) fn write_head<M: Meta>(
    slot: Slot,
    stored: &Stored<M>,
    out: &mut Vec<u8>,
) -> usize {
    let meta = encode_meta(stored);
    if meta.len() > MAX_META {
        return 0;
    }
    write((slot, Kind::Head, stored.keep_until), &meta, stored.body.as_ref(), out)
}

/// Appends the record of a removal. Returns its length.
pub(in crate::cache::store) fn write_removed(slot: Slot, out: &mut Vec<u8>) -> usize {
    write((slot, Kind::Removed, 0), &[], None, out)
}

fn write(
    (slot, kind, keep_until): (Slot, Kind, u64),
    meta: &[u8],
    body: Option<&Block>,
    out: &mut Vec<u8>,
) -> usize {
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
        slot,
        kind,
        meta_len: meta.len() as u32,
        body_len: body.map_or(0, Block::len) as u32,
        meta_crc: crc32c::crc32c(meta),
        body_crc: crc32c::crc32c(&out[behind..]),
        keep_until,
    };
    out[from..from + HEADER].copy_from_slice(&header.encode());
    out.resize(from + header.record_bytes(), 0);
    header.record_bytes()
}

/// Gives a header the salt of the segment that it comes into.
pub(in crate::cache::store) fn seal(header: &mut [u8], salt: u64) {
    header[8..16].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&header[8..HEADER]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// What is stored of a head beside its body.
#[derive(Debug)]
pub(in crate::cache::store) struct MetaView<'a> {
    pub(in crate::cache::store) object: ObjectId,
    pub(in crate::cache::store) length: Option<u64>,
    pub(in crate::cache::store) keep_until: u64,
    pub(in crate::cache::store) has_body: bool,
    pub(in crate::cache::store) text: &'a str,
    tags: Vec<&'a str>,
    /// What [`Meta::encode`] wrote.
    pub(in crate::cache::store) policy: &'a [u8],
}

fn encode_meta<M: Meta>(stored: &Stored<M>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + stored.text().len() + stored.more().len());
    out.extend_from_slice(&stored.object.0.to_le_bytes());
    out.extend_from_slice(&stored.length.unwrap_or(u64::MAX).to_le_bytes());
    out.extend_from_slice(&stored.keep_until.to_le_bytes());
    out.extend_from_slice(&u32::from(stored.body.is_some()).to_le_bytes());
    let mut text = |text: &str| {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    text(stored.text());
    // An empty tag ends them, and none is empty.
    stored.tags().filter(|tag| !tag.is_empty()).for_each(&mut text);
    text("");
    stored.meta.encode(&mut out);
    out.extend_from_slice(stored.more());
    out
}

impl<'a> MetaView<'a> {
    pub(in crate::cache::store) fn decode(from: &'a [u8]) -> Option<Self> {
        let mut from = Reader(from);
        let object = ObjectId(u128::from_le_bytes(from.take(16)?.try_into().ok()?));
        let length = Some(from.u64()?).filter(|length| *length != u64::MAX);
        let (keep_until, has_body) = (from.u64()?, from.u32()? != 0);
        let text = from.text()?;
        let mut tags = Vec::new();
        loop {
            match from.text()? {
                "" => break,
                tag => tags.push(tag),
            }
        }
        Some(Self { object, length, keep_until, has_body, text, tags, policy: from.0 })
    }

    pub(in crate::cache::store) fn tags(&self) -> impl Iterator<Item = &'a str> + Clone {
        self.tags.iter().copied()
    }
}

/// Reads numbers from the front.
pub(in crate::cache::store) struct Reader<'a>(pub(in crate::cache::store) &'a [u8]);

impl<'a> Reader<'a> {
    pub(in crate::cache::store) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub(in crate::cache::store) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(in crate::cache::store) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(in crate::cache::store) fn text(&mut self) -> Option<&'a str> {
        let bytes = self.u32()? as usize;
        std::str::from_utf8(self.take(bytes)?).ok()
    }
}

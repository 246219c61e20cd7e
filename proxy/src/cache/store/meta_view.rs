//! What is written of a head beside its body, and how a head comes out of it again.
//!
//! ```text
//! meta    = object length keep_until has_body text tags policy
//! ```
//!
//! It is looked at in place: text and tags are compared with what is asked for, and with what was
//! purged, before any memory is taken for it.

use super::{
    block::Block,
    head::{Head, Meta, Stored},
    key::ObjectId,
    record::Reader,
};

/// A head may have so many tags. Bytes from elsewhere could claim many more, and each takes memory
/// before anything has been compared.
pub(super) const MOST_TAGS: usize = 64;

/// What is stored of a head beside its body.
#[derive(Debug)]
pub(super) struct MetaView<'a> {
    pub(super) object: ObjectId,
    pub(super) length: Option<u64>,
    pub(super) keep_until: u64,
    pub(super) has_body: bool,
    pub(super) text: &'a str,
    tags: Vec<&'a str>,
    /// What [`Meta::encode`] wrote.
    policy: &'a [u8],
}

impl<'a> MetaView<'a> {
    /// `None`: it is not what was written.
    pub(super) fn decode(from: &'a [u8]) -> Option<Self> {
        let mut from = Reader(from);
        let object = ObjectId(u128::from_le_bytes(from.take(16)?.try_into().ok()?));
        let length = Some(from.u64()?).filter(|length| *length != u64::MAX);
        let (keep_until, has_body) = (from.u64()?, from.u32()? != 0);
        let text = from.text()?;
        let mut tags = Vec::new();
        loop {
            match from.text()? {
                "" => break,
                _ if tags.len() == MOST_TAGS => return None,
                tag => tags.push(tag),
            }
        }
        Some(Self { object, length, keep_until, has_body, text, tags, policy: from.0 })
    }

    /// The head itself, with its body where that is one block. `None`: the policy cannot read what
    /// it wrote, as another version of it may have.
    pub(super) fn head<M: Meta>(&self, body: Option<Block>) -> Option<Head<M>> {
        let (meta, more) = M::decode(self.policy)?;
        Some(Head {
            text: self.text.into(),
            tags: self.tags().map(Into::into).collect(),
            length: self.length,
            keep_until: self.keep_until,
            meta,
            more: more.into(),
            body,
        })
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &'a str> + Clone {
        self.tags.iter().copied()
    }
}

/// Writes it.
pub(super) fn encode<M: Meta>(stored: &Stored<M>) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;
    use crate::cache::store::{
        Key, Options, Store,
        key::Slot,
        record::Draft,
        tests::{Note, head},
    };

    #[req_test("REQ-CACHE-007")]
    #[test]
    fn a_head_with_too_many_tags_is_neither_written_nor_believed() {
        let options = Options { memory_bytes: 4 << 20, block_bytes: 4096, disk: None, fleet: None };
        let store = Store::<Note>::new(&options);
        for (count, is_taken) in [(MOST_TAGS, true), (MOST_TAGS + 1, false)] {
            let tags = (0..count).map(|number| format!("{number}").into()).collect();
            let key = Key::of("https://a/1");
            let head = Head { tags, ..head("https://a/1", None) };
            let stored = store.fill().commit(key, head).expect("room");
            let meta = encode(&stored);
            let view = MetaView::decode(&meta);
            assert_eq!(view.map(|view| view.tags().count()), is_taken.then_some(count));
            assert_eq!(Draft::head(Slot::head(key), &stored).is_some(), is_taken);
        }
    }
}

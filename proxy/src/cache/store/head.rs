//! A head: what is known of a stored response, and its body where that is one block.

use std::ops::Deref;

use super::{
    arena::{Extent, Held},
    block::Block,
    key::ObjectId,
    memory::Value,
};

/// What the policy keeps of a response that has one size. The store only writes and reads it.
pub trait Meta: Copy + Send + Sync + 'static {
    /// Appends it in the form in which it is on the disk. [`Head::more`] comes behind it.
    fn encode(&self, to: &mut Vec<u8>);

    /// Reads what [`Self::encode`] wrote, and what lies behind it; `None` if any of that cannot be
    /// understood, as what another version wrote may be. The response is then not found.
    fn decode(from: &[u8]) -> Option<(Self, &[u8])>;

    /// Whether blocks of the response that are gone can be had again, from wherever it came;
    /// `more` is [`Head::more`]. One of several blocks is shared with others only then.
    fn is_mendable(&self, more: &[u8]) -> bool;
}

/// What is stored of a response beside its blocks.
#[derive(Debug, Clone)]
pub struct Head<M> {
    /// What its key was made of. Begins with what prefixes are purged by, which is the URL.
    pub text: Box<str>,
    /// What it can be purged by beside its text.
    pub tags: Box<[Box<str>]>,
    /// Length of the body in bytes, if it is known.
    pub length: Option<u64>,
    /// When it is of no more use to anybody, stale or not, in seconds since 1970. Until then it is
    /// kept if there is room, and from then on it is the first to go; it is found all the same.
    pub keep_until: u64,
    /// What the policy knows.
    pub meta: M,
    /// What it knows beside that, of any length.
    pub more: Box<[u8]>,
    /// The whole body, where it is one block or less: one look-up for all of it. Otherwise blocks
    /// are asked for by [`super::Store::block`].
    pub body: Option<Block>,
}

impl<M> Head<M> {
    /// What it takes of the arena beside its body, as a [`Stored`].
    pub(super) fn size(&self) -> usize {
        Held::<Entry<M>>::HEADER + self.text.len() + self.tags_len() + self.more.len()
    }

    fn tags_len(&self) -> usize {
        self.tags.iter().map(|tag| TAG_LEN + tag.len()).sum()
    }
}

/// In front of each tag is its length.
const TAG_LEN: usize = size_of::<u32>();

/// A head that is stored: shared by all who have it, in one piece of the arena. Cheap to clone.
#[derive(Debug)]
pub struct Stored<M>(Held<Entry<M>>);

impl<M> Clone for Stored<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What of a stored head has one size. Behind it lie the text, the tags, and what the policy has
/// more.
#[derive(Debug)]
pub struct Entry<M> {
    pub(super) object: ObjectId,
    /// What had been purged when its response was asked for.
    pub(super) epoch: u64,
    /// As in [`Head`].
    pub length: Option<u64>,
    /// As in [`Head`].
    pub keep_until: u64,
    /// As in [`Head`].
    pub meta: M,
    /// As in [`Head`].
    pub body: Option<Block>,
    text: usize,
    tags: usize,
    more: usize,
}

impl<M> Stored<M> {
    /// Puts a head into memory of [`Head::size`].
    pub(super) fn new(mut at: Extent, head: Head<M>, object: ObjectId, epoch: u64) -> Self {
        let (text, tags, more) = (head.text.len(), head.tags_len(), head.more.len());
        let mut to = &mut at.bytes_mut()[Held::<Entry<M>>::HEADER..];
        let mut write = |bytes: &[u8]| {
            let (now, rest) = std::mem::take(&mut to).split_at_mut(bytes.len());
            now.copy_from_slice(bytes);
            to = rest;
        };
        write(head.text.as_bytes());
        for tag in &head.tags {
            write(&(tag.len() as u32).to_le_bytes());
            write(tag.as_bytes());
        }
        write(&head.more);
        let Head { length, keep_until, meta, body, .. } = head;
        let entry = Entry { object, epoch, length, keep_until, meta, body, text, tags, more };
        Self(Held::new(at, entry))
    }

    /// Whether its body is in a file.
    pub fn is_in_file(&self) -> bool {
        self.body.as_ref().is_some_and(Block::is_in_file)
    }

    /// The object whose blocks are its body.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// What its key was made of.
    pub fn text(&self) -> &str {
        // It was one when it was written.
        std::str::from_utf8(&self.0.behind()[..self.text]).unwrap_or_default()
    }

    /// What it can be purged by.
    pub fn tags(&self) -> impl Iterator<Item = &str> + Clone {
        let mut rest = &self.0.behind()[self.text..self.text + self.tags];
        std::iter::from_fn(move || {
            let (len, from) = rest.split_first_chunk::<TAG_LEN>()?;
            let (tag, from) = from.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            rest = from;
            std::str::from_utf8(tag).ok()
        })
    }

    /// What the policy knows beside [`Entry::meta`].
    pub fn more(&self) -> &[u8] {
        &self.0.behind()[self.text + self.tags..][..self.more]
    }
}

impl<M> Deref for Stored<M> {
    type Target = Entry<M>;

    fn deref(&self) -> &Entry<M> {
        &self.0
    }
}

/// What the memory tier keeps.
#[derive(Debug)]
pub(super) enum Kept<M> {
    Head(Stored<M>),
    Block(Block),
}

impl<M> Clone for Kept<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Head(head) => Self::Head(head.clone()),
            Self::Block(block) => Self::Block(block.clone()),
        }
    }
}

impl<M> Value for Kept<M> {
    fn bytes(&self) -> usize {
        match self {
            Self::Head(head) => head.0.charged() + head.body.as_ref().map_or(0, Block::charged),
            Self::Block(block) => block.charged(),
        }
    }

    fn is_shared(&self) -> bool {
        match self {
            Self::Head(head) => {
                head.0.is_shared() || head.body.as_ref().is_some_and(Block::is_shared)
            }
            Self::Block(block) => block.is_shared(),
        }
    }

    fn is_over(&self, now: u64) -> bool {
        match self {
            Self::Head(head) => head.keep_until < now,
            Self::Block(_) => false,
        }
    }

    fn gives_way(&self) -> bool {
        match self {
            Self::Head(head) => head.body.as_ref().is_some_and(Block::is_in_file),
            Self::Block(block) => block.is_in_file(),
        }
    }
}

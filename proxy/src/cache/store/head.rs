//! A head: what is known of a stored response, and its body where that is one block.

use std::ops::Deref;

use super::{
    account::{Charge, allocated},
    block::Block,
    key::ObjectId,
    memory::Value,
};

/// What the policy keeps of a response. The store only writes and reads it.
pub trait Meta: Send + Sync + Sized + 'static {
    /// Appends it in the form in which it is on the disk.
    fn encode(&self, to: &mut Vec<u8>);

    /// Reads what [`Self::encode`] wrote; `None` if it cannot be understood, as what another
    /// version wrote may be. The response is then not found.
    fn decode(from: &[u8]) -> Option<Self>;

    /// What it takes on the heap, in bytes, counted by [`allocated`] for each allocation.
    fn heap_bytes(&self) -> usize;
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
    /// The whole body, where it is one block or less: one look-up and one entry for all of it.
    /// Otherwise blocks are asked for by [`super::Store::block`].
    pub body: Option<Block>,
}

impl<M: Meta> Head<M> {
    /// What it takes in memory beside its body, as a [`Stored`].
    pub(super) fn cost(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| allocated(tag.len())).sum();
        allocated(size_of::<Stored<M>>() + 16)
            + allocated(self.text.len())
            + allocated(self.tags.len() * size_of::<Box<str>>())
            + tags
            + self.meta.heap_bytes()
    }
}

/// A head that is stored. Shared by all who have it.
#[derive(Debug)]
pub struct Stored<M> {
    pub(super) object: ObjectId,
    pub(super) head: Head<M>,
    /// What had been purged when its response was asked for.
    pub(super) epoch: u64,
    pub(super) charge: Charge,
}

impl<M> Stored<M> {
    /// The object whose blocks are its body.
    pub fn object(&self) -> ObjectId {
        self.object
    }
}

impl<M> Deref for Stored<M> {
    type Target = Head<M>;

    fn deref(&self) -> &Head<M> {
        &self.head
    }
}

/// What the memory tier keeps.
#[derive(Debug)]
pub(super) enum Kept<M> {
    Head(std::sync::Arc<Stored<M>>),
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
            Self::Head(head) => {
                head.charge.bytes() + head.body.as_ref().map_or(0, |body| Block::cost(body.len()))
            }
            Self::Block(block) => Block::cost(block.len()),
        }
    }

    fn is_shared(&self) -> bool {
        match self {
            Self::Head(head) => {
                std::sync::Arc::strong_count(head) > 1
                    || head.body.as_ref().is_some_and(Block::is_shared)
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
}

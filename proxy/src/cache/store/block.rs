//! A block: bytes of a body, in a buffer of just their size.
//!
//! What comes from a connection is a slice of its read buffer, and a slice of a hundred bytes keeps
//! sixteen kilobytes alive; how many cannot be seen from it. So a block is a copy, made once, and
//! from then on shared: memory is what it is charged for. The copy is beside the path: the client
//! was sent the slices.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;

#[cfg(test)]
use super::account::Account;
use super::account::{Charge, allocated};

/// What a block costs beyond its bytes: the allocation that makes it shared.
const SHARED_BYTES: usize = 64;

/// Bytes that are charged for as long as anybody has them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Block(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    bytes: Box<[u8]>,
    _charge: Charge,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Block {
    /// What a block of `len` bytes is charged.
    pub(super) fn cost(len: usize) -> usize {
        allocated(len) + SHARED_BYTES
    }

    /// Copies `pieces` together. `charge` is for [`Self::cost`] of their length.
    pub(super) fn copy(pieces: &[Bytes], charge: Charge) -> Self {
        let len = pieces.iter().map(Bytes::len).sum();
        let mut bytes = Vec::with_capacity(len);
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Self::own(bytes, charge)
    }

    /// Takes a buffer as it is. `charge` is for [`Self::cost`] of its length.
    pub(super) fn own(bytes: Vec<u8>, charge: Charge) -> Self {
        debug_assert!(charge.bytes() >= Self::cost(bytes.len()));
        Self(Arc::new(Owner { bytes: bytes.into_boxed_slice(), _charge: charge }))
    }

    /// The bytes, to be sent. The block is in use for as long as these are there, or any slice of
    /// them. Costs an allocation of some bytes, for which the store knows what is in use.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Whether somebody else has it too, or a part of it.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Blocks of all tests are charged somewhere.
#[cfg(test)]
pub(super) fn block(account: &Arc<Account>, bytes: &[u8]) -> Block {
    Block::copy(&[Bytes::copy_from_slice(bytes)], account.charge(Block::cost(bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_block_keeps_its_charge() {
        let account = Account::new(1 << 20);
        let block = block(&account, &[7; 1000]);
        assert_eq!(account.live(), Block::cost(1000));
        assert!(!block.is_shared());
        let slice = block.bytes().slice(10..20);
        assert!(block.is_shared());
        drop(block);
        assert_eq!(account.live(), Block::cost(1000));
        drop(slice);
        assert_eq!(account.live(), 0);
    }
}

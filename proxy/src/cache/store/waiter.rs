//! Who waits for a record that another thread reads, from the disk or from what a fleet shares.
//!
//! Two texts may have one key, so a head is only for those who asked for its text. Who is not
//! answered is told by the waiter being dropped that there is nothing.

use tokio::sync::oneshot;

use super::{
    block::Block,
    head::{Kept, Stored},
};

/// Somebody who waits.
#[derive(Debug)]
pub(super) enum Waiter<M> {
    /// For the head that was made of this text.
    Head(Box<str>, oneshot::Sender<Option<Stored<M>>>),
    /// For a block.
    Block(oneshot::Sender<Option<Block>>),
}

impl<M> Waiter<M> {
    /// Gives it what there is, if it is what was asked for. Who has gone does not mind.
    pub(super) fn answer(self, kept: &Kept<M>) {
        match (self, kept) {
            (Self::Head(text, to), Kept::Head(head)) if *head.text() == *text => {
                let _ = to.send(Some(head.clone()));
            }
            (Self::Block(to), Kept::Block(block)) => _ = to.send(Some(block.clone())),
            _ => {}
        }
    }

    /// Whether nobody is there any more to be answered.
    pub(super) fn has_left(&self) -> bool {
        match self {
            Self::Head(_, to) => to.is_closed(),
            Self::Block(to) => to.is_closed(),
        }
    }
}

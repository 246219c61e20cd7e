//! Queues of entries in one table: whoever knows where an entry is takes it out of the middle of
//! its queue.
//!
//! Nodes are in one table and point to each other by their places in it.

use super::Slot;
use crate::cache::store::table::Table;

/// No node.
pub(super) const NONE: u32 = u32::MAX;

/// In which queue an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// New: it has to show that it is wanted.
    Small,
    /// Wanted more than once.
    Main,
}

/// An entry.
#[derive(Debug)]
pub(super) struct Node<V> {
    pub(super) slot: Slot,
    pub(super) value: V,
    pub(super) bytes: usize,
    pub(super) place: Place,
    /// How often it was asked for lately, 3 at most.
    pub(super) wanted: u8,
    newer: u32,
    older: u32,
}

/// A queue's ends, and what is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    newest: u32,
    oldest: u32,
    pub(super) bytes: usize,
}

/// Both queues.
#[derive(Debug)]
pub(super) struct List<V> {
    nodes: Table<Node<V>>,
    small: Queue,
    main: Queue,
}

impl<V> List<V> {
    pub(super) fn new() -> Self {
        let empty = Queue { newest: NONE, oldest: NONE, bytes: 0 };
        Self { nodes: Table::new(), small: empty, main: empty }
    }

    /// What the table takes, in bytes.
    pub(super) fn allocated(&self) -> usize {
        self.nodes.allocated()
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Node<V>> {
        self.nodes.get(at)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Node<V>> {
        self.nodes.get_mut(at)
    }

    /// Entries are at places below this.
    pub(super) fn places(&self) -> u32 {
        self.nodes.places()
    }

    pub(super) fn queue(&self, place: Place) -> Queue {
        match place {
            Place::Small => self.small,
            Place::Main => self.main,
        }
    }

    /// The one that has been in its queue for longest.
    pub(super) fn oldest(&self, place: Place) -> Option<u32> {
        Some(self.queue(place).oldest).filter(|at| *at != NONE)
    }

    /// Puts an entry at the new end of a queue.
    pub(super) fn push(&mut self, slot: Slot, value: V, bytes: usize, place: Place) -> u32 {
        let node = Node { slot, value, bytes, place, wanted: 0, newer: NONE, older: NONE };
        let at = self.nodes.add(node);
        self.link(at, place);
        at
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, at: u32) -> Option<Node<V>> {
        self.unlink(at);
        self.nodes.remove(at)
    }

    /// Puts an entry that is there at the new end of a queue.
    pub(super) fn requeue(&mut self, at: u32, place: Place) {
        self.unlink(at);
        self.link(at, place);
    }

    /// Says that an entry takes another number of bytes.
    pub(super) fn resize(&mut self, at: u32, bytes: usize) {
        let Some(node) = self.get_mut(at) else { return };
        let (place, before) = (node.place, std::mem::replace(&mut node.bytes, bytes));
        let queue = self.queue_mut(place);
        queue.bytes = queue.bytes - before + bytes;
    }

    fn queue_mut(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
        }
    }

    fn link(&mut self, at: u32, place: Place) {
        let newest = self.queue(place).newest;
        let Some(node) = self.get_mut(at) else { return };
        (node.place, node.older, node.newer) = (place, newest, NONE);
        let bytes = node.bytes;
        if let Some(before) = self.get_mut(newest) {
            before.newer = at;
        }
        let queue = self.queue_mut(place);
        queue.newest = at;
        queue.bytes += bytes;
        if queue.oldest == NONE {
            queue.oldest = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(node) = self.get(at) else { return };
        let (place, bytes, newer, older) = (node.place, node.bytes, node.newer, node.older);
        if let Some(node) = self.get_mut(newer) {
            node.older = older;
        }
        if let Some(node) = self.get_mut(older) {
            node.newer = newer;
        }
        let queue = self.queue_mut(place);
        queue.bytes -= bytes;
        if queue.newest == at {
            queue.newest = older;
        }
        if queue.oldest == at {
            queue.oldest = newer;
        }
    }
}

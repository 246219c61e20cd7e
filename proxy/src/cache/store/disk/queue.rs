//! What is to be written, between workers and the thread that writes.
//!
//! Whoever stores leaves it here and goes on; what finds no room is not written. Until something is
//! on the disk it is found here. A removal always finds room: it takes the waiting write with it,
//! and the entry of the index, at once; the record of it follows. Many removals become one that
//! means everything.
//!
//! What is written comes into the index only if it is still what waits under its name: that is
//! decided under the lock of this queue, which a removal takes as well.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    index::{Index, Location},
    write::queued_bytes,
};
use crate::cache::store::{head::Kept, key::Slot, purge::What};

/// What may wait, in bytes of memory; beside what is in the memory tier anyway.
pub(super) const QUEUE_BYTES: usize = 8 << 20;

/// So many removals and purges may wait.
const MOST_REMOVALS: usize = 32 << 10;

/// Bits for the names of what was removed while nobody knew what is on the disk. Two names with
/// one bit: both are removed.
const BLIND_BITS: usize = 4 << 20;

/// Something to do.
#[derive(Debug)]
pub(super) enum Item<M> {
    /// Write it, if it still waits by this number.
    Put { slot: Slot, ticket: u64, kept: Kept<M> },
    /// Write that there is no such head.
    Removed(Slot),
    /// Write that this is purged, and say whether it was written.
    Purge(What, oneshot::Sender<bool>),
    /// Say when all before this is done.
    Flush(oneshot::Sender<()>),
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<M> {
    state: Mutex<State<M>>,
    wake: Condvar,
    waiting: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct State<M> {
    items: VecDeque<Item<M>>,
    waiting: HashMap<Slot, (u64, Kept<M>)>,
    next: u64,
    bytes: usize,
    removals: usize,
    /// Removals were too many to be told one by one.
    all: bool,
    /// Nobody knows what is on the disk: what was removed since, by its fingerprint.
    blind: Option<Box<[u64]>>,
    /// Writes are taken.
    open: bool,
    stop: bool,
}

/// What there is to do.
#[derive(Debug)]
pub(super) struct Work<M> {
    pub(super) items: VecDeque<Item<M>>,
    /// Forget everything first.
    pub(super) all: bool,
    pub(super) stop: bool,
}

impl<M> Queue<M> {
    pub(super) fn new() -> Self {
        let state = State {
            items: VecDeque::new(),
            waiting: HashMap::new(),
            next: 0,
            bytes: 0,
            removals: 0,
            all: false,
            blind: Some(no_bits()),
            open: false,
            stop: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// What waits under this name.
    pub(super) fn get(&self, slot: &Slot) -> Option<Kept<M>> {
        if self.waiting.load(Acquire) == 0 {
            return None;
        }
        self.lock().waiting.get(slot).map(|(_, kept)| kept.clone())
    }

    /// Leaves something to be written. Whether it found room; if not, nothing of this name is left
    /// on the disk.
    pub(super) fn put(&self, slot: Slot, kept: Kept<M>, index: &Index) -> bool {
        let bytes = queued_bytes(&kept);
        let mut state = self.lock();
        if !state.open || state.bytes + bytes > QUEUE_BYTES {
            let gone = self.remove_under(&mut state, slot, index);
            self.settle(state);
            drop(gone);
            return false;
        }
        // What is on the disk is older.
        index.remove(slot.fingerprint(), None);
        let ticket = state.next;
        state.next += 1;
        state.bytes += bytes;
        let before = state.waiting.insert(slot, (ticket, kept.clone()));
        state.items.push_back(Item::Put { slot, ticket, kept });
        self.settle(state);
        drop(before);
        true
    }

    /// Nothing of this name is found from now on.
    pub(super) fn remove(&self, slot: Slot, index: &Index) {
        let mut state = self.lock();
        let gone = self.remove_under(&mut state, slot, index);
        self.settle(state);
        drop(gone);
    }

    fn remove_under(&self, state: &mut State<M>, slot: Slot, index: &Index) -> Option<Kept<M>> {
        let waited = state.waiting.remove(&slot).map(|(_, kept)| kept);
        let was_there = index.remove(slot.fingerprint(), None);
        // A block without a head is found by nobody.
        if slot.is_head() {
            if let Some(bits) = &mut state.blind {
                let bit = bit(slot.fingerprint());
                bits[bit / 64] |= 1 << (bit % 64);
            } else if was_there || waited.is_some() {
                self.push_removal(state, Item::Removed(slot));
            }
        }
        waited
    }

    /// Has a purge written down. Dropped, which is to say not written, if there are too many.
    pub(super) fn purge(&self, what: What, answer: oneshot::Sender<bool>) {
        let mut state = self.lock();
        self.push_removal(&mut state, Item::Purge(what, answer));
        self.settle(state);
    }

    fn push_removal(&self, state: &mut State<M>, item: Item<M>) {
        if state.removals >= MOST_REMOVALS {
            state.all = true;
            return;
        }
        state.removals += 1;
        state.items.push_back(item);
    }

    /// Says when all that is there now is done.
    pub(super) fn flush(&self, answer: oneshot::Sender<()>) {
        let mut state = self.lock();
        state.items.push_back(Item::Flush(answer));
        self.settle(state);
    }

    /// Nothing more comes: who writes ends when it has done what is there.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        self.settle(state);
    }

    /// Whether writes are taken. Those that wait when they are not any more are given up, and
    /// nobody waits for them.
    pub(super) fn open(&self, open: bool) {
        let mut state = self.lock();
        state.open = open;
        let mut gone = Vec::new();
        if !open {
            gone.extend(std::mem::take(&mut state.waiting));
            state.items.retain(|item| matches!(item, Item::Removed(_) | Item::Purge(..)));
            state.bytes = 0;
        }
        // Of each there may be an older one on the disk.
        for (slot, _) in gone.iter().filter(|(slot, _)| slot.is_head()) {
            self.push_removal(&mut state, Item::Removed(*slot));
        }
        self.settle(state);
        drop(gone);
    }

    /// The index does not say any more what is on the disk.
    pub(super) fn blind(&self) {
        self.lock().blind.get_or_insert_with(no_bits);
    }

    /// The index says what is on the disk, but for what was removed since [`Self::blind`].
    pub(super) fn see(&self, index: &Index) {
        let mut state = self.lock();
        let Some(bits) = state.blind.take() else { return };
        let is_removed = |fingerprint| {
            let bit = bit(fingerprint);
            bits[bit / 64] & 1 << (bit % 64) != 0
        };
        for fingerprint in index.take_heads(is_removed) {
            // Whatever there are: they were let in by the index, which has a bound.
            state.items.push_back(Item::Removed(Slot::like(fingerprint)));
        }
        self.settle(state);
    }

    /// Takes all that there is to do; waits so long for it.
    pub(super) fn take(&self, patience: Duration) -> Work<M> {
        let idle = |state: &mut State<M>| state.items.is_empty() && !state.all && !state.stop;
        let state = self.lock();
        let waited = self.wake.wait_timeout_while(state, patience, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.removals = 0;
        Work {
            items: std::mem::take(&mut state.items),
            all: std::mem::take(&mut state.all),
            stop: state.stop,
        }
    }

    /// Waits for so long, whatever there is to do. Whether the end has come meanwhile.
    pub(super) fn wait_for_stop(&self, time: Duration) -> bool {
        let running = |state: &mut State<M>| !state.stop;
        let waited = self.wake.wait_timeout_while(self.lock(), time, running);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Gives back removals and purges that could not be written, in their order.
    pub(super) fn give_back(&self, work: Work<M>) {
        let mut state = self.lock();
        state.all |= work.all;
        let is_removal = |item: &Item<M>| matches!(item, Item::Removed(_) | Item::Purge(..));
        for item in work.items.into_iter().rev() {
            if is_removal(&item) {
                state.removals += 1;
                state.items.push_front(item);
            }
        }
        self.settle(state);
    }

    /// Whether this write is still wanted.
    pub(super) fn is_wanted(&self, slot: &Slot, ticket: u64) -> bool {
        self.lock().waiting.get(slot).is_some_and(|(waits, _)| *waits == ticket)
    }

    /// A write is done (`at` this place) or given up: it waits no longer.
    pub(super) fn done(
        &self,
        (slot, ticket, bytes): (Slot, u64, usize),
        at: Option<Location>,
        index: &Index,
    ) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        let mut gone = None;
        if state.waiting.get(&slot).is_some_and(|(waits, _)| *waits == ticket) {
            match at {
                Some(at) => {
                    gone = state.waiting.remove(&slot).map(|(_, kept)| kept);
                    index.insert(slot.fingerprint(), at);
                }
                None => gone = self.remove_under(&mut state, slot, index),
            }
        }
        self.settle(state);
        drop(gone);
    }

    fn settle(&self, state: MutexGuard<'_, State<M>>) {
        self.waiting.store(state.waiting.len(), Release);
        self.bytes.store(state.bytes, Relaxed);
        let wake = !state.items.is_empty() || state.all || state.stop;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_bits() -> Box<[u64]> {
    vec![0; BLIND_BITS / 64].into()
}

fn bit(fingerprint: u64) -> usize {
    (fingerprint.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % BLIND_BITS
}

//! What is to be read, between workers and the threads that read.
//!
//! Who asks for what is being read already waits for the same read. There is a bound: who finds too
//! many waiting is told at once that it is not there, for the origin is nearer than a disk with a
//! queue.
//!
//! Implements: REQ-CACHE-007

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::index::Location;
use crate::cache::store::{key::Slot, waiter::Waiter};

/// So many records may be asked for.
const MOST: usize = 512;

/// Records that are asked for.
#[derive(Debug)]
pub(super) struct Jobs<M> {
    state: Mutex<State<M>>,
    wake: Condvar,
}

#[derive(Debug)]
struct State<M> {
    order: VecDeque<Slot>,
    /// Those in `order` and those that are being read.
    asked: HashMap<Slot, (Location, Vec<Waiter<M>>)>,
    stop: bool,
}

impl<M> Jobs<M> {
    pub(super) fn new() -> Self {
        let state = State { order: VecDeque::new(), asked: HashMap::new(), stop: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// How many records are asked for.
    pub(super) fn len(&self) -> usize {
        self.lock().asked.len()
    }

    /// Asks for the record at this place. Whether it is going to be read.
    pub(super) fn ask(&self, slot: Slot, at: Location, waiter: Waiter<M>) -> bool {
        let mut state = self.lock();
        let full = state.asked.len() >= MOST;
        match state.asked.entry(slot) {
            Entry::Occupied(mut asked) => {
                let (place, waiters) = asked.get_mut();
                // What is being read may be of before.
                let same = *place == at;
                if same {
                    waiters.push(waiter);
                }
                same
            }
            Entry::Vacant(_) if full => false,
            Entry::Vacant(vacant) => {
                vacant.insert((at, vec![waiter]));
                state.order.push_back(slot);
                drop(state);
                self.wake.notify_one();
                true
            }
        }
    }

    /// The next one to read, to be told to [`Self::done`]. `None` at the end.
    pub(super) fn next(&self) -> Option<(Slot, Location)> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            if let Some(slot) = state.order.pop_front() {
                let at = state.asked.get(&slot)?.0;
                return Some((slot, at));
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// It is not asked for any more; these waited.
    pub(super) fn done(&self, slot: &Slot) -> Vec<Waiter<M>> {
        self.lock().asked.remove(slot).map(|(_, waiters)| waiters).unwrap_or_default()
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        state.order.clear();
        let gone = std::mem::take(&mut state.asked);
        drop(state);
        drop(gone);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

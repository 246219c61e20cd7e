//! What the service is asked for, between workers and the thread that asks it.
//!
//! Who asks for what is being read already waits for the same read. There is a bound, as for the
//! disk: who finds too many waiting is told at once that it is not there.
//!
//! Implements: REQ-CACHE-007

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::cache::store::{head::Kept, key::Slot, waiter::Waiter};

/// So many objects may be asked for.
const MOST: usize = 512;

/// Objects that are asked for.
#[derive(Debug)]
pub(super) struct Asked<M> {
    jobs: Mutex<HashMap<Slot, Job<M>>>,
    order: mpsc::UnboundedSender<Slot>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Job<M> {
    /// What had been purged when it was asked for.
    pub(super) epoch: u64,
    /// Nobody has asked for it yet, but somebody is going to.
    is_ahead: bool,
    waiters: Vec<Waiter<M>>,
}

impl<M> Asked<M> {
    /// With the other end, where those come that are to be read.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Slot>) {
        let (order, receiver) = mpsc::unbounded_channel();
        (Self { jobs: Mutex::default(), order }, receiver)
    }

    /// How many objects are asked for.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Asks. `None`: for somebody who is going to want it. Whether it is going to be read.
    pub(super) fn ask(&self, slot: Slot, epoch: u64, waiter: Option<Waiter<M>>) -> bool {
        let mut jobs = self.lock();
        let is_full = jobs.len() >= MOST;
        match jobs.entry(slot) {
            Entry::Occupied(mut job) => {
                job.get_mut().waiters.extend(waiter);
                true
            }
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(vacant) => {
                if self.order.send(slot).is_err() {
                    return false;
                }
                let is_ahead = waiter.is_none();
                vacant.insert(Job { epoch, is_ahead, waiters: waiter.into_iter().collect() });
                true
            }
        }
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_unwanted(&self, slot: &Slot) -> bool {
        let jobs = self.lock();
        let is_unwanted = |job: &Job<M>| !job.is_ahead && job.waiters.iter().all(Waiter::has_left);
        jobs.get(slot).is_none_or(is_unwanted)
    }

    /// It is not asked for any more.
    pub(super) fn done(&self, slot: &Slot) -> Option<Job<M>> {
        self.lock().remove(slot)
    }

    /// Nothing is going to be read any more: who waits is told.
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *self.lock());
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Slot, Job<M>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Job<M> {
    /// Tells those who wait what there is.
    pub(super) fn answer(self, kept: &Kept<M>) {
        self.waiters.into_iter().for_each(|waiter| waiter.answer(kept));
    }
}

//! Heads that were removed here: what requests have made worthless.
//!
//! The service may be slow to forget them, or not do it, so what it has of them is refused by when it
//! was asked for. Members that have them already are not told.
//!
//! Implements: REQ-CACHE-004

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{purges::is_over, record::Wall};
use crate::cache::store::key::Slot;

/// So many heads are remembered. Of more the older half becomes a time, before which nothing is
/// taken.
pub(super) const MOST: usize = 64 << 10;

/// What was removed by this member.
#[derive(Debug, Default)]
pub(super) struct Removed {
    heads: Mutex<Heads>,
}

#[derive(Debug, Default)]
struct Heads {
    /// When, by their fingerprints.
    times: HashMap<u64, Wall>,
    /// What was asked for before this is not taken.
    before: Wall,
}

impl Removed {
    /// From now on the head is refused if it was asked for before.
    pub(super) fn add(&self, head: &Slot, now: Wall) {
        let mut heads = lock(&self.heads);
        let at = heads.times.entry(head.fingerprint()).or_insert(now);
        *at = now.max(*at);
        if heads.times.len() > MOST {
            heads.settle(now);
        }
    }

    /// Whether a head is refused that was asked for then.
    pub(super) fn refuse(&self, head: &Slot, asked: Wall) -> bool {
        let heads = lock(&self.heads);
        let at = heads.times.get(&head.fingerprint()).copied();
        at.is_some_and(|at| at > asked) || heads.before > asked
    }
}

impl Heads {
    /// Forgets those that mean nothing any more, and the older half if that is not enough.
    fn settle(&mut self, now: Wall) {
        self.times.retain(|_, at| !is_over(*at, now));
        if self.times.len() > MOST {
            let mut times: Vec<_> = self.times.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(MOST / 2);
            self.before = self.before.max(*middle);
            let before = self.before;
            self.times.retain(|_, at| *at > before);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

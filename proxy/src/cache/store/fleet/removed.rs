//! Heads that were removed here: what requests have made worthless.
//!
//! The service may be slow to forget them, or not do it, so what it has of them is refused by when it
//! was asked for. Members that have them already are not told.
//!
//! What it has yet to forget is written down for the next process (`notes.rs`): it would come back.
//!
//! ```text
//! removed = crc32c slot time
//! ```
//!
//! Implements: REQ-CACHE-004

use std::{
    collections::{HashMap, hash_map::Entry},
    iter,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{purges::is_over, record::Wall};
use crate::cache::store::{key::Slot, record::Reader};

/// So many heads are remembered. Of more the older half becomes a time, before which nothing is
/// taken.
pub(super) const MOST: usize = 64 << 10;

const MAGIC: u32 = u32::from_le_bytes(*b"UPg1");

/// What was removed by this member.
#[derive(Debug, Default)]
pub(super) struct Removed {
    heads: Mutex<Heads>,
    /// What the service is to forget, each once however often it is removed.
    waiting: Mutex<HashMap<Slot, Waits>>,
}

#[derive(Debug)]
struct Waits {
    /// When it was last removed.
    at: Wall,
    /// It was since the service has been asked to forget it.
    again: bool,
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

    /// The service is to forget it, and is asked to by what is left so, unless that is going to
    /// happen anyway. `false`: it could not be left, and nothing waits.
    pub(super) fn waits(&self, head: Slot, at: Wall, leave: impl FnOnce() -> bool) -> bool {
        match lock(&self.waiting).entry(head) {
            Entry::Occupied(mut waits) => {
                let waits = waits.get_mut();
                *waits = Waits { at: at.max(waits.at), again: true };
                true
            }
            // Under the lock: who removes it too has to know what came of this.
            Entry::Vacant(vacant) => {
                let is_left = leave();
                if is_left {
                    vacant.insert(Waits { at, again: false });
                }
                is_left
            }
        }
    }

    /// The service is asked now.
    pub(super) fn begins(&self, head: &Slot) {
        if let Some(waits) = lock(&self.waiting).get_mut(head) {
            waits.again = false;
        }
    }

    /// It has forgotten it, or never will. `false`: it was removed once more since that has begun.
    pub(super) fn is_done(&self, head: Slot) -> bool {
        match lock(&self.waiting).entry(head) {
            Entry::Occupied(waits) if waits.get().again => false,
            Entry::Occupied(waits) => {
                waits.remove();
                true
            }
            Entry::Vacant(_) => true,
        }
    }

    /// Whether it has yet to forget anything.
    pub(super) fn is_any_waiting(&self) -> bool {
        !lock(&self.waiting).is_empty()
    }

    /// What it has yet to forget, as it is written down.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_le_bytes().to_vec();
        // Workers wait for the lock.
        let copy = |(head, waits): (&Slot, &Waits)| (*head, waits.at);
        let waiting: Vec<_> = lock(&self.waiting).iter().map(copy).collect();
        for (head, at) in waiting {
            let mut one = head.encode().to_vec();
            one.extend_from_slice(&at.0.to_le_bytes());
            out.extend_from_slice(&crc32c::crc32c(&one).to_le_bytes());
            out.append(&mut one);
        }
        out
    }
}

/// What [`Removed::encode`] wrote, as far as it is not damaged.
pub(super) fn decode(from: &[u8]) -> Vec<(Slot, Wall)> {
    let mut from = Reader(from.strip_prefix(&MAGIC.to_le_bytes()).unwrap_or_default());
    let next = || {
        let (crc, one) = (from.u32()?, from.take(Slot::BYTES + size_of::<u64>())?);
        let (head, mut at) = one.split_first_chunk().map(|(head, at)| (head, Reader(at)))?;
        let head = Slot::decode(head);
        (crc == crc32c::crc32c(one) && head.is_head()).then_some((head, Wall(at.u64()?)))
    };
    iter::from_fn(next).collect()
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

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;
    use crate::cache::store::key::Key;

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_is_to_be_forgotten_is_written_and_read() {
        let removed = Removed::default();
        let slot = |number: u8| Slot::head(Key::of(&format!("https://a/{number}")));
        for number in 0..3 {
            assert!(removed.waits(slot(number), Wall(number.into()), || true));
        }
        // Removed once more before the first of the two is done.
        removed.waits(slot(1), Wall(9), || false);
        removed.is_done(slot(1));
        removed.is_done(slot(2));
        let whole = removed.encode();
        let mut all = decode(&whole);
        all.sort_by_key(|(_, at)| *at);
        assert_eq!(all, [(slot(0), Wall(0)), (slot(1), Wall(9))]);
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            let found = decode(&bytes);
            assert!(found.len() < 2 && found.iter().all(|it| all.contains(it)), "{place}");
            assert!(decode(&whole[..place]).len() < 2, "{place}");
        }
        for number in 0..2 {
            removed.begins(&slot(number));
            assert!(removed.is_done(slot(number)));
        }
        assert!(!removed.is_any_waiting() && decode(&removed.encode()).is_empty());
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_is_removed_again_and_again_waits_once() {
        let (removed, head) = (Removed::default(), Slot::head(Key::of("https://a/1")));
        let noted =
            || decode(&removed.encode()).into_iter().map(|(_, at)| at.0).collect::<Vec<_>>();
        assert!(!removed.waits(head, Wall(1), || false), "there is no room");
        assert!(noted().is_empty());
        assert!(removed.waits(head, Wall(2), || true));
        for at in [4, 3] {
            assert!(removed.waits(head, Wall(at), || unreachable!("it waits")));
        }
        assert_eq!(noted(), [4]);
        // What was removed before the service is asked is meant by that, and what comes later is not.
        removed.begins(&head);
        assert!(removed.waits(head, Wall(5), || unreachable!("it waits")));
        assert!(!removed.is_done(head));
        assert_eq!(noted(), [5]);
        removed.begins(&head);
        assert!(removed.is_done(head) && removed.is_done(head));
        assert!(noted().is_empty());
        assert!(removed.waits(head, Wall(6), || true), "it is left anew");
    }
}

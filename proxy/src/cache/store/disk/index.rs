//! Where on the disk everything is: sixteen bytes for a record, in memory.
//!
//! An entry has 64 bits of its name and not the name, which is in the record and compared when it
//! is read. Two names that agree in these push each other out: that is a miss, never a mistake.
//! With the table's own byte and its free places an entry takes 20 to 39 bytes.
//!
//! Implements: REQ-CACHE-002

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::*},
};

use hashbrown::{HashTable, hash_table::Entry as Place};

use crate::cache::store::key::Spread;
use crate::cache::store::record::ALIGN;

/// What an entry takes at most, in bytes: seventeen, in a table that has just doubled.
pub(super) const ENTRY_BYTES: usize = 39;

const PARTS: usize = 256;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache::store) struct Location {
    /// Of the segment's number, the lower bits: those that are there follow each other.
    pub(super) segment: u16,
    /// In bytes.
    pub(super) offset: u32,
    /// In bytes, with padding.
    pub(super) bytes: u32,
    pub(super) is_head: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    fingerprint: u64,
    /// From the top: 16 bits of segment, 24 of offset, 16 of length, both in units of [`ALIGN`],
    /// 6 that are free, one for a head, one that is set when it was asked for.
    packed: u64,
}

const HEAD: u64 = 2;
const WANTED: u64 = 1;

impl Entry {
    fn new(fingerprint: u64, at: Location) -> Self {
        let packed = u64::from(at.segment) << 48
            | u64::from(at.offset / ALIGN as u32) << 24
            | u64::from(at.bytes / ALIGN as u32) << 8
            | if at.is_head { HEAD } else { 0 };
        Self { fingerprint, packed }
    }

    fn location(&self) -> Location {
        Location {
            segment: (self.packed >> 48) as u16,
            offset: (self.packed >> 24 & 0xff_ffff) as u32 * ALIGN as u32,
            bytes: (self.packed >> 8 & 0xffff) as u32 * ALIGN as u32,
            is_head: self.packed & HEAD != 0,
        }
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    parts: Box<[Part]>,
    spread: Spread,
    entries: AtomicUsize,
    heads: AtomicUsize,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(Mutex<HashTable<Entry>>);

impl Index {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            spread: Spread::new(),
            entries: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    pub(super) fn heads(&self) -> usize {
        self.heads.load(Relaxed)
    }

    /// What the tables take.
    pub(super) fn allocated(&self) -> usize {
        self.parts.iter().map(|part| lock(part).allocation_size() + size_of::<Part>()).sum()
    }

    /// Finds a record, which is then wanted.
    pub(super) fn get(&self, fingerprint: u64) -> Option<Location> {
        let (hash, part) = self.part(fingerprint);
        let mut part = lock(part);
        let entry = part.find_mut(hash, |entry| entry.fingerprint == fingerprint)?;
        entry.packed |= WANTED;
        Some(entry.location())
    }

    /// Finds a record without wanting it, and whether it is wanted.
    pub(super) fn peek(&self, fingerprint: u64) -> Option<(Location, bool)> {
        let (hash, part) = self.part(fingerprint);
        let part = lock(part);
        let entry = part.find(hash, |entry| entry.fingerprint == fingerprint)?;
        Some((entry.location(), entry.packed & WANTED != 0))
    }

    /// Puts a record in, in the place of any other of this name.
    pub(super) fn insert(&self, fingerprint: u64, at: Location) {
        let (hash, part) = self.part(fingerprint);
        let mut part = lock(part);
        let same = |entry: &Entry| entry.fingerprint == fingerprint;
        let rehash = |entry: &Entry| self.spread.hash(entry.fingerprint);
        match part.entry(hash, same, rehash) {
            Place::Occupied(mut place) => {
                let before = std::mem::replace(place.get_mut(), Entry::new(fingerprint, at));
                self.count(before.location().is_head, -1);
            }
            Place::Vacant(place) => _ = place.insert(Entry::new(fingerprint, at)),
        }
        self.count(at.is_head, 1);
    }

    /// Takes a record out; only if it is `at` this place, where one is given. Whether it was there.
    pub(super) fn remove(&self, fingerprint: u64, at: Option<Location>) -> bool {
        let (hash, part) = self.part(fingerprint);
        let mut part = lock(part);
        let same = |entry: &Entry| {
            entry.fingerprint == fingerprint && at.is_none_or(|at| at == entry.location())
        };
        let Ok(place) = part.find_entry(hash, same) else { return false };
        let (entry, _) = place.remove();
        self.count(entry.location().is_head, -1);
        true
    }

    /// Takes out all that are not to stay.
    pub(super) fn retain(&self, stays: impl Fn(Location) -> bool) {
        for part in &self.parts {
            let mut part = lock(part);
            part.retain(|entry| {
                let at = entry.location();
                let stays = stays(at);
                if !stays {
                    self.count(at.is_head, -1);
                }
                stays
            });
            if part.is_empty() {
                *part = HashTable::new();
            }
        }
    }

    /// Takes out heads whose fingerprints are meant, and tells of them.
    pub(super) fn take_heads(&self, is_meant: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut taken = Vec::new();
        for part in &self.parts {
            lock(part).retain(|entry| {
                let goes = entry.location().is_head && is_meant(entry.fingerprint);
                if goes {
                    taken.push(entry.fingerprint);
                    self.count(true, -1);
                }
                !goes
            });
        }
        taken
    }

    /// A record has moved, unless it was taken out or replaced meanwhile. It is not wanted until
    /// it is asked for again.
    pub(super) fn moved(&self, fingerprint: u64, from: Location, to: Location) -> bool {
        let (hash, part) = self.part(fingerprint);
        let mut part = lock(part);
        let same = |entry: &Entry| entry.fingerprint == fingerprint && entry.location() == from;
        let entry = part.find_mut(hash, same);
        entry.map(|entry| *entry = Entry::new(fingerprint, to)).is_some()
    }

    fn count(&self, is_head: bool, by: isize) {
        // Wraps to the right number.
        self.entries.fetch_add(by as usize, Relaxed);
        if is_head {
            self.heads.fetch_add(by as usize, Relaxed);
        }
    }

    fn part(&self, fingerprint: u64) -> (u64, &Part) {
        let hash = self.spread.hash(fingerprint);
        (hash, &self.parts[(hash >> 40) as usize % PARTS])
    }
}

fn lock(part: &Part) -> MutexGuard<'_, HashTable<Entry>> {
    part.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    fn at(segment: u16, number: u32) -> Location {
        Location { segment, offset: number * 64, bytes: 4096, is_head: number.is_multiple_of(2) }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        for at in [
            Location { segment: u16::MAX, offset: (1 << 30) - 64, bytes: 64, is_head: true },
            Location { segment: 0, offset: 0, bytes: (4 << 20) - 64, is_head: false },
            Location { segment: 7, offset: 64, bytes: 128, is_head: true },
        ] {
            assert_eq!(Entry::new(1, at).location(), at);
        }
    }

    /// The bound that is stated.
    #[req_test("REQ-CACHE-002")]
    #[test]
    fn an_entry_takes_no_more_than_is_said() {
        let index = Index::new();
        let constant = 256 << 10;
        for number in 0..1_000_000u32 {
            index.insert(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15), at(1, number));
            if number % 9973 == 0 {
                let bound = index.entries() * ENTRY_BYTES + constant;
                assert!(index.allocated() <= bound, "{number}: {}", index.allocated());
            }
        }
        assert_eq!((index.entries(), index.heads()), (1_000_000, 500_000));
        assert!(index.allocated() >= 1_000_000 * 17);
        index.retain(|at| at.segment != 1);
        assert_eq!((index.entries(), index.heads()), (0, 0));
        assert!(index.allocated() <= constant);
    }

    #[req_test("REQ-CACHE-002")]
    #[test]
    fn a_record_is_taken_out_only_where_it_is_meant() {
        let index = Index::new();
        index.insert(1, at(1, 2));
        index.insert(1, at(2, 3));
        assert_eq!((index.entries(), index.heads()), (1, 0));
        assert!(!index.remove(1, Some(at(1, 2))), "it has moved since");
        assert_eq!(index.peek(1), Some((at(2, 3), false)));
        assert_eq!(index.get(1), Some(at(2, 3)));
        assert_eq!(index.peek(1), Some((at(2, 3), true)));
        assert!(index.remove(1, None));
        assert_eq!((index.entries(), index.heads()), (0, 0));
    }
}

//! What was purged anywhere in the fleet, as a set that all of its members come to agree on.
//!
//! A service cannot be searched by prefix or tag, so each member refuses what a purge means that
//! is later than the object. The set is one small object. Members read it every few seconds, add
//! what they have not seen, and write it again if it lacks something of theirs: what one of two
//! writers has lost comes back in the next round. A purge is forgotten when everything that it could
//! mean is too old to be taken anyway ([`OLDEST`]). Of too many the older half becomes one that
//! means everything.
//!
//! Clocks of machines differ: what was asked for within a second after a purge counts as older.
//!
//! Implements: REQ-CACHE-004

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{OLDEST, owed::Owed, record::Wall, removed::Removed};
use crate::cache::store::{key::Slot, purge::What, purge_record};

/// What clocks of two machines may differ by, in milliseconds.
pub(super) const SKEW_MS: u64 = 1000;

/// So many are kept, or texts of so many bytes.
pub(super) const MOST: usize = 16 << 10;
pub(super) const MOST_TEXT: usize = 1 << 20;

/// Bytes of the object, at most.
pub(super) const MOST_BYTES: usize = 4 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"UPp1");

/// So many bytes say that there are none.
pub(super) const EMPTY: usize = 4;

/// What is purged, and when.
pub(super) type Purge = (Wall, What);

/// The set, and what was removed by this member.
#[derive(Debug)]
pub(super) struct Purges {
    set: Mutex<BTreeSet<Purge>>,
    has_disk: bool,
    pub(super) removed: Removed,
    /// Added to under the lock of the set, so that nothing in that seems to be owed to nobody.
    pub(super) owed: Owed,
}

/// What came of a round.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// Purges of others that are new here.
    pub(super) new: Vec<Purge>,
    /// What is to be written, if the service lacks something.
    pub(super) lacks: bool,
}

impl Purges {
    /// `has_disk`: what is purged has to be written there, too.
    pub(super) fn new(has_disk: bool) -> Self {
        let (set, removed, owed) = (Mutex::default(), Removed::default(), Owed::default());
        Self { set, has_disk, removed, owed }
    }

    /// Something is purged here. From now on what was asked for before is refused.
    pub(super) fn begin(&self, what: What) -> Purge {
        let mut set = lock(&self.set);
        // The time is taken under the lock: a round that has not seen it has begun before.
        let purge = (Wall::now(), what);
        self.insert(&mut set, purge.clone());
        purge
    }

    /// The same of what the process before has not brought to its end.
    pub(super) fn begin_again(&self, purge: Purge) {
        self.insert(&mut lock(&self.set), purge);
    }

    fn insert(&self, set: &mut BTreeSet<Purge>, purge: Purge) {
        let at = purge.0;
        self.owed.add(purge.clone(), false, self.has_disk);
        set.insert(purge);
        settle(set, at);
    }

    /// These are known here already.
    pub(super) fn know(&self, seen: BTreeSet<Purge>, now: Wall) {
        let mut set = lock(&self.set);
        set.extend(seen);
        settle(&mut set, now);
    }

    /// Whether a head that was asked for then is not to be taken.
    pub(super) fn refuse<'a>(
        &self,
        head: &Slot,
        (asked, now): (Wall, Wall),
        text: &str,
        tags: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        // By a clock that is ahead no purge would ever reach it.
        if asked.0 > now.0 + SKEW_MS || is_over(asked, now) {
            return true;
        }
        let from = Wall(asked.0.saturating_sub(SKEW_MS));
        if self.removed.refuse(head, from) {
            return true;
        }
        let set = lock(&self.set);
        set.range((from, What::All)..).any(|(_, what)| what.means(text, tags.clone()))
    }

    /// Adds what the service has.
    pub(super) fn merge(&self, theirs: &BTreeSet<Purge>, now: Wall) -> Merged {
        let mut set = lock(&self.set);
        let mut known = theirs.clone();
        settle(&mut known, now);
        // What a later purge of everything has meant too is in the set no more.
        let all = set.iter().rev().find(|(_, what)| *what == What::All).map(|(at, _)| *at);
        let new: Vec<_> =
            known.difference(&set).filter(|(at, _)| Some(*at) > all).cloned().collect();
        new.iter().for_each(|purge| self.owed.add(purge.clone(), true, self.has_disk));
        set.extend(new.iter().cloned());
        settle(&mut set, now);
        // What has been made one is told by the one.
        Merged { new, lacks: set.difference(&known).next().is_some() }
    }

    /// All of it, as it is written.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(&*lock(&self.set))
    }

    /// The same without what the disk does not have.
    pub(super) fn encode_seen(&self) -> Vec<u8> {
        let set = lock(&self.set);
        encode(set.difference(&self.owed.unwritten()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As they are written.
pub(super) fn encode<'a>(set: impl IntoIterator<Item = &'a Purge>) -> Vec<u8> {
    let mut out = MAGIC.to_le_bytes().to_vec();
    set.into_iter().for_each(|(at, what)| purge_record::encode([at.0], what, &mut out));
    out
}

/// Whether it is too old to be taken, or a purge to matter.
pub(super) fn is_over(at: Wall, now: Wall) -> bool {
    now.0.saturating_sub(at.0) > OLDEST.as_millis() as u64
}

/// Forgets those that mean nothing any more, and makes one of many.
fn settle(set: &mut BTreeSet<Purge>, now: Wall) {
    // One from the future would be refused by nobody and last for ever.
    set.retain(|(at, _)| !is_over(*at, now) && at.0 <= now.0 + SKEW_MS + OLDEST.as_millis() as u64);
    let text = set.iter().map(|(_, what)| what.text().len()).sum::<usize>();
    if set.len() > MOST || text > MOST_TEXT {
        let middle = set.iter().nth(set.len() / 2).map(|(at, _)| *at);
        set.extend(middle.map(|at| (at, What::All)));
    }
    let all = set.iter().rev().find(|(_, what)| *what == What::All).map(|(at, _)| *at);
    if let Some(all) = all {
        set.retain(|(at, what)| *at > all || (*at == all && *what == What::All));
    }
}

/// Those of an object, and whether it was what somebody had written.
pub(super) fn decode(from: &[u8]) -> (BTreeSet<Purge>, bool) {
    let Some(purges) = from.strip_prefix(&MAGIC.to_le_bytes()) else {
        return (BTreeSet::new(), false);
    };
    let (found, is_whole) = purge_record::decode(purges);
    (found.into_iter().map(|([at], what)| (Wall(at), what)).collect(), is_whole)
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;
    use crate::cache::store::{fleet::removed, key::Key};

    const NOW: Wall = Wall(1_000_000_000_000);

    fn at(ms: i64) -> Wall {
        Wall(NOW.0.saturating_add_signed(ms))
    }

    fn prefix(text: &str) -> What {
        What::Prefix(text.into())
    }

    fn slot(text: &str) -> Slot {
        Slot::head(Key::of(text))
    }

    fn refuses(purges: &Purges, asked: Wall, text: &str, tags: &[&str]) -> bool {
        purges.refuse(&slot(text), (asked, NOW), text, tags.iter().copied())
    }

    fn copy(purges: &Purges) -> BTreeSet<Purge> {
        let (set, is_whole) = decode(&purges.encode());
        assert!(is_whole);
        set
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_was_asked_for_before_a_purge_is_refused() {
        let purges = Purges::new(false);
        purges.begin_again((at(-60_000), prefix("https://a/")));
        purges.begin_again((at(-60_000), What::Tag("red".into())));
        purges.removed.add(&slot("https://c/1"), at(-60_000));
        for (asked, text, tags, expected) in [
            (-70_000, "https://a/1", &[][..], true),
            (-60_000 + 999, "https://a/1", &[], true),
            (-50_000, "https://a/1", &[], false),
            (-70_000, "https://b/1", &[], false),
            (-70_000, "https://b/1", &["blue", "red"], true),
            (-50_000, "https://b/1", &["red"], false),
            (-70_000, "https://c/1", &[], true),
            (-50_000, "https://c/1", &[], false),
            // Too old, and from the future.
            (-(OLDEST.as_millis() as i64) - 1, "https://d/1", &[], true),
            (5000, "https://d/1", &[], true),
            (500, "https://d/1", &[], false),
        ] {
            assert_eq!(
                refuses(&purges, at(asked), text, tags),
                expected,
                "{asked} {text} {tags:?}"
            );
        }
        purges.begin_again((at(-10), What::All));
        assert!(refuses(&purges, at(-20), "https://d/1", &[]));
    }

    /// Sites that write remove heads all the time.
    #[req_test("REQ-CACHE-004")]
    #[test]
    fn a_removal_means_one_head_and_many_mean_what_is_older() {
        let purges = Purges::new(false);
        for number in 0..removed::MOST as i64 {
            purges.removed.add(&slot(&format!("https://a/{number}")), at(number - 100_000));
        }
        assert!(refuses(&purges, at(-101_000), "https://a/0", &[]));
        assert!(refuses(&purges, at(-101_000), "https://a/65535", &[]));
        assert!(!refuses(&purges, at(-101_000), "https://b/", &[]), "nobody has removed it");
        purges.removed.add(&slot("https://a/one-more"), at(-10_000));
        assert!(refuses(&purges, at(-101_000), "https://b/", &[]), "it may have been one of them");
        assert!(!refuses(&purges, at(-60_000), "https://b/", &[]));
        assert!(refuses(&purges, at(-36_000), "https://a/65535", &[]));
    }

    /// A service that can be read and not written says the same again and again.
    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_a_purge_of_everything_has_meant_is_not_new() {
        let purges = Purges::new(false);
        let service = [(at(-5000), prefix("https://a/"))].into();
        assert_eq!(purges.merge(&service, NOW).new.len(), 1);
        purges.begin_again((at(-3000), What::All));
        let merged = purges.merge(&service, NOW);
        assert!(merged.new.is_empty() && merged.lacks);
        assert!(purges.owed.is_any_untold());
        assert_eq!(purges.owed.all().len(), 1);
        purges.owed.are_told(at(-4000));
        assert!(purges.owed.is_any_untold());
        purges.owed.are_told(at(-3000));
        assert!(!purges.owed.is_any_untold());
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn members_come_to_agree_whatever_was_overwritten() {
        let (one, other) = (Purges::new(false), Purges::new(false));
        one.begin_again((at(-3000), prefix("https://a/")));
        other.begin_again((at(-2000), What::Tag("red".into())));
        // Both write, and the second has not seen the first.
        let service = copy(&other);
        let merged = one.merge(&service, NOW);
        assert_eq!(merged.new, [(at(-2000), What::Tag("red".into()))]);
        assert!(merged.lacks, "what was overwritten");
        let service = copy(&one);
        let merged = other.merge(&service, NOW);
        assert_eq!((merged.new, merged.lacks), (vec![(at(-3000), prefix("https://a/"))], false));
        assert_eq!(copy(&one), copy(&other));
        let merged = one.merge(&service, NOW);
        assert!(merged.new.is_empty() && !merged.lacks, "nothing is told twice");
        // A service that has lost it gets it again.
        assert!(one.merge(&BTreeSet::new(), NOW).lacks);
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn old_ones_are_forgotten_and_many_become_one() {
        let purges = Purges::new(false);
        purges.begin_again((at(-(OLDEST.as_millis() as i64)), prefix("https://old/")));
        assert_eq!(copy(&purges).len(), 1);
        let later = Wall(NOW.0 + 1000);
        let merged = purges.merge(&copy(&purges), later);
        assert!(!merged.lacks && merged.new.is_empty());
        assert_eq!(copy(&purges).len(), 0);
        let one = |number: i64| (at(number - 100_000), prefix(&format!("https://a/{number}/")));
        purges.merge(&(0..=MOST as i64).map(one).collect(), NOW);
        assert!(copy(&purges).len() < MOST * 3 / 4);
        assert!(refuses(&purges, at(-110_000), "https://b/", &[]), "meant by the one");
        assert!(refuses(&purges, at(-86_000), "https://a/16384/", &[]));
        assert!(!refuses(&purges, at(-86_000), "https://b/", &[]));
    }

    #[req_test("REQ-CACHE-007")]
    #[test]
    fn what_is_damaged_is_not_believed() {
        let purges = Purges::new(false);
        purges.begin_again((at(-2), prefix("https://a/")));
        purges.begin_again((at(-1), prefix("https://b/")));
        let whole = purges.encode();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            let (set, is_whole) = decode(&bytes);
            assert!(!is_whole && set.len() < 2, "{place}");
            let (set, is_whole) = decode(&whole[..place]);
            assert!(set.len() < 2 && (!is_whole || place == 4 || set.len() == 1), "{place}");
        }
    }
}

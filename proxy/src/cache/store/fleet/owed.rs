//! Purges that somebody does not have yet: the service, by which the others learn of them, or the
//! disk here, on which a purge is when it has been written.
//!
//! They are written down (`notes.rs`), and whoever finds them after a restart applies them and tells
//! them again: it cannot be known how far the process before him had come. What the disk does not
//! have is not noted as seen either, or nobody would apply it again.
//!
//! Implements: REQ-CACHE-004

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt as _;

use super::{
    purges::{MOST, MOST_TEXT, Purge, is_over},
    record::Wall,
};
use crate::cache::store::{Written, purge::What};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    purges: BTreeMap<Purge, Lacks>,
    /// Bytes of their texts.
    text: usize,
}

/// Who has it.
#[derive(Debug)]
struct Lacks {
    is_told: bool,
    disk: OnDisk,
}

#[derive(Debug)]
enum OnDisk {
    /// It is there, or there is no disk.
    Yes,
    /// It has not been left to be written yet.
    NotYet,
    /// Says when it is.
    Waits(Written),
}

impl Owed {
    /// The service lacks this one, unless it `is_told`, and a disk where there is one.
    pub(super) fn add(&self, purge: Purge, is_told: bool, has_disk: bool) {
        let disk = if has_disk { OnDisk::NotYet } else { OnDisk::Yes };
        if has_disk || !is_told {
            let mut all = self.lock();
            let bytes = purge.1.text().len();
            if all.purges.insert(purge, Lacks { is_told, disk }).is_none() {
                all.text += bytes;
            }
            while all.purges.len() > MOST || all.text > MOST_TEXT {
                all.make_one();
            }
        }
    }

    /// It has been left to be written.
    pub(super) fn waits(&self, purge: &Purge, written: Option<Written>) {
        if let (Some(lacks), Some(written)) = (self.lock().purges.get_mut(purge), written) {
            lacks.disk = OnDisk::Waits(written);
        }
    }

    /// The service has all that was purged up to then.
    pub(super) fn are_told(&self, until: Wall) {
        let mut all = self.lock();
        let told = all.purges.iter_mut().filter(|((at, _), _)| *at <= until);
        told.for_each(|(_, lacks)| lacks.is_told = true);
    }

    /// Whether the service has yet to be told anything.
    pub(super) fn is_any_untold(&self) -> bool {
        self.lock().purges.values().any(|lacks| !lacks.is_told)
    }

    /// Forgets those that all have, and those that mean nothing any more.
    pub(super) fn settle(&self, now: Wall) {
        self.lock().retain(|at, lacks| {
            // Too many removals are one of everything to the disk, which says nothing of each: those
            // stay until they are over.
            if let OnDisk::Waits(written) = &lacks.disk
                && let Some(Ok(true)) = written.clone().now_or_never()
            {
                lacks.disk = OnDisk::Yes;
            }
            !(is_over(at, now) || lacks.is_told && matches!(lacks.disk, OnDisk::Yes))
        });
    }

    /// Those that the disk does not have.
    pub(super) fn unwritten(&self) -> BTreeSet<Purge> {
        let all = self.lock();
        let lacks = all.purges.iter().filter(|(_, lacks)| !matches!(lacks.disk, OnDisk::Yes));
        lacks.map(|(purge, _)| purge.clone()).collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeSet<Purge> {
        self.lock().purges.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn retain(&mut self, mut stays: impl FnMut(Wall, &mut Lacks) -> bool) {
        self.purges.retain(|(at, _), lacks| stays(*at, lacks));
        self.text = self.purges.keys().map(|(_, what)| what.text().len()).sum();
    }

    /// The older half becomes one that means everything, as with those that the service has.
    fn make_one(&mut self) {
        let middle = self.purges.keys().nth(self.purges.len() / 2).map(|(at, _)| *at);
        let Some(middle) = middle else { return };
        self.retain(|at, _| at > middle);
        // Nobody has it, and nobody is told when it is written: the next process sees to that.
        self.purges.insert((middle, What::All), Lacks { is_told: false, disk: OnDisk::NotYet });
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;
    use tokio::sync::oneshot;

    use super::*;
    use crate::cache::store::fleet::OLDEST;

    fn purge(at: u64) -> Purge {
        (Wall(at), What::Tag(format!("{at}").into()))
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn a_purge_is_owed_until_the_service_and_the_disk_have_it() {
        for (told_first, is_written) in [(true, true), (false, true), (true, false)] {
            let (owed, now) = (Owed::default(), Wall(10));
            owed.add(purge(1), false, true);
            let (sender, written) = oneshot::channel();
            owed.waits(&purge(1), Some(written.shared()));
            let mut sender = Some(sender);
            for tells in [told_first, !told_first] {
                owed.settle(now);
                assert!(!owed.all().is_empty());
                match tells {
                    true => owed.are_told(Wall(1)),
                    // Dropped: nobody is going to say it.
                    false => _ = sender.take().filter(|_| is_written).map(|it| it.send(true)),
                }
            }
            owed.settle(now);
            assert_eq!(owed.unwritten().is_empty(), is_written);
            assert_eq!(owed.all().is_empty(), is_written);
            assert!(!owed.is_any_untold());
        }
        // Without a disk, and from others.
        let owed = Owed::default();
        owed.add(purge(1), false, false);
        owed.add(purge(2), true, false);
        owed.add(purge(3), true, true);
        assert_eq!((owed.all().len(), owed.unwritten().len()), (2, 1));
        owed.settle(Wall(OLDEST.as_millis() as u64 + 3));
        assert_eq!(owed.all(), [purge(3)].into());
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn too_many_become_one_that_means_more_and_never_less() {
        let owed = Owed::default();
        for at in 0..=MOST as u64 {
            owed.add(purge(at), false, false);
        }
        let all = owed.all();
        assert!(all.len() < MOST * 3 / 4);
        let one = (Wall(MOST as u64 / 2), What::All);
        assert!(all.contains(&one) && all.contains(&purge(MOST as u64)));
        assert!(all.iter().all(|(at, _)| *at >= one.0) && owed.is_any_untold());
    }

    /// A few that are long take as much as many that are not.
    #[req_test("REQ-CACHE-004")]
    #[test]
    fn texts_of_too_many_bytes_become_one_as_well() {
        let owed = Owed::default();
        let long = |at: u64| (Wall(at), What::Prefix("x".repeat(MOST_TEXT / 4).into()));
        // What is there already takes no more.
        (0..4).chain(0..4).for_each(|at| owed.add(long(at), false, false));
        assert_eq!(owed.all().len(), 4);
        owed.add(long(4), false, false);
        assert!(owed.all() == [(Wall(2), What::All), long(3), long(4)].into());
        owed.add((Wall(5), What::Tag("x".repeat(MOST_TEXT + 1).into())), false, false);
        assert!(owed.all() == [(Wall(5), What::All)].into());
    }
}

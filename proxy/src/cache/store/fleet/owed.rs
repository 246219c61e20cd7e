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
    purges::{self, Purge, is_over},
    record::Wall,
};
use crate::cache::store::Written;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<BTreeMap<Purge, Lacks>>);

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
            self.lock().insert(purge, Lacks { is_told, disk });
        }
    }

    /// It has been left to be written.
    pub(super) fn waits(&self, purge: &Purge, written: Option<Written>) {
        if let (Some(lacks), Some(written)) = (self.lock().get_mut(purge), written) {
            lacks.disk = OnDisk::Waits(written);
        }
    }

    /// The service has all that was purged up to then.
    pub(super) fn are_told(&self, until: Wall) {
        let mut all = self.lock();
        all.iter_mut().filter(|((at, _), _)| *at <= until).for_each(|(_, it)| it.is_told = true);
    }

    /// Whether the service has yet to be told anything.
    pub(super) fn is_any_untold(&self) -> bool {
        self.lock().values().any(|lacks| !lacks.is_told)
    }

    /// Forgets those that all have, and those that mean nothing any more.
    pub(super) fn settle(&self, now: Wall) {
        self.lock().retain(|(at, _), lacks| {
            // Too many removals are one of everything to the disk, which says nothing of each: those
            // stay until they are over.
            if let OnDisk::Waits(written) = &lacks.disk
                && let Some(Ok(true)) = written.clone().now_or_never()
            {
                lacks.disk = OnDisk::Yes;
            }
            !(is_over(*at, now) || lacks.is_told && matches!(lacks.disk, OnDisk::Yes))
        });
    }

    /// Those that the disk does not have.
    pub(super) fn unwritten(&self) -> BTreeSet<Purge> {
        let all = self.lock();
        let lacks = all.iter().filter(|(_, lacks)| !matches!(lacks.disk, OnDisk::Yes));
        lacks.map(|(purge, _)| purge.clone()).collect()
    }

    /// All of them, as they are written down.
    pub(super) fn encode(&self) -> Vec<u8> {
        purges::encode(self.lock().keys())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Purge, Lacks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

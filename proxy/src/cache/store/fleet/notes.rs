//! What is written down beside the disk's files, for the next process: which purges that disk has,
//! so that they are not applied again, which ones somebody lacks, and what the service has yet to
//! forget.
//!
//! Nothing is written before it has been read what the process before has left. It is not synced:
//! what the kernel has outlives the process. The disk may be slow, or stall, so none of this is for
//! a worker.
//!
//! Implements: REQ-CACHE-004

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, TryLockError},
};

use super::purges::{self, Purges};

/// The files.
#[derive(Debug)]
pub(super) struct Notes(Mutex<Files>);

#[derive(Debug)]
struct Files {
    /// Purges that the disk has.
    seen: Note,
    /// Those that somebody lacks.
    owed: Note,
    /// Heads that were removed, which the service is to forget.
    removed: Note,
}

/// A file.
#[derive(Debug)]
struct Note {
    path: PathBuf,
    /// What is in it, as far as it is known; nothing if there is none.
    has: Option<Vec<u8>>,
}

impl Notes {
    /// `seen`: the path of the first one. The others lie beside it.
    pub(super) fn new(seen: &Path) -> Self {
        let note = |path: PathBuf| Note { path, has: None };
        let (owed, removed) = (seen.with_extension("untold"), seen.with_extension("removed"));
        let (owed, removed) = (note(owed), note(removed));
        Self(Mutex::new(Files { seen: note(seen.to_owned()), owed, removed }))
    }

    /// What the process before has left: purges that the disk has, those that somebody lacks, and
    /// what was removed.
    pub(super) fn read(&self) -> [Vec<u8>; 3] {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Files { seen, owed, removed } = &mut *files;
        [seen, owed, removed]
            .map(|note| note.has.insert(fs::read(&note.path).unwrap_or_default()).clone())
    }

    /// Writes down what has changed.
    pub(super) fn write(&self, purges: &Purges) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(purges);
    }

    /// The same, unless somebody does so just now: it may hang.
    pub(super) fn try_write(&self, purges: &Purges) {
        match self.0.try_lock() {
            Ok(mut files) => files.write(purges),
            Err(TryLockError::Poisoned(files)) => files.into_inner().write(purges),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

impl Files {
    fn write(&mut self, purges: &Purges) {
        // In this order: one that is written and told in between is in both.
        let (owed, seen) = (purges::encode(&purges.owed.all()), purges.encode_seen());
        self.owed.write(owed);
        self.seen.write(seen);
        self.removed.write(purges.removed.encode());
    }
}

impl Note {
    fn write(&mut self, bytes: Vec<u8>) {
        let is_there =
            |has: &Vec<u8>| *has == bytes || has.is_empty() && bytes.len() <= purges::EMPTY;
        if self.has.as_ref().is_none_or(is_there) {
            return;
        }
        match replace(&self.path, &bytes) {
            Ok(()) => self.has = Some(bytes),
            // It is tried again with the next one.
            Err(error) => tracing::debug!("cache: {} is not written: {error}", self.path.display()),
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

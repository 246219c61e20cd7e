//! What is written down beside the disk's files, for the next process: which purges that disk has,
//! so that they are not applied again, which ones somebody lacks, and what the service has yet to
//! forget.
//!
//! Nothing is written before it has been read what the process before has left; what cannot be read
//! is not nothing, and is tried again. It is not synced: what the kernel has outlives the process.
//! The disk may be slow, or stall, so one task writes (`left.rs`), and who has to know that something
//! is written waits for that, and not for long.
//!
//! Implements: REQ-CACHE-004

use std::{
    fs::{self, File},
    io::{self, Read as _},
    mem,
    path::{Path, PathBuf},
    process,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::purges::{self, MOST_BYTES, Purges};

/// How long is waited for something to be written.
const LIMIT: Duration = Duration::from_secs(1);

/// The files.
#[derive(Debug)]
pub(super) struct Notes {
    files: Mutex<Files>,
    turns: Mutex<Turns>,
    /// A turn is over.
    over: Condvar,
    wanted: Notify,
}

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
    /// What is in it; nothing if there is none. `None`: it has not been read.
    has: Option<Vec<u8>>,
    /// That has been told.
    is_unreadable: bool,
}

/// Who waits until it is written down what there is.
#[derive(Debug, Default)]
struct Turns {
    asked: u64,
    /// Of those that had asked until then.
    over: u64,
    /// Somebody has waited in vain, and nothing has been written since.
    is_late: bool,
}

/// What has been read, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Purges that the disk has.
    pub(super) seen: Vec<u8>,
    /// Those that somebody lacks.
    pub(super) owed: Vec<u8>,
    /// What was removed.
    pub(super) removed: Vec<u8>,
}

impl Notes {
    /// `seen`: the path of the first one. The others lie beside it.
    pub(super) fn new(seen: &Path) -> Self {
        let note = |path: PathBuf| Note { path, has: None, is_unreadable: false };
        let (owed, removed) = (seen.with_extension("untold"), seen.with_extension("removed"));
        let (owed, removed) = (note(owed), note(removed));
        Self {
            files: Mutex::new(Files { seen: note(seen.to_owned()), owed, removed }),
            turns: Mutex::default(),
            over: Condvar::new(),
            wanted: Notify::new(),
        }
    }

    /// What the process before has left, as far as it has not been read.
    pub(super) fn read(&self) -> Read {
        let mut files = lock(&self.files);
        let Files { seen, owed, removed } = &mut *files;
        Read { seen: seen.read(), owed: owed.read(), removed: removed.read() }
    }

    /// Writes down what has changed.
    pub(super) fn write(&self, purges: &Purges) {
        let asked = lock(&self.turns).asked;
        lock(&self.files).write(purges);
        let mut turns = lock(&self.turns);
        turns.over = turns.over.max(asked);
        turns.is_late = false;
        self.over.notify_all();
    }

    /// The same at the end, if the disk lets it in time.
    pub(super) fn write_last(&self, purges: &Purges) {
        let began = Instant::now();
        loop {
            match self.files.try_lock() {
                Ok(mut files) => return files.write(purges),
                Err(TryLockError::Poisoned(files)) => return files.into_inner().write(purges),
                Err(TryLockError::WouldBlock) if began.elapsed() >= LIMIT => return,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Has it written down what there is, and waits for that, unless somebody has waited for the disk
    /// in vain. Whether it has been done.
    pub(super) fn want(&self) -> bool {
        let mut turns = lock(&self.turns);
        turns.asked += 1;
        let turn = turns.asked;
        self.wanted.notify_one();
        let waits = |turns: &mut Turns| turns.over < turn && !turns.is_late;
        let waited = self.over.wait_timeout_while(turns, LIMIT, waits);
        let (mut turns, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_over = turns.over >= turn;
        if !mem::replace(&mut turns.is_late, !is_over) && !is_over {
            // The others need not wait either.
            self.over.notify_all();
        }
        is_over
    }

    /// Until somebody has it written.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
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
    /// What is in it, if that is not known.
    fn read(&mut self) -> Vec<u8> {
        if self.has.is_some() {
            return Vec::new();
        }
        match read(&self.path) {
            Ok(bytes) => self.has.insert(bytes).clone(),
            Err(error) => {
                if !mem::replace(&mut self.is_unreadable, true) {
                    let path = self.path.display();
                    tracing::warn!("cache: {path} cannot be read, which is tried again: {error}");
                }
                Vec::new()
            }
        }
    }

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

/// What a file has; nothing if it is not there, or longer than any that is written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MOST_BYTES {
        tracing::warn!("cache: {} is too long, and not used", path.display());
        bytes.clear();
    }
    Ok(bytes)
}

/// During an upgrade two processes write: each to a file of its own, until that is whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", process::id()));
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

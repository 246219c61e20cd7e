//! The thread that writes: batches of records to the end of the last segment; the folder itself.
//!
//! It has the folder when it has locked it. Until then, and whenever nothing can be written, the
//! store goes on with its memory, and once a second it is tried again. A folder that is not where
//! it was is begun anew.
//!
//! Implements: REQ-CACHE-002, REQ-CACHE-007

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::*},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;

use super::{
    Shared,
    batch::Batch,
    purges::PurgeFile,
    queue::{Item, Work},
    recover::recover,
    segment::Segment,
};
use crate::cache::store::{
    block::Block,
    head::{Kept, Meta},
    memory::Value,
    purge::What,
    record::HEADER,
};

/// How long to wait before the disk is tried again, and between looks whether the folder is there.
const RETRY: Duration = Duration::from_secs(1);

/// What has to be free before a disk that was full is written again.
const TRIED_BYTES: u64 = 2 << 20;

/// A batch is written when it has so many bytes, or when nothing more waits.
const BATCH_BYTES: usize = 512 << 10;

/// The thread's own state.
pub(super) struct Writer<M> {
    pub(super) shared: Arc<Shared<M>>,
    folder: Option<Folder>,
    pub(super) active: Option<Arc<Segment>>,
    pub(super) next: u64,
    pub(super) batch: Batch,
}

/// The folder, while it is ours.
struct Folder {
    lock: PathBuf,
    /// Locked for as long as it is open.
    file: File,
    purges: PurgeFile,
    looked: Instant,
}

/// Whether there is no room: on the file system (ENOSPC), or for this user (EDQUOT).
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl<M: Meta> Writer<M> {
    pub(super) fn new(shared: Arc<Shared<M>>) -> Self {
        Self { shared, folder: None, active: None, next: 0, batch: Batch::default() }
    }

    /// Writes until the store ends, and then what is left.
    pub(super) fn run(mut self) {
        loop {
            let work = match self.ready() {
                Ok(()) => self.shared.queue.take(RETRY),
                Err(error) => {
                    self.shared.queue.open(false);
                    self.give_up_segment();
                    self.shared.writing_failed(&error);
                    if self.shared.queue.wait_for_stop(RETRY) {
                        return;
                    }
                    continue;
                }
            };
            let stop = work.stop && work.items.is_empty() && !work.all;
            if let Err(error) = self.work(work) {
                self.shared.queue.open(false);
                self.give_up_segment();
                self.shared.writing_failed(&error);
                if self.shared.queue.wait_for_stop(RETRY) {
                    return;
                }
            } else if stop {
                return self.give_up_segment();
            }
        }
    }

    /// Has the folder, and lets writes come.
    fn ready(&mut self) -> io::Result<()> {
        if self.folder.as_ref().is_some_and(|folder| !folder.is_there()) {
            self.shared.readable.store(false, SeqCst);
            self.shared.queue.open(false);
            self.shared.queue.blind();
            self.give_up_segment();
            self.shared.forget_all();
            self.folder = None;
            return Err(io::Error::new(io::ErrorKind::NotFound, "the folder is gone"));
        }
        if self.folder.is_none() {
            let folder = Folder::open(&self.shared.directory)?;
            self.shared.forget_all();
            self.next = recover(&self.shared, &folder.purges)?;
            while self.shared.sealed_bytes() + self.shared.reserve() > self.shared.most_bytes
                && self.shared.forget_oldest()?
            {}
            self.folder = Some(folder);
            self.shared.queue.see(&self.shared.index);
            self.shared.readable.store(true, SeqCst);
            tracing::info!(
                "cache: {} has {} responses, {} bytes",
                self.shared.directory.display(),
                self.shared.index.heads(),
                self.shared.sealed_bytes()
            );
        }
        if let Some(folder) = &mut self.folder {
            folder.looked = Instant::now();
        }
        if self.shared.writing_fails() {
            // Something may wait for that, or nothing; it is known then either way.
            self.begin_segment()?;
            if let Some(active) = &self.active {
                active.try_room(TRIED_BYTES)?;
            }
            self.shared.writing_works();
        }
        self.shared.queue.open(true);
        Ok(())
    }

    fn work(&mut self, mut work: Work<M>) -> io::Result<()> {
        let done = self.work_through(&mut work);
        if done.is_err() {
            self.batch.give_up(&self.shared, &mut work.items);
            // Removals are not lost; what was to be stored is.
            self.shared.queue.give_back(work);
        }
        done
    }

    fn work_through(&mut self, work: &mut Work<M>) -> io::Result<()> {
        if work.all {
            self.clear()?;
            work.all = false;
        }
        while let Some(item) = work.items.pop_front() {
            match item {
                Item::Put { slot, ticket, kept } => {
                    let end = self.end();
                    self.batch.put(&self.shared, (slot, ticket, kept), end);
                }
                Item::Removed(slot) => self.batch.remove(slot),
                Item::Purge(what, answer) => self.purge(what, answer, &mut work.items)?,
                Item::Flush(answer) => {
                    self.write()?;
                    let _ = answer.send(());
                }
            }
            if self.batch.bytes.len() >= BATCH_BYTES {
                self.write()?;
            }
        }
        self.write()
    }

    /// Where the batch comes to lie, if the segment has room for it.
    pub(super) fn end(&self) -> u64 {
        self.active.as_ref().map_or(HEADER as u64, |active| active.bytes())
    }

    /// Writes the batch.
    fn write(&mut self) -> io::Result<()> {
        if self.batch.bytes.is_empty() {
            return Ok(());
        }
        let fits =
            |active: &Arc<Segment>, most: u64, more: usize| active.bytes() + more as u64 <= most;
        let more = self.batch.bytes.len();
        if !self.active.as_ref().is_some_and(|a| fits(a, self.shared.segment_bytes, more)) {
            self.begin_segment()?;
        }
        let Some(active) = self.active.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        self.batch.seal(active.salt);
        let wrote = active.append(&self.batch.bytes);
        let at = match wrote {
            Err(error) if is_full(&error) => {
                // There is less than was allowed: what is oldest goes for it.
                if !self.shared.forget_oldest()? {
                    return Err(error);
                }
                active.append(&self.batch.bytes)?
            }
            wrote => wrote?,
        };
        self.batch.done(&self.shared, active.number, at);
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.give_up_segment();
        let begun = match Segment::create(&self.shared.directory, self.next) {
            Err(error) if is_full(&error) => {
                if !self.shared.forget_oldest()? {
                    return Err(error);
                }
                Segment::create(&self.shared.directory, self.next)?
            }
            begun => begun?,
        };
        let begun = Arc::new(begun);
        self.next += 1;
        self.shared.segments().insert(begun.number, Arc::clone(&begun));
        self.shared.active.store(begun.number, Relaxed);
        self.active = Some(begun);
        self.make_room()
    }

    /// The active segment takes no more. One without a record is removed.
    fn give_up_segment(&mut self) {
        let Some(active) = self.active.take() else { return };
        self.shared.active.store(u64::MAX, Relaxed);
        if active.is_empty() {
            self.shared.segments().remove(&active.number);
            if active.remove().is_ok() && self.next == active.number + 1 {
                // So that none is missing between others.
                self.next = active.number;
            }
        }
    }

    fn purge(
        &mut self,
        what: What,
        answer: oneshot::Sender<bool>,
        rest: &mut VecDeque<Item<M>>,
    ) -> io::Result<()> {
        let written = self.write().and_then(|()| match what {
            What::All => self.clear(),
            _ => {
                let until = match &self.active {
                    Some(active) => (active.number, active.bytes()),
                    None => (self.next, 0),
                };
                self.purge_file().and_then(|file| file.append(&what, until))?;
                self.shared.purges.end(&what, until);
                Ok(())
            }
        });
        if written.is_err() {
            rest.push_front(Item::Purge(what, answer));
            return written;
        }
        if self.shared.purges.are_too_many() {
            self.settle_purges()?;
        }
        // Who asked may have gone.
        let _ = answer.send(true);
        Ok(())
    }

    /// Forgets all that is on the disk. Written down first: it takes more than one step.
    fn clear(&mut self) -> io::Result<()> {
        self.give_up_segment();
        let until = (self.next, 0);
        self.purge_file()?.append(&What::All, until)?;
        self.shared.purges.end(&What::All, until);
        self.shared.index.retain(|_| false);
        while self.shared.forget_oldest()? {}
        self.settle_purges()
    }

    /// Forgets purges that mean nothing any more.
    pub(super) fn settle_purges(&mut self) -> io::Result<()> {
        let oldest = self.shared.segments().keys().next().copied().unwrap_or(self.next);
        match self.shared.purges.settle(oldest) {
            true => self.shared.purges.store(self.purge_file()?),
            false => Ok(()),
        }
    }

    fn purge_file(&self) -> io::Result<&PurgeFile> {
        self.folder.as_ref().map(|folder| &folder.purges).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Folder {
    /// Makes the folder, if it is not there, and locks it.
    ///
    /// # Errors
    /// As mkdir(2), open(2) and flock(2); `WouldBlock` if another process has it.
    fn open(directory: &Path) -> io::Result<Self> {
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = directory.join("lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&lock)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "another process has it"),
                _ => error.into(),
            }
        })?;
        let purges = PurgeFile::of(directory);
        Ok(Self { lock, file, purges, looked: Instant::now() })
    }

    /// Whether it is still where it was; looked at once a second at most.
    fn is_there(&self) -> bool {
        if self.looked.elapsed() < RETRY {
            return true;
        }
        let inode = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|m| (m.dev(), m.ino()));
        let found = inode(fs::metadata(&self.lock));
        found.is_some() && found == inode(self.file.metadata())
    }
}

/// What a put is charged in the queue.
pub(super) fn queued_bytes<M>(kept: &Kept<M>) -> usize {
    let read = match kept {
        Kept::Head(head) => head.body.as_ref(),
        Kept::Block(block) => Some(block),
    };
    // What is in a file has to be read to be written.
    let read = read.filter(|body| body.is_in_file()).map_or(0, Block::len);
    Value::bytes(kept) + read
}

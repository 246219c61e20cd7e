//! Whether the configuration's files have changed, for a process that was told to watch them.
//!
//! What counts is their content; inotify(7) on the folders around only says when to look, so
//! that writes in place, renames over a file and exchanged links are all the same here. A folder
//! that is exchanged or made anew is another one under the same name: its watch is set again, and
//! while there is none the nearest folder above it tells of it. What inotify does not tell of is
//! found by a look from time to time, and so is everything where there is no inotify (its limits
//! are low on many machines).

use std::{
    collections::BTreeMap,
    fs, io,
    mem::MaybeUninit,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::config::Sources;

/// A file is looked at when nothing has happened around it for so long, because whoever writes
/// in place does so in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// And at the latest after this, however much happens.
const LATEST: Duration = Duration::from_secs(2);

/// How often is looked without inotify.
const POLL: Duration = Duration::from_secs(2);

/// How often is looked with it: nothing tells of a folder further up that is exchanged, nor of
/// what another machine does to files that both have.
const SELDOM: Duration = Duration::from_secs(30);

/// A watch has ended, or is at a folder that has another name now.
const GONE: ReadFlags = ReadFlags::IGNORED
    .union(ReadFlags::DELETE_SELF)
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT);

/// Folders, and which each was: device and inode. `None`: there is none by this name.
type Folders = BTreeMap<PathBuf, Option<(u64, u64)>>;

/// The folders that are watched.
#[derive(Debug, Default)]
pub(super) struct Watch {
    inotify: Option<Inotify>,
    polls: bool,
}

#[derive(Debug)]
struct Inotify {
    events: mpsc::Receiver<()>,
    folders: Folders,
    /// One of its watches has ended, or is above the folder that it is for: they are to be set anew
    /// at the next look.
    stale: Arc<AtomicBool>,
    /// A pipe that is closed with this, which ends the thread.
    _ends: OwnedFd,
}

impl Watch {
    /// Resolves when the files hold something else than what was read of them.
    pub(super) async fn changed(&mut self, sources: &Sources) {
        loop {
            // Before the look, so that nothing is missed that happens behind it.
            self.follow(sources).await;
            let looked = sources.clone();
            // They may lie on a disk that sleeps.
            if spawn_blocking(move || looked.have_changed()).await.unwrap_or(false) {
                return;
            }
            // In time or not, it is looked.
            let _ = timeout(SELDOM, self.event()).await;
            let begin = Instant::now();
            while begin.elapsed() < LATEST && timeout(QUIET, self.event()).await.is_ok() {}
        }
    }

    /// Watches the folders of these files, as they are now, and no others.
    async fn follow(&mut self, sources: &Sources) {
        if self.polls {
            return;
        }
        let sources = sources.clone();
        let Ok(folders) = spawn_blocking(move || which(&sources)).await else { return };
        let follows =
            |inotify: &Inotify| !inotify.stale.load(Acquire) && inotify.folders == folders;
        if self.inotify.as_ref().is_some_and(follows) {
            return;
        }
        match Inotify::start(folders) {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => {
                tracing::warn!("no inotify ({error}): files are looked at every {POLL:?}");
                (self.inotify, self.polls) = (None, true);
            }
        }
    }

    /// Something may have happened.
    async fn event(&mut self) {
        match &mut self.inotify {
            None => sleep(POLL).await,
            // The thread ends only with an error of read(2).
            Some(inotify) => {
                if inotify.events.recv().await.is_none() {
                    (self.inotify, self.polls) = (None, true);
                }
            }
        }
    }
}

/// The folders of files, and which those are now.
fn which(sources: &Sources) -> Folders {
    let identity = |folder: &Path| {
        let found = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
        Some((found.dev(), found.ino()))
    };
    let known = |folder: PathBuf| (identity(&folder), folder);
    sources.folders().into_iter().map(known).map(|(which, folder)| (folder, which)).collect()
}

impl Inotify {
    fn start(folders: Folders) -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB;
        let watch = |folder: &Path| match inotify::add_watch(&descriptor, folder, what) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(io::Error::from(error)),
        };
        let mut stale = false;
        for folder in folders.keys() {
            if watch(folder)? {
                continue;
            }
            // The nearest one above tells when it comes, or when one between them does.
            let _ = folder.ancestors().skip(1).find(|above| watch(above).unwrap_or(false));
            // It may have come meanwhile.
            watch(folder)?;
            stale = true;
        }
        let stale = Arc::new(AtomicBool::new(stale));
        let (ended, _ends) = pipe_with(PipeFlags::CLOEXEC)?;
        let (event, events) = mpsc::channel(1);
        let of_thread = Arc::clone(&stale);
        let reading = move || read(&descriptor, &ended, &of_thread, &event);
        thread::Builder::new().name("watch".into()).spawn(reading)?;
        Ok(Self { events, folders, stale, _ends })
    }
}

/// Tells of events until `ended`, or nobody listens. What has not been taken yet tells of further
/// ones.
fn read(descriptor: &OwnedFd, ended: &OwnedFd, stale: &AtomicBool, event: &mpsc::Sender<()>) {
    loop {
        let mut of = [descriptor, ended].map(|of| PollFd::new(of, PollFlags::IN));
        match poll(&mut of, None) {
            Ok(_) if of[1].revents().is_empty() => {}
            Err(Errno::INTR) => continue,
            _ => return,
        }
        match take(descriptor) {
            Ok(gone) => stale.fetch_or(gone, AcqRel),
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(_) => return,
        };
        if matches!(event.try_send(()), Err(mpsc::error::TrySendError::Closed(()))) {
            return;
        }
    }
}

/// Takes the events that there are. True: a watch is gone.
fn take(descriptor: &OwnedFd) -> Result<bool, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    let mut gone = false;
    loop {
        gone |= reader.next()?.events().intersects(GONE);
        // The next one would be another read(2).
        if reader.is_buffer_empty() {
            return Ok(gone);
        }
    }
}

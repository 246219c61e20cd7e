//! Whether the configuration's files have changed, for a process that was told to watch them.
//!
//! What counts is their content; inotify(7) on the folders around only says when to look, so
//! that writes in place, renames over a file and exchanged links are all the same here. Where
//! there is no inotify (its limits are low on many machines), files are looked at from time to
//! time.

use std::{
    collections::BTreeSet,
    io,
    mem::MaybeUninit,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, WatchFlags},
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

/// The folders that are watched.
#[derive(Debug, Default)]
pub(super) struct Watch {
    inotify: Option<Inotify>,
    polls: bool,
}

#[derive(Debug)]
struct Inotify {
    descriptor: Arc<OwnedFd>,
    events: mpsc::Receiver<()>,
    /// One of its watches.
    last: i32,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Resolves when the files hold something else than what was read of them.
    pub(super) async fn changed(&mut self, sources: &Sources) {
        self.follow(sources);
        loop {
            let looked = sources.clone();
            // They may lie on a disk that sleeps.
            if spawn_blocking(move || looked.have_changed()).await.unwrap_or(false) {
                return;
            }
            self.event().await;
            let begin = Instant::now();
            while begin.elapsed() < LATEST && timeout(QUIET, self.event()).await.is_ok() {}
        }
    }

    /// Watches the folders of these files, and no others.
    fn follow(&mut self, sources: &Sources) {
        let folders = sources.folders();
        if self.inotify.as_ref().is_some_and(|inotify| inotify.folders == folders) || self.polls {
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

impl Inotify {
    fn start(folders: BTreeSet<PathBuf>) -> io::Result<Self> {
        let descriptor = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
        let what = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB;
        let mut last = None;
        for folder in &folders {
            match inotify::add_watch(&descriptor, folder, what) {
                Ok(watch) => last = Some(watch),
                // Gone, and with it the file; its folder, where the link is, tells the rest.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let last = last.ok_or(io::ErrorKind::NotFound)?;
        let (event, events) = mpsc::channel(1);
        let reading = Arc::clone(&descriptor);
        thread::Builder::new().name("watch".into()).spawn(move || read(&reading, &event))?;
        Ok(Self { descriptor, events, last, folders })
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        // The thread is told of the end of a watch (IN_IGNORED), and finds nobody to tell.
        self.events.close();
        let _ = inotify::remove_watch(&self.descriptor, self.last);
    }
}

/// Tells of events until nobody listens. What has not been taken yet tells of further ones.
fn read(descriptor: &OwnedFd, event: &mpsc::Sender<()>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    while reader.next().is_ok() {
        if matches!(event.try_send(()), Err(mpsc::error::TrySendError::Closed(()))) {
            return;
        }
    }
}

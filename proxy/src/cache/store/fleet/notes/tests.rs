//! What is read and written beside the disk's files, and who waits for it.

use std::{env, sync::Arc};

use mantra_macros::req_test;

use super::*;
use crate::cache::store::{fleet::record::Wall, purge::What};

/// A folder with nothing in it, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("underpass-notes-{}-{:x}", process::id(), fastrand::u64(..));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn notes(&self) -> Notes {
        Notes::new(&self.path("seen"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// With one that somebody lacks.
fn purges() -> Purges {
    let purges = Purges::new(true);
    purges.begin_again((Wall::now(), What::Tag("red".into())));
    purges
}

#[req_test("REQ-CACHE-004")]
#[test]
fn what_cannot_be_read_is_not_taken_for_nothing() {
    let folder = Folder::new();
    let before = folder.notes();
    before.read();
    before.write(&purges());
    let left = fs::read(folder.path("seen.untold")).expect("it is written");
    // In its place is what cannot be read.
    fs::rename(folder.path("seen.untold"), folder.path("away")).expect("a file");
    fs::create_dir(folder.path("seen.untold")).expect("a folder");
    let notes = folder.notes();
    assert_eq!(notes.read(), Read::default());
    notes.write(&Purges::new(true));
    fs::remove_dir(folder.path("seen.untold")).expect("a folder, empty as it was");
    fs::rename(folder.path("away"), folder.path("seen.untold")).expect("a file");
    notes.write(&Purges::new(true));
    assert_eq!(fs::read(folder.path("seen.untold")).expect("it is left"), left);
    assert_eq!(notes.read(), Read { owed: left, ..Read::default() });
    assert_eq!(notes.read(), Read::default(), "once");
    notes.write(&Purges::new(true));
    assert_eq!(fs::read(folder.path("seen.untold")).expect("a file").len(), purges::EMPTY);
}

#[req_test("REQ-CACHE-004")]
#[test]
fn what_is_longer_than_anything_that_is_written_is_not_used() {
    let folder = Folder::new();
    for (bytes, is_used) in [(MOST_BYTES, true), (MOST_BYTES + 1, false)] {
        fs::write(folder.path("seen"), vec![0; bytes]).expect("a file");
        assert_eq!(folder.notes().read().seen.len(), if is_used { bytes } else { 0 });
    }
}

/// As it is for a time when a process takes over from another.
#[req_test("REQ-CACHE-004")]
#[test]
fn two_processes_do_not_write_into_one_file() {
    let folder = Folder::new();
    let begun = ["seen.new", "seen.untold.new", "seen.removed.new", "seen.untold.1.new"];
    for name in begun {
        fs::write(folder.path(name), b"begun").expect("a file");
    }
    let notes = folder.notes();
    notes.read();
    notes.write(&purges());
    assert!(fs::read(folder.path("seen.untold")).expect("it is written").len() > purges::EMPTY);
    for name in begun {
        assert_eq!(fs::read(folder.path(name)).expect(name), b"begun", "{name}");
    }
}

#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[test]
fn a_disk_that_stalls_is_waited_for_once() {
    let folder = Folder::new();
    let notes = Arc::new(folder.notes());
    let began = Instant::now();
    let want = || {
        thread::spawn({
            let notes = Arc::clone(&notes);
            move || notes.want()
        })
    };
    let both = [want(), want()];
    assert_eq!(both.map(|want| want.join().expect("an answer")), [false, false]);
    for _ in 0..100 {
        assert!(!notes.want());
    }
    assert!(began.elapsed() < 3 * LIMIT);
    // Until it goes on.
    notes.read();
    notes.write(&purges());
    let want = want();
    while lock(&notes.turns).asked < 103 {
        thread::yield_now();
    }
    notes.write(&purges());
    assert!(want.join().expect("an answer"));
}

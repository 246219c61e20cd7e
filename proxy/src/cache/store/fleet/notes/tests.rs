//! What is read and written beside the disk's files, and who waits for it.

use std::{env, process, sync::Arc};

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

//! What is on the disk: over restarts, damage, purges, caps.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering::SeqCst,
};

use bytes::Bytes;
use mantra_macros::req_test;

use super::{Disk, segment::Segment};
use crate::cache::{
    store::{
        DiskOptions, Form, Found, Head, Key, Meta, ObjectId, Options, Store, What,
        tests::{Note, head},
    },
    testing::until,
};

mod damage;
mod failing;
mod lent;
mod now;
mod room;

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("underpass-store-{}-{:x}", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    fn options(&self, memory_bytes: usize, bytes: u64) -> Options {
        let disk = DiskOptions { directory: self.0.clone(), bytes, index_bytes: 1 << 20 };
        Options { memory_bytes, block_bytes: 64 << 10, disk: Some(disk), fleet: None }
    }

    /// With a memory that holds next to nothing, so that what is found is from the disk.
    fn store(&self) -> Store<Note> {
        let store = Store::new(&self.options(0, 64 << 20));
        until("the folder is ready", || store.statistics().disk.unwrap().works);
        store
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().path()).collect();
        all.retain(|path| path.extension().is_some_and(|e| e == "seg"));
        all.sort();
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn found<T>(found: Found<T>) -> Option<T> {
    match found {
        Found::Memory(it) | Found::Read(it) => Some(it),
        Found::Disk(reading) | Found::Fleet(reading) => reading.await,
        Found::Absent => None,
    }
}

/// The body of a response of one block.
async fn body(store: &Store<Note>, text: &str) -> Option<Bytes> {
    let head = found(store.head(Key::of(text), text, Form::Memory)).await?;
    assert_eq!((head.text(), head.meta, head.more()), (text, Note(*b"note"), &b"and more"[..]));
    Some(head.body.as_ref()?.to_vec().into())
}

/// What is stored under a text, so that it can be told whether it is right.
fn content(text: &str, bytes: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(Key::of(text).0 as u64);
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn put(store: &Store<Note>, text: &str, content: Bytes) -> bool {
    let Some(body) = store.copy(&[content]) else { return false };
    store.fill().commit(Key::of(text), head(text, Some(body))).is_some()
}

/// Stores an object of several blocks.
fn put_blocks(store: &Store<Note>, text: &str, blocks: u32) -> ObjectId {
    let mut fill = store.fill();
    for number in 0..blocks {
        let content = content(&format!("{text}{number}"), 60_000);
        fill.put(number, store.copy(&[content]).unwrap());
    }
    fill.commit(Key::of(text), Head { body: None, ..head(text, None) }).unwrap().object()
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_is_stored_is_found_after_a_restart() {
    let folder = Folder::new();
    let store = folder.store();
    for number in 0..500 {
        let text = format!("https://a/{number}");
        assert!(put(&store, &text, content(&text, number * 37)));
    }
    let object = put_blocks(&store, "https://a/large", 20);
    store.flush().await;
    store.close();
    let store = folder.store();
    for number in 0..500 {
        let text = format!("https://a/{number}");
        assert_eq!(body(&store, &text).await, Some(content(&text, number * 37)), "{text}");
    }
    let large = found(store.head(Key::of("https://a/large"), "https://a/large", Form::Memory))
        .await
        .unwrap();
    assert_eq!(large.object(), object);
    for number in 0..20 {
        assert!(store.has_block(object, number));
        let block = found(store.block(object, number, Form::Memory)).await.unwrap();
        assert_eq!(block.to_vec(), content(&format!("https://a/large{number}"), 60_000));
    }
    assert!(!store.has_block(object, 20));
    let disk = store.statistics().disk.unwrap();
    assert_eq!((disk.objects, disk.entries, disk.damaged), (501, 521, 0));
}

/// What waits to be written is found as well.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn there_is_no_moment_at_which_what_is_stored_is_not_found() {
    let folder = Folder::new();
    let store = folder.store();
    for number in 0..2000 {
        let text = format!("https://a/{}", number % 10);
        let content = content(&format!("{text}{number}"), 3000);
        assert!(put(&store, &text, content.clone()));
        assert_eq!(body(&store, &text).await, Some(content), "{number}");
    }
    store.flush().await;
    assert_eq!(store.statistics().disk.unwrap().objects, 10);
}

/// The second read is from memory.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_is_read_from_the_disk_comes_into_memory() {
    let folder = Folder::new();
    let store = folder.store();
    assert!(put(&store, "https://a/1", content("https://a/1", 1000)));
    store.flush().await;
    store.close();
    drop(store);
    let store = Store::<Note>::new(&folder.options(1 << 20, 64 << 20));
    until("it is recovered", || store.statistics().disk.unwrap().objects == 1);
    let reading = store.head(Key::of("https://a/1"), "https://a/1", Form::Memory);
    assert!(matches!(reading, Found::Disk(_) | Found::Read(_)));
    assert!(found(reading).await.is_some());
    assert!(matches!(
        store.head(Key::of("https://a/1"), "https://a/1", Form::Memory),
        Found::Memory(_)
    ));
    assert_eq!(store.statistics().disk.unwrap().promotions, 1);
    // Another text with this key is not taken for it.
    assert!(found(store.head(Key::of("https://a/1"), "https://b/2", Form::Memory)).await.is_none());
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_is_removed_or_replaced_does_not_come_back_with_a_restart() {
    let folder = Folder::new();
    let store = folder.store();
    for number in 0..30 {
        let text = format!("https://a/{number}");
        assert!(put(&store, &text, content(&text, 100)));
    }
    store.flush().await;
    for number in 0..30 {
        let text = format!("https://a/{number}");
        match number % 3 {
            0 => store.remove(Key::of(&text)),
            1 => assert!(put(&store, &text, content("another", 100))),
            _ => {}
        }
    }
    let check = async |store: &Store<Note>| {
        for number in 0..30 {
            let text = format!("https://a/{number}");
            let expected = match number % 3 {
                0 => None,
                1 => Some(content("another", 100)),
                _ => Some(content(&text, 100)),
            };
            assert_eq!(body(store, &text).await, expected, "{text}");
        }
    };
    check(&store).await;
    store.flush().await;
    check(&store).await;
    store.close();
    check(&folder.store()).await;
}

/// What was stored while nobody knew yet what the folder has is the newer one.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_is_removed_before_the_folder_is_read_does_not_come_back() {
    let folder = Folder::new();
    let first = folder.store();
    for text in ["https://a/1", "https://a/2", "https://a/3", "https://a/4"] {
        assert!(put(&first, text, content(text, 100)));
    }
    first.flush().await;
    // The second one has to wait for the first.
    let second = Store::<Note>::new(&folder.options(1 << 20, 64 << 20));
    until("it has tried", || second.statistics().disk.unwrap().errors > 0);
    assert!(!second.statistics().disk.unwrap().works);
    assert!(put(&second, "https://a/1", content("newer", 100)));
    assert_eq!(body(&second, "https://a/1").await, Some(content("newer", 100)));
    second.remove(Key::of("https://a/1"));
    second.remove(Key::of("https://a/2"));
    let mut purged = second.purge(&What::Prefix("https://a/3".into()));
    first.close();
    drop(first);
    until("the folder is free", || second.statistics().disk.unwrap().works);
    assert!(purged.written().await);
    second.flush().await;
    for restarted in [false, true] {
        let store = if restarted { folder.store() } else { second.clone() };
        for (number, there) in [(1, false), (2, false), (3, false), (4, true)] {
            let text = format!("https://a/{number}");
            assert_eq!(body(&store, &text).await.is_some(), there, "{text} {restarted}");
        }
        store.close();
    }
}

const TEXTS: [&str; 4] = ["https://a/x", "https://a/x/1", "https://a/x/2", "https://b/x/1"];

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_purge_takes_what_it_means_from_the_disk_and_survives_a_restart() {
    for (what, remain) in [
        (What::All, &[][..]),
        (What::Prefix("https://a/x/".into()), &["https://a/x", "https://b/x/1"]),
        (What::Tag("1".into()), &["https://a/x", "https://a/x/2"]),
        (What::Tag("nobody".into()), &TEXTS),
    ] {
        let folder = Folder::new();
        let store = folder.store();
        for text in TEXTS {
            assert!(put(&store, text, content(text, 100)));
        }
        store.flush().await;
        // One on its way into the queue.
        assert!(put(&store, TEXTS[1], content(TEXTS[1], 100)));
        let mut purged = store.purge(&what);
        for text in TEXTS {
            let there = body(&store, text).await.is_some();
            assert_eq!(there, remain.contains(&text), "{what:?}: {text}");
        }
        assert!(purged.written().await);
        // What is stored since is none of what was meant.
        assert!(put(&store, "https://a/x/new/1", content("new", 100)));
        store.flush().await;
        store.close();
        for _ in 0..2 {
            let store = folder.store();
            for text in TEXTS {
                let there = body(&store, text).await.is_some();
                assert_eq!(there, remain.contains(&text), "{what:?}, after a restart: {text}");
            }
            assert!(body(&store, "https://a/x/new/1").await.is_some(), "{what:?}");
            store.close();
        }
    }
}

/// Of purges that have no record behind them, and of segments that got none: no number is passed
/// over, for one that is missing is taken for a segment that was lost, and its removals with it.
#[req_test("REQ-CACHE-002", "REQ-CACHE-004")]
#[tokio::test]
async fn a_restart_that_writes_nothing_loses_nothing() {
    for between in ["a purge", "a segment without a record", "half a header", "two of them"] {
        let folder = Folder::new();
        let store = folder.store();
        for text in ["https://a/1", "https://a/2"] {
            assert!(put(&store, text, content(text, 100)));
        }
        store.flush().await;
        store.close();
        let store = folder.store();
        if between == "a purge" {
            assert!(store.purge(&What::Prefix("https://b/".into())).written().await);
        }
        store.close();
        drop(store);
        let path = folder.0.join(format!("{:016x}.seg", 1));
        match between {
            "a segment without a record" => drop(Segment::create(&folder.0, 1).unwrap()),
            "half a header" => fs::write(path, b"underpass").unwrap(),
            "two of them" => {
                fs::write(path, b"").unwrap();
                drop(Segment::create(&folder.0, 2).unwrap());
            }
            _ => {}
        }
        let store = folder.store();
        assert!(put(&store, "https://a/3", content("https://a/3", 100)));
        store.flush().await;
        store.close();
        let store = folder.store();
        for text in ["https://a/1", "https://a/2", "https://a/3"] {
            assert_eq!(body(&store, text).await, Some(content(text, 100)), "{between}: {text}");
        }
    }
}

/// A fill that is given up leaves nothing in the index, whether it was written or not.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_fill_that_is_dropped_leaves_nothing_on_the_disk() {
    let folder = Folder::new();
    let store = folder.store();
    let mut fill = store.fill();
    let object = fill.object();
    for number in 0..40 {
        fill.put(number, store.copy(&[content("x", 50_000)]).unwrap());
        if number == 20 {
            store.flush().await;
            assert!(store.statistics().disk.unwrap().entries == 21);
        }
    }
    assert!(store.has_block(object, 0));
    drop(fill);
    assert!((0..40).all(|number| !store.has_block(object, number)));
    store.flush().await;
    assert!((0..40).all(|number| !store.has_block(object, number)));
    let disk = store.statistics().disk.unwrap();
    assert_eq!((disk.entries, disk.queued_bytes), (0, 0));
}

impl<M: Meta> Disk<M> {
    /// Nothing comes from it by a thread until this is dropped, nor in any other way.
    pub(in crate::cache::store) fn stalls(&self) -> impl Sized + use<'_, M> {
        self.shared.reads_now.store(false, SeqCst);
        self.shared.segments()
    }

    pub(in crate::cache::store) fn loses_patience(&self) {
        self.shared.patience.lose();
    }
}

fn newest(folder: &Folder) -> PathBuf {
    folder.segments().pop().unwrap()
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

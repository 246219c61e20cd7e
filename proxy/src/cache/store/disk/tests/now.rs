//! What the kernel has in memory is read by who asks for it, and the rest by threads: both find the
//! same.

use std::{fs::File, sync::atomic::Ordering::SeqCst};

use rustix::fs::{Advice, fadvise};

use super::*;

/// Lengths of bodies around what is read first, and beyond it.
const LENGTHS: [usize; 8] = [0, 1, 3700, 3900, 4000, 4096, 9000, 60_000];

fn text(number: usize) -> String {
    // A head alone may be longer than what is read first.
    let long = if number.is_multiple_of(3) { "x".repeat(5000) } else { String::new() };
    format!("https://a/{long}/{number}")
}

fn fill(store: &Store<Note>) {
    for (number, length) in LENGTHS.into_iter().enumerate() {
        let text = text(number);
        assert!(put(store, &text, content(&text, length)));
    }
}

/// How many came at once, of all that is stored, which is right.
async fn read_at_once(store: &Store<Note>) -> usize {
    let mut at_once = 0;
    for (number, length) in LENGTHS.into_iter().enumerate() {
        let text = text(number);
        let found = store.head(Key::of(&text), &text, Form::Memory);
        at_once += usize::from(matches!(found, Found::Read(_)));
        let head = super::found(found).await.expect("it is stored");
        assert_eq!((head.text(), head.more()), (&*text, &b"and more"[..]));
        assert_eq!(head.body.as_ref().unwrap().to_vec(), content(&text, length), "{length}");
        assert!(
            super::found(store.head(Key::of(&text), "https://b/", Form::Memory)).await.is_none()
        );
    }
    at_once
}

fn reads_now(store: &Store<Note>) -> bool {
    store.0.disk.as_ref().unwrap().shared.reads_now.load(SeqCst)
}

/// Reads until as much comes at once as is wanted; says whether it did. The kernel keeps what it likes
/// (memory may be short, and some machines take back what was not used for a moment), so that one try
/// proves nothing.
async fn comes_at_once(store: &Store<Note>, wanted: impl Fn(usize) -> bool) -> bool {
    for _ in 0..50 {
        if wanted(read_at_once(store).await) {
            return true;
        }
    }
    false
}

/// Asks the kernel to let go of what it has of the files.
fn let_go(folder: &Folder) {
    for path in folder.segments() {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

#[req_test("REQ-CACHE-007", "REQ-CACHE-002")]
#[tokio::test]
async fn what_the_kernel_has_is_read_at_once_and_the_rest_by_threads() {
    let folder = Folder::new();
    let store = folder.store();
    fill(&store);
    let object = put_blocks(&store, "https://blocks/", 2);
    store.flush().await;
    let first = read_at_once(&store).await;
    if !reads_now(&store) {
        assert_eq!(first, 0);
        return eprintln!("skipped: this file system cannot tell what it has in memory");
    }
    let all = |at_once| at_once == LENGTHS.len();
    assert!(comes_at_once(&store, all).await, "all of it is in memory");
    let mut block_at_once = false;
    for _ in 0..50 {
        let block = store.block(object, 1, Form::Memory);
        block_at_once |= matches!(block, Found::Read(_));
        let read = super::found(block).await.expect("it is stored");
        assert_eq!(read.to_vec(), content("https://blocks/1", 60_000));
    }
    assert!(block_at_once, "a block is as good as a head");
    let mut waited = false;
    for _ in 0..50 {
        let_go(&folder);
        waited = !all(read_at_once(&store).await);
        if waited {
            break;
        }
    }
    assert!(waited, "some of it had to be waited for");
    assert!(comes_at_once(&store, all).await, "what was waited for is in memory again");
    let read = super::found(store.block(object, 0, Form::Memory)).await.expect("it is stored");
    assert_eq!(read.to_vec(), content("https://blocks/0", 60_000));
    let disk = store.statistics().disk.unwrap();
    assert_eq!((disk.damaged, disk.errors, disk.busy, disk.queued_reads), (0, 0, 0, 0));
}

/// As on a file system that cannot tell.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn threads_read_where_nobody_can_tell_what_the_kernel_has() {
    let folder = Folder::new();
    let store = folder.store();
    fill(&store);
    store.flush().await;
    store.0.disk.as_ref().unwrap().shared.reads_now.store(false, SeqCst);
    assert_eq!(read_at_once(&store).await, 0);
}

/// What is gone is not read at once either.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_was_purged_is_not_read_at_once() {
    let folder = Folder::new();
    let store = folder.store();
    fill(&store);
    store.flush().await;
    store.remove(Key::of(&text(1)));
    assert!(matches!(store.head(Key::of(&text(1)), &text(1), Form::Memory), Found::Absent));
    store.purge(&What::Tag("2".into()));
    assert!(matches!(store.head(Key::of(&text(2)), &text(2), Form::Memory), Found::Absent));
    store.flush().await;
    assert!(matches!(store.head(Key::of(&text(2)), &text(2), Form::Memory), Found::Absent));
    assert!(super::found(store.head(Key::of(&text(4)), &text(4), Form::Memory)).await.is_some());
    store.purge(&What::All);
    assert!(matches!(store.head(Key::of(&text(4)), &text(4), Form::Memory), Found::Absent));
}

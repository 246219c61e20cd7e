//! Bodies that stay in their files, for sockets.

use std::{fs::OpenOptions, os::unix::fs::FileExt as _};

use super::*;
use crate::cache::store::Stored;

const TEXT: &str = "https://a/large";
const LEN: usize = 60_000;

/// A store with so much memory, which has let go of what it has written.
async fn stored(folder: &Folder, memory_bytes: usize) -> Store<Note> {
    let store = folder.store();
    assert!(put(&store, TEXT, content(TEXT, LEN)));
    assert!(put(&store, "https://a/small", content("https://a/small", 20_000)));
    store.flush().await;
    drop(store);
    let options = folder.options(memory_bytes, 64 << 20);
    let store = Store::new(&options);
    until("the folder is ready", || store.statistics().disk.unwrap().works);
    store
}

/// For a socket: it may take a few tries until the kernel has it in memory and says so.
async fn for_a_socket(store: &Store<Note>) -> Stored<Note> {
    for _ in 0..50 {
        // By threads, where it is not.
        let head =
            found(store.head(Key::of(TEXT), TEXT, Form::Socket)).await.expect("it is stored");
        assert!(head.body.as_ref().unwrap().to_vec() == content(TEXT, LEN));
        if head.is_in_file() {
            return head;
        }
    }
    panic!("never in its file");
}

/// Changes the last byte of the body.
fn damage(folder: &Folder) {
    let path = &folder.segments()[0];
    let bytes = fs::read(path).unwrap();
    let body = content(TEXT, LEN);
    let at = bytes.windows(64).position(|window| window == &body[..64]).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[!body[LEN - 1]], (at + LEN - 1) as u64).unwrap();
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_large_body_stays_in_its_file_until_somebody_wants_to_read_it() {
    let folder = Folder::new();
    let store = stored(&folder, 4 << 20).await;
    let head = for_a_socket(&store).await;
    let body = head.body.as_ref().unwrap();
    assert!(body.bytes(7) == content(TEXT, LEN)[7..] && body.bytes(LEN).is_empty());
    let held = store.statistics().memory_bytes;
    assert!(held < 16 << 10, "{held} bytes for where it is");
    // It is known now, and read no more.
    let promotions = store.statistics().disk.unwrap().promotions;
    let again = store.head(Key::of(TEXT), TEXT, Form::Socket);
    assert!(matches!(&again, Found::Read(head) if head.is_in_file()), "{again:?}");
    assert_eq!(store.statistics().disk.unwrap().promotions, promotions);
    // A small one is copied.
    let small = "https://a/small";
    let small = found(store.head(Key::of(small), small, Form::Socket)).await.unwrap();
    assert!(!small.is_in_file());
    let read = found(store.head(Key::of(TEXT), TEXT, Form::Memory)).await.unwrap();
    assert!(!read.is_in_file() && read.body.as_ref().unwrap().to_vec() == content(TEXT, LEN));
    // From then on it is in memory, for everybody.
    for form in [Form::Memory, Form::Socket] {
        let found = store.head(Key::of(TEXT), TEXT, form);
        assert!(matches!(&found, Found::Memory(head) if !head.is_in_file()), "{found:?}");
    }
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn blocks_stay_in_their_files_as_well() {
    let folder = Folder::new();
    let store = folder.store();
    let object = put_blocks(&store, "https://blocks/", 2);
    store.flush().await;
    let mut in_file = false;
    for _ in 0..50 {
        let block = found(store.block(object, 1, Form::Socket)).await.expect("it is stored");
        assert!(block.to_vec() == content("https://blocks/1", 60_000));
        in_file |= block.is_in_file();
    }
    assert!(in_file);
    assert!(!found(store.block(object, 1, Form::Memory)).await.unwrap().is_in_file());
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn what_is_damaged_is_not_lent() {
    let folder = Folder::new();
    let store = stored(&folder, 4 << 20).await;
    damage(&folder);
    assert!(found(store.head(Key::of(TEXT), TEXT, Form::Socket)).await.is_none());
    assert_eq!(store.statistics().disk.unwrap().damaged, 1);
}

/// A disk may give other bytes later than it has given before.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn what_is_known_to_be_in_its_file_and_found_damaged_is_lent_no_more() {
    let folder = Folder::new();
    let store = stored(&folder, 4 << 20).await;
    let head = for_a_socket(&store).await;
    damage(&folder);
    // Somebody reads it who compares.
    assert!(found(store.head(Key::of(TEXT), TEXT, Form::Memory)).await.is_none());
    assert_eq!(store.statistics().disk.unwrap().damaged, 1);
    assert!(head.is_in_file());
    assert!(found(store.head(Key::of(TEXT), TEXT, Form::Socket)).await.is_none());
}

/// One page more is one segment of TCP more. What is between them is not taken for a hole, either.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_body_for_sockets_lies_in_as_few_pages_as_can_be() {
    let folder = Folder::new();
    let store = folder.store();
    let sizes = [64_000, 700, 40_000, 64_000, 20_000, 5_000, 64_000, 33_000];
    let texts: Vec<String> = (0..40).map(|number| format!("https://a/{number}")).collect();
    let content = |number: usize| content(&texts[number], sizes[number % sizes.len()]);
    for (number, text) in texts.iter().enumerate() {
        assert!(put(&store, text, content(number)));
        if number % 3 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    let bytes: Vec<u8> =
        folder.segments().iter().flat_map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(folder.segments().len(), 1);
    for number in 0..texts.len() {
        let body = content(number);
        let at = bytes.windows(64).position(|window| window == &body[..64]).expect("it is there");
        let pages = (at % 4096 + body.len()).div_ceil(4096);
        if body.len() > 32 << 10 {
            assert_eq!(pages, body.len().div_ceil(4096), "{number}, at {at}");
        }
    }
    drop(store);
    let store = folder.store();
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(body(&store, text).await, Some(content(number)), "{text}");
    }
}

/// The folder of a store that was allowed more: its segments are longer than any of this one.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_lies_beyond_a_window_is_read_into_memory() {
    let folder = Folder::new();
    let store: Store<Note> = Store::new(&folder.options(4 << 20, 1 << 30));
    until("the folder is ready", || store.statistics().disk.unwrap().works);
    for number in 0..240 {
        let text = format!("https://a/{number}");
        assert!(put(&store, &text, content(&text, LEN)));
        store.flush().await;
    }
    drop(store);
    let store: Store<Note> = Store::new(&folder.options(4 << 20, 128 << 20));
    until("the folder is ready", || store.statistics().disk.unwrap().works);
    for number in [0, 239] {
        let text = format!("https://a/{number}");
        let head = found(store.head(Key::of(&text), &text, Form::Socket)).await.unwrap();
        let body = head.body.as_ref().unwrap();
        assert!(!head.is_in_file() && body.to_vec() == content(&text, LEN), "{number}");
    }
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_purged_is_not_found_and_stays_for_who_has_it() {
    let folder = Folder::new();
    let store = stored(&folder, 4 << 20).await;
    let head = for_a_socket(&store).await;
    let body = head.body.as_ref().unwrap();
    let anchor = body.anchor().expect("it is there");
    store.purge(&What::All);
    assert!(matches!(store.head(Key::of(TEXT), TEXT, Form::Socket), Found::Absent));
    store.flush().await;
    until("its file is gone", || folder.segments().is_empty());
    assert!(body.bytes(0) == content(TEXT, LEN), "who has an anchor has the file");
    drop(anchor);
    until("nobody has it", || body.anchor().is_none());
    assert!(body.bytes(0).is_empty());
}

/// As when a server has said that it still holds.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_head_is_written_again_with_the_body_that_is_in_a_file() {
    let folder = Folder::new();
    let store = stored(&folder, 4 << 20).await;
    let known = for_a_socket(&store).await;
    let body = known.body.clone();
    let fresh = Head { keep_until: known.keep_until - 1, ..head(TEXT, body) };
    assert!(store.refill(known.object()).commit(Key::of(TEXT), fresh).is_some());
    store.flush().await;
    drop((known, store));
    let store = folder.store();
    let found = found(store.head(Key::of(TEXT), TEXT, Form::Memory)).await.expect("it is stored");
    assert_eq!(found.keep_until, head(TEXT, None).keep_until - 1);
    assert!(found.body.as_ref().unwrap().to_vec() == content(TEXT, LEN));
}

//! Stores that share a folder: what reaches the others, and what must not.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mantra_macros::req_test;

use super::{Options as FleetOptions, Service};
use crate::cache::{
    store::{
        DiskOptions, FleetStatistics, Form, Found, Key, Meta, ObjectId, Options, Store, What,
        tests::{Note, head},
    },
    testing::until,
};

mod hanging;
mod restart;

const BLOCK: usize = 4096;

/// A folder that stores share, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("underpass-fleet-{}-{:x}", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    fn options(&self) -> Options {
        let fleet = FleetOptions {
            service: Service::Folder(self.0.join("shared")),
            timeout: Duration::from_secs(5),
            max_object_bytes: 64 << 10,
            queue_bytes: 1 << 20,
        };
        Options { memory_bytes: 4 << 20, block_bytes: BLOCK, disk: None, fleet: Some(fleet) }
    }

    fn store(&self) -> Store<Note> {
        let store = Store::new(&self.options());
        until("the folder is ready", || of(&store).works);
        store
    }

    /// With a disk, of this name, and so much memory.
    fn with_disk(&self, name: &str, memory_bytes: usize) -> Store<Note> {
        let directory = self.0.join(name);
        let disk = DiskOptions { directory, bytes: 64 << 20, index_bytes: 1 << 20 };
        let store = Store::new(&Options { disk: Some(disk), memory_bytes, ..self.options() });
        until("both are ready", || of(&store).works && store.statistics().disk.unwrap().works);
        store
    }

    fn files(&self, kind: &str) -> Vec<PathBuf> {
        fn add(folder: &Path, to: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => add(&path, to),
                    path => to.push(path),
                }
            }
        }
        let mut all = Vec::new();
        add(&self.0.join(format!("shared/v1/{BLOCK}/{kind}")), &mut all);
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn of<M: Meta>(store: &Store<M>) -> FleetStatistics {
    store.statistics().fleet.expect("a fleet")
}

fn is_written<M: Meta>(store: &Store<M>) {
    let fleet = store.0.fleet.get().expect("a fleet");
    until("all is written", || fleet.shared.lanes.are_empty());
}

fn content(text: &str, bytes: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(Key::of(text).0 as u64);
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn put(store: &Store<Note>, text: &str, bytes: usize) {
    let body = store.copy(&[content(text, bytes)]);
    store.fill().commit(Key::of(text), head(text, body)).expect("room");
    is_written(store);
}

/// Of several blocks, of which the last one is short.
fn put_blocks(store: &Store<Note>, text: &str, blocks: u32, meta: Note) -> ObjectId {
    let mut fill = store.fill();
    let all = content(text, blocks as usize * BLOCK - 100);
    for (number, piece) in all.chunks(BLOCK).enumerate() {
        fill.put(number as u32, store.copy(&[all.slice_ref(piece)]).expect("room"));
    }
    let object = fill.object();
    let length = Some(all.len() as u64);
    let head = crate::cache::store::Head { length, meta, ..head(text, None) };
    fill.commit(Key::of(text), head).expect("room");
    is_written(store);
    object
}

async fn had<T>(found: Found<T>) -> Option<T> {
    match found {
        Found::Memory(it) | Found::Read(it) => Some(it),
        Found::Disk(reading) | Found::Fleet(reading) => reading.await,
        Found::Absent => None,
    }
}

async fn seek(store: &Store<Note>, text: &str) -> Option<crate::cache::store::Stored<Note>> {
    let key = Key::of(text);
    if let Some(stored) = had(store.head(key, text, Form::Memory)).await {
        return Some(stored);
    }
    let stored = had(store.seek(key, text)).await?;
    store.adopt(key, &stored, Form::Memory, |_| false).then_some(stored)
}

async fn body(store: &Store<Note>, text: &str) -> Option<Bytes> {
    Some(seek(store, text).await?.body.as_ref()?.to_vec().into())
}

/// `put` counts as older than a purge that is made within a second.
async fn second() {
    tokio::time::sleep(Duration::from_millis(super::purges::SKEW_MS + 50)).await;
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_one_has_stored_another_finds() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    for (text, bytes) in
        [("https://a/small", 100), ("https://a/empty", 0), ("https://a/full", BLOCK)]
    {
        assert_eq!(body(&other, text).await, None, "{text}");
        put(&one, text, bytes);
        assert_eq!(body(&other, text).await.expect(text), content(text, bytes));
        let found = seek(&other, text).await.expect(text);
        assert_eq!(
            (found.text(), found.meta, found.more()),
            (text, Note(*b"note"), &b"and more"[..])
        );
        assert!(found.tags().eq(["all", text.rsplit('/').next().unwrap()]));
        assert!(
            matches!(other.head(Key::of(text), text, Form::Memory), Found::Memory(_)),
            "from now on"
        );
    }
    let statistics = of(&other);
    assert_eq!((statistics.hits, statistics.misses, statistics.writes), (3, 3, 0));
    assert_eq!(of(&one).writes, 3);
    let key = Key::of("https://a/small");
    assert!(had(folder.store().seek(key, "https://another/text")).await.is_none());
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_body_of_blocks_is_found_block_by_block() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    let text = "https://a/large";
    let object = put_blocks(&one, text, 12, Note(*b"note"));
    assert_eq!((folder.files("b").len(), folder.files("h").len()), (12, 1));
    let stored = seek(&other, text).await.expect("the head");
    assert_eq!(stored.object(), object);
    assert!(!other.has_block(object, 0) && other.may_have_block(object, 0));
    let mut all = Vec::new();
    for number in 0..12 {
        let block = had(other.seek_block(object, number, 11, Form::Memory)).await.expect("a block");
        all.extend(block.to_vec());
        assert!(other.has_block(object, number));
    }
    assert_eq!(all, content(text, 12 * BLOCK - 100));
    // One that is gone: its object is not asked for any more.
    for file in folder.files("b") {
        fs::remove_file(file).expect("a block");
    }
    let third = folder.store();
    seek(&third, text).await.expect("the head");
    assert!(third.may_have_block(object, 3));
    assert!(had(third.seek_block(object, 3, 3, Form::Memory)).await.is_none());
    assert!(!third.may_have_block(object, 3) && !third.may_have_block(object, 4));
    assert!(matches!(third.seek_block(object, 4, 4, Form::Memory), Found::Absent));
    // What is fetched then is shared.
    third.refill(object).put(3, third.copy(&[Bytes::from_static(b"fetched")]).expect("room"));
    is_written(&third);
    assert_eq!(folder.files("b").len(), 1);
}

/// Whoever asks as soon as others have been answered is answered too.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_is_asked_for_again_and_again_is_there() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    let text = "https://a/1";
    put(&one, text, 10);
    for number in 0..2000 {
        let found = had(other.seek(Key::of(text), text)).await;
        assert!(found.is_some(), "{number}: {:?}", of(&other));
    }
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn what_could_not_be_had_again_is_not_shared() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    put_blocks(&one, "https://a/lost", 2, Note(*b"lost"));
    put_blocks(&one, "https://a/too-large", 20, Note(*b"note"));
    assert_eq!((folder.files("b").len(), folder.files("h").len()), (0, 0));
    assert!(seek(&other, "https://a/lost").await.is_none());
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn purges_go_round() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    let all = ["https://a/x/1", "https://a/x/2", "https://b/x/3"];
    for text in all {
        put(&one, text, 10);
        assert!(body(&other, text).await.is_some());
    }
    second().await;
    one.purge(&What::Prefix("https://a/x/1".into()));
    one.purge(&What::Tag("3".into()));
    assert!(body(&one, all[0]).await.is_none() && body(&one, all[2]).await.is_none(), "at once");
    until("the other has heard of it", || {
        let gone = |text| matches!(other.head(Key::of(text), text, Form::Memory), Found::Absent);
        gone(all[0]) && gone(all[2])
    });
    let third = folder.store();
    for store in [&other, &third] {
        assert!(body(store, all[0]).await.is_none() && body(store, all[2]).await.is_none());
        assert!(body(store, all[1]).await.is_some(), "not meant");
    }
    assert_eq!(of(&third).refused, 2);
    // What is asked for later is taken.
    second().await;
    put(&other, all[0], 20);
    assert_eq!(body(&third, all[0]).await.expect("a new one"), content(all[0], 20));
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_on_its_way_during_a_purge_does_not_come_in_behind_it() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.store());
    let text = "https://a/1";
    put(&one, text, 10);
    for forgets in [
        (|store: &Store<Note>| _ = store.purge_here(&What::Tag("all".into()))) as fn(&Store<Note>),
        |store| store.remove(Key::of("https://a/1")),
    ] {
        let stored = had(other.seek(Key::of(text), text)).await.expect("it is there");
        forgets(&other);
        for older in [false, true] {
            assert!(!other.adopt(Key::of(text), &stored, Form::Memory, |_| older));
        }
        assert!(matches!(other.head(Key::of(text), text, Form::Memory), Found::Absent));
    }
    is_written(&other);
    assert_eq!(folder.files("h").len(), 0, "a removal removes it for all");
}

/// Between a look at what is there and the exchange something newer may come from an origin.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_comes_in_while_it_is_compared_is_not_replaced() {
    let folder = Folder::new();
    let one = folder.store();
    let text = "https://a/1";
    put(&one, text, 10);
    let put_here = |store: &Store<Note>, bytes: usize| {
        let mut fill = store.fill();
        fill.for_us_alone();
        let body = store.copy(&[content(text, bytes)]);
        fill.commit(Key::of(text), head(text, body)).expect("room");
        let is_idle = || store.statistics().disk.is_none_or(|disk| disk.queued_bytes == 0);
        until("it is on the disk", is_idle);
    };
    // In memory, and on the disk only.
    let on_disk = folder.with_disk("disk", 0);
    for other in [&folder.store(), &on_disk] {
        for comes_in in [false, true] {
            put_here(other, 20);
            let given = had(other.seek(Key::of(text), text)).await.expect("it is there");
            let is_adopted = other.adopt(Key::of(text), &given, Form::Memory, |there| {
                let is_older = there.length == Some(20);
                if is_older && comes_in {
                    put_here(other, 30);
                }
                is_older
            });
            assert_eq!(is_adopted, !comes_in);
            let now =
                had(other.head(Key::of(text), text, Form::Memory)).await.expect("one of them");
            assert_eq!(now.length, Some(if comes_in { 30 } else { 10 }));
        }
    }
}

/// The same for what is here and is to be shared again.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_stored_over_one_takes_the_place_of_no_other() {
    let folder = Folder::new();
    let text = "https://a/1";
    let of_length = |store: &Store<Note>, bytes| head(text, store.copy(&[content(text, bytes)]));
    let put_here = |store: &Store<Note>, bytes| {
        store.fill().commit(Key::of(text), of_length(store, bytes)).expect("room");
        let is_idle = || store.statistics().disk.is_none_or(|disk| disk.queued_bytes == 0);
        until("it is on the disk", is_idle);
    };
    let on_disk = folder.with_disk("disk", 0);
    for store in [&folder.store(), &on_disk] {
        for comes_in in [false, true] {
            put_here(store, 20);
            let new = of_length(store, 10);
            let stored = store.fill().commit_over(Key::of(text), new, |there| {
                let is_it = there.length == Some(20);
                if is_it && comes_in {
                    put_here(store, 30);
                }
                is_it
            });
            assert_eq!(stored.is_some(), !comes_in);
            let now = had(store.head(Key::of(text), text, Form::Memory)).await.expect("one");
            assert_eq!(now.length, Some(if comes_in { 30 } else { 10 }));
        }
        assert!(store.fill().commit_over(Key::of(text), of_length(store, 5), |_| false).is_none());
        let (key, other) = (Key::of("https://a/2"), head("https://a/2", None));
        assert!(store.fill().commit_over(key, other, |_| true).is_none(), "there is none");
    }
}

/// What is on the disk cannot be compared while that is not asked, and may be newer.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_the_disk_has_is_not_replaced_while_it_cannot_be_asked() {
    let folder = Folder::new();
    let (one, other) = (folder.store(), folder.with_disk("disk", 0));
    let text = "https://a/1";
    put(&one, text, 10);
    let given = had(other.seek(Key::of(text), text)).await.expect("it is there");
    let mut fill = other.fill();
    fill.for_us_alone();
    fill.commit(Key::of(text), head(text, other.copy(&[content(text, 20)]))).expect("room");
    other.flush().await;
    other.disk_loses_patience();
    assert!(matches!(other.head(Key::of(text), text, Form::Memory), Found::Absent));
    assert!(!other.adopt(Key::of(text), &given, Form::Memory, |_| false), "the disk has one");
    // What it has none of is taken.
    let (elsewhere, key) = ("https://a/2", Key::of("https://a/2"));
    put(&one, elsewhere, 10);
    let given = had(other.seek(key, elsewhere)).await.expect("it is there");
    assert!(other.adopt(key, &given, Form::Memory, |_| false));
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_removal_counts_here_even_if_the_service_does_not_do_it() {
    let folder = Folder::new();
    let one = folder.store();
    let text = "https://a/1";
    put(&one, text, 10);
    let [file] = &folder.files("h")[..] else { panic!("one head") };
    let before = fs::read(file).expect("the head");
    one.remove(Key::of(text));
    is_written(&one);
    fs::write(file, before).expect("as if it had stayed");
    assert!(seek(&one, text).await.is_none());
    assert!(seek(&folder.store(), text).await.is_some(), "another one does not know of it");
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn what_is_damaged_is_not_there() {
    let folder = Folder::new();
    let one = folder.store();
    let text = "https://a/1";
    put(&one, text, 300);
    let [file] = &folder.files("h")[..] else { panic!("one head") };
    let whole = fs::read(file).expect("the head");
    let other = folder.store();
    for step in 0..40 {
        let place = step * (whole.len() - 64) / 40;
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(file, bytes).expect("the head");
        assert!(seek(&other, text).await.is_none(), "{place} of {}", whole.len());
        fs::write(file, &whole[..place]).expect("the head");
        assert!(seek(&other, text).await.is_none(), "cut at {place}");
    }
    fs::write(file, vec![0; 1 << 20]).expect("the head");
    assert!(seek(&other, text).await.is_none(), "longer than anything");
    assert_eq!(of(&other).damaged, 81);
    assert!(of(&other).works, "that is not the service's fault");
    fs::write(file, whole).expect("the head");
    assert!(seek(&other, text).await.is_some());
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_service_that_does_not_work_is_not_asked_until_it_does() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).expect("a folder");
    fs::write(folder.0.join("shared"), b"").expect("a file in its place");
    let store = Store::new(&folder.options());
    until("it has been tried", || of(&store).errors > 0);
    assert!(!of(&store).works);
    assert!(matches!(store.seek(Key::of("https://a/1"), "https://a/1"), Found::Absent));
    put(&store, "https://a/1", 10);
    store.remove(Key::of("https://a/2"));
    // What is to be forgotten waits, and what is to be kept does not.
    assert_eq!((of(&store).dropped, of(&store).writes), (1, 0));
    assert!(seek(&store, "https://a/1").await.is_some(), "here");
    fs::remove_file(folder.0.join("shared")).expect("the file");
    until("it works", || of(&store).works);
    put(&store, "https://a/1", 10);
    assert_eq!(of(&store).writes, 1);
}

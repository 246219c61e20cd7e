//! What comes in, how it is found, and how it goes, in memory.

use mantra_macros::req_test;

use super::*;

/// What a policy might keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note(pub(super) [u8; 4]);

impl Meta for Note {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.0);
    }

    fn decode(from: &[u8]) -> Option<(Self, &[u8])> {
        let (note, more) = from.split_first_chunk()?;
        Some((Self(*note), more))
    }

    fn is_mendable(&self, _more: &[u8]) -> bool {
        self.0 != *b"lost"
    }
}

pub(super) fn head(text: &str, body: Option<Block>) -> Head<Note> {
    Head {
        text: text.into(),
        tags: ["all".into(), text.rsplit('/').next().unwrap_or_default().into()].into(),
        length: body.as_ref().map(|body| body.len() as u64),
        keep_until: u64::MAX,
        meta: Note(*b"note"),
        more: (*b"and more").into(),
        body,
    }
}

impl<M: Meta> Store<M> {
    /// Whoever reads from the disk waits until this is dropped.
    pub(in crate::cache) fn disk_stalls(&self) -> impl Sized + use<'_, M> {
        self.0.disk.as_ref().map(Disk::stalls)
    }

    /// As if somebody had waited for the disk in vain.
    pub(in crate::cache) fn disk_loses_patience(&self) {
        self.0.disk.as_ref().inspect(|disk| disk.loses_patience());
    }
}

fn in_memory(memory_bytes: usize) -> Store<Note> {
    Store::new(&Options { memory_bytes, block_bytes: 1 << 20, disk: None, fleet: None })
}

fn store() -> Store<Note> {
    in_memory(4 << 20)
}

/// Stores a response of one block.
pub(super) fn put(store: &Store<Note>, text: &str, body: &'static [u8]) -> Option<ObjectId> {
    let body = store.copy(&[Bytes::from_static(body)]);
    let fill = store.fill();
    let object = fill.object();
    fill.commit(Key::of(text), head(text, Some(body?))).map(|_| object)
}

pub(super) fn body(store: &Store<Note>, text: &str) -> Option<Bytes> {
    match store.head(Key::of(text), text, Form::Memory) {
        Found::Memory(found) => Some(found.body.as_ref()?.to_vec().into()),
        _ => None,
    }
}

fn block(store: &Store<Note>, object: ObjectId, number: u32) -> Option<Bytes> {
    match store.block(object, number, Form::Memory) {
        Found::Memory(block) => Some(block.to_vec().into()),
        _ => None,
    }
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_small_response_is_one_entry() {
    let store = store();
    put(&store, "https://a/1", b"one").unwrap();
    assert_eq!(body(&store, "https://a/1").unwrap(), "one");
    assert_eq!(store.statistics().memory_entries, 1);
    assert_eq!(store.statistics().memory_objects, 1);
    put(&store, "https://a/1", b"another").unwrap();
    assert_eq!(body(&store, "https://a/1").unwrap(), "another");
    assert_eq!(store.statistics().memory_entries, 1);
    store.remove(Key::of("https://a/1"));
    assert_eq!(body(&store, "https://a/1"), None);
    assert_eq!(store.statistics().memory_listed_bytes, 0);
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_key_that_two_texts_share_gives_neither_the_others_response() {
    let store = store();
    let fill = store.fill();
    fill.commit(Key(7), head("https://a/1", None)).unwrap();
    assert!(matches!(store.head(Key(7), "https://a/1", Form::Memory), Found::Memory(_)));
    assert!(matches!(store.head(Key(7), "https://b/2", Form::Memory), Found::Absent));
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_fill_is_followed_by_its_object_and_found_by_its_key_when_it_is_committed() {
    let store = store();
    let mut fill = store.fill();
    let object = fill.object();
    let pieces = [Bytes::from_static(b"two "), Bytes::from_static(b"pieces")];
    fill.put(0, store.copy(&pieces).unwrap());
    fill.put(3, store.copy(&[Bytes::from_static(b"last")]).unwrap());
    assert_eq!(block(&store, object, 0).unwrap(), "two pieces");
    assert!(matches!(
        store.head(Key::of("https://a/1"), "https://a/1", Form::Memory),
        Found::Absent
    ));
    let stored = fill.commit(Key::of("https://a/1"), head("https://a/1", None)).unwrap();
    assert_eq!(stored.object(), object);
    let Found::Memory(found) = store.head(Key::of("https://a/1"), "https://a/1", Form::Memory)
    else {
        panic!()
    };
    assert_eq!(found.object(), object);
    assert_eq!(found.meta, Note(*b"note"));
    assert!(store.has_block(object, 3) && !store.has_block(object, 1));
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_fill_that_is_dropped_leaves_nothing_behind() {
    let store = store();
    let mut fill = store.fill();
    let object = fill.object();
    for number in [5, 2, 9] {
        fill.put(number, store.copy(&[Bytes::from_static(b"x")]).unwrap());
    }
    drop(fill);
    assert!((0..10).all(|number| !store.has_block(object, number)));
    assert_eq!(store.statistics().memory_entries, 0);
    assert_eq!(store.statistics().memory_listed_bytes, 0);
}

#[req_test("REQ-CACHE-002")]
#[test]
fn more_of_an_object_stays_whatever_becomes_of_the_fill() {
    let store = store();
    let mut fill = store.fill();
    let object = fill.object();
    fill.put(0, store.copy(&[Bytes::from_static(b"first")]).unwrap());
    fill.commit(Key::of("https://a/1"), head("https://a/1", None)).unwrap();
    let mut more = store.refill(object);
    more.put(1, store.copy(&[Bytes::from_static(b"second")]).unwrap());
    drop(more);
    assert_eq!(block(&store, object, 1).unwrap(), "second");
    // Another head for the same body.
    let mut fresher = head("https://a/1", None);
    fresher.meta = Note(*b"more");
    store.refill(object).commit(Key::of("https://a/1"), fresher).unwrap();
    assert_eq!(block(&store, object, 0).unwrap(), "first");
}

#[req_test("REQ-CACHE-004")]
#[test]
fn a_purge_takes_what_it_means_and_what_is_on_its_way() {
    for (what, remain) in [
        (What::All, &[][..]),
        (What::Prefix("https://a/x/".into()), &["https://a/x", "https://b/x/1"]),
        (What::Tag("1".into()), &["https://a/x", "https://a/x/2"]),
        (What::Tag("https://a/x".into()), &TEXTS),
        (What::Prefix("".into()), &[]),
    ] {
        let store = store();
        for text in TEXTS {
            put(&store, text, b"x").unwrap();
        }
        let late: Vec<_> = TEXTS.iter().map(|text| (text, store.fill())).collect();
        let removed = store.purge(&what).removed;
        assert_eq!(removed, TEXTS.len() - remain.len(), "{what:?}");
        for text in TEXTS {
            assert_eq!(body(&store, text).is_some(), remain.contains(&text), "{what:?}: {text}");
        }
        for (text, fill) in late {
            let stored = fill.commit(Key::of(text), head(text, None)).is_some();
            assert_eq!(stored, remain.contains(text), "{what:?}, on its way: {text}");
        }
        for text in TEXTS {
            assert!(put(&store, text, b"y").is_some(), "asked for since");
        }
    }
}

const TEXTS: [&str; 4] = ["https://a/x", "https://a/x/1", "https://a/x/2", "https://b/x/1"];

#[req_test("REQ-CACHE-004")]
#[test]
fn what_is_asked_for_when_its_key_is_removed_is_not_stored() {
    let store = store();
    let mut fill = store.fill();
    let object = fill.object();
    fill.put(0, store.copy(&[Bytes::from_static(b"x")]).unwrap());
    store.remove(Key::of("https://a/1"));
    assert!(fill.commit(Key::of("https://a/1"), head("https://a/1", None)).is_none());
    assert!(!store.has_block(object, 0));
}

/// Purges and fills from many threads: nothing that was asked for before a purge is found after.
#[req_test("REQ-CACHE-004")]
#[test]
fn nothing_slips_past_a_purge() {
    let store = store();
    let store = &store;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u32 {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    for number in 0..20 {
                        let text = format!("https://a/{thread}/{number}");
                        let _ = put(store, &text, b"x");
                    }
                }
            });
        }
        for _ in 0..200 {
            let epoch = store.0.epochs.now();
            store.purge(&What::Prefix("https://a/".into()));
            for thread in 0..3 {
                for number in 0..20 {
                    let text = format!("https://a/{thread}/{number}");
                    if let Found::Memory(found) = store.head(Key::of(&text), &text, Form::Memory) {
                        assert!(found.epoch > epoch, "older than the purge");
                    }
                }
            }
        }
        done.store(true, Relaxed);
    });
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_response_for_which_there_is_no_memory_is_not_stored() {
    let store = in_memory(10_000);
    assert!(store.copy(&[Bytes::from_static(&[0; 20_000])]).is_none());
    assert!(store.copy(&[Bytes::from_static(&[0; 2_000])]).is_some());
    let held = store.hold(8_000).unwrap();
    assert!(store.copy(&[Bytes::from_static(&[0; 2_000])]).is_none());
    assert_eq!(store.statistics().memory_refusals, 2);
    drop(held);
    assert!(store.statistics().memory_bytes < 4000, "a piece of each table");
    let large = head(&"x".repeat(20_000), None);
    assert!(store.fill().commit(Key(1), large).is_none());
    assert!(store.copy(&[Bytes::from(vec![0; (1 << 20) + 1])]).is_none(), "more than a block");
}

//! A disk that takes its time, for those who have no other way to what it has.

use std::{fs, thread};

use mantra_macros::req_test;

use super::*;
use crate::{cache::Counters, config};

const BLOCK: usize = 64 << 10;

/// A body of two blocks that is nowhere but on the disk, and what it is.
async fn on_disk(directory: &std::path::Path) -> (Arc<Cache>, ObjectId, Vec<u8>) {
    let config = config::Cache {
        memory_bytes: 0,
        block_bytes: BLOCK,
        disk: Some(config::CacheDisk::with_defaults(directory.to_owned())),
        ..config::Cache::with_defaults()
    };
    let cache = Cache::new(&config, Counters::default());
    eventually(|| cache.store.statistics().disk.is_some_and(|disk| disk.works));
    let content: Vec<u8> = (0..2 * BLOCK).map(|at| (at % 251) as u8).collect();
    let mut fill = cache.store.fill();
    let object = fill.object();
    for (number, bytes) in content.chunks(BLOCK).enumerate() {
        let block = cache.store.copy(&[Bytes::copy_from_slice(bytes)]).expect("room");
        fill.put(number as u32, block);
    }
    cache.store.flush().await;
    // Its blocks stay: this is not about whose they are.
    std::mem::forget(fill);
    (cache, object, content)
}

/// What the reader gives, to its end; `between` goes before each look. The clock stands still.
async fn rest(reader: &mut Reader, between: impl Fn()) -> Vec<u8> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut got = Vec::new();
    loop {
        between();
        match reader.poll_next(&mut cx) {
            Poll::Ready(Some(chunk)) => got.extend_from_slice(&chunk.expect("it is not cut")),
            Poll::Ready(None) => return got,
            Poll::Pending => {
                thread::sleep(Duration::from_millis(2));
                tokio::time::advance(AGAIN).await;
            }
        }
    }
}

fn eventually(is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "not in ten seconds");
        thread::sleep(Duration::from_millis(2));
    }
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn who_has_no_other_way_waits_for_a_disk_that_is_slow() {
    let name = format!("underpass-reader-{}-{:x}", std::process::id(), fastrand::u64(..));
    let directory = std::env::temp_dir().join(name);
    let (cache, object, content) = on_disk(&directory).await;
    let wants = [Part::Span(Span { start: 0, end: content.len() as u64 })].into();
    let mut reader = Reader::new(&cache, object, wants, None);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    {
        let _stalls = cache.store.disk_stalls();
        assert!(reader.poll_next(&mut cx).is_pending());
        // Longer than anybody waits who can have it elsewhere.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(reader.poll_next(&mut cx).is_pending());
        assert!(cache.store.keeps_block(object, 1));
    }
    // Others have found the disk too slow: that is not to be this one's end.
    let got = rest(&mut reader, || {
        cache.store.disk_loses_patience();
        assert!(!cache.store.has_block(object, 1) && cache.store.keeps_block(object, 1));
    });
    assert!(got.await == content);
    assert_eq!(cache.counters.cut.get(), 0);
    cache.store.close();
    let _ = fs::remove_dir_all(directory);
}

/// As many as may be asked for are asked for already.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn who_has_no_other_way_asks_again_where_too_much_is_asked_for() {
    let name = format!("underpass-reader-{}-{:x}", std::process::id(), fastrand::u64(..));
    let directory = std::env::temp_dir().join(name);
    let (cache, object, content) = on_disk(&directory).await;
    let mut others = cache.store.fill();
    for number in 0..600 {
        let block = cache.store.copy(&[Bytes::from_static(b"other")]).expect("room");
        others.put(number, block);
        if number % 100 == 0 {
            cache.store.flush().await;
        }
    }
    cache.store.flush().await;
    let wants = [Part::Span(Span { start: 0, end: content.len() as u64 })].into();
    let mut reader = Reader::new(&cache, object, wants, None);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    {
        let _stalls = cache.store.disk_stalls();
        let asked = |number: &u32| {
            matches!(
                cache.store.block_awaited(others.object(), *number, Form::Memory),
                Found::Disk(_)
            )
        };
        assert!((0..600).filter(asked).count() < 600, "too many are asked for");
        assert!(reader.poll_next(&mut cx).is_pending(), "it is not cut");
    }
    tokio::time::pause();
    assert!(rest(&mut reader, || ()).await == content);
    assert_eq!(cache.counters.cut.get(), 0);
    cache.store.close();
    let _ = fs::remove_dir_all(directory);
}

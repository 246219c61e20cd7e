//! The second tier: what is on the disk survives a restart, and a disk that fails fails nobody.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, eventually, pattern, proxy::scratch};

use super::{
    ask, did, get,
    ranges::{LENGTH, check_part, reply},
    with_cache,
};

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_is_on_the_disk_is_there_after_a_restart() {
    let origin =
        Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", "Vary: Accept\r\n"));
    let folder = scratch("cache");
    let cache = format!("directory = \"{}\"\nblock_bytes = \"16KiB\"", folder.display());
    let mut first = with_cache(origin.addr(), &cache, "").start();
    for target in ["/a", "/b"] {
        assert_eq!(get(&first, target, "Accept: x").await.body.len(), LENGTH);
    }
    first.term();
    assert!(first.exited().await.success());
    let second = with_cache(origin.addr(), &cache, "").start();
    // It is read beside, while requests are served.
    eventually("what is on the disk is known", async || {
        let metrics = second.metrics().await;
        metrics.sum("underpass_cache_disk_objects", &[]) >= 4.0
    })
    .await;
    let before = origin.seen().len();
    let mut wire = second.connect().await;
    let whole = ask(&mut wire, "GET", "/a", "Accept: x").await;
    assert_eq!((did(&whole), whole.body.len()), ("HIT", LENGTH));
    pattern::check(0, &whole.body);
    let part = ask(&mut wire, "GET", "/b", "Accept: x|Range: bytes=100000-100099").await;
    assert_eq!(did(&part), "HIT");
    check_part(&part, 100_000, 100_100);
    assert_eq!(origin.seen().len(), before);
    let metrics = second.metrics().await;
    let first_bytes = "underpass_cache_answer_duration_seconds_count";
    assert_eq!(metrics.sum(first_bytes, &[("tier", "disk")]), 2.0);
    drop(second);
    let _ = std::fs::remove_dir_all(folder);
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_folder_that_cannot_be_used_fails_no_request() {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", ""));
    // A file where the folder is to be.
    let path = scratch("cache");
    std::fs::write(&path, b"").expect("a file");
    let proxy = Proxy::reverse(origin.addr()).args(["--cache", path.to_str().unwrap()]).start();
    for outcome in ["MISS", "HIT"] {
        let got = get(&proxy, "/x", "").await;
        assert_eq!((got.status(), did(&got), got.body.len()), (200, outcome, LENGTH));
    }
    let _ = std::fs::remove_file(path);
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn the_quick_proxy_caches_in_memory_or_in_a_folder() {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", ""));
    let folder = scratch("cache");
    for place in ["memory", folder.to_str().unwrap()] {
        let proxy = Proxy::reverse(origin.addr()).args(["--cache", place]).start();
        for outcome in ["MISS", "HIT"] {
            assert_eq!(did(&get(&proxy, &format!("/{}", place.len()), "").await), outcome);
        }
    }
    assert!(folder.is_dir());
    let _ = std::fs::remove_dir_all(folder);
}

//! What is told of the cache: fields of answers and metrics.

use mantra_macros::req_test;
use underpass_tests::Origin;

use super::{answer, did, get, proxy};

#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn answers_say_what_the_cache_did_and_metrics_count_it() {
    let origin = Origin::bind()
        .await
        .serve(|_| answer("Cache-Control: max-age=60|Cache-Status: up; hit", "12345"));
    let proxy = proxy(origin.addr(), "").start();
    let miss = get(&proxy, "/x", "").await;
    assert_eq!(did(&miss), "MISS");
    let said = "underpass; fwd=uri-miss; fwd-status=200; ttl=60; stored";
    assert_eq!(miss.head.all("cache-status"), [said]);
    let hit = get(&proxy, "/x", "").await;
    assert!(hit.head.get("cache-status").unwrap().starts_with("underpass; hit; ttl="));
    let metrics = proxy.metrics().await;
    for (name, labels, value) in [
        ("underpass_cache_requests_total", &[("result", "miss")][..], 1.0),
        ("underpass_cache_requests_total", &[("result", "hit")], 1.0),
        ("underpass_cache_fills_total", &[("how", "stored")], 1.0),
        ("underpass_cache_filled_bytes_total", &[], 5.0),
        ("underpass_cache_served_bytes_total", &[], 5.0),
        ("underpass_cache_memory_objects", &[], 1.0),
        ("underpass_cache_under_way", &[], 0.0),
        ("underpass_cache_answer_duration_seconds_count", &[("tier", "memory")], 1.0),
        ("underpass_cache_answer_duration_seconds_count", &[], 1.0),
    ] {
        assert_eq!(metrics.sum(name, labels), value, "{name} {labels:?}");
    }
    assert!(metrics.sum("underpass_cache_memory_bytes", &[]) > 0.0);
}

#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn a_route_may_keep_it_to_itself() {
    let origin = Origin::bind().await.serve(|_| answer("Cache-Control: max-age=60", "x"));
    let proxy = proxy(origin.addr(), "status_headers = false").start();
    for _ in 0..2 {
        let got = get(&proxy, "/x", "").await;
        assert!(!got.head.has("x-cache") && !got.head.has("cache-status"));
    }
    assert_eq!(origin.seen().len(), 1);
}

//! What is stale: used while it is validated, used where no server answers, and else not.

use std::time::Duration;

use mantra_macros::req_test;
use underpass_tests::{Fickle, Mode, Origin, eventually};

use super::{answer, ask, did, get, proxy};

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn stale_answers_are_validated_beside_where_that_is_allowed() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut client = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let fields = "Cache-Control: max-age=1, stale-while-revalidate=600|ETag: \"a\"";
    server.send(answer(fields, "old")).await;
    client.read_response().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Answered at once, and by all who ask while one validation is under way.
    for _ in 0..3 {
        let got = ask(&mut client, "GET", "/x", "").await;
        assert_eq!((did(&got), got.text().as_str()), ("STALE", "old"));
    }
    let asked = server.read_request().await;
    assert_eq!(asked.head.get("if-none-match"), Some("\"a\""));
    server.send(answer("Cache-Control: max-age=60", "new")).await;
    eventually("what came is used", async || {
        let got = get(&proxy, "/x", "").await;
        did(&got) == "HIT" && got.text() == "new"
    })
    .await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_cache_background_validations_total", &[]), 1.0);
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn stale_answers_serve_where_the_server_is_in_trouble_and_only_if_they_may() {
    let server = Fickle::up("name").await;
    for (rules, serves) in
        [("default_ttl = \"1s\"\nstale_if_error = \"10m\"", true), ("default_ttl = \"1s\"", false)]
    {
        server.become_(Mode::Up);
        let proxy = proxy(server.addr(), rules).start();
        let fresh = get(&proxy, "/x", "").await;
        assert_eq!(did(&fresh), "MISS");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        for mode in [Mode::Status(503), Mode::Closing, Mode::Refusing] {
            server.become_(mode.clone());
            let got = get(&proxy, "/x", "").await;
            match serves {
                true => {
                    assert_eq!((got.status(), did(&got)), (200, "STALE"), "{mode:?}");
                    assert_eq!(got.body, fresh.body);
                    assert!(got.head.get("cache-status").unwrap().contains("stale-if-error"));
                }
                false => assert!(got.status() >= 500, "{mode:?}: {}", got.status()),
            }
        }
    }
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_dead_server_fails_all_who_wait_and_nobody_waits_for_ever() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await);
    }
    let mut server = origin.accept().await;
    server.read_request().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.send("nonsense\r\n\r\n").await;
    for client in &mut clients {
        assert_eq!(client.read_response().await.status(), 502);
    }
}

/// Also who waits for a validation that somebody else's answer has begun in the background.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn who_waits_for_a_validation_that_fails_has_what_is_stale_if_it_may() {
    for trouble in ["nonsense\r\n\r\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"] {
        let origin = Origin::bind().await;
        let proxy = proxy(origin.addr(), "").start();
        let mut client = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.read_request().await;
        let fields = "Cache-Control: max-age=1, stale-while-revalidate=1, stale-if-error=600";
        server.send(answer(&format!("{fields}|ETag: \"a\""), "old")).await;
        client.read_response().await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        // It is used once more, and validated beside.
        assert_eq!(did(&ask(&mut client, "GET", "/x", "").await), "STALE");
        server.read_request().await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        // Too old for that: these wait for what comes of it.
        let mut waiting = Vec::new();
        for _ in 0..4 {
            waiting.push(proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.send(trouble).await;
        for wire in &mut waiting {
            let got = wire.read_response().await;
            assert_eq!((got.status(), did(&got), got.text().as_str()), (200, "STALE", "old"));
        }
    }
}

//! Hits, HEAD, conditions, validation, and what an unsafe request makes worthless.

use mantra_macros::req_test;
use underpass_tests::{HttpClient, Origin, Version, collect};

use super::{answer, ask, did, get, proxy};

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_fresh_is_not_asked_for_again() {
    let origin =
        Origin::bind().await.serve(|_| answer("Cache-Control: max-age=60|ETag: \"a\"", "body"));
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    let first = ask(&mut wire, "GET", "/x", "").await;
    assert_eq!((did(&first), first.text().as_str()), ("MISS", "body"));
    for method in ["GET", "HEAD", "GET"] {
        let hit = ask(&mut wire, method, "/x", "").await;
        assert_eq!(did(&hit), "HIT", "{method}");
        assert_eq!(hit.head.get("content-length"), Some("4"));
        assert_eq!(hit.text(), if method == "HEAD" { "" } else { "body" });
        assert!(hit.head.has("age") && hit.head.has("date") && hit.head.has("via"));
        assert!(hit.head.get("cache-status").unwrap().starts_with("underpass; hit; ttl="));
    }
    for (fields, status) in [
        ("If-None-Match: \"a\"", 304),
        ("If-None-Match: W/\"a\", \"b\"", 304),
        ("If-None-Match: \"b\"", 200),
    ] {
        let got = ask(&mut wire, "GET", "/x", fields).await;
        assert_eq!((got.status(), did(&got)), (status, "HIT"), "{fields}");
        assert_eq!(got.head.get("etag"), Some("\"a\""));
        assert_eq!(got.head.has("content-length"), status == 200);
    }
    assert_eq!(origin.seen().len(), 1);
    proxy.log_line(&["GET", "/x", "cache=hit"]).await;
    // If-Match is the server's to judge.
    let passed = ask(&mut wire, "GET", "/x", "If-Match: \"a\"").await;
    assert_eq!(did(&passed), "BYPASS");
    assert_eq!(origin.seen().len(), 2);
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn http2_clients_share_what_is_stored() {
    let origin = Origin::bind().await.serve(|_| answer("Cache-Control: max-age=60", "body"));
    let proxy = proxy(origin.addr(), "").start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    for outcome in ["MISS", "HIT"] {
        let answer = client.get("/x").await;
        assert_eq!(answer.headers()["x-cache"], outcome);
        assert_eq!(answer.headers()["content-length"], "4");
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"body");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_has_to_be_validated_is_asked_for_with_its_validator() {
    let origin = Origin::bind().await.serve(|seen| {
        let known = seen.message.head.get("if-none-match") == Some("\"a\"");
        match known {
            true => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nX-New: 1\r\n\r\n".to_owned(),
            false => answer("Cache-Control: no-cache|ETag: \"a\"|X-Old: 1", "body"),
        }
    });
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    assert_eq!(did(&ask(&mut wire, "GET", "/x", "").await), "MISS");
    for _ in 0..2 {
        let got = ask(&mut wire, "GET", "/x", "If-None-Match: \"other\"").await;
        assert_eq!((got.status(), did(&got), got.text().as_str()), (200, "REVALIDATED", "body"));
        assert!(got.head.has("x-new") && got.head.has("x-old"));
    }
    let got = ask(&mut wire, "GET", "/x", "If-None-Match: \"a\"").await;
    assert_eq!((got.status(), did(&got)), (304, "REVALIDATED"));
    assert_eq!(origin.seen().len(), 4);
    let head = &origin.seen()[1].message.head;
    assert_eq!(head.all("if-none-match"), ["\"a\""], "ours, not the client's");
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_304_of_another_version_is_not_believed() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.has("if-none-match") {
        true => "HTTP/1.1 304 Not Modified\r\nETag: \"other\"\r\n\r\n".to_owned(),
        false => answer("Cache-Control: no-cache|ETag: \"a\"", "body"),
    });
    let proxy = proxy(origin.addr(), "").start();
    get(&proxy, "/x", "").await;
    let got = get(&proxy, "/x", "").await;
    assert_eq!((got.status(), did(&got), got.text().as_str()), (200, "MISS", "body"));
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert!(!seen[2].message.head.has("if-none-match"), "asked again without a condition");
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn unsafe_requests_make_worthless_what_they_change() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.method() {
        "GET" => answer("Cache-Control: max-age=60", "body"),
        "DELETE" => "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => answer("Location: /b|Content-Location: http://evil/c", ""),
    });
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    for target in ["/a", "/b", "/c"] {
        ask(&mut wire, "GET", target, "").await;
        assert_eq!(did(&ask(&mut wire, "GET", target, "").await), "HIT", "{target}");
    }
    // It failed, so nothing has changed.
    ask(&mut wire, "DELETE", "/a", "").await;
    assert_eq!(did(&ask(&mut wire, "GET", "/a", "").await), "HIT");
    ask(&mut wire, "POST", "/a", "Content-Length: 0").await;
    for (target, outcome) in [("/a", "MISS"), ("/b", "MISS"), ("/c", "HIT")] {
        assert_eq!(did(&ask(&mut wire, "GET", target, "").await), outcome, "{target}");
    }
}

//! What is forgotten by hand: by URL, prefix and tag, through the admin endpoint and the command.

use std::process::Command;

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, binary::binary};

use super::{answer, did, get, proxy};

pub(super) const TOKEN: &str = "0123456789abcdef";

pub(super) fn purge(proxy: &Proxy, what: &[&str], token: &str) -> (bool, String) {
    let output = Command::new(binary())
        .args(["cache", "purge", "--admin", &proxy.admin().to_string()])
        .args(what)
        .env("UNDERPASS_ADMIN_TOKEN", token)
        .output()
        .expect("the command");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
}

#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn answers_are_forgotten_by_url_prefix_and_tag() {
    let origin = Origin::bind().await.serve(|seen| {
        let tags = match seen.message.head.target() {
            "/red" => "|Surrogate-Key: red warm",
            "/blue" => "|Cache-Tag: blue, cold one",
            _ => "",
        };
        answer(&format!("Cache-Control: max-age=600|Vary: Accept{tags}"), "x")
    });
    let proxy = proxy(origin.addr(), "").env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    let all = ["/red", "/blue", "/a", "/a/b", "/ab", "/a?q"];
    let mut gone: Vec<&str> = all.to_vec();
    for (what, next) in [
        (&["--url", "http://H:80/a"][..], &["/a"][..]),
        (&["--prefix", "http://h/a"], &["/a", "/a/b", "/ab", "/a?q"]),
        (&["--tag", "warm"], &["/red"]),
        (&["--tag", "cold one"], &["/blue"]),
        (&["--tag", "warmer"], &[]),
        (&["--all"], &all),
    ] {
        for target in all {
            let outcome = if gone.contains(&target) { "MISS" } else { "HIT" };
            assert_eq!(did(&get(&proxy, target, "").await), outcome, "{target} before {what:?}");
            assert_eq!(did(&get(&proxy, target, "").await), "HIT", "{target}");
        }
        let (done, said) = purge(&proxy, what, TOKEN);
        assert!(done, "{what:?}: {said}");
        gone = next.to_vec();
    }
    assert_eq!(did(&get(&proxy, "/a", "").await), "MISS");
    let (done, said) = purge(&proxy, &["--all"], "another token that is wrong");
    assert!(!done && said.contains("401"), "{said}");
    let (done, said) = purge(&proxy, &["--url", "nonsense"], TOKEN);
    assert!(!done && said.contains("400"), "{said}");
    let stats = proxy.ask_admin("GET", "/cache").await.text();
    assert!(stats.contains("\"enabled\":true"), "{stats}");
}

/// What was asked for before a purge is not stored by it afterwards, and nobody joins it.
#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn what_is_under_way_during_a_purge_is_not_kept() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    let mut first = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let (done, said) = purge(&proxy, &["--url", "http://h/x"], TOKEN);
    assert!(done, "{said}");
    let mut second = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut other = origin.accept().await;
    other.read_request().await;
    server.send(answer("Cache-Control: max-age=60", "old")).await;
    assert_eq!(first.read_response().await.text(), "old");
    other.send(answer("Cache-Control: max-age=60", "new")).await;
    assert_eq!(second.read_response().await.text(), "new");
    let got = get(&proxy, "/x", "").await;
    assert_eq!((did(&got), got.text().as_str()), ("HIT", "new"));
}

/// Also where only its head says that it is one of several variants, and by what: it is found by
/// another key from then on.
#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn a_variant_that_is_under_way_during_a_purge_is_not_joined_after_it() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    let asks = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut first = proxy.open(asks).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let (done, said) = purge(&proxy, &["--tag", "red"], TOKEN);
    assert!(done, "{said}");
    let fields = "Cache-Control: max-age=60\r\nVary: Accept\r\nSurrogate-Key: red";
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n"
        ))
        .await;
    first.read_until("old").await;
    let mut second = proxy.open(asks).await;
    let mut other = origin.accept().await;
    other.read_request().await;
    other.send(answer("Cache-Control: max-age=60|Vary: Accept", "new")).await;
    let got = second.read_response().await;
    assert_eq!((did(&got), got.text().as_str()), ("MISS", "new"));
    server.send("0\r\n\r\n").await;
    first.read_until("0\r\n\r\n").await;
    let got = get(&proxy, "/x", "").await;
    assert_eq!((did(&got), got.text().as_str()), ("HIT", "new"));
}

/// However a route spells its targets, and which of them its answers are kept under.
#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn a_url_is_forgotten_in_the_spelling_of_each_route() {
    let origin = Origin::bind().await.serve(|_| answer("Cache-Control: max-age=600", "x"));
    let rules = "sorted_query = true\nignored_query = [\"utm_*\"]";
    let proxy = proxy(origin.addr(), rules).env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    for (target, url) in [
        ("/x?b=1&a=2", "http://h/x?b=1&a=2"),
        ("/x?b=1&a=2&utm_source=z", "http://h/x?a=2&utm_source=other&b=1"),
    ] {
        assert_eq!(did(&get(&proxy, target, "").await), "MISS", "{target}");
        let (done, said) = purge(&proxy, &["--url", "http://h/x?a=2"], TOKEN);
        assert_eq!((done, said.as_str()), (true, "purged 0"), "another target");
        assert_eq!(did(&get(&proxy, target, "").await), "HIT", "{target}");
        let (done, said) = purge(&proxy, &["--url", url], TOKEN);
        assert_eq!((done, said.as_str()), (true, "purged 1"), "{url}");
        assert_eq!(did(&get(&proxy, target, "").await), "MISS", "{target}");
        purge(&proxy, &["--all"], TOKEN);
    }
}

#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn tags_are_those_that_a_validation_has_brought() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.get("if-none-match") {
        None => answer("Cache-Control: no-cache|ETag: \"a\"|Surrogate-Key: old both", "x"),
        Some(_) => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n\
                        Surrogate-Key: new both\r\n\r\n"
            .to_owned(),
    });
    let proxy = proxy(origin.addr(), "").env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    assert_eq!(did(&get(&proxy, "/x", "").await), "MISS");
    assert_eq!(did(&get(&proxy, "/x", "").await), "REVALIDATED");
    for (tag, removed) in [("old", 0), ("new", 1)] {
        assert_eq!(did(&get(&proxy, "/x", "").await), "HIT", "before {tag}");
        let (done, said) = purge(&proxy, &["--tag", tag], TOKEN);
        assert_eq!((done, said), (true, format!("purged {removed}")), "{tag}");
    }
    assert_eq!(did(&get(&proxy, "/x", "").await), "MISS");
}

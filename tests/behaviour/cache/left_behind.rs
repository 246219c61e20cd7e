//! What turns out not to be kept while it is shared: who reads fast has it at once, who is slow has
//! all of it too, and nothing of it is left.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Wire, clock::BOUND, eventually, within};

use super::{
    answer, ask, did, get,
    purge::{TOKEN, purge},
    with_cache,
};

/// Of clients that get bytes as they are, whatever is known of their number.
const ASK: &str = "GET /x HTTP/1.0\r\nHost: h\r\n\r\n";

/// Nothing that could be fetched again: no validator.
const FIELDS: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: max-age=60\r\n";

/// Whoever asks first takes nothing; the second is yet to read as well. With them the server.
async fn shared(origin: &Origin, proxy: &Proxy, framing: &str) -> (Wire, Wire, Wire) {
    let mut slow = Wire::connect_narrow(proxy.addr()).await;
    slow.send(ASK).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(format!("{FIELDS}{framing}\r\n\r\n")).await;
    assert_eq!(slow.read_head().await.get("x-cache"), Some("MISS"));
    let mut fast = proxy.open(ASK).await;
    assert_eq!(fast.read_head().await.get("x-cache"), Some("JOINED"));
    (slow, fast, server)
}

async fn nothing_is_left(proxy: &Proxy) {
    eventually("nothing of it is stored", async || {
        proxy.ask_admin("GET", "/cache").await.text().contains("\"memory_entries\":0")
    })
    .await;
    assert_eq!(proxy.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
}

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn what_is_found_to_be_too_large_is_shared_to_its_end() {
    const LENGTH: u64 = 40 << 20;
    let origin = Origin::bind().await;
    let rules = "max_object_bytes = \"16MiB\"";
    let proxy = with_cache(origin.addr(), "memory_bytes = \"64MiB\"", rules).start();
    let (mut slow, mut fast, mut server) =
        shared(&origin, &proxy, "Transfer-Encoding: chunked").await;
    server.send(format!("{LENGTH:x}\r\n")).await;
    let both = async {
        tokio::join!(server.send_rest(0, LENGTH), fast.check_pattern(0, LENGTH));
    };
    within(BOUND, "all of it for who reads, though the other does not", both).await;
    server.send("\r\n0\r\n\r\n").await;
    fast.expect_end().await;
    // Nobody new finds it.
    let mut late = proxy.open(ASK).await;
    let mut other = origin.accept().await;
    other.read_request().await;
    other.send(answer("Cache-Control: private", "own")).await;
    assert_eq!(late.read_response().await.text(), "own");
    within(BOUND, "all of it for who is slow", slow.check_pattern(0, LENGTH)).await;
    slow.expect_end().await;
    nothing_is_left(&proxy).await;
}

/// Of what those who share it have had all nothing is kept, so that memory is bounded by how far
/// they are apart.
#[req_test("REQ-CACHE-001", "REQ-CACHE-005")]
#[tokio::test]
async fn who_shares_what_is_too_large_and_reads_along_has_little_kept() {
    const LENGTH: u64 = 32 << 20;
    const STEP: u64 = 1 << 20;
    let origin = Origin::bind().await;
    let rules = "max_object_bytes = \"1MiB\"";
    let proxy = with_cache(origin.addr(), "memory_bytes = \"8MiB\"", rules).start();
    let (mut first, mut second, mut server) =
        shared(&origin, &proxy, "Transfer-Encoding: chunked").await;
    server.send(format!("{LENGTH:x}\r\n")).await;
    let all = async {
        for at in (0..LENGTH).step_by(STEP as usize) {
            tokio::join!(
                server.send_rest(at, at + STEP),
                first.check_pattern(at, STEP),
                second.check_pattern(at, STEP)
            );
        }
    };
    within(BOUND, "all of it for both", all).await;
    server.send("\r\n0\r\n\r\n").await;
    first.expect_end().await;
    second.expect_end().await;
    nothing_is_left(&proxy).await;
    let stats = proxy.ask_admin("GET", "/cache").await.text();
    assert!(stats.contains("\"memory_evictions\":0"), "{stats}");
}

/// A change of the target, or a purge, says that what is on its way is not to be kept. Whoever reads
/// it already has begun with it.
#[req_test("REQ-CACHE-005", "REQ-CACHE-004")]
#[tokio::test]
async fn what_is_forgotten_while_it_comes_is_had_whole_by_those_who_share_it() {
    const LENGTH: u64 = 15 << 20;
    const HALF: u64 = 6 << 20;
    for how in ["a change", "a purge"] {
        let origin = Origin::bind().await;
        let proxy = with_cache(origin.addr(), "memory_bytes = \"64MiB\"", "")
            .env("UNDERPASS_ADMIN_TOKEN", TOKEN)
            .start();
        let (mut slow, mut fast, mut server) =
            shared(&origin, &proxy, &format!("Content-Length: {LENGTH}")).await;
        let both = async {
            tokio::join!(server.send_rest(0, HALF), fast.check_pattern(0, HALF));
        };
        within(BOUND, "half of it for who reads", both).await;
        match how {
            "a change" => {
                let mut client = proxy.connect().await;
                let changes = async {
                    let mut other = origin.accept().await;
                    other.read_request().await;
                    other
                        .send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                        .await;
                    other
                };
                let (changed, _other) =
                    tokio::join!(ask(&mut client, "POST", "/x", "Content-Length: 0"), changes);
                assert_eq!(changed.status(), 200);
            }
            _ => {
                let (done, said) = purge(&proxy, &["--prefix", "http://h/x"], TOKEN);
                assert!(done, "{said}");
            }
        }
        let both = async {
            tokio::join!(server.send_rest(HALF, LENGTH), fast.check_pattern(HALF, LENGTH - HALF));
        };
        within(BOUND, "the rest for who reads", both).await;
        within(BOUND, "all of it for who is slow", slow.check_pattern(0, LENGTH)).await;
        nothing_is_left(&proxy).await;
        // And it was not kept.
        let _origin = origin.serve(|_| answer("Cache-Control: max-age=60", "new"));
        let got = get(&proxy, "/x", "").await;
        assert_eq!((did(&got), got.text().as_str()), ("MISS", "new"), "{how}");
    }
}

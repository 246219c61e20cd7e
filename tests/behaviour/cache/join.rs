//! One fetch for many: they share it from its first byte, each at its own pace and wherever its
//! worker is, and nobody waits for what is not for them.

use std::time::Duration;

use mantra_macros::req_test;
use tokio::{task::JoinSet, time::timeout};
use underpass_tests::{Origin, Wire, clock::BOUND, within};

use super::{answer, ask, did, proxy, with_cache};

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";

const ASK: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn those_who_come_meanwhile_share_the_fetch_from_its_first_byte() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut first = proxy.open(ASK).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    // Before the head, and on whatever worker: some of sixteen are on the other one.
    let mut waiting: Vec<Wire> = Vec::new();
    for _ in 0..16 {
        waiting.push(proxy.open(ASK).await);
    }
    server.send(format!("{CHUNKED}3\r\none\r\n")).await;
    let mut head = first.read_head().await.response_body("GET");
    head.expect(&mut first, "one").await;
    // In the middle of the body.
    for _ in 0..4 {
        waiting.push(proxy.open(ASK).await);
    }
    let mut bodies = Vec::new();
    for wire in &mut waiting {
        let head = wire.read_head().await;
        assert_eq!(head.get("x-cache"), Some("JOINED"));
        let mut body = head.response_body("GET");
        body.expect(wire, "one").await;
        bodies.push(body);
    }
    // Each has the next chunk while the origin holds back the rest.
    server.send("3\r\ntwo\r\n").await;
    head.expect(&mut first, "two").await;
    for (wire, body) in waiting.iter_mut().zip(&mut bodies) {
        body.expect(wire, "two").await;
    }
    server.send("0\r\n\r\n").await;
    head.finish(&mut first).await;
    for (wire, body) in waiting.iter_mut().zip(&mut bodies) {
        body.finish(wire).await;
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_cache_joins_total", &[]), 20.0);
    assert_eq!(metrics.sum("underpass_upstream_connects_total", &[]), 1.0);
}

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn who_is_slow_holds_up_nobody_and_misses_nothing() {
    const LENGTH: u64 = 24 << 20;
    let origin = Origin::bind().await;
    let proxy = with_cache(origin.addr(), "memory_bytes = \"64MiB\"", "").start();
    // Whoever asks first takes nothing, nor does the first who joins.
    let mut slow =
        [Wire::connect_narrow(proxy.addr()).await, Wire::connect_narrow(proxy.addr()).await];
    slow[0].send(ASK).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    slow[1].send(ASK).await;
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))
        .await;
    slow[0].read_head().await;
    slow[1].read_head().await;
    let mut fast = proxy.open(ASK).await;
    let both = async {
        tokio::join!(server.send_rest(0, LENGTH), async {
            fast.read_head().await;
            fast.check_pattern(0, LENGTH).await;
        });
    };
    within(BOUND, "all of it for the one who reads", both).await;
    for wire in &mut slow {
        within(BOUND, "all of it for the others", wire.check_pattern(0, LENGTH)).await;
    }
    assert_eq!(proxy.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
}

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn the_body_comes_no_faster_than_somebody_reads_it() {
    const LENGTH: u64 = 64 << 20;
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut client = Wire::connect_narrow(proxy.addr()).await;
    client.send(ASK).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))
        .await;
    client.read_head().await;
    let sent = server.send_until_stalled(0, LENGTH).await;
    assert!(sent < LENGTH / 2, "the server feels that nobody reads: {sent}");
    let both = async {
        tokio::join!(server.send_rest(sent, LENGTH), client.check_pattern(0, LENGTH));
    };
    within(BOUND * 2, "the rest", both).await;
}

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn who_joined_goes_on_when_who_asked_first_leaves() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    // Before the head: somebody else asks anew.
    let first = proxy.open(ASK).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let mut second = proxy.open(ASK).await;
    let mut third = proxy.open(ASK).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    drop(first);
    server.expect_end().await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(format!("{CHUNKED}3\r\none\r\n")).await;
    second.read_until("one").await;
    third.read_until("one").await;
    // In the middle of the body: it goes on for the other.
    drop(second);
    server.send("3\r\ntwo\r\n0\r\n\r\n").await;
    third.read_until("0\r\n\r\n").await;
}

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn a_thousand_who_wait_for_what_is_for_one_ask_for_themselves_at_once() {
    const CLIENTS: usize = 1000;
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut first = proxy.open(ASK).await;
    let mut leader = origin.accept().await;
    leader.read_request().await;
    let mut clients = JoinSet::new();
    let address = proxy.addr();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let mut wire = Wire::open(address, ASK).await;
            let got = wire.read_response().await;
            assert_eq!((got.status(), got.text().as_str()), (200, "own"));
        });
    }
    // All of them reach the origin before any is answered: nobody stands in a line.
    let serve = async {
        let reply = "HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 3\r\n\
                     Connection: close\r\n\r\nown";
        leader.send(reply).await;
        first.read_response().await;
        let mut servers = Vec::new();
        for _ in 0..CLIENTS {
            let mut server = origin.accept().await;
            server.read_request().await;
            servers.push(server);
        }
        for server in &mut servers {
            server.send(reply).await;
        }
        while let Some(done) = clients.join_next().await {
            done.expect("a client");
        }
    };
    within(BOUND * 2, "a thousand answers", serve).await;
}

#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn who_wants_another_variant_does_not_get_this_one() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut first = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\nAccept: a\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let mut other = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\nAccept: b\r\n\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    server.send(answer("Connection: close|Cache-Control: max-age=60|Vary: Accept", "for a")).await;
    assert_eq!(first.read_response().await.text(), "for a");
    let mut server = origin.accept().await;
    let asked = server.read_request().await;
    assert_eq!(asked.head.get("accept"), Some("b"));
    server.send(answer("Cache-Control: max-age=60|Vary: Accept", "for b")).await;
    let got = other.read_response().await;
    assert_eq!((did(&got), got.text().as_str()), ("MISS", "for b"));
    let hit = ask(&mut other, "GET", "/x", "Accept: a").await;
    assert_eq!((did(&hit), hit.text().as_str()), ("HIT", "for a"));
}

/// Also where it is known already that there are variants, so that each has a key of its own.
#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn each_variant_has_a_fetch_of_its_own_that_others_share() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let ask = |accept: &str| format!("GET /x HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n");
    let reply = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nVary: Accept\r\n\
                 Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for accept in ["a", "b", "c"] {
        let mut first = proxy.open(ask(accept)).await;
        let mut server = origin.accept().await;
        server.read_request().await;
        server.send(format!("{reply}3\r\none\r\n")).await;
        first.read_until("one").await;
        let mut joined = Vec::new();
        for _ in 0..8 {
            joined.push(proxy.open(ask(accept)).await);
        }
        for wire in &mut joined {
            assert_eq!(wire.read_head().await.get("x-cache"), Some("JOINED"), "{accept}");
        }
        server.send("0\r\n\r\n").await;
        for wire in &mut joined {
            wire.read_until("0\r\n\r\n").await;
        }
    }
}

/// Who comes when what has been sent is gone, and could not be had apart, asks for all of it: there
/// is no beginning to give.
#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn who_comes_too_late_to_share_a_fetch_asks_for_itself() {
    const SENT: u64 = 6 << 20;
    let origin = Origin::bind().await;
    let proxy = with_cache(origin.addr(), "memory_bytes = \"2MiB\"", "").start();
    let mut first = proxy.open(ASK).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let fields = format!("Cache-Control: max-age=60\r\nContent-Length: {}", 2 * SENT);
    server.send(format!("HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\n{fields}\r\n\r\n")).await;
    first.read_head().await;
    for at in (0..SENT).step_by(64 << 10) {
        server.send_rest(at, at + (64 << 10)).await;
        first.check_pattern(at, 64 << 10).await;
    }
    let mut late = proxy.open(ASK).await;
    let mut other = origin.accept().await;
    other.read_request().await;
    other.send(answer("Cache-Control: max-age=60", "own")).await;
    let got = late.read_response().await;
    assert_eq!((did(&got), got.text().as_str()), ("MISS", "own"));
    let rest =
        async { tokio::join!(server.send_rest(SENT, 2 * SENT), first.check_pattern(SENT, SENT)) };
    within(BOUND, "the rest for the first", rest).await;
    assert_eq!(proxy.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
}

/// A worker ends, with its process, when it has no connections. What it brings for those at another
/// worker ends with it, without a word of the server's; they get the rest by a range.
#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn who_shares_a_fetch_of_a_worker_that_ends_gets_the_rest() {
    const LENGTH: u64 = 1 << 20;
    const SENT: u64 = 64 << 10;
    let fields = "ETag: \"a\"\r\nCache-Control: max-age=60";
    // Which worker has a connection is the kernel's choice: half of the time it is the same one.
    for _ in 0..24 {
        let origin = Origin::bind().await;
        let proxy = proxy(origin.addr(), "").start();
        let mut first = proxy.open(ASK).await;
        let mut server = origin.accept().await;
        server.read_request().await;
        server
            .send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {LENGTH}\r\n\r\n"))
            .await;
        server.send_rest(0, SENT).await;
        first.read_head().await;
        first.check_pattern(0, SENT).await;
        let mut second = proxy.open(ASK).await;
        assert_eq!(second.read_head().await.get("x-cache"), Some("JOINED"));
        second.check_pattern(0, SENT).await;
        drop(first);
        proxy.term();
        let Ok(false) = timeout(Duration::from_secs(1), server.readable()).await else { continue };
        let mut server = origin.accept().await;
        let asked = server.read_request().await;
        assert_eq!(asked.head.get("range"), Some(format!("bytes=0-{}", LENGTH - 1).as_str()));
        assert_eq!(asked.head.get("if-range"), Some("\"a\""));
        let range = format!("Content-Range: bytes 0-{}/{LENGTH}", LENGTH - 1);
        let head =
            format!("HTTP/1.1 206 Part\r\n{fields}\r\n{range}\r\nContent-Length: {LENGTH}\r\n\r\n");
        server.send(head).await;
        let both = async {
            tokio::join!(server.send_rest(0, LENGTH), second.check_pattern(SENT, LENGTH - SENT));
        };
        return within(BOUND, "the rest", both).await;
    }
    panic!("24 times both connections were at one worker");
}

//! What is stored in part: only what is missing is fetched, and no answer is made of two versions.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mantra_macros::req_test;
use underpass_tests::{Message, Origin, Served, pattern};

use super::{
    ask, did, get,
    ranges::{LENGTH, Seeded, check_part, reply},
    with_cache, with_upstream,
};

const BLOCK: usize = 16 << 10;

const SMALL: &str = "block_bytes = \"16KiB\"";

fn asked(origin: &Served) -> Vec<String> {
    let range = |message: &Message| message.head.get("range").unwrap_or("all").to_owned();
    origin.seen().iter().map(|seen| range(&seen.message)).collect()
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn a_range_of_what_is_not_stored_fetches_its_blocks_and_no_others() {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", ""));
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let mut wire = proxy.connect().await;
    for (range, (start, end), outcome, fetched) in [
        ("20000-20010", (20_000, 20_011), "MISS", Some("bytes=16384-32767")),
        ("16384-32767", (16_384, 32_768), "HIT", None),
        ("30000-40000", (30_000, 40_001), "PARTIAL", Some("bytes=32768-49151")),
        ("0-50000", (0, 50_001), "PARTIAL", Some("bytes=0-16383")),
        ("299999-", (299_999, 300_000), "PARTIAL", Some("bytes=294912-299999")),
        ("-10", (299_990, 300_000), "HIT", None),
    ] {
        let before = asked(&origin).len();
        let got = ask(&mut wire, "GET", "/x", &format!("Range: bytes={range}")).await;
        assert_eq!(did(&got), outcome, "{range}");
        check_part(&got, start, end);
        // The fourth also lacks the block behind the third.
        assert_eq!(asked(&origin).get(before).map(String::as_str), fetched, "{range}");
    }
    let before = asked(&origin).len();
    let whole = ask(&mut wire, "GET", "/x", "").await;
    assert_eq!((whole.status(), did(&whole), whole.body.len()), (200, "PARTIAL", LENGTH));
    pattern::check(0, &whole.body);
    assert_eq!(asked(&origin)[before..], ["bytes=65536-294911"]);
    assert_eq!(did(&ask(&mut wire, "GET", "/x", "").await), "HIT");
    for seen in &origin.seen()[1..] {
        assert_eq!(seen.message.head.get("if-range"), Some("\"a\""));
    }
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn however_ranges_come_they_are_exact_and_no_block_is_fetched_twice() {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", ""));
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let mut wire = proxy.connect().await;
    let mut seeded = Seeded(7);
    for _ in 0..150 {
        let start = seeded.below(LENGTH);
        let last = start + seeded.below(60_000);
        let got = ask(&mut wire, "GET", "/x", &format!("Range: bytes={start}-{last}")).await;
        check_part(&got, start, (last + 1).min(LENGTH));
    }
    let mut times = vec![0; LENGTH.div_ceil(BLOCK)];
    for range in asked(&origin) {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap());
        assert_eq!(first % BLOCK, 0);
        (first / BLOCK..=last.min(LENGTH - 1) / BLOCK).for_each(|block| times[block] += 1);
    }
    assert!(times.iter().all(|times| *times <= 1), "{times:?}");
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn another_version_begins_anew_and_is_never_mixed_in() {
    let version = Arc::new(AtomicUsize::new(1));
    let of_origin = Arc::clone(&version);
    let origin = Origin::bind().await.serve(move |seen| {
        let version = of_origin.load(SeqCst);
        let mut bytes = reply(&seen.message, &format!("\"{version}\""), "");
        if version == 2 {
            let body = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            bytes[body..].iter_mut().for_each(|byte| *byte = 0);
        }
        bytes
    });
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let mut wire = proxy.connect().await;
    check_part(&ask(&mut wire, "GET", "/x", "Range: bytes=0-9").await, 0, 10);
    check_part(&ask(&mut wire, "GET", "/y", "Range: bytes=0-9").await, 0, 10);
    version.store(2, SeqCst);
    // What comes first is missing: nothing has been said yet, and all of it is of the new one.
    let got = ask(&mut wire, "GET", "/x", "Range: bytes=20000-40000").await;
    assert_eq!((got.status(), got.head.get("etag")), (206, Some("\"2\"")));
    assert!(got.body.len() == 20_001 && got.body.iter().all(|byte| *byte == 0));
    let again = ask(&mut wire, "GET", "/x", "Range: bytes=0-9").await;
    assert!(again.body.len() == 10 && again.body.iter().all(|byte| *byte == 0));
    // What comes first is there: the answer has begun, and is cut where the old one ends.
    let mut cut = proxy.open("GET /y HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = cut.read_head().await;
    assert_eq!((head.status(), head.get("etag")), (200, Some("\"1\"")));
    let (body, _) = cut.read_to_end().await;
    assert_eq!(body.len(), BLOCK);
    pattern::check(0, &body);
    let whole = get(&proxy, "/y", "").await;
    assert_eq!(whole.head.get("etag"), Some("\"2\""));
    assert!(whole.body.len() == LENGTH && whole.body.iter().all(|byte| *byte == 0));
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn servers_that_answer_ranges_in_their_own_way_are_passed_on() {
    let origin = Origin::bind().await.serve(|seen| {
        let mut message = seen.message.clone();
        match message.head.target() {
            // No ranges at all.
            "/whole" => {
                message.head.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
                reply(&message, "\"a\"", "")
            }
            "/weak" => reply(&message, "W/\"a\"", ""),
            // Another part than was asked for.
            _ => b"HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\
                   Content-Range: bytes 5-9/300000\r\nContent-Length: 5\r\n\r\n12345"
                .to_vec(),
        }
    });
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let mut wire = proxy.connect().await;
    for outcomes in [&["MISS"][..], &["HIT", "JOINED"]] {
        let got = ask(&mut wire, "GET", "/whole", "Range: bytes=100000-100009").await;
        assert!(outcomes.contains(&did(&got)), "{}", did(&got));
        check_part(&got, 100_000, 100_010);
    }
    let whole = |range: &&String| range.as_str() == "bytes=98304-114687";
    assert_eq!(asked(&origin).iter().filter(whole).count(), 1);
    for _ in 0..2 {
        let got = ask(&mut wire, "GET", "/weak", "Range: bytes=100000-100009").await;
        assert_eq!(did(&got), "BYPASS");
        check_part(&got, 100_000, 100_010);
        let got = ask(&mut wire, "GET", "/odd", "Range: bytes=0-9").await;
        assert_eq!((did(&got), got.text().as_str()), ("BYPASS", "12345"), "as the server says");
    }
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn who_wants_the_same_blocks_at_the_same_time_shares_their_fetch() {
    let origin = Origin::bind().await;
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let ask = "GET /x HTTP/1.1\r\nHost: h\r\nRange: bytes=20000-20009\r\n\r\n";
    let mut first = proxy.open(ask).await;
    let mut server = origin.accept().await;
    let asked = server.read_request().await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(proxy.open(ask).await);
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    server.send(reply(&asked, "\"a\"", "")).await;
    let reading = async {
        check_part(&first.read_response().await, 20_000, 20_010);
        for other in &mut others {
            check_part(&other.read_response().await, 20_000, 20_010);
        }
    };
    // Also who is not woken before the first has left with what it wanted.
    reading.await;
    let fetches = proxy.metrics().await.sum("underpass_cache_part_fetches_total", &[]);
    assert_eq!(fetches, 1.0, "for nine who came at once");
}

/// Before anything is known of the target: what somebody asks for is not asked for again, wherever
/// in it the other one begins.
#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn a_block_that_somebody_has_asked_for_is_waited_for() {
    let origin = Origin::bind().await;
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let ask = |range: &str| format!("GET /x HTTP/1.1\r\nHost: h\r\nRange: bytes={range}\r\n\r\n");
    // To the end of its last block, so that who has it all knows that it is stored.
    let mut first = proxy.open(ask("20000-114687")).await;
    let mut server = origin.accept().await;
    let asked = server.read_request().await;
    assert_eq!(asked.head.get("range"), Some("bytes=16384-114687"));
    let mut second = proxy.open(ask("70000-70009")).await;
    let mut third = proxy.open(ask("114688-114700")).await;
    // Whose block nobody has asked for.
    let mut other = origin.accept().await;
    let apart = other.read_request().await;
    assert_eq!(apart.head.get("range"), Some("bytes=114688-131071"));
    let more = tokio::time::timeout(std::time::Duration::from_secs(1), origin.accept()).await;
    assert!(more.is_err(), "the second waits");
    server.send(reply(&asked, "\"a\"", "")).await;
    check_part(&first.read_response().await, 20_000, 114_688);
    check_part(&second.read_response().await, 70_000, 70_010);
    other.send(reply(&apart, "\"a\"", "")).await;
    check_part(&third.read_response().await, 114_688, 114_701);
    let got = get(&proxy, "/x", "Range: bytes=65536-114687").await;
    assert_eq!(did(&got), "HIT", "all of it is there");
    check_part(&got, 65_536, 114_688);
    assert_eq!(proxy.metrics().await.sum("underpass_cache_part_fetches_total", &[]), 2.0);
}

/// Who leaves in the middle of a block leaves the block, and who comes then need not ask for it.
#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn the_block_in_which_a_reader_has_left_is_finished() {
    let origin = Origin::bind().await;
    let proxy = with_cache(origin.addr(), SMALL, "").start();
    let ask = "GET /x HTTP/1.1\r\nHost: h\r\nRange: bytes=0-39999\r\n\r\n";
    let mut first = proxy.open(ask).await;
    let mut server = origin.accept().await;
    let asked = server.read_request().await;
    assert_eq!(asked.head.get("range"), Some("bytes=0-49151"));
    let bytes = reply(&asked, "\"a\"", "");
    // All that it wants, and not all of the block.
    let until = bytes.len() - 49_152 + 40_000;
    server.send(&bytes[..until]).await;
    check_part(&first.read_response().await, 0, 40_000);
    drop(first);
    server.send(&bytes[until..]).await;
    let got = get(&proxy, "/x", "Range: bytes=45000-45009").await;
    check_part(&got, 45_000, 45_010);
    assert_eq!(proxy.metrics().await.sum("underpass_cache_part_fetches_total", &[]), 1.0);
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn what_has_been_evicted_of_something_large_is_fetched_again() {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", ""));
    // Room for some of them, not for all.
    let proxy = with_cache(origin.addr(), &format!("{SMALL}\nmemory_bytes = \"1MiB\""), "").start();
    let mut wire = proxy.connect().await;
    for _ in 0..3 {
        for target in 0..8 {
            let got = ask(&mut wire, "GET", &format!("/{target}"), "").await;
            assert_eq!((got.status(), got.body.len()), (200, LENGTH));
            pattern::check(0, &got.body);
        }
    }
    assert_eq!(proxy.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
}

/// What is missing is asked for as often as the upstream allows for any request.
#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn missing_blocks_are_asked_for_again_where_the_upstream_allows_it() {
    for (retry, outcome) in [("[upstream.retry]\non_status = [503]\n", 206), ("", 503)] {
        let refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refused);
        let origin = Origin::bind().await.serve(move |seen| {
            let is_second = seen.message.head.get("range") == Some("bytes=32768-49151");
            match is_second && count.fetch_add(1, SeqCst) == 0 {
                true => b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_vec(),
                false => reply(&seen.message, "\"a\"", ""),
            }
        });
        let proxy = with_upstream(origin.addr(), SMALL, "", retry).start();
        let mut wire = proxy.connect().await;
        check_part(&ask(&mut wire, "GET", "/x", "Range: bytes=20000-20009").await, 20_000, 20_010);
        // The block before is there, and the answer has begun when the next one is asked for.
        wire.send("GET /x HTTP/1.1\r\nHost: h\r\nRange: bytes=20000-40000\r\n\r\n").await;
        let head = wire.read_head().await;
        assert_eq!((head.status(), head.get("x-cache")), (206, Some("PARTIAL")));
        match outcome {
            206 => wire.check_pattern(20_000, 20_001).await,
            _ => assert_eq!(wire.read_to_end().await.0.len(), 32_768 - 20_000, "cut"),
        }
        let times = asked(&origin).iter().filter(|range| *range == "bytes=32768-49151").count();
        assert_eq!(times, if outcome == 206 { 2 } else { 1 });
    }
}

/// What is stale and lacks blocks that cannot be had apart is fetched anew, not validated: a 304
/// would bind the answer to what is not there any more.
#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn what_lacks_blocks_is_neither_validated_nor_served_stale() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.get("if-none-match") {
        Some(_) => b"HTTP/1.1 304 Not Modified\r\nETag: W/\"a\"\r\n\r\n".to_vec(),
        None => reply(&seen.message, "W/\"a\"", ""),
    });
    let cache = format!("{SMALL}\nmemory_bytes = \"1MiB\"");
    let proxy = with_cache(origin.addr(), &cache, "override_ttl = \"6s\"").start();
    let mut wire = proxy.connect().await;
    assert_eq!(did(&ask(&mut wire, "GET", "/x", "").await), "MISS");
    // Its head is wanted, its blocks are not.
    for _ in 0..3 {
        assert_eq!(did(&ask(&mut wire, "HEAD", "/x", "").await), "HIT");
    }
    for target in 0..8 {
        ask(&mut wire, "GET", &format!("/{target}"), "").await;
    }
    assert_eq!(did(&ask(&mut wire, "HEAD", "/x", "").await), "HIT", "the head is there");
    tokio::time::sleep(std::time::Duration::from_millis(6100)).await;
    let got = ask(&mut wire, "GET", "/x", "").await;
    assert_eq!((got.status(), did(&got), got.body.len()), (200, "MISS", LENGTH));
    pattern::check(0, &got.body);
    assert_eq!(proxy.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
}

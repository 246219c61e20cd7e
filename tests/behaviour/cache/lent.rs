//! Memory that sockets are given without a copy: nobody gets what was written there later.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Wire, eventually, origin::Served, pattern};

use super::{ask, did, get, with_cache};

/// Of a body: as long as some sockets take at once, and no number of pages.
const BODY: u64 = 60_100;

/// Hits before anything of a body is lent.
const HITS: usize = 20;

/// Answers that wait for their readers.
const WAITING: u64 = 24;

/// Each of a target has its own bytes.
fn bytes_of(target: &str) -> Vec<u8> {
    let number: u64 = target.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    pattern::at(number * 1_000_003, BODY).to_vec()
}

async fn origin() -> Served {
    Origin::bind().await.serve(|seen| {
        let fields = "Cache-Control: max-age=600\r\nX-Target: ";
        let target = seen.message.head.target().to_owned();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}{target}\r\nContent-Length: {BODY}\r\n\r\n");
        [head.into_bytes(), bytes_of(&target)].concat()
    })
}

async fn lent(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("underpass_cache_lent_bytes_total", &[])
}

/// Hits are on their way, and their readers asleep, when what they came from is forgotten and its
/// memory becomes something else's.
#[req_test("REQ-CACHE-002", "REQ-CACHE-007")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_is_not_written_over() {
    let origin = origin().await;
    let proxy = with_cache(origin.addr(), "memory_bytes = \"4MiB\"", "").start();
    let mut waiting: Vec<(String, Wire)> = Vec::new();
    for number in 0..WAITING {
        let target = format!("/{number}/");
        let fill = get(&proxy, &target, "").await;
        assert_eq!((did(&fill), fill.body == bytes_of(&target)), ("MISS", true), "{target}");
        let mut wire = proxy.connect().await;
        for _ in 0..HITS {
            assert!(ask(&mut wire, "GET", &target, "").await.body == bytes_of(&target), "{target}");
        }
        // Most of it is on its way to a reader that sleeps.
        let before = lent(&proxy).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let enough = before + (BODY / 2) as f64;
        eventually("a hit to be lent", async || lent(&proxy).await > enough).await;
        waiting.push((target, wire));
    }
    // As many others take their places, some of them twice.
    let mut wire = proxy.connect().await;
    for number in 0..WAITING {
        ask(&mut wire, "DELETE", &format!("/{number}/"), "").await;
    }
    for number in 1000..1000 + 4 * WAITING {
        let target = format!("/{number}/");
        assert_eq!(ask(&mut wire, "GET", &target, "").await.body, bytes_of(&target), "{target}");
    }
    for (target, wire) in &mut waiting {
        let hit = wire.read_response_to("GET").await;
        assert_eq!(did(&hit), "HIT", "{target}");
        assert!(hit.body == bytes_of(target), "{target}: other bytes than its own");
    }
    // And what is there now is right, too.
    for number in 1000..1000 + 4 * WAITING {
        let target = format!("/{number}/");
        assert_eq!(get(&proxy, &target, "").await.body, bytes_of(&target), "{target}");
    }
}

/// Parts of it go in the same way, from any byte to any other.
#[req_test("REQ-CACHE-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_lent_from_any_byte_to_any_other() {
    let origin = origin().await;
    let proxy = with_cache(origin.addr(), "", "").start();
    let mut wire = proxy.connect().await;
    let whole = ask(&mut wire, "GET", "/7/", "").await.body;
    for _ in 0..HITS {
        assert!(ask(&mut wire, "GET", "/7/", "").await.body == whole);
    }
    let before = lent(&proxy).await;
    for first in [0, 1, 63, 64, 4000, 4095, 4096, 8191, 20_000] {
        for last in [first, first + 30_000, 57_343, 57_344, 58_000, BODY as usize - 1] {
            let part = ask(&mut wire, "GET", "/7/", &format!("Range: bytes={first}-{last}")).await;
            assert_eq!(part.head.status(), 206);
            let last = last.min(BODY as usize - 1);
            assert!(part.body == whole[first..=last], "{first}-{last}");
        }
    }
    assert!(lent(&proxy).await > before, "nothing was lent");
}

//! Ranges of what is stored, byte for byte.

use mantra_macros::req_test;
use underpass_tests::{Message, Origin, pattern};

use super::{ask, did, get, with_cache};

pub(super) const LENGTH: usize = 300_000;

/// An origin that answers ranges of [`LENGTH`] bytes of the pattern, as RFC 9110 says.
pub(super) fn reply(message: &Message, etag: &str, fields: &str) -> Vec<u8> {
    let head = &message.head;
    let fields =
        format!("ETag: {etag}\r\nCache-Control: max-age=60\r\nAccept-Ranges: bytes\r\n{fields}");
    let range = head.get("range").and_then(|range| range.strip_prefix("bytes="));
    let counts = head.get("if-range").is_none_or(|condition| condition == etag);
    let (start, end) = match range.filter(|_| counts) {
        None => (0, LENGTH),
        Some(range) => {
            let (first, last) = range.split_once('-').expect("a range");
            match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) => (first, (last + 1).min(LENGTH)),
                (Ok(first), Err(_)) => (first, LENGTH),
                (_, last) => (LENGTH - last.expect("a suffix"), LENGTH),
            }
        }
    };
    let status = match range.filter(|_| counts) {
        None => "200 OK".to_owned(),
        Some(_) => {
            format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{LENGTH}", end - 1)
        }
    };
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", end - start);
    let mut bytes = head.into_bytes();
    if message.head.method() == "GET" {
        bytes.extend_from_slice(&pattern::bytes(LENGTH)[start..end]);
    }
    bytes
}

/// The same numbers each time.
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}

/// A part of an answer is what it says that it is.
pub(super) fn check_part(got: &Message, start: usize, end: usize) {
    assert_eq!(got.status(), 206);
    let said = format!("bytes {start}-{}/{LENGTH}", end - 1);
    assert_eq!(got.head.get("content-range"), Some(said.as_str()));
    assert_eq!(got.head.get("content-length"), Some((end - start).to_string().as_str()));
    assert_eq!(got.body.len(), end - start);
    pattern::check(start as u64, &got.body);
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn any_range_of_what_is_stored_is_exact() {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", ""));
    let proxy = with_cache(origin.addr(), "block_bytes = \"16KiB\"", "").start();
    let mut wire = proxy.connect().await;
    let whole = ask(&mut wire, "GET", "/x", "").await;
    assert_eq!((whole.status(), whole.body.len()), (200, LENGTH));
    let mut seeded = Seeded(1);
    for _ in 0..200 {
        let start = seeded.below(LENGTH);
        let last = start + seeded.below(40_000);
        let got = ask(&mut wire, "GET", "/x", &format!("Range: bytes={start}-{last}")).await;
        assert_eq!(did(&got), "HIT");
        check_part(&got, start, (last + 1).min(LENGTH));
    }
    for (range, start, end) in [
        ("bytes=-1", LENGTH - 1, LENGTH),
        ("bytes=-99999999", 0, LENGTH),
        ("bytes=299999-", LENGTH - 1, LENGTH),
        ("bytes=16384-32767", 16_384, 32_768),
    ] {
        check_part(&ask(&mut wire, "GET", "/x", &format!("Range: {range}")).await, start, end);
    }
    let too_far = ask(&mut wire, "GET", "/x", "Range: bytes=300000-").await;
    assert_eq!((too_far.status(), too_far.body.len()), (416, 0));
    assert_eq!(too_far.head.get("content-range"), Some("bytes */300000"));
    // Not to be heeded.
    for fields in
        ["Range: bytes=x", "Range: bytes=0-1|If-Range: \"b\"", "Range: bytes=0-1|If-Range: W/\"a\""]
    {
        let got = ask(&mut wire, "GET", "/x", fields).await;
        assert_eq!((got.status(), got.body.len()), (200, LENGTH), "{fields}");
    }
    let got = ask(&mut wire, "GET", "/x", "Range: bytes=5-9|If-Range: \"a\"").await;
    check_part(&got, 5, 10);
    let head = ask(&mut wire, "HEAD", "/x", "Range: bytes=5-9").await;
    assert_eq!((head.status(), head.head.get("content-length")), (200, Some("300000")));
    assert_eq!(origin.seen().len(), 1);
}

#[req_test("REQ-CACHE-003")]
#[tokio::test]
async fn several_ranges_are_one_message_and_bombs_are_not_heeded() {
    let origin =
        Origin::bind().await.serve(|seen| reply(&seen.message, "\"a\"", "Content-Type: a/b\r\n"));
    let proxy = with_cache(origin.addr(), "block_bytes = \"16KiB\"", "").start();
    get(&proxy, "/x", "").await;
    let got = get(&proxy, "/x", "Range: bytes=20000-20001, 0-9,-5").await;
    assert_eq!(got.status(), 206);
    assert!(!got.head.has("content-range"));
    let kind = got.head.get("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    let mut wanted = Vec::new();
    for (at, (start, end)) in [(20_000, 20_002), (0, 10), (299_995, 300_000)].iter().enumerate() {
        let line = if at == 0 { "--" } else { "\r\n--" };
        wanted.extend(
            format!(
                "{line}{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes {start}-{}/{LENGTH}\r\n\r\n",
                end - 1
            )
            .bytes(),
        );
        wanted.extend_from_slice(pattern::at(*start as u64, (end - start) as u64));
    }
    wanted.extend(format!("\r\n--{boundary}--\r\n").bytes());
    assert_eq!(got.body, wanted);
    for bomb in ["0-,".repeat(16), "0-0,".repeat(2000), "0-299999,1-299999".to_owned()] {
        let got = get(&proxy, "/x", &format!("Range: bytes={}", bomb.trim_end_matches(','))).await;
        assert_eq!((got.status(), got.body.len()), (200, LENGTH));
    }
}

//! Many exchanges at once, compared byte for byte with what both ends sent.

use std::{collections::BTreeSet, ops::ControlFlow};

use mantra_macros::req_test;
use underpass::record::{
    Side,
    read::{Body, Follow, Record, lines},
};
use underpass_tests::{Message, Origin, Proxy, Records, Reply, Wire};

/// A sequence of numbers that is the same for the same seed (Numerical Recipes' constants).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        // Half of them are text.
        let text = self.below(2) == 0;
        (0..length)
            .map(|_| if text { b'a' + self.below(26) as u8 } else { self.below(256) as u8 })
            .collect()
    }
}

/// What is asked and answered for a number. From [`SHORT`] on it is short, so that a million of them
/// have room on a disk.
fn exchange(number: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut seeded = Seeded(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (most_asked, most_answered) = if number < SHORT { (2000, 9000) } else { (200, 900) };
    let ask = seeded.bytes(most_asked);
    let answer = (0..seeded.below(4)).map(|_| seeded.bytes(most_answered)).collect();
    (ask, answer)
}

const SHORT: u64 = 20_000;

fn number(message: &Message) -> u64 {
    message.head.target().rsplit('/').next().and_then(|n| n.parse().ok()).expect("a number")
}

fn reply(message: &Message) -> Reply {
    let (_, chunks) = exchange(number(message));
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    Reply::from(bytes)
}

async fn client(address: std::net::SocketAddr, numbers: impl Iterator<Item = u64>) {
    let mut wire = Wire::connect(address).await;
    for number in numbers {
        let (ask, answer) = exchange(number);
        let head =
            format!("POST /{number} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", ask.len());
        wire.send([head.into_bytes(), ask].concat()).await;
        let message = wire.read_response_to("POST").await;
        assert_eq!((message.status(), message.body), (200, answer.concat()), "/{number}");
    }
}

/// Compares what is in a record with what was sent; the bytes that are marked as missing.
fn compare(body: &Body, sent: &[u8], whose: &str) -> u64 {
    let gaps = body.gaps.iter().map(|gap| (gap.offset as usize, gap.missing.bytes as usize));
    let (mut had, mut at, mut missing) = (0, 0, 0);
    for (offset, gone) in gaps.chain([(body.bytes.len(), 0)]) {
        let part = &body.bytes[had..offset];
        assert!(sent.get(at..at + part.len()) == Some(part), "{whose}: bytes from {at}");
        at += part.len() + gone;
        (had, missing) = (offset, missing + gone);
    }
    assert_eq!(at, sent.len(), "{whose}: what is there and what is marked is all there was");
    missing as u64
}

/// Plays them, and compares every record with what both ends sent. Exchanges without a record,
/// and bytes that are marked as missing.
async fn play(clients: u64, each: u64, section: &str) -> (u64, u64) {
    let origin = Origin::bind().await.serve(|seen| reply(&seen.message)).forgetting();
    let records = Records::default();
    let config = format!(
        "workers = 2\n{}[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n[[upstream]]\nname = \"o\"\n\
         servers = [\"{}\"]\n",
        records.section(section),
        origin.addr()
    );
    let mut proxy = Proxy::config(config).start();
    let mut all = tokio::task::JoinSet::new();
    for index in 0..clients {
        all.spawn(client(proxy.addr(), index * each..(index + 1) * each));
    }
    while let Some(done) = all.join_next().await {
        done.expect("a client");
    }
    proxy.term();
    assert!(proxy.exited().await.success());
    let (mut follow, mut seen, mut missing) = (Follow::whole(), BTreeSet::new(), 0);
    let damage = lines(records.path(), |line| {
        if let Some(record) = follow.take(line) {
            missing += check(&record, &mut seen);
        }
        ControlFlow::Continue(())
    });
    let damage = damage.expect("a readable folder");
    assert!(damage.is_none(), "{damage:?}");
    assert_eq!(follow.open(), 0, "all have ended");
    assert_eq!(seen.len() as u64 + follow.unrecorded(), clients * each);
    (follow.unrecorded(), missing)
}

/// Compares a record with what both ends sent; the bytes that are marked as missing.
fn check(record: &Record, seen: &mut BTreeSet<u64>) -> u64 {
    assert_eq!(record.lost_lines, 0, "{record:?}");
    let target = &record.begin.as_ref().expect("a beginning").target;
    let number: u64 = target.trim_start_matches('/').parse().expect("a number");
    assert!(seen.insert(number), "{target} is there twice");
    let (ask, answer) = exchange(number);
    let asked = compare(record.body(Side::Request), &ask, &format!("what {target} asked"));
    let whose = format!("what {target} answered");
    asked + compare(record.body(Side::Response), &answer.concat(), &whose)
}

#[req_test("REQ-REC-001", "REQ-REC-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_is_stored_as_it_was() {
    assert_eq!(play(32, 313, "memory_bytes = \"256MiB\"").await, (0, 0), "nothing is missing");
}

#[req_test("REQ-REC-006")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_is_stored_as_it_was_in_compressed_segments() {
    let section = "compression = \"zstd\"\nsegment_bytes = \"1MiB\"\nbatch_bytes = \"16KiB\"";
    assert_eq!(play(16, 60, section).await, (0, 0), "nothing is missing");
}

/// With room for a few of them only: every byte is there, or in a mark at its place, and what had
/// no room even to begin is counted.
#[req_test("REQ-REC-001", "REQ-REC-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_room_is_marked_to_the_byte() {
    let section = "memory_bytes = \"64KiB\"\nbatch_delay = \"300ms\"\n";
    let (unrecorded, missing) = play(32, 60, section).await;
    assert!(missing > 0, "there was room for all of it: {unrecorded} without a record");
}

/// `cargo xtask soak --record` runs it. `UNDERPASS_TEST_EXCHANGES` says how many; it takes as long as
/// it takes.
#[ignore = "a million exchanges: minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_exchanges_are_stored_as_they_were() {
    let count = std::env::var("UNDERPASS_TEST_EXCHANGES").ok();
    let count = count.and_then(|count| count.parse().ok()).unwrap_or(1_000_000_u64);
    let section = "memory_bytes = \"256MiB\"\nmax_total_bytes = \"100GiB\"";
    let begun = std::time::Instant::now();
    assert_eq!(play(64, count / 64, section).await, (0, 0), "nothing is missing");
    let (exchanges, seconds) = (count / 64 * 64, begun.elapsed().as_secs());
    println!("{exchanges} exchanges, each as both ends sent it, in {seconds} s");
}

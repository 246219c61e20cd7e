//! Bulk that local bypass passes: when its sender leaves the programs, and when it must not.
//!
//! What goes with the entry of a socket is what it was given past TCP, and what `up_pass` has
//! passed to it; bytes in TCP's queue stay.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use underpass_tests::{
    Bed, Engine, Plan, Proxy, Way, Wire,
    bed::Topology,
    clock::{BOUND, scaled},
    engine::joins_applications,
    eventually, pattern, within,
};

use super::{MEGABYTE, ready, shown};

/// A direction, and the one back.
const WAYS: [(&str, &str); 2] =
    [("to_upstream", "to_downstream"), ("to_downstream", "to_upstream")];

/// More than can be on its way when both directions are closed.
const ON_ITS_WAY: u64 = 16 * MEGABYTE;

/// More than goes by userspace before bypass is given up.
const MORE: u64 = 80 * MEGABYTE;

/// What `/tunnels` says of a sender that has left.
const LEFT: &str = "bulk without a pause";

/// What the ends go by.
#[derive(Debug, Default)]
struct Told {
    receiver_reads: AtomicBool,
    receiver_sends: AtomicBool,
    sender_reads: AtomicBool,
    stop: AtomicBool,
}

/// Whoever tells them. Dropped, also by a test that fails, it lets them go on to their end: the
/// runtime waits for their threads.
#[derive(Debug, Default)]
struct Teller(Arc<Told>);

impl std::ops::Deref for Teller {
    type Target = Arc<Told>;

    fn deref(&self) -> &Arc<Told> {
        &self.0
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let Told { receiver_reads, receiver_sends, sender_reads, stop } = &*self.0;
        let all = [stop, receiver_reads, receiver_sends, sender_reads];
        all.iter().for_each(|it| it.store(true, Relaxed));
    }
}

/// What an end has sent, and what it has read that was right, up to the first byte that was not.
#[derive(Debug, Clone, Copy)]
struct Played {
    sent: u64,
    right: u64,
}

/// The end that sends without a pause, or the other one, which sends a little now and then: until
/// both are told to stop. `sent`: what it has sent before.
async fn play(stream: TcpStream, told: &Told, bulk: bool, mut sent: u64) -> Played {
    let (mut reader, mut writer) = stream.into_split();
    let sending = async {
        while !told.stop.load(Relaxed) {
            if !bulk {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if bulk || told.receiver_sends.load(Relaxed) {
                let piece = pattern::at(sent, if bulk { u64::MAX } else { 100 });
                sent += writer.write(piece).await? as u64;
            }
        }
        writer.shutdown().await
    };
    let receiving = async {
        let reads = if bulk { &told.sender_reads } else { &told.receiver_reads };
        while !reads.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (mut right, mut room) = (0, vec![0; 256 * 1024]);
        loop {
            let n = reader.read(&mut room).await?;
            let wrong = pattern::first_wrong(right, &room[..n]);
            right += wrong.unwrap_or(n) as u64;
            if n == 0 || wrong.is_some() {
                return io::Result::Ok(right);
            }
            if !bulk {
                // Slower than what is sent, on any machine: else the programs soon pass it again.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    // One that was cut off has not read everything, which is seen.
    let (ended, right) = tokio::join!(sending, receiving);
    println!("bulk: {bulk}, sent {sent}: {ended:?}; read {right:?}");
    Played { sent, right: right.unwrap_or_default() }
}

/// Each end has a thread of its own: the sender does not pause while the other one reads.
fn start(end: Wire, told: &Arc<Told>, bulk: bool, sent: u64) -> JoinHandle<Played> {
    let stream = end.into_stream().into_std().expect("a stream");
    let told = Arc::clone(told);
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let playing = async {
            let stream = TcpStream::from_std(stream).expect("a runtime");
            play(stream, &told, bulk, sent).await
        };
        runtime.expect("a runtime").block_on(playing)
    })
}

/// What `/tunnels` has of the only tunnel in a direction.
#[derive(Debug)]
struct Seen {
    engine: Value,
    /// Messages and bytes past the proxy.
    messages: u64,
    bytes: u64,
    /// Messages that were refused.
    refused: u64,
    /// Bytes by userspace.
    slow: u64,
}

impl Seen {
    async fn of(proxy: &Proxy, way: &str) -> Self {
        let row = proxy.tunnels().await.remove(0);
        let engine = row["engine"][way].clone();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let kernel = |name: &str| number(&engine["kernel"][name]);
        let (messages, bytes) = (kernel("messages"), kernel("bytes"));
        let refused = kernel("passed_for_order") + kernel("passed_for_bound");
        let slow = number(&row["bytes"][way]).saturating_sub(bytes);
        Self { engine, messages, bytes, refused, slow }
    }

    fn has_left(&self) -> bool {
        self.engine["reason"] == LEFT
    }
}

/// Waits until so much has gone by userspace while a count stood still.
async fn passed(proxy: &Proxy, way: &str, bytes: u64, count: impl Fn(&Seen) -> u64) {
    let begin = Instant::now();
    let mut since = (u64::MAX, 0);
    loop {
        let seen = Seen::of(proxy, way).await;
        let now = count(&seen);
        if now != since.0 {
            since = (now, seen.slow);
        }
        if seen.slow.saturating_sub(since.1) >= bytes {
            return;
        }
        assert!(begin.elapsed() < BOUND, "no bulk that is refused: {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until it has left, and what it sends goes on by userspace.
async fn has_left(proxy: &Proxy, way: &str) {
    eventually("the sender to leave", async || Seen::of(proxy, way).await.has_left()).await;
    let left = Seen::of(proxy, way).await;
    assert!(left.engine["name"] == "pipe" || left.engine["name"] == "copy", "{left:?}");
    let goes_on = async || Seen::of(proxy, way).await.slow > left.slow + 16 * MEGABYTE;
    eventually("the rest of it", goes_on).await;
    assert_eq!(Seen::of(proxy, way).await.bytes, left.bytes);
}

/// What came of a tunnel.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    /// Whether the sender left while it had something to read. (One that had left before does not
    /// count.)
    left_early: bool,
    /// Whether the receiver, and the sender, were given every byte.
    whole: [bool; 2],
}

const WELL: Came = Came { left_early: false, whole: [true; 2] };

/// The one that sends in bulk, and the other one.
fn in_order<T>(way: &str, client: T, server: T) -> [T; 2] {
    if way == "to_upstream" { [client, server] } else { [server, client] }
}

async fn ended(
    proxy: &Proxy,
    told: &Told,
    left_early: bool,
    ends: [JoinHandle<Played>; 2],
) -> Came {
    told.stop.store(true, Relaxed);
    let [sender, receiver] = ends;
    let ended = within(BOUND, "both ends", async { tokio::join!(sender, receiver) }).await;
    let (sender, receiver) = (ended.0.expect("the sender"), ended.1.expect("the receiver"));
    proxy.until_tunnels(0).await;
    Came { left_early, whole: [receiver.right == sender.sent, sender.right == receiver.sent] }
}

/// Bulk that is refused, while there is something that its sender has not read: `given` past the
/// proxy before, or else by TCP.
async fn unread(bed: &Bed, (way, back): (&str, &str), given: u64, gone: &[Protection]) -> Came {
    let plan = Plan::new(bed, Way::Tcp, Engine::Bypass).unprotected(gone);
    let tunnel = plan.open_settled().await;
    let proxy = tunnel.proxy;
    let [sender, mut receiver] = in_order(way, tunnel.client, tunnel.server);
    if given > 0 {
        receiver.send(pattern::at(0, given)).await;
        let is_given = async || Seen::of(&proxy, back).await.bytes == given;
        eventually("bytes past the proxy", is_given).await;
    }
    let told = Teller::default();
    let ends = [start(sender, &told, true, 0), start(receiver, &told, false, given)];
    // It is refused for the first time because nobody reads.
    tokio::time::sleep(Duration::from_millis(100)).await;
    told.receiver_reads.store(true, Relaxed);
    let mut left_before = false;
    if given == 0 {
        // Nobody asks the gate any more when both directions are closed.
        passed(&proxy, way, ON_ITS_WAY, |seen| seen.refused).await;
        told.receiver_sends.store(true, Relaxed);
        eventually("bytes by TCP", async || Seen::of(&proxy, back).await.slow > 0).await;
        // Before these came it may leave, and here that takes as long as this machine likes.
        left_before = Seen::of(&proxy, way).await.has_left();
    } else {
        passed(&proxy, way, MORE, |seen| seen.messages).await;
    }
    // It would leave within a second.
    tokio::time::sleep(scaled(Duration::from_secs(2))).await;
    let left_early = !left_before && Seen::of(&proxy, way).await.has_left();
    told.sender_reads.store(true, Relaxed);
    if given == 0 {
        has_left(&proxy, way).await;
    } else if !left_early {
        passed(&proxy, way, MORE, |seen| seen.messages).await;
        assert_eq!(Seen::of(&proxy, way).await.engine["name"], "bypass");
    }
    ended(&proxy, &told, left_early, ends).await
}

fn bed() -> Option<Bed> {
    if !ready(Engine::Bypass) || !joins_applications() {
        return None;
    }
    Bed::here(Topology::V4)
}

/// The other end sends now and then: the sender leaves between two of its messages, and not
/// before it has read what there is.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_everything_has_been_read() {
    let Some(bed) = bed() else { return };
    for ways in WAYS {
        let play = async |gone: &[Protection]| unread(&bed, ways, 0, gone).await;
        let lost = |came: &Came| !came.whole[1];
        shown(&[Protection::Unread], play, |came| *came == WELL, lost).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_one_that_was_given_something_past_tcp() {
    let Some(bed) = bed() else { return };
    for ways in WAYS {
        let play = async |gone: &[Protection]| unread(&bed, ways, 1000, gone).await;
        let lost = |came: &Came| !came.whole[1];
        shown(&[Protection::Given], play, |came| *came == WELL, lost).await;
    }
}

/// The receiver's socket may not have come under the programs by then.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_from_the_first_moment() {
    let Some(bed) = bed() else { return };
    for (way, _) in WAYS {
        let plan = Plan::new(&bed, Way::Tcp, Engine::Auto).args(["--local-bypass"]);
        let tunnel = plan.open().await;
        let proxy = tunnel.proxy;
        let [sender, receiver] = in_order(way, tunnel.client, tunnel.server);
        let told = Teller::default();
        told.sender_reads.store(true, Relaxed);
        let ends = [start(sender, &told, true, 0), start(receiver, &told, false, 0)];
        tokio::time::sleep(Duration::from_millis(300)).await;
        told.receiver_reads.store(true, Relaxed);
        has_left(&proxy, way).await;
        assert_eq!(ended(&proxy, &told, false, ends).await, WELL);
    }
}

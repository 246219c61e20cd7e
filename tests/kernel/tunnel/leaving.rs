//! Bulk that local bypass passes: its sender leaves the programs, and no byte is lost by that in
//! either direction, nor kept from leaving by what it has not read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use underpass_tests::{
    Bed, Engine, Plan, Proxy, Wire, bed::Topology, clock::BOUND, engine::joins_applications,
    pattern, tunnel::Way, within,
};

use super::MEGABYTE;

/// More than goes by userspace before bypass is given up.
const MORE: u64 = 128 * MEGABYTE;

/// What the ends go by.
#[derive(Debug, Default)]
struct Told {
    receiver_reads: AtomicBool,
    receiver_sends: AtomicBool,
    sender_reads: AtomicBool,
    stop: AtomicBool,
}

/// The end that sends without a pause, or the other one, which sends a little now and then: until
/// both are told to stop. What it has sent, and what it has read.
async fn play(stream: std::net::TcpStream, told: Arc<Told>, bulk: bool) -> [u64; 2] {
    let mut stream = TcpStream::from_std(stream).expect("a runtime");
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        let mut sent = 0;
        while !told.stop.load(Relaxed) {
            if !bulk {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if bulk || told.receiver_sends.load(Relaxed) {
                let piece = pattern::at(sent, if bulk { u64::MAX } else { 100 });
                sent += writer.write(piece).await.expect("to send") as u64;
            }
        }
        writer.shutdown().await.expect("to finish");
        sent
    };
    let receiving = async {
        let reads = if bulk { &told.sender_reads } else { &told.receiver_reads };
        while !reads.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (mut got, mut room) = (0, vec![0; 256 * 1024]);
        loop {
            let n = reader.read(&mut room).await.expect("to receive");
            pattern::check(got, &room[..n]);
            got += n as u64;
            if n == 0 {
                return got;
            }
        }
    };
    let (sent, got) = tokio::join!(sending, receiving);
    [sent, got]
}

/// Each end has a thread of its own: the sender does not pause while the other one reads.
fn start(end: Wire, told: &Arc<Told>, bulk: bool) -> JoinHandle<[u64; 2]> {
    let stream = end.into_stream().into_std().expect("a stream");
    let told = Arc::clone(told);
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(play(stream, told, bulk))
    })
}

/// What `/tunnels` has of the only tunnel in this direction: its engine, messages and bytes that have
/// bypassed, bytes that have not.
async fn seen(proxy: &Proxy, way: &str) -> (Value, u64, u64, u64) {
    let row = proxy.tunnels().await.remove(0);
    let engine = row["engine"][way].clone();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (messages, bytes) =
        (number(&engine["kernel"]["messages"]), number(&engine["kernel"]["bytes"]));
    let all = number(&row["bytes"][way]);
    (engine, messages, bytes, all.saturating_sub(bytes))
}

/// Waits until so much has gone by userspace without a message past it.
async fn passed(proxy: &Proxy, way: &str) {
    let begin = Instant::now();
    let mut since = (u64::MAX, 0);
    loop {
        let (engine, messages, _, slow) = seen(proxy, way).await;
        if messages != since.0 {
            since = (messages, slow);
        }
        if slow.saturating_sub(since.1) >= MORE {
            return;
        }
        assert!(begin.elapsed() < BOUND, "bulk that is not refused: {engine}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bed() -> Option<Bed> {
    Bed::here(Topology::V4).filter(|_| joins_applications())
}

/// Both ends of a tunnel that has been opened: who sends in bulk first.
async fn ends(plan: &Plan<'_>, way: &str) -> ([Wire; 2], Proxy, underpass_tests::Origin) {
    let tunnel = plan.open_settled().await;
    let ends = match way {
        "to_upstream" => [tunnel.client, tunnel.server],
        _ => [tunnel.server, tunnel.client],
    };
    (ends, tunnel.proxy, tunnel.origin)
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test]
async fn a_sender_in_bulk_leaves_and_nothing_is_lost() {
    let Some(bed) = bed() else { return };
    for (way, back) in [("to_upstream", "to_downstream"), ("to_downstream", "to_upstream")] {
        let plan = Plan::new(&bed, Way::Tcp, Engine::Bypass);
        let ([sender, receiver], proxy, _origin) = ends(&plan, way).await;
        let told = Arc::new(Told::default());
        told.sender_reads.store(true, Relaxed);
        let [sender, receiver] = [start(sender, &told, true), start(receiver, &told, false)];
        // It is refused for the first time because nobody reads.
        tokio::time::sleep(Duration::from_millis(100)).await;
        told.receiver_reads.store(true, Relaxed);
        passed(&proxy, way).await;
        // From now on bytes are on their way to it when it leaves, but for moments.
        told.receiver_sends.store(true, Relaxed);
        let begin = Instant::now();
        while seen(&proxy, way).await.0["reason"] != "bulk without a pause" {
            assert!(begin.elapsed() < BOUND, "still there: {}", seen(&proxy, way).await.0);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (engine, _, moved, slow) = seen(&proxy, way).await;
        assert!(engine["name"] == "pipe" || engine["name"] == "copy", "{engine}");
        let begin = Instant::now();
        while seen(&proxy, way).await.3 < slow + MORE {
            assert!(begin.elapsed() < BOUND, "it does not go on");
        }
        assert_eq!(seen(&proxy, way).await.2, moved);
        assert_eq!(seen(&proxy, back).await.1, 0);
        told.stop.store(true, Relaxed);
        let ended = within(BOUND, "both ends", async { tokio::join!(sender, receiver) }).await;
        let ([sent, got_back], [sent_back, got]) = (ended.0.unwrap(), ended.1.unwrap());
        assert_eq!((sent, sent_back), (got, got_back));
        assert!(sent_back > 0);
        proxy.until_tunnels(0).await;
    }
}

/// What it has not read would go with its entry.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test]
async fn a_sender_that_was_given_something_stays() {
    let Some(bed) = bed() else { return };
    for (way, back) in [("to_upstream", "to_downstream"), ("to_downstream", "to_upstream")] {
        let plan = Plan::new(&bed, Way::Tcp, Engine::Bypass);
        let ([sender, mut receiver], proxy, _origin) = ends(&plan, way).await;
        receiver.send(pattern::at(0, 1000)).await;
        let begin = Instant::now();
        while seen(&proxy, back).await.2 < 1000 {
            assert!(begin.elapsed() < BOUND, "not past the proxy: {:?}", seen(&proxy, back).await);
        }
        let told = Arc::new(Told::default());
        let [sender, receiver] = [start(sender, &told, true), start(receiver, &told, false)];
        tokio::time::sleep(Duration::from_millis(100)).await;
        told.receiver_reads.store(true, Relaxed);
        passed(&proxy, way).await;
        // It would have left by the second time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        passed(&proxy, way).await;
        assert_eq!(seen(&proxy, way).await.0["name"], "bypass");
        told.sender_reads.store(true, Relaxed);
        told.stop.store(true, Relaxed);
        let ended = within(BOUND, "both ends", async { tokio::join!(sender, receiver) }).await;
        let ([sent, got_back], [_, got]) = (ended.0.unwrap(), ended.1.unwrap());
        assert_eq!((sent, 1000), (got, got_back));
        proxy.until_tunnels(0).await;
    }
}

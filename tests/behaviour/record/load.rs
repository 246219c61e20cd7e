//! Memory: a thousand streams and a long one are recorded within the bounds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mantra_macros::req_test;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use underpass::record::Side;
use underpass_tests::{Origin, Proxy, Records, process::Growth};

const STREAMS: usize = 1000;
const EVENTS: usize = 20;
const EVENT: &str = "data: {\"delta\":{\"text\":\" word\"}}\n\n";

/// Answers every request with a stream of events, one each 50 ms.
async fn tokens() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                let chunk = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
                for _ in 0..EVENTS {
                    let _ = stream.write_all(chunk.as_bytes()).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                let _ = stream.write_all(b"0\r\n\r\n").await;
            });
        }
    });
    (address, task)
}

#[req_test("REQ-REC-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_are_recorded_within_100_megabytes() {
    let (origin, _task) = tokens().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin).args(records.args()).args(["--access-log", "off"]).start();
    let address = proxy.addr();
    let gate = Arc::new(tokio::sync::Semaphore::new(64));
    let mut clients = JoinSet::new();
    let mut growth = Growth::of(proxy.pid());
    growth
        .during(async {
            for _ in 0..STREAMS {
                let gate = gate.clone();
                clients.spawn(async move {
                    let connecting = gate.acquire_owned().await;
                    let mut stream = TcpStream::connect(address).await.expect("connect");
                    drop(connecting);
                    let ask = "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
                    stream.write_all(ask.as_bytes()).await.expect("ask");
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.expect("an answer");
                    assert!(all.ends_with(b"0\r\n\r\n"));
                });
            }
            while let Some(done) = clients.join_next().await {
                done.expect("a client");
            }
        })
        .await;
    // The proxy's own part of a thousand open streams included.
    growth.assert_below(100 << 20);
    let found = records.ended(STREAMS).await;
    assert_eq!(found.len(), STREAMS);
    for record in found {
        assert!(record.is_whole(), "{record:?}");
        assert_eq!(record.body(Side::Response).bytes, EVENT.repeat(EVENTS).as_bytes());
    }
}

#[req_test("REQ-REC-001", "REQ-REC-002")]
#[tokio::test]
async fn a_stream_of_100_megabytes_is_recorded_within_the_budget() {
    const LENGTH: u64 = 100 << 20;
    let origin = Origin::bind().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    client.read_head().await;
    let mut growth = Growth::of(proxy.pid());
    growth
        .during(async {
            tokio::join!(server.send_rest(0, LENGTH), client.check_pattern(0, LENGTH));
        })
        .await;
    growth.assert_below(100 << 20);
    let record = records.only().await;
    // A disk that is slower than the network may cost a part of it, which is marked.
    let body = record.body(Side::Response);
    assert_eq!(body.length + record.missing_bytes(), LENGTH);
    let first = body.gaps.first().map_or(body.length, |gap| gap.offset) as usize;
    underpass_tests::pattern::check(0, &body.bytes[..first]);
}

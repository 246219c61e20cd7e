//! Running out of descriptors: accepting backs off, nothing open is harmed, it recovers.

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, Wire, eventually, process};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_flood_of_connections_is_survived() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut early = proxy.open(GET).await;
    early.expect_status(200).await;
    // Room for a few connections more, not for the flood.
    process::limit_descriptors(proxy.pid(), proxy.descriptors() as u64 + 12);
    let mut flood = Vec::new();
    for _ in 0..60 {
        flood.push(Wire::connect(proxy.addr()).await);
    }
    proxy.log_line(&["accept"]).await;
    // Who was there before is served as before.
    early.send(GET).await;
    early.expect_status(200).await;
    // The log is not flooded, nor is a core: backing off means few lines.
    let lines = proxy.stderr().lines().filter(|line| line.contains("accept")).count();
    assert!(lines < 50, "{lines} lines about accept");
    drop(flood);
    let mut late = proxy.open("GET /late HTTP/1.1\r\nHost: test\r\n\r\n").await;
    late.expect_status(200).await;
    assert_eq!(origin.targets().last().map(String::as_str), Some("/late"));
}

/// Many short connections leave no descriptor behind.
#[tokio::test]
async fn descriptors_are_given_back() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open(GET).await.expect_status(200).await;
    let idle = proxy.descriptors();
    for _ in 0..10 {
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(proxy.open(GET).await);
        }
        for client in &mut clients {
            client.expect_status(200).await;
        }
    }
    // What the pool keeps to the origin may stay.
    let pooled = origin.connections();
    eventually("descriptors to be given back", async || proxy.descriptors() <= idle + pooled).await;
}

//! SIGTERM: nothing new, everything open to its end or to the deadline, exit status 0.

use std::time::{Duration, Instant};

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Version, Wire, eventually, over_versions, tunnel::Way,
};

over_versions!(a_request_under_way_is_finished, idle_connections_are_closed_at_once);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Waits until the proxy takes no new connections.
async fn refuses(address: std::net::SocketAddr) {
    eventually("new connections to be refused", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
}

async fn a_request_under_way_is_finished(version: Version) {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(http::Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let mut upload = head.request_body();
    body.send("before").await;
    upload.expect(&mut server, "before").await;

    proxy.term();
    refuses(proxy.addr()).await;
    body.send("after").await;
    drop(body);
    assert_eq!(upload.finish(&mut server).await, b"after");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfini").await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    server.send("shed").await;
    assert_eq!(underpass_tests::collect(answer.into_body()).await.unwrap().0, b"finished");
    client.closed().await;
    assert_eq!(proxy.exited().await.code(), Some(0));
}

async fn idle_connections_are_closed_at_once(version: Version) {
    let origin = underpass_tests::Served::ok().await;
    let mut proxy = Proxy::reverse(origin.addr()).args(["--drain-timeout", "60s"]).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let answer = client.get("/").await;
    underpass_tests::collect(answer.into_body()).await.unwrap();
    let fresh = Wire::connect(proxy.addr()).await;
    let begin = Instant::now();
    proxy.term();
    client.closed().await;
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "an idle connection held the drain up");
    drop(fresh);
}

/// The last answer says that no other will follow.
#[tokio::test]
async fn the_last_answer_says_close() {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    proxy.term();
    refuses(proxy.addr()).await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = client.expect_status(200).await;
    assert_eq!(answer.head.get("connection"), Some("close"));
    client.expect_fin().await;
    assert_eq!(proxy.exited().await.code(), Some(0));
}

#[tokio::test]
async fn readiness_ends_with_the_drain() {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    proxy.term();
    eventually("readiness to end", async || {
        proxy.ask_admin("GET", "/readyz").await.status() == 503
    })
    .await;
    assert_eq!(proxy.ask_admin("GET", "/healthz").await.status(), 200);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.expect_status(200).await;
    assert_eq!(proxy.exited().await.code(), Some(0));
}

/// A request that does not end is cut at the deadline.
#[tokio::test]
async fn requests_are_cut_at_the_deadline() {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::reverse(origin.addr()).args(["--drain-timeout", "500ms"]).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    client.read_until("half").await;
    proxy.term();
    client.expect_end().await;
    assert_eq!(proxy.exited().await.code(), Some(0));
}

#[req_test("REQ-TUN-001", "REQ-TUN-005")]
#[tokio::test]
async fn tunnels_go_on_to_the_deadline_and_end() {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let settings =
            |builder: underpass_tests::ProxyBuilder| builder.args(["--drain-timeout", "3s"]);
        let mut tunnel = way.open_with(underpass_tests::Engine::Auto, origin, settings).await;
        let begin = Instant::now();
        tunnel.proxy.term();
        refuses(tunnel.proxy.addr()).await;
        tunnel.client.send("still").await;
        tunnel.server.expect("still").await;
        tunnel.server.send("open").await;
        tunnel.client.expect("open").await;
        tunnel.client.expect_end().await;
        tunnel.server.expect_end().await;
        assert!(begin.elapsed() >= Duration::from_millis(2900), "ended before the deadline");
        assert_eq!(tunnel.proxy.exited().await.code(), Some(0));
        let log = tunnel.proxy.stderr();
        assert!(log.contains("drained"), "the log does not say why the tunnel ended: {log}");
    }
}

/// A tunnel that ends by itself ends the drain.
#[req_test("REQ-TUN-001", "REQ-TUN-005")]
#[tokio::test]
async fn a_drain_is_over_when_the_last_tunnel_ends() {
    let tunnel = Way::Connect.open(underpass_tests::Engine::Auto).await;
    let mut proxy = tunnel.proxy;
    let begin = Instant::now();
    proxy.term();
    refuses(proxy.addr()).await;
    drop((tunnel.client, tunnel.server));
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(15), "waited for the deadline");
}

#[tokio::test]
async fn sigint_drains_as_well() {
    let origin = underpass_tests::Served::ok().await;
    let mut proxy = Proxy::reverse(origin.addr()).start();
    proxy.open(GET).await.expect_status(200).await;
    proxy.signal(Signal::INT);
    assert_eq!(proxy.exited().await.code(), Some(0));
}

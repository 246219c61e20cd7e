//! An idle connection to a server is parked in its pool: of it there is no more than a
//! socket, and it carries the next request all the same.

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, ProxyBuilder, Served, Wire, eventually, process::Growth, tunnel::SWITCHING,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST /pay HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\npay";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Waits until exactly so many connections to servers are parked.
async fn parked(proxy: &Proxy, count: usize) {
    let what = format!("{count} parked connections to servers");
    eventually(&what, async || {
        proxy.metrics().await.sum("underpass_upstream_connections_parked", &[]) == count as f64
    })
    .await;
}

/// A reverse proxy whose upstream has these settings.
fn proxy_with(origin: &Origin, settings: &str) -> ProxyBuilder {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n{settings}\n",
        origin.addr()
    ))
}

/// A client, and the server's end of the parked connection that its request went out on.
async fn with_parked(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    client.expect_status(200).await;
    parked(proxy, 1).await;
    (client, server)
}

#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn requests_take_a_parked_connection() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let (mut client, mut server) = with_parked(&proxy, &origin).await;

    client.send(POST).await;
    assert_eq!(server.read_request().await.text(), "pay");
    // The answer comes in pieces, behind an interim one.
    server.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-").await;
    server.send("Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(client.read_head().await.status(), 103);
    assert_eq!(client.expect_status(200).await.text(), "abc");

    parked(&proxy, 1).await;
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(server.read_head().await.method(), "HEAD");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.read_response_to("HEAD").await.head.status(), 200);

    parked(&proxy, 1).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    client.send(upgrade).await;
    server.read_head().await;
    server.send(format!("{SWITCHING}hello")).await;
    assert_eq!(client.read_head().await.status(), 101);
    client.expect("hello").await;
    client.send("bye").await;
    server.expect("bye").await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_upstream_connects_total", &[]), 1.0);
    assert_eq!(metrics.sum("underpass_upstream_reuses_total", &[]), 3.0);
    parked(&proxy, 0).await;
}

/// What could not be sent again is not sent in vain.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_parked_connection_that_the_server_ends_fails_no_request() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for (round, reset) in [false, true].into_iter().enumerate() {
        let (mut client, server) = with_parked(&proxy, &origin).await;
        match reset {
            true => server.reset(),
            false => drop(server),
        }
        client.send(POST).await;
        let mut server = origin.accept().await;
        assert_eq!(server.read_request().await.text(), "pay");
        server.send(OK).await;
        client.expect_status(200).await;
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.sum("underpass_upstream_connects_total", &[]), (round + 1) as f64 * 2.0);
        assert_eq!(metrics.sum("underpass_upstream_stale_retries_total", &[]), 0.0);
        server.reset();
        parked(&proxy, 0).await;
    }
}

/// It is closed at once, also if nobody wants it.
#[tokio::test]
async fn an_ended_connection_leaves_without_being_asked_for() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let (_client, mut server) = with_parked(&proxy, &origin).await;
    server.finish().await;
    server.expect_fin().await;
    parked(&proxy, 0).await;
}

/// Bytes that nobody asked for would be taken for the answer to the next request.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_parked_connection_with_unasked_bytes_is_closed() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for garbage in [OK, "\0", "\r\n"] {
        let (mut client, mut server) = with_parked(&proxy, &origin).await;
        server.send(garbage).await;
        server.expect_end().await;
        client.send("GET /next HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let mut other = origin.accept().await;
        assert_eq!(other.read_head().await.target(), "/next");
        other.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright").await;
        assert_eq!(client.expect_status(200).await.text(), "right");
        other.reset();
        parked(&proxy, 0).await;
    }
}

#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_parked_connection_is_closed_in_time() {
    let origin = Origin::bind().await;
    let proxy = proxy_with(&origin, "idle_timeout = \"3s\"").start();
    let (_client, mut server) = with_parked(&proxy, &origin).await;
    server.expect_fin().await;
    parked(&proxy, 0).await;
}

/// Parked or not, it is one of the connections that may be open.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn parked_connections_count_towards_the_limit() {
    let origin = Origin::bind().await;
    let proxy = proxy_with(&origin, "max_connections = 1\nmax_idle_connections = 1").start();
    let (mut client, mut server) = with_parked(&proxy, &origin).await;
    client.send(GET).await;
    server.read_head().await;
    // There is no other; it waits for this one.
    let mut second = proxy.open("GET /second HTTP/1.1\r\nHost: test\r\n\r\n").await;
    server.send(OK).await;
    client.expect_status(200).await;
    assert_eq!(server.read_head().await.target(), "/second");
    server.send(OK).await;
    second.expect_status(200).await;
    parked(&proxy, 1).await;
    // Its place is free again when the server has ended it.
    drop(server);
    parked(&proxy, 0).await;
    client.send(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    client.expect_status(200).await;
}

/// A connection of a tcp listener takes the place of a parked one.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_parked_connection_makes_room_for_a_tunnel() {
    let origin = Origin::bind().await;
    let proxy = Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[route]]\nlistener = \"raw\"\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\nmax_connections = 1\n\
         max_idle_connections = 1\n",
        origin.addr()
    ))
    .start();
    let mut client = Wire::open(proxy.listener("web"), GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    client.expect_status(200).await;
    parked(&proxy, 1).await;
    let mut raw = Wire::open(proxy.listener("raw"), "bytes").await;
    server.expect_fin().await;
    let mut tunnel = origin.accept().await;
    tunnel.expect("bytes").await;
    tunnel.send("back").await;
    raw.expect("back").await;
}

/// What an idle connection to a server may take, and what may be left over of the time when
/// it carried requests, however many there were.
const EACH: u64 = 2 * 1024;
const ONCE: u64 = 2 * 1024 * 1024;

#[req_test("REQ-CTRL-003")]
#[tokio::test]
async fn idle_connections_take_next_to_no_memory() {
    let origin = Origin::bind().await;
    let settings = "max_idle_connections = 1000\nidle_timeout = \"10m\"";
    let proxy = proxy_with(&origin, settings).args(["--access-log", "off"]).start();
    let mut all = Vec::new();
    // The first wave brings what there is once; the second is measured.
    for wave in [100, 400] {
        let growth = Growth::of(proxy.pid());
        let before = all.len();
        let mut clients = Vec::new();
        // All at once, so that each takes a connection of its own.
        for _ in 0..wave + before {
            clients.push(proxy.open(GET).await);
        }
        for _ in 0..wave {
            all.push(origin.accept().await);
        }
        for server in &mut all {
            server.read_head().await;
            server.send(OK).await;
        }
        for client in &mut clients {
            client.expect_status(200).await;
        }
        drop(clients);
        parked(&proxy, all.len()).await;
        let once = if before == 0 { 16 * ONCE } else { ONCE };
        growth.settles_below(wave as u64 * EACH + once).await;
    }
    assert_eq!(proxy.metrics().await.sum("underpass_upstream_connects_total", &[]), 500.0);
}

/// A pool that ends with its listener's clients does not keep what rests in it: a drain ends
/// the process with parked connections in its pools.
#[tokio::test]
async fn a_drain_ends_parked_connections() {
    let origin = Served::ok().await;
    let mut proxy = Proxy::reverse(origin.addr()).args(["--drain-timeout", "60s"]).start();
    proxy.open(GET).await.expect_status(200).await;
    parked(&proxy, 1).await;
    proxy.term();
    assert_eq!(proxy.exited().await.code(), Some(0));
    origin.deserted().await;
}

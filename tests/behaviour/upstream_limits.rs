//! How much an upstream is given: breakers, connections over all workers, how long one is kept,
//! and connections that are there before they are needed.

use std::time::Duration;

use mantra_macros::req_test;
use underpass_tests::{
    Fickle, Mode, Origin, Proxy, Saturated, Version, eventually, h2_tunnel::upgrade, load::Load,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn proxy(workers: usize, lines: &str) -> Proxy {
    Proxy::config(text(workers, lines)).start()
}

fn text(workers: usize, lines: &str) -> String {
    format!(
        "workers = {workers}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nconnect_timeout = \"10s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n{lines}\n"
    )
}

fn only(server: &Fickle) -> String {
    format!("servers = [\"{}\"]\n", server.addr())
}

/// One too many is told at once, and why.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn beyond_so_many_requests_the_answer_is_503_at_once() {
    let a = Fickle::start("a", Mode::Silent).await;
    let proxy = proxy(4, &format!("{}[upstream.breaker]\nmax_requests = 2\n", only(&a)));
    let first = proxy.open(GET).await;
    let _second = proxy.open(GET).await;
    eventually("two requests at the server", async || a.under_way() == 2).await;
    let answer = proxy.open(GET).await.expect_status(503).await;
    assert!(answer.text().contains("too many requests under way"), "{}", answer.text());
    assert!(answer.head.has("retry-after"));
    assert_eq!(a.requests(), 2);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "overloaded")]), 1.0);

    // One that ends makes room.
    a.become_(Mode::Up);
    drop(first);
    eventually("a request to be let in", async || {
        proxy.open(GET).await.read_response().await.status() == 200
    })
    .await;
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn beyond_so_many_that_wait_the_answer_is_503_at_once() {
    let silent = Saturated::bind();
    let lines = format!("servers = [\"{}\"]\n[upstream.breaker]\nmax_pending = 1\n", silent.addr());
    let proxy = proxy(1, &lines);
    let _waits = proxy.open(GET).await;
    eventually("the second one to be refused", async || {
        let mut client = proxy.open(GET).await;
        let answer = tokio::time::timeout(Duration::from_secs(1), client.read_response()).await;
        answer.is_ok_and(|answer| {
            answer.status() == 503 && answer.text().contains("wait for a connection")
        })
    })
    .await;
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn beyond_so_many_connections_the_answer_is_503_at_once() {
    let a = Fickle::start("a", Mode::Silent).await;
    let proxy = proxy(2, &format!("{}[upstream.breaker]\nmax_connections = 1\n", only(&a)));
    let _first = proxy.open(GET).await;
    eventually("a request at the server", async || a.under_way() == 1).await;
    let answer = proxy.open(GET).await.expect_status(503).await;
    assert!(answer.text().contains("too many connections"), "{}", answer.text());
    assert_eq!(a.connections(), 1);
}

/// The limit of a server holds over all workers; whoever is over it waits, also for what
/// another worker keeps.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_server_has_no_more_connections_than_it_may() {
    let a = Fickle::start("a", Mode::Slow(Duration::from_millis(20))).await;
    let lines = format!("servers = [{{ address = \"{}\", max_connections = 2 }}]\n", a.addr());
    let proxy = proxy(4, &lines);
    let load = Load::start(proxy.addr(), Version::H1, 8, 5);
    load.goes_on(60).await;
    let open = proxy.metrics().await.sum("underpass_server_connections_open", &[]);
    assert!(open <= 2.0, "{open} connections");
    load.stop().await.assert_whole();
    assert!(a.most_under_way() <= 2, "{} at once", a.most_under_way());
}

/// What is open by a configuration of before holds its place; what was kept by it does not.
#[req_test("REQ-EDGE-002", "REQ-EDGE-008")]
#[tokio::test]
async fn a_tunnel_of_before_a_reload_keeps_no_idle_connection_open() {
    let origin = Origin::bind().await;
    let lines = |idle: &str| {
        let address = origin.addr();
        format!(
            "servers = [{{ address = \"{address}\", max_connections = 2 }}]\n\
             idle_timeout = \"{idle}\"\n"
        )
    };
    let mut proxy = proxy(1, &lines("1h"));
    let mut tunnel = proxy.open(upgrade("/chat")).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                    Upgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    server.send(switched).await;
    assert_eq!(tunnel.read_head().await.status(), 101);
    proxy.until_tunnels(1).await;

    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut client = proxy.open(GET).await;
    let mut kept = origin.accept().await;
    kept.read_head().await;
    kept.send(ok).await;
    client.expect_status(200).await;

    proxy.reload(&text(1, &lines("2h"))).await;
    let mut client = proxy.open(GET).await;
    kept.expect_fin().await;
    let mut next = origin.accept().await;
    next.read_head().await;
    next.send(ok).await;
    client.expect_status(200).await;
    // The tunnel has had no part in it.
    tunnel.send("up").await;
    server.expect("up").await;
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_connection_carries_so_many_requests_and_gets_so_old() {
    let (a, b) = (Fickle::up("a").await, Fickle::up("b").await);
    let few = proxy(1, &format!("{}max_requests_per_connection = 3\n", only(&a)));
    let mut client = few.connect().await;
    for _ in 0..9 {
        client.send(GET).await;
        client.expect_status(200).await;
    }
    assert_eq!((a.requests(), a.connections()), (9, 3));

    let young = proxy(1, &format!("{}max_connection_age = \"300ms\"\n", only(&b)));
    let mut client = young.connect().await;
    client.send(GET).await;
    client.expect_status(200).await;
    eventually("the old connection to be closed", async || {
        young.metrics().await.sum("underpass_server_connections_open", &[]) == 0.0
    })
    .await;
    client.send(GET).await;
    client.expect_status(200).await;
    assert_eq!(b.connections(), 2);
}

/// They are there before a request, are used by it, and are made up for.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn connections_are_made_ahead_of_requests() {
    let a = Fickle::up("a").await;
    let proxy = proxy(1, &format!("{}min_idle_connections = 2\n", only(&a)));
    eventually("connections ahead", async || a.connections() == 2).await;
    assert_eq!(a.requests(), 0);
    let mut client = proxy.connect().await;
    client.send(GET).await;
    client.expect_status(200).await;
    assert_eq!(a.connections(), 2, "one that was there has been used");
    // The server ends them all; there are two again soon.
    a.become_(Mode::Refusing);
    eventually("the connections to be gone", async || {
        proxy.metrics().await.sum("underpass_server_connections_open", &[]) == 0.0
    })
    .await;
    a.become_(Mode::Up);
    eventually("connections again", async || {
        proxy.metrics().await.sum("underpass_server_connections_open", &[]) == 2.0
    })
    .await;
}

//! Connections of both sides live apart from each other and longer than one request.

use mantra_macros::req_test;
use underpass_tests::{HttpClient, Origin, Proxy, Reply, Served, Version, collect, over_versions};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

over_versions!(many_requests_take_one_upstream_connection);

#[req_test("REQ-CTRL-001")]
async fn many_requests_take_one_upstream_connection(version: Version) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    for n in 0..20 {
        let answer = client.get(&format!("/{n}")).await;
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    }
    assert_eq!(origin.seen().len(), 20);
    assert_eq!(origin.connections(), 1);
}

#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn clients_after_each_other_share_the_upstream_connection() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for _ in 0..5 {
        proxy.open(GET).await.expect_status(200).await;
    }
    assert_eq!(origin.connections(), 1);
}

/// Streams of one HTTP/2 connection do not wait for each other.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn h2_streams_are_answered_in_any_order() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let request = |client: &HttpClient, path| {
        client.request(http::Method::GET, path).body(underpass_tests::OutBody::Empty).unwrap()
    };
    let first = client.send(request(&client, "/a"));
    let mut server_a = origin.accept().await;
    assert_eq!(server_a.read_head().await.target(), "/a");
    let second = client.send(request(&client, "/b"));
    let mut server_b = origin.accept().await;
    assert_eq!(server_b.read_head().await.target(), "/b");
    server_b.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").await;
    assert_eq!(collect(second.await.unwrap().into_body()).await.unwrap().0, b"b");
    server_a.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await;
    assert_eq!(collect(first.await.unwrap().into_body()).await.unwrap().0, b"a");
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::bind().await.serve(|seen| Reply::ok(seen.message.head.target()));
    let proxy = Proxy::reverse(origin.addr()).start();
    let pipelined: String = (0..10)
        .map(|n| match n % 2 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"),
            _ => format!("POST /{n} HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nGET "),
        })
        .collect();
    let mut client = proxy.open(pipelined).await;
    for n in 0..10 {
        assert_eq!(client.expect_status(200).await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn an_empty_line_between_requests_is_tolerated() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(format!("{GET}\r\n{GET}")).await;
    client.expect_status(200).await;
    client.expect_status(200).await;
}

/// What the client wants closed is its own connection (RFC 9110 7.6.1).
#[tokio::test]
async fn connection_close_of_the_client_closes_the_client_only() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    for _ in 0..2 {
        let mut client = proxy.open(request).await;
        let answer = client.expect_status(200).await;
        assert_eq!(answer.head.get("connection"), Some("close"));
        client.expect_fin().await;
    }
    assert_eq!(origin.connections(), 1);
    assert!(origin.seen().iter().all(|seen| seen.message.head.get("connection") != Some("close")));
}

#[tokio::test]
async fn connection_close_of_the_origin_closes_the_origin_only() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let origin = Served::always(Reply::from(reply).then_close()).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.send(GET).await;
        let answer = client.expect_status(200).await;
        assert!(!answer.head.has("connection"), "{:?}", answer.head.all("connection"));
    }
    assert_eq!(origin.connections(), 3);
}

/// The pool keeps no more idle connections than it is told to.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn the_pool_is_bounded() {
    let origin = Origin::bind().await;
    let config = format!(
        "workers = 1\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\nmax_idle_connections = 1\n",
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let (mut one, mut two) = (proxy.open(GET).await, proxy.open(GET).await);
    let (mut server_one, mut server_two) = (origin.accept().await, origin.accept().await);
    for server in [&mut server_one, &mut server_two] {
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
    one.expect_status(200).await;
    two.expect_status(200).await;
    // One of the two is closed, the other stays.
    let kept = tokio::select! {
        _ = server_one.expect_end() => &mut server_two,
        _ = server_two.expect_end() => &mut server_one,
    };
    one.send(GET).await;
    kept.read_head().await;
}

/// An idle connection to the origin is closed by us, in time before the origin does.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn idle_upstream_connections_are_closed_in_time() {
    let origin = Origin::bind().await;
    let config = format!(
        "workers = 1\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\nidle_timeout = \"300ms\"\n",
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.expect_status(200).await;
    server.expect_fin().await;
    client.send(GET).await;
    origin.accept().await.read_head().await;
}

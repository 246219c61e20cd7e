//! An Upgrade or CONNECT that does not come about leaves plain HTTP on the connection.

use mantra_macros::req_test;
use underpass_tests::{Engine, Origin, Proxy, Served, over_engines, tunnel::Way};

over_engines!(an_answer_without_101_is_plain_http, a_request_behind_a_refused_upgrade_is_answered);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The origin does not switch: 200, 403, 426 are answers like any other.
#[req_test("REQ-TUN-001")]
async fn an_answer_without_101_is_plain_http(engine: Engine) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).splice(engine).start();
    let mut client = proxy.connect().await;
    let mut server = None;
    for status in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
        client.send(Way::Upgrade.request(&origin)).await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(origin.accept().await),
        };
        server.read_head().await;
        server.send(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nplain")).await;
        let answer = client.read_response().await;
        assert!(answer.head.start.contains(status), "{}", answer.head.start);
        assert_eq!(answer.text(), "plain");
        // The connections of both sides go on as HTTP.
        client.send("GET /next HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(server.read_head().await.target(), "/next");
        server.send(OK).await;
        client.expect_status(200).await;
    }
}

/// Bytes behind the request were HTTP after all, and not the other protocol.
#[req_test("REQ-TUN-001")]
async fn a_request_behind_a_refused_upgrade_is_answered(engine: Engine) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).splice(engine).start();
    let next = "POST /next HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
    let mut client = proxy.open(Way::Upgrade.request(&origin) + next).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    client.expect_status(403).await;
    let request = server.read_request().await;
    assert_eq!((request.head.target(), request.text().as_str()), ("/next", "hello"));
    server.send(OK).await;
    assert_eq!(client.expect_status(200).await.text(), "ok");
}

/// What follows a refused upgrade is judged like every request.
#[tokio::test]
async fn rubbish_behind_a_refused_upgrade_is_refused() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(Way::Upgrade.request(&origin) + "\x01\x02 rubbish\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    client.expect_status(200).await;
    client.expect_status(400).await;
    client.expect_end().await;
}

/// A request may ask for an upgrade and have a body (RFC 9110 7.8).
#[tokio::test]
async fn an_upgrade_request_with_a_body() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "POST / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\
                   Content-Length: 5\r\n\r\nhello";
    let mut client = proxy.open(request).await;
    let mut server = origin.accept().await;
    assert_eq!(server.read_request().await.text(), "hello");
    server.send(underpass_tests::tunnel::SWITCHING).await;
    Way::Upgrade.opened(&mut client).await;
    client.send("other protocol").await;
    server.expect("other protocol").await;
}

/// 101 without having been asked: what follows would be nobody's protocol.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_switch_nobody_asked_for_is_502() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let requests = [
        "GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        // Upgrade without Connection is not asked properly, so it is not passed on.
        "GET / HTTP/1.1\r\nHost: test\r\nUpgrade: echo\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
    ];
    for request in requests {
        let mut client = proxy.open(request).await;
        let mut server = origin.accept().await;
        assert!(!server.read_head().await.has("upgrade"), "{request:?}");
        server.send(underpass_tests::tunnel::SWITCHING).await;
        client.expect_status(502).await;
        server.expect_end().await;
    }
    assert_eq!(proxy.tunnels().await.len(), 0);
}

/// The origin must choose one of the protocols that the client named.
#[tokio::test]
async fn a_switch_to_another_protocol_is_502() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(Way::Upgrade.request(&origin)).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
        .await;
    client.expect_status(502).await;
}

/// h2c by Upgrade would let requests past every rule (RFC 9113 3.1 took it away).
#[tokio::test]
async fn h2c_is_not_upgraded_to() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let head = origin.only().head;
    assert!(!head.has("upgrade") && !head.has("http2-settings"), "{head:?}");
}

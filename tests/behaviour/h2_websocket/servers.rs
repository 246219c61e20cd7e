//! WebSockets of all clients at servers that are spoken to over HTTP/2.

use http::Response;
use mantra_macros::req_test;
use underpass_tests::{
    Wire,
    h2_origin::H2Origin,
    h2_tunnel::{H2Caller, extended, grant, grant_stream, upgrade},
};

use super::proxy;

/// RFC 6455 section 1.3: the answer to [`underpass_tests::h2_tunnel::KEY`].
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[req_test("REQ-EDGE-005", "REQ-EDGE-004")]
#[tokio::test]
async fn the_server_sees_a_connect_and_the_client_a_101() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), true, "").start();
    let head = upgrade("/chat?room=1");
    let more = "Sec-WebSocket-Protocol: chat\r\nOrigin: http://a.test\r\n\r\n";
    let head = head.strip_suffix("\r\n").unwrap().to_owned() + more;
    let mut client = Wire::open(proxy.listener("web"), head + "early").await;
    let mut peer = origin.accept_with(&extended()).await;
    let mut stream = peer.next().await;
    let request = &stream.request;
    assert_eq!(request.method(), "CONNECT");
    assert_eq!(request.uri(), "http://test/chat?room=1");
    let protocol = request.extensions().get::<h2::ext::Protocol>().unwrap();
    assert_eq!(protocol.as_str(), "websocket");
    for (name, value) in [
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://a.test"),
        ("via", "1.1 underpass"),
    ] {
        assert_eq!(request.headers()[name], value, "{name}");
    }
    for gone in ["sec-websocket-key", "upgrade", "connection", "host", "te"] {
        assert!(!request.headers().contains_key(gone), "{gone}");
    }
    let answer = Response::builder().header("sec-websocket-protocol", "chat");
    let mut body = stream.begin(answer.body(()).unwrap());
    let told = client.read_head().await;
    assert_eq!(told.status(), 101);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "chat"),
        ("via", "2.0 underpass"),
    ] {
        assert_eq!(told.all(name), [value], "{name}");
    }
    assert!(!told.has("content-length") && !told.has("transfer-encoding"));
    let early = stream.request.body_mut().data().await.unwrap().unwrap();
    assert_eq!(&early[..], b"early");
    body.send_data("late".into(), false).unwrap();
    client.expect("late").await;
    let line = proxy.tunnels().await[0]["upstream"].to_string();
    assert!(line.contains(&origin.addr().port().to_string()), "{line}");
}

/// A server that has not said that it takes them is not asked.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_server_that_takes_none_is_not_asked() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), true, "").start();
    let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
    let mut peer = origin.accept().await;
    client.expect_status(501).await;
    proxy.log_line(&["status=501", "error=not_implemented"]).await;
    // The connection carries other requests.
    let get = "GET /next HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = Wire::open(proxy.listener("web"), get).await;
    let mut stream = peer.next().await;
    assert_eq!(stream.path(), "/next");
    stream.ok("ok");
    client.expect_status(200).await;

    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    assert_eq!(caller.websocket("/").await.refused().await.0, 501);
}

/// Which it says with its first frame, that may be late.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_server_is_waited_for_to_say_so() {
    let origin = H2Origin::bind().await;
    let limits = "connect_timeout = \"2s\"";
    let proxy = proxy(origin.addr(), true, limits).start();
    let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
    let mut wire = origin.accept_raw().await;
    wire.expect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.expect_status(504).await;
    drop(wire);

    let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
    let mut peer = origin.accept_with(&extended()).await;
    grant(&mut peer).await;
    assert_eq!(client.read_head().await.status(), 101);

    // One that ends instead.
    peer.cut();
    assert!(client.read_to_end().await.0.is_empty());
    let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
    let mut wire = origin.accept_raw().await;
    wire.expect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    drop(wire);
    client.expect_status(502).await;
}

/// What a server over HTTP/2 does not check any more is checked here.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn upgrades_that_cannot_become_a_connect_are_refused() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), true, "").start();
    let good = upgrade("/");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (head, status) in [
        (good.replace(key, ""), 400),
        (good.replace("dGhl", "dG"), 400),
        (good.replace("bm9uY2U", "").replace("==", "!!"), 400),
        (good.replace(key, &format!("{key}{key}")), 400),
        (good.replace("GET /", "POST /"), 400),
        (good.replace("Host: test", "Host: test\r\nContent-Length: 1") + "x", 400),
        (good.replace("Upgrade: websocket", "Upgrade: echo"), 501),
        (good.replace("Upgrade: websocket", "Upgrade: websocket, echo"), 501),
    ] {
        let mut client = Wire::open(proxy.listener("web"), &head).await;
        client.expect_status(status).await;
    }
    assert!(!origin.is_connected_to_again().await);
}

/// A server that refuses is heard, and a wrong answer is none.
#[req_test("REQ-EDGE-005", "REQ-TUN-001")]
#[tokio::test]
async fn refusals_pass_and_other_successes_do_not() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), true, "").start();
    let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
    let mut peer = origin.accept_with(&extended()).await;
    let mut stream = peer.next().await;
    let mut body = stream.begin(Response::builder().status(426).body(()).unwrap());
    body.send_data("not this".into(), false).unwrap();
    body.send_data(" version".into(), true).unwrap();
    assert_eq!(client.expect_status(426).await.text(), "not this version");
    // The client's connection goes on.
    client.send(upgrade("/again")).await;
    let mut stream = peer.next().await;
    assert_eq!(stream.path(), "/again");
    stream.end(Response::builder().status(204).body(()).unwrap());
    client.expect_status(502).await;
    assert!(proxy.tunnels().await.is_empty());
}

/// What a server refuses unseen goes to it again, as it was.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn one_that_is_refused_unseen_is_sent_again() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), true, "").start();
    let mut client = Wire::open(proxy.listener("web"), upgrade("/chat")).await;
    let mut peer = origin.accept_with(&extended()).await;
    peer.next().await.reset(h2::Reason::REFUSED_STREAM);
    let stream = peer.next().await;
    assert_eq!(stream.path(), "/chat");
    let (_, server) = grant_stream(stream);
    let told = client.read_head().await;
    assert_eq!((told.status(), told.get("sec-websocket-accept")), (101, Some(ACCEPT)));
    let mut server = server.into_leg();
    client.send("hello").await;
    server.expect("hello").await;
    // A server that takes no more streams leaves open ones alone.
    peer.go_away();
    server.send("still").await;
    client.expect("still").await;
}

/// Nor does a stream that ends for itself take the connection with it.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_reset_instead_of_an_answer_is_502() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), true, "").start();
    let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
    let mut peer = origin.accept_with(&extended()).await;
    peer.next().await.reset(h2::Reason::PROTOCOL_ERROR);
    client.expect_status(502).await;
}

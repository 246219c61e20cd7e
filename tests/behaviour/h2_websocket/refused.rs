//! What a client of HTTP/2 is told where no WebSocket comes about, and that its connection goes on.

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, Served, Wire, eventually,
    h2_frames::{Fate, Frames},
    h2_tunnel::{H2Caller, granting},
    pattern,
};

use super::proxy;

/// It is an answer like any other, with its body.
#[req_test("REQ-EDGE-005", "REQ-TUN-001")]
#[tokio::test]
async fn an_answer_without_101_passes() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let mut server: Option<Wire> = None;
    for status in ["403 Forbidden", "426 Upgrade Required", "302 Found"] {
        let called = caller.websocket("/chat").await;
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(origin.accept().await),
        };
        server.read_head().await;
        let fields = "Content-Length: 5\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket";
        server.send(format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\nplain")).await;
        let (told, fields, content) = called.refused().await;
        assert_eq!((&status[..3], content.as_str()), (told.as_str(), "plain"));
        assert_eq!(fields["sec-websocket-version"], "13");
        assert!(!fields.contains_key("upgrade"));
    }
    assert!(proxy.tunnels().await.is_empty());
}

/// A success says over HTTP/2 that there is a tunnel, so one that opens none is told as what it is.
#[req_test("REQ-EDGE-005", "REQ-TUN-001")]
#[tokio::test]
async fn a_success_that_is_no_tunnel_is_not_told_as_one() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    for status in ["200 OK", "204 No Content"] {
        let called = caller.websocket("/chat").await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(format!("HTTP/1.1 {status}\r\n\r\n")).await;
        assert_eq!(called.refused().await.0, 502);
        server.expect_end().await;
    }
    let own = Proxy::config(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nrespond = { status = 200, body = \"hello\" }\n",
    )
    .start();
    let mut caller = H2Caller::connect(own.listener("web")).await;
    assert_eq!(caller.websocket("/chat").await.refused().await.0, 501);
    own.log_line(&["status=501"]).await;
}

/// A server that has not understood what it was asked, or a cache between, cannot know the answer.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_101_that_proves_nothing_is_502() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    for answer in [
        "Upgrade: websocket\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Upgrade: echo\r\n",
        "",
    ] {
        let called = caller.websocket("/chat").await;
        let mut server = origin.accept().await;
        let head = server.read_head().await;
        assert_ne!(head.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        let start = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
        server.send(format!("{start}{answer}\r\n")).await;
        assert_eq!(called.refused().await.0, 502, "{answer:?}");
        server.expect_end().await;
    }
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn other_protocols_and_plain_connect_are_refused_by_name() {
    let origin = Served::ok().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    for protocol in ["connect-udp", "websocket2", "echo"] {
        assert_eq!(caller.ask(protocol, "/", &[]).await.refused().await.0, 501, "{protocol}");
    }
    let plain = http::Request::connect("elsewhere.test:443").body(()).unwrap();
    assert_eq!(caller.send(plain).await.refused().await.0, 405);
}

/// Pseudo-fields that do not go together are no request (RFC 8441 section 4).
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn heads_that_break_the_rules_are_reset() {
    let origin = Served::ok().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let good: [(&[u8], &[u8]); 5] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"a.test"),
        (b":path", b"/chat"),
    ];
    let protocol_error = Fate::Reset(1);
    for (without, instead, fate) in [
        (":scheme", None, protocol_error),
        (":path", None, protocol_error),
        (":authority", None, Fate::Answered(Some(400))),
        (":method", Some((&b":method"[..], &b"GET"[..])), protocol_error),
        ("", Some((b"upgrade", b"websocket")), protocol_error),
        ("", Some((b"connection", b"upgrade")), protocol_error),
        (":path", Some((b":path", b"*")), Fate::Answered(Some(400))),
        ("", Some((b"host", b"b.test")), Fate::Answered(Some(400))),
    ] {
        let mut frames = Frames::open(Wire::connect(proxy.listener("web")).await).await;
        let kept = good.iter().filter(|(name, _)| *name != without.as_bytes());
        let fields: Vec<_> = kept.chain(instead.iter()).copied().collect();
        // Pseudo-fields come first.
        let (first, last): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(|(name, _)| name.starts_with(b":"));
        let stream = frames.request(&[first, last].concat(), false).await;
        assert_eq!(frames.fate(stream).await, fate, "without {without:?}, with {instead:?}");
    }
    assert_eq!(origin.seen().len(), 0);
}

/// What came before a refusal is nobody's, and takes no room from others: far more than the
/// connection's window.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn bytes_before_a_refusal_are_dropped() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "max_streams = 2").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let mut server: Option<Wire> = None;
    for _ in 0..20 {
        let mut called = caller.websocket("/chat").await;
        called.send.reserve_capacity(100_000);
        called.send.send_data(pattern::bytes(60_000).into(), false).unwrap();
        let server = match &mut server {
            Some(server) => server,
            none => none.insert(origin.accept().await),
        };
        server.read_head().await;
        server.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        assert_eq!(called.refused().await.0, 403);
    }
    // And the next one opens.
    let called = caller.websocket("/chat").await;
    let mut server = server.unwrap();
    let head = server.read_head().await;
    server.send(granting(&head, "")).await;
    let mut client = called.opened().await.1.into_leg();
    let all = pattern::bytes(200_000);
    tokio::join!(client.send(&all), server.expect(&all));
}

/// A client that gives up before the answer ends the request to the server.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_reset_before_the_answer_ends_the_request() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let called = caller.websocket("/chat").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    called.reset();
    server.expect_end().await;
    proxy.log_line(&["status=499"]).await;
    eventually("its connection to be closed", async || {
        let open = proxy.metrics().await;
        open.sum("underpass_server_connections_open", &[("upstream", "app")]) == 0.0
    })
    .await;
    // Nor does a server that ends without an answer keep the stream.
    let called = caller.websocket("/chat").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.reset();
    assert_eq!(called.refused().await.0, 502);
}

/// hyper ends the connection then; what matters is that nothing of it is taken for a tunnel.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_connect_with_a_length_comes_to_nothing() {
    let origin = Served::ok().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut frames = Frames::open(Wire::connect(proxy.listener("web")).await).await;
    let fields: [(&[u8], &[u8]); 6] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"a.test"),
        (b":path", b"/chat"),
        (b"content-length", b"5"),
    ];
    let stream = frames.request(&fields, false).await;
    let fate = frames.fate(stream).await;
    assert!(matches!(fate, Fate::Ended(_) | Fate::GoneAway(_) | Fate::Reset(_)), "{fate:?}");
    assert_eq!(origin.seen().len(), 0);
}

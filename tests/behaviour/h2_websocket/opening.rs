//! How a WebSocket of a client of HTTP/2 opens at a server of HTTP/1.1.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::Method;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use mantra_macros::req_test;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Version,
    clock::{BOUND, STALL},
    h2_tunnel::{H2Caller, Leg, granting},
    pattern,
    tls::{Authority, Folder, TlsClient},
    websocket, within,
};

use super::proxy;

/// Messages by libraries at both ends, with prior knowledge and over TLS.
#[req_test("REQ-EDGE-005", "REQ-EDGE-006", "REQ-TUN-004")]
#[tokio::test]
async fn messages_are_echoed() {
    for tls in [false, true] {
        let (authority, folder) = (Authority::new("ca"), Folder::default());
        folder.put("site", &authority.server(&["site.test"]));
        let origin = Origin::bind().await;
        let proxy = secured(tls.then_some(&folder), origin.addr());
        let serving = tokio::spawn(async move { websocket::echo(origin.accept().await).await });
        let address = proxy.listener("web");
        let mut client = match tls {
            false => HttpClient::connect(address, Version::H2).await,
            true => {
                let client = TlsClient::trusting(&authority).alpn(&["h2"]);
                let stream = client.connect(address, "site.test").await.0;
                HttpClient::over_tls(stream, "site.test", Version::H2).await
            }
        };
        let request = client.request(Method::CONNECT, "/echo");
        let request = request.extension(Protocol::from_static("websocket"));
        let request = request.header("sec-websocket-version", "13").body(OutBody::Empty).unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let message = Message::binary(pattern::bytes(size));
            let (mut send, mut receive) = (&mut socket).split();
            let echo = async {
                let (sent, got) = tokio::join!(send.send(message.clone()), receive.next());
                sent.unwrap();
                got.unwrap().unwrap()
            };
            let got = within(BOUND, "an echo", echo).await;
            assert!(got == message, "the echo of {size} bytes is not what was sent");
        }
        let tunnels = proxy.tunnels().await;
        assert_eq!(tunnels[0]["kind"], "websocket", "{tunnels:?}");
        for direction in ["to_upstream", "to_downstream"] {
            assert_eq!(tunnels[0]["engine"][direction]["name"], "copy", "{tunnels:?}");
            assert_eq!(tunnels[0]["engine"][direction]["reason"], "h2 downstream", "{tunnels:?}");
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
        drop(socket);
        serving.await.unwrap();
        proxy.until_tunnels(0).await;
        let line = proxy.log_line(&["tunnel=websocket"]).await;
        for part in ["method=GET", "/echo", "status=200", "tunnel_end=finished", "upstream=app"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}

/// With `folder` over TLS.
fn secured(folder: Option<&Folder>, server: SocketAddr) -> Proxy {
    let Some(folder) = folder else { return proxy(server, false, "").start() };
    let entry = folder.entry("site");
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [listener.tls]\ncertificates = [{entry}]\n\
         [[route]]\nlistener = \"web\"\nupstream = \"app\"\n\
         [[upstream]]\nname = \"app\"\nservers = [\"{server}\"]\n"
    ))
    .start()
}

/// The key is the proxy's, whatever the client wrote there; the rest passes.
#[req_test("REQ-EDGE-005", "REQ-EDGE-004")]
#[tokio::test]
async fn the_server_sees_an_upgrade_and_the_client_an_answer_to_connect() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    assert!(caller.is_extended().await, "SETTINGS_ENABLE_CONNECT_PROTOCOL");
    let fields = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("sec-websocket-key", "of the client"),
        ("sec-websocket-accept", "of the client"),
        ("origin", "http://elsewhere.test"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let called = caller.ask("WebSocket", "/chat?room=1", &fields).await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    assert_eq!(head.start, "GET /chat?room=1 HTTP/1.1");
    let authority = proxy.listener("web").to_string();
    for (name, value) in [
        ("host", authority.as_str()),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "http://elsewhere.test"),
        ("cookie", "a=1; b=2"),
        ("via", "2.0 underpass"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(head.all(name), [value], "{name}");
    }
    let key = head.all("sec-websocket-key");
    assert!(key.len() == 1 && key[0].len() == 24 && key[0].ends_with("=="), "{key:?}");
    for gone in ["sec-websocket-accept", "te", "transfer-encoding", "content-length"] {
        assert!(!head.has(gone), "{gone}");
    }
    let more = "Sec-WebSocket-Protocol: chat\r\nX-Room: 1\r\nKeep-Alive: timeout=5\r\n";
    server.send(granting(&head, more)).await;
    let (answer, tunnel) = called.opened().await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(answer.headers()["x-room"], "1");
    for gone in ["upgrade", "connection", "sec-websocket-accept", "keep-alive", "content-length"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let (mut client, mut server) = (tunnel.into_leg(), Leg::Tcp(server));
    client.send("one way").await;
    server.expect("one way").await;
    server.send("and the other").await;
    client.expect("and the other").await;
}

/// Bytes that come before the answer wait for it, and those behind the server's head go first.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn bytes_before_the_answer_are_the_servers() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let mut called = caller.websocket("/chat").await;
    called.send.send_data("early".into(), false).unwrap();
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let early = tokio::time::timeout(STALL, server.read_some()).await;
    assert!(early.is_err(), "bytes before the answer");
    server.send(granting(&head, "") + "greeting").await;
    server.expect("early").await;
    let mut client = called.opened().await.1.into_leg();
    client.expect("greeting").await;
    client.finish().await;
    server.expect_fin().await;
}

/// On a forward listener the target names the server, and plain CONNECT is what it was.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_forward_proxy_opens_both_kinds() {
    let proxy = Proxy::forward().start();
    let origin = Origin::bind().await;
    let authority = origin.addr().to_string();
    let stream = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let builder = h2::client::Builder::new();
    let mut caller = H2Caller::over(stream, "http", &authority, &builder).await;
    let called = caller.websocket("/chat").await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    assert_eq!((head.target(), head.get("host")), ("/chat", Some(authority.as_str())));
    server.send(granting(&head, "")).await;
    let mut client = called.opened().await.1.into_leg();
    client.send("through it").await;
    server.expect("through it").await;

    let request = http::Request::connect(&authority).body(()).unwrap();
    let called = caller.send(request).await;
    let mut server = origin.accept().await;
    let mut client = called.opened().await.1.into_leg();
    client.send("as it is").await;
    server.expect("as it is").await;
    server.send("and back").await;
    client.expect("and back").await;
    let kinds: Vec<_> =
        proxy.tunnels().await.iter().map(|tunnel| tunnel["kind"].to_string()).collect();
    assert_eq!(kinds, ["\"websocket\"", "\"connect\""]);
    client.finish().await;
    server.expect_fin().await;
    server.finish().await;
    client.expect_fin().await;
    proxy.until_tunnels(1).await;
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn routes_by_method_take_it_for_a_get() {
    let (one, other) = (Origin::bind().await, Origin::bind().await);
    let proxy = Proxy::config(format!(
        "workers = 1\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nmethod = [\"GET\"]\nupstream = \"one\"\n\
         [[route]]\nupstream = \"other\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n\
         [[upstream]]\nname = \"other\"\nservers = [\"{}\"]\n",
        one.addr(),
        other.addr()
    ))
    .start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let called = caller.websocket("/").await;
    let mut server = one.accept().await;
    let head = server.read_head().await;
    server.send(granting(&head, "")).await;
    called.opened().await;
}

//! WebSocket by a library at both ends, through every engine.

use mantra_macros::req_test;
use underpass_tests::{Engine, Origin, Proxy, over_engines, pattern, websocket};

over_engines!(messages_are_echoed);

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn messages_are_echoed(engine: Engine) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).splice(engine).start();
    let serving = tokio::spawn(async move { websocket::echo(origin.accept().await).await });
    let mut socket = websocket::open(proxy.addr()).await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        websocket::round_trip(&mut socket, pattern::bytes(size)).await;
    }
    for word in ["hello", "\u{2713}", ""] {
        websocket::round_trip(&mut socket, word).await;
    }
    let list = proxy.tunnels().await;
    assert_eq!(list[0]["kind"], "websocket", "{list:?}");
    websocket::close(socket).await;
    serving.await.unwrap();
    proxy.until_tunnels(0).await;
}

/// The same through CONNECT: the proxy does not see that it is WebSocket.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn messages_are_echoed_through_a_forward_proxy() {
    let origin = Origin::bind().await;
    let authority = origin.addr();
    let proxy = Proxy::forward().start();
    let serving = tokio::spawn(async move { websocket::echo(origin.accept().await).await });
    let mut client =
        proxy.open(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
    assert_eq!(client.read_head().await.status(), 200);
    let mut socket = websocket::over(client.into_stream(), &authority.to_string()).await;
    websocket::round_trip(&mut socket, "through a tunnel").await;
    websocket::round_trip(&mut socket, pattern::bytes(300_000)).await;
    websocket::close(socket).await;
    serving.await.unwrap();
}

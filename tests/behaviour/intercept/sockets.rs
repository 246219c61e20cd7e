//! What becomes a tunnel inside of an intercepted connection.

use futures_util::{SinkExt, StreamExt};
use mantra_macros::req_test;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};
use underpass_tests::{
    Records, eventually,
    intercept::{LocalCa, inside},
    tls_origin::Signer,
};

/// A WebSocket over TLS on both sides, taken apart in between.
#[req_test("REQ-REC-007", "REQ-TUN-001")]
#[tokio::test]
async fn a_websocket_goes_through() {
    let (ca, signer, records) = (LocalCa::default(), Signer::default(), Records::default());
    let config = signer.server(&signer.good("localhost"), &["http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream).await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let proxy = ca.proxy(&["localhost"], &signer).args(records.args()).start();
    let stream = inside(&proxy, &ca.client().alpn(&["http/1.1"]), &authority).await;
    let (mut socket, _) =
        client_async(format!("wss://{authority}/chat"), stream.0).await.expect("a WebSocket");
    for message in [Message::text("hello"), Message::binary(vec![7; 200_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let tunnels = proxy.tunnels().await;
    assert_eq!(tunnels[0]["kind"], "websocket", "{tunnels:?}");
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    eventually("the end of the tunnel", async || proxy.tunnels().await.is_empty()).await;
    server.await.unwrap();
    let record = records.only().await;
    assert_eq!(record.begin.unwrap().url(), format!("https://{authority}/chat"));
    assert_eq!(record.end.unwrap().how, "tunnel");
}

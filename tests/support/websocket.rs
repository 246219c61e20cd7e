//! WebSocket by tokio-tungstenite, both ends.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Error, Message, protocol::frame::FrameHeader},
};

use crate::{
    clock::{BOUND, within},
    wire::Wire,
};

/// An open WebSocket.
pub type WebSocket = WebSocketStream<TcpStream>;

/// Opens a WebSocket at `address`.
pub async fn open(address: SocketAddr) -> WebSocket {
    let stream = TcpStream::connect(address).await.expect("connect");
    over(stream, &address.to_string()).await
}

/// Opens a WebSocket over a connected stream.
pub async fn over(stream: TcpStream, authority: &str) -> WebSocket {
    at(stream, authority, "/echo").await
}

/// Opens a WebSocket at this path over a connected stream.
pub async fn at(stream: TcpStream, authority: &str, path: &str) -> WebSocket {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let handshake = client_async(format!("ws://{authority}{path}"), stream);
    let (socket, _) = within(BOUND, "the WebSocket handshake", handshake).await.expect("handshake");
    socket
}

/// Answers one WebSocket client with what it sends until it closes.
pub async fn echo(wire: Wire) {
    let mut socket = accept_async(wire.into_stream()).await.expect("handshake");
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Sends a message and expects it back.
pub async fn round_trip(socket: &mut WebSocket, message: impl Into<Message>) {
    let message = message.into();
    let echo = async {
        socket.send(message.clone()).await.expect("send");
        receive(socket).await
    };
    let got = within(BOUND, "an echo", echo).await.expect("an echo");
    assert!(got == message, "the echo is not what was sent");
}

/// Closes and waits until the other side has closed as well.
pub async fn close(mut socket: WebSocket) {
    let closing = async {
        socket.close(None).await.expect("close");
        while let Some(Ok(_)) = socket.next().await {}
    };
    within(BOUND, "the close handshake", closing).await;
}

async fn receive(socket: &mut WebSocket) -> Result<Message, Error> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(message) => return message,
            None => return Err(Error::ConnectionClosed),
        }
    }
}

/// A frame, by its first byte: FIN, the reserved bits and the opcode.
pub fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = |bit: u8| first & bit != 0;
    let (is_final, rsv1, rsv2, rsv3) = (bit(0x80), bit(0x40), bit(0x20), bit(0x10));
    let header = FrameHeader { is_final, rsv1, rsv2, rsv3, opcode: (first & 15).into(), mask };
    let mut out = Vec::new();
    header.format(payload.len() as u64, &mut out).expect("a head");
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

//! WebSockets as tunnels, whose ends are sockets or streams of HTTP/2 (RFC 8441): opened by the
//! test, byte by byte. What a [`Leg`] carries is not WebSocket, because no proxy looks at it.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    clock::{BOUND, STALL, within},
    h2_origin::{H2Peer, H2Stream, send_all},
    message::Head,
    pattern,
    wire::{End, Wire},
};

/// A key that clients of HTTP/1.1 send (RFC 6455 section 1.3).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A client of HTTP/2, whose streams the test plays.
#[derive(Debug)]
pub struct H2Caller {
    sender: SendRequest<Bytes>,
    authority: String,
    scheme: &'static str,
    driver: JoinHandle<()>,
}

impl H2Caller {
    /// Connects with prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &Builder::new()).await
    }

    /// The same with settings of its own.
    pub async fn connect_with(address: SocketAddr, builder: &Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(stream, "http", &address.to_string(), builder).await
    }

    /// Speaks over a connected stream.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
        authority: &str,
        builder: &Builder,
    ) -> Self {
        let (sender, connection) = builder.handshake(stream).await.expect("HTTP/2");
        let driver = tokio::spawn(async { drop(connection.await) });
        Self { sender, authority: authority.to_owned(), scheme, driver }
    }

    /// Whether the proxy takes CONNECT with `:protocol`, once it has said so.
    pub async fn is_extended(&mut self) -> bool {
        let told = async {
            while !self.sender.is_extended_connect_protocol_enabled() && !self.driver.is_finished()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, told).await.is_ok()
            && self.sender.is_extended_connect_protocol_enabled()
    }

    /// Sends the head of a request.
    pub async fn send(&mut self, request: Request<()>) -> Called {
        let mut ready = self.sender.clone().ready().await.expect("an open connection");
        let (answer, send) = ready.send_request(request, false).expect("a request");
        Called { answer, send }
    }

    /// Asks for another protocol at this path.
    pub async fn ask(&mut self, protocol: &str, path: &str, fields: &[(&str, &str)]) -> Called {
        let uri = format!("{}://{}{path}", self.scheme, self.authority);
        let mut request = Request::builder().method("CONNECT").uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.extension(Protocol::from(protocol)).body(()).expect("a head")).await
    }

    /// Asks for a WebSocket, as browsers do.
    pub async fn websocket(&mut self, path: &str) -> Called {
        self.ask("websocket", path, &[("sec-websocket-version", "13")]).await
    }

    /// Ends the connection under everything.
    pub fn abort(&self) {
        self.driver.abort();
    }
}

/// A stream that waits for its answer.
#[derive(Debug)]
pub struct Called {
    answer: ResponseFuture,
    /// What is sent on it, also before.
    pub send: SendStream<Bytes>,
}

impl Called {
    /// The answer's head, and the stream if that is 200.
    pub async fn opened(self) -> (Response<()>, H2Tunnel) {
        let answer = within(BOUND, "the answer to CONNECT", self.answer).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{answer:?}");
        let (head, receive) = answer.into_parts();
        let tunnel = H2Tunnel { send: self.send, receive, buffer: Vec::new() };
        (Response::from_parts(head, ()), tunnel)
    }

    /// The answer, whole, which is no tunnel.
    pub async fn refused(self) -> (StatusCode, HeaderMap, String) {
        let answer = within(BOUND, "the answer to CONNECT", self.answer).await.expect("an answer");
        let (head, mut body) = answer.into_parts();
        let mut content = Vec::new();
        while let Some(chunk) = within(BOUND, "more of an answer", body.data()).await {
            let chunk = chunk.expect("the rest of an answer");
            let _ = body.flow_control().release_capacity(chunk.len());
            content.extend_from_slice(&chunk);
        }
        (head.status, head.headers, String::from_utf8_lossy(&content).into_owned())
    }

    /// Why there is no answer.
    pub async fn failed(self) -> h2::Error {
        within(BOUND, "the end of a stream", self.answer).await.expect_err("no answer")
    }

    /// Gives it up.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

/// A stream that has become a tunnel.
#[derive(Debug)]
pub struct H2Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    buffer: Vec<u8>,
}

/// One end of a tunnel that the test plays.
#[derive(Debug)]
pub enum Leg {
    /// A socket.
    Tcp(Wire),
    /// A stream.
    Stream(H2Tunnel),
}

impl Leg {
    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        match self {
            Self::Tcp(wire) => wire.send(bytes).await,
            Self::Stream(stream) => {
                let bytes = Bytes::copy_from_slice(bytes.as_ref());
                let sent =
                    within(BOUND, "bytes to be taken", send_all(&mut stream.send, bytes, false));
                assert!(sent.await, "the stream has been reset");
            }
        }
    }

    /// Sends the pattern from 0 until nothing has moved for a while, or all of it. How much was
    /// taken.
    pub async fn send_until_stalled(&mut self, limit: u64) -> u64 {
        let stream = match self {
            Self::Tcp(wire) => return wire.send_until_stalled(0, limit).await,
            Self::Stream(stream) => stream,
        };
        let mut sent = 0;
        while sent < limit {
            stream.send.reserve_capacity(16 * 1024);
            let capacity = poll_fn(|cx| stream.send.poll_capacity(cx));
            let Ok(capacity) = tokio::time::timeout(STALL, capacity).await else { break };
            let capacity = capacity.expect("an open stream").expect("an open stream");
            let piece = pattern::at(sent, (capacity as u64).min(limit - sent));
            stream.send.send_data(Bytes::copy_from_slice(piece), false).expect("an open stream");
            sent += piece.len() as u64;
        }
        sent
    }

    /// Reads exactly these bytes.
    pub async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Self::Tcp(wire) = self {
            return wire.expect(bytes).await;
        }
        assert!(self.read(bytes.len()).await == bytes, "other bytes than were sent");
    }

    /// Reads so many bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let stream = match self {
            Self::Tcp(wire) => return wire.read_exact(count).await,
            Self::Stream(stream) => stream,
        };
        while stream.buffer.len() < count {
            let what = format!("{} of {count} bytes", stream.buffer.len());
            match within(BOUND, &what, stream.receive.data()).await {
                Some(Ok(chunk)) => stream.take(&chunk),
                other => panic!("{other:?} behind {what}"),
            }
        }
        let rest = stream.buffer.split_off(count);
        std::mem::replace(&mut stream.buffer, rest)
    }

    /// Says that all has been sent.
    pub async fn finish(&mut self) {
        match self {
            Self::Tcp(wire) => wire.finish().await,
            Self::Stream(stream) => {
                stream.send.send_data(Bytes::new(), true).expect("an open stream");
            }
        }
    }

    /// Waits for the end that the other side meant.
    pub async fn expect_fin(&mut self) {
        match self {
            Self::Tcp(wire) => wire.expect_fin().await,
            Self::Stream(stream) => {
                assert!(stream.buffer.is_empty(), "bytes before the end");
                let end = within(BOUND, "END_STREAM", stream.receive.data()).await;
                // An empty frame may carry it.
                let end = match end {
                    Some(Ok(chunk)) if chunk.is_empty() => stream.receive.data().await,
                    end => end,
                };
                assert!(end.is_none(), "{end:?}");
            }
        }
    }

    /// Ends it with RST or RST_STREAM.
    pub fn reset(self) {
        match self {
            Self::Tcp(wire) => wire.reset(),
            Self::Stream(mut stream) => stream.send.send_reset(Reason::CANCEL),
        }
    }

    /// Waits for the end that the other side did not mean. Bytes before it are thrown away.
    pub async fn expect_reset(&mut self) {
        match self {
            Self::Tcp(wire) => assert_eq!(wire.read_to_end().await.1, End::Reset),
            Self::Stream(stream) => loop {
                match within(BOUND, "RST_STREAM", stream.receive.data()).await {
                    Some(Ok(chunk)) => stream.take(&chunk),
                    Some(Err(error)) => {
                        assert_eq!(error.reason(), Some(Reason::CANCEL), "{error}");
                        return;
                    }
                    None => panic!("END_STREAM instead of a reset"),
                }
            },
        }
    }
}

impl H2Tunnel {
    fn take(&mut self, chunk: &[u8]) {
        let _ = self.receive.flow_control().release_capacity(chunk.len());
        self.buffer.extend_from_slice(chunk);
    }

    /// Bytes that have been asked for and have not come are not waited for: what is there.
    pub fn into_leg(self) -> Leg {
        Leg::Stream(self)
    }
}

/// The head by which a client of HTTP/1.1 asks.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// The head by which a server of HTTP/1.1 grants what this one asks for; `more` are its fields.
pub fn granting(head: &Head, more: &str) -> String {
    let accept = derive_accept_key(head.get("sec-websocket-key").unwrap_or_default().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Plays a server of HTTP/2 that grants the next request, which has to be for a WebSocket.
pub async fn grant(peer: &mut H2Peer) -> (Request<()>, H2Tunnel) {
    grant_stream(peer.next().await)
}

/// The same for one that has come.
pub fn grant_stream(mut stream: H2Stream) -> (Request<()>, H2Tunnel) {
    let protocol = stream.request.extensions().get::<Protocol>().map(|name| name.as_str());
    assert_eq!((stream.request.method().as_str(), protocol), ("CONNECT", Some("websocket")));
    let send = stream.begin(Response::new(()));
    let (head, receive) = stream.request.into_parts();
    (Request::from_parts(head, ()), H2Tunnel { send, receive, buffer: Vec::new() })
}

/// Settings of a server that takes CONNECT with `:protocol`.
pub fn extended() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    builder
}

//! hyper as a client: what a well-behaved program sees, over HTTP/1.1 and HTTP/2.
//!
//! Requests bypass connection pools: one [`HttpClient`] is one connection. A body is sent
//! piece by piece through [`BodySender`], each piece when the test says so.

use std::{
    future::Future,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{SockRef, Socket};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::client::TlsStream;

use crate::{
    clock::{BOUND, within},
    matrix::Version,
};

/// One client connection.
#[derive(Debug)]
pub struct HttpClient {
    sender: Sender,
    scheme: &'static str,
    authority: String,
    driver: JoinHandle<()>,
    /// Of HTTP/2: the connection's own socket, to end it whatever hyper still does with it.
    socket: Option<Socket>,
}

#[derive(Debug)]
enum Sender {
    H1(http1::SendRequest<OutBody>),
    H2(http2::SendRequest<OutBody>),
}

impl HttpClient {
    /// Connects to a proxy that serves `authority` under its own address.
    pub async fn connect(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        Self::over(stream, &address.to_string(), version).await
    }

    /// Speaks over a connected stream.
    pub async fn over(stream: TcpStream, authority: &str, version: Version) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let socket = (version == Version::H2)
            .then(|| SockRef::from(&stream).try_clone().expect("another descriptor"));
        Self::speak(stream, socket, "http", authority, version).await
    }

    /// Speaks over a connection with TLS.
    pub async fn over_tls(stream: TlsStream<TcpStream>, authority: &str, version: Version) -> Self {
        let socket = SockRef::from(stream.get_ref().0).try_clone().expect("another descriptor");
        let socket = (version == Version::H2).then_some(socket);
        Self::speak(stream, socket, "https", authority, version).await
    }

    async fn speak(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        socket: Option<Socket>,
        scheme: &'static str,
        authority: &str,
        version: Version,
    ) -> Self {
        let io = TokioIo::new(stream);
        let (sender, driver) = match version {
            Version::H1 => {
                let (sender, connection) = http1::handshake(io).await.expect("handshake");
                let connection = connection.with_upgrades();
                (Sender::H1(sender), tokio::spawn(async { drop(connection.await) }))
            }
            Version::H2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, io).await.expect("handshake");
                (Sender::H2(sender), tokio::spawn(async { drop(connection.await) }))
            }
        };
        Self { sender, scheme, authority: authority.to_owned(), driver, socket }
    }

    /// A request for `path` in the form this version has for it.
    pub fn request(&self, method: Method, path: &str) -> request::Builder {
        match self.sender {
            Sender::H1(_) => {
                Request::builder().method(method).uri(path).header("host", &self.authority)
            }
            Sender::H2(_) => {
                let uri = format!("{}://{}{path}", self.scheme, self.authority);
                Request::builder().method(method).uri(uri).version(http::Version::HTTP_2)
            }
        }
    }

    /// Starts a request; the answer comes with the returned future. Dropping that future
    /// gives the request up.
    pub fn send(
        &mut self,
        request: Request<OutBody>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let what = format!("the answer to {} {}", request.method(), request.uri());
        let answer: Pin<Box<dyn Future<Output = _>>> = match &mut self.sender {
            Sender::H1(sender) => Box::pin(sender.send_request(request)),
            Sender::H2(sender) => Box::pin(sender.send_request(request)),
        };
        async move { within(BOUND, &what, answer).await }
    }

    /// Sends a GET and waits for the head of the answer.
    pub async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = self.request(Method::GET, path).body(OutBody::Empty).expect("request");
        self.send(request).await.unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// Ends the connection under everything that is going on.
    pub fn abort(&self) {
        match &self.socket {
            // Not the driver alone: hyper has more than one task on it.
            Some(socket) => socket.shutdown(Shutdown::Both).expect("an open connection"),
            None => self.driver.abort(),
        }
    }

    /// Waits until the proxy has closed the connection.
    pub async fn closed(self) {
        within(BOUND, "the connection to be closed", self.driver).await.ok();
    }
}

/// Body of a request.
#[derive(Debug)]
pub enum OutBody {
    /// None.
    Empty,
    /// In one piece, length known.
    Full(Bytes),
    /// Piece by piece; the length is announced if it is given.
    Pieces {
        /// From [`BodySender`].
        frames: mpsc::Receiver<Result<Frame<Bytes>, Aborted>>,
        /// Bytes left, where announced.
        left: Option<u64>,
    },
}

/// The sending end of [`OutBody::Pieces`]. Dropping it ends the body properly.
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<Result<Frame<Bytes>, Aborted>>);

/// The body was given up on purpose.
#[derive(Debug)]
pub struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("body given up on purpose")
    }
}

impl std::error::Error for Aborted {}

impl OutBody {
    /// A body sent piece by piece, of unknown length.
    pub fn pieces() -> (BodySender, Self) {
        let (sender, frames) = mpsc::channel(1);
        (BodySender(sender), Self::Pieces { frames, left: None })
    }

    /// A body sent piece by piece, length announced.
    pub fn sized(length: u64) -> (BodySender, Self) {
        let (sender, frames) = mpsc::channel(1);
        (BodySender(sender), Self::Pieces { frames, left: Some(length) })
    }
}

impl BodySender {
    /// Hands over one piece; waits while the one before is not taken.
    pub async fn send(&self, piece: impl Into<Bytes>) {
        assert!(self.try_send(piece).await, "nobody takes the request's body any more");
    }

    /// Hands over one piece; false if nobody takes it any more.
    pub async fn try_send(&self, piece: impl Into<Bytes>) -> bool {
        let frame = Frame::data(piece.into());
        within(BOUND, "a piece of body to be taken", self.0.send(Ok(frame))).await.is_ok()
    }

    /// Hands over pieces until none has been taken for [`crate::clock::STALL`] or `limit`
    /// bytes were. Returns how many bytes were taken.
    pub async fn send_until_stalled(&self, offset: u64, limit: u64) -> u64 {
        let mut sent = 0;
        while sent < limit {
            let piece = crate::pattern::at(offset + sent, (limit - sent).min(16 * 1024));
            let frame = Frame::data(Bytes::from_static(piece));
            match tokio::time::timeout(crate::clock::STALL, self.0.send(Ok(frame))).await {
                Ok(taken) => taken.expect("body still wanted"),
                Err(_) => break,
            }
            sent += piece.len() as u64;
        }
        sent
    }

    /// Ends the body with trailers.
    pub async fn trailers(self, trailers: HeaderMap) {
        self.0.send(Ok(Frame::trailers(trailers))).await.expect("body still wanted");
    }

    /// Breaks the body off: RST_STREAM in HTTP/2, a closed connection in HTTP/1.
    pub async fn abort(self) {
        self.0.send(Err(Aborted)).await.ok();
    }

    /// Resolves when nobody takes the body any more.
    pub async fn unwanted(&self) {
        within(BOUND, "the request's body to be given up", self.0.closed()).await;
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut *self {
            OutBody::Empty => Poll::Ready(None),
            OutBody::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = OutBody::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            OutBody::Pieces { frames, left } => {
                let frame = frames.poll_recv(cx);
                if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&frame, left)
                    && let Some(data) = frame.data_ref()
                {
                    *left = left.saturating_sub(data.len() as u64);
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            OutBody::Empty => true,
            OutBody::Full(bytes) => bytes.is_empty(),
            OutBody::Pieces { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            OutBody::Empty => SizeHint::with_exact(0),
            OutBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            OutBody::Pieces { left: Some(left), .. } => SizeHint::with_exact(*left),
            OutBody::Pieces { left: None, .. } => SizeHint::default(),
        }
    }
}

/// Reads exactly the bytes of `content` from a body.
pub async fn bytes_from(body: &mut Incoming, content: &str) {
    let mut got = Vec::new();
    while got.len() < content.len() {
        let what = format!("{content:?} in a body");
        match within(BOUND, &what, body.frame()).await {
            Some(Ok(frame)) => got.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            other => panic!("{other:?} before {what}"),
        }
    }
    assert_eq!(String::from_utf8_lossy(&got), content);
}

/// Reads a body to its end: content and trailers, or the error that broke it.
pub async fn collect(mut body: Incoming) -> Result<(Vec<u8>, Option<HeaderMap>), hyper::Error> {
    let (mut content, mut trailers) = (Vec::new(), None);
    while let Some(frame) = within(BOUND, "more of a body", body.frame()).await {
        match frame?.into_data() {
            Ok(data) => content.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((content, trailers))
}

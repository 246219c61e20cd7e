//! One client connection: hyper's server over the wrapped socket, with its deadlines and
//! its part in a drain. After a 101 or a 2xx to CONNECT the connection becomes a tunnel.
//!
//! Implements: REQ-CORE-001.F-003

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::{
    access_log,
    body::BodyStream,
    config::Limits,
    error::Kind,
    exchange::Exchange,
    headers::{self, Forwarding},
    listener::Listener,
    metrics::{ListenerMetrics, OpenConnection, WorkerMetrics},
    relay, tunnel,
    upstream::{
        connection::{buffer_bytes, join},
        pool::Lease,
    },
    watchdog::{Wait, Watched},
    wire::{
        downstream::{DownstreamIo, Shared},
        head::Bounds,
    },
    worker::Worker,
};

/// How HTTP/2 with prior knowledge begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long, and for how many bytes, a client may go on sending what nobody will read
/// before the socket is closed under it: closing at once would have its kernel throw away
/// the answer (RFC 9112 section 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// How a connection is to be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The framing tells the client that something is missing.
    Close,
    /// Only a reset does: the body would have ended with the connection.
    Reset,
}

/// What the exchanges of one connection share.
#[derive(Debug)]
pub struct Client {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    peer: SocketAddr,
    watched: Rc<Watched>,
    /// HTTP/1 only.
    wire: Option<Rc<Shared>>,
    /// The fields that tell of this hop.
    pub forwarding: RefCell<Forwarding>,
    heads: Cell<u64>,
    in_flight: Cell<usize>,
    answering: Cell<bool>,
    unread: Cell<bool>,
    ends_with_connection: Cell<bool>,
    cut: Cell<Option<Cut>>,
    handover: RefCell<Option<Handover>>,
    /// Watches the HTTP/2 stream that is about to be spawned.
    next_stream: RefCell<Option<Rc<Watched>>>,
}

/// The upstream half of a tunnel, waiting for the answer to be on its way.
#[derive(Debug)]
pub struct Handover {
    /// What asked for it.
    pub kind: tunnel::registry::Kind,
    /// The server's socket.
    pub upstream: TcpStream,
    /// What the server sent behind its answer.
    pub upstream_early: Bytes,
    /// To be reported when the tunnel ends.
    pub exchange: Rc<Exchange>,
    /// For `/tunnels`.
    pub upstream_name: String,
    /// Its place among the connections of the server's pool, if it came from one.
    pub lease: Option<Lease>,
}

impl Client {
    /// The worker that serves it.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Where it arrived.
    pub fn listener(&self) -> &Rc<Listener> {
        &self.listener
    }

    /// Its address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Limits in force.
    pub fn limits(&self) -> &Limits {
        &self.listener.config.limits
    }

    /// Name of the listener.
    pub fn listener_name(&self) -> &str {
        &self.listener.config.name
    }

    /// The access log of this thread.
    pub fn log(&self) -> &access_log::Writer {
        &self.worker.log
    }

    /// Counters of this thread.
    pub fn worker_metrics(&self) -> &WorkerMetrics {
        &self.worker.metrics
    }

    /// Counters of the listener.
    pub fn listener_metrics(&self) -> &ListenerMetrics {
        &self.listener.metrics
    }

    /// The wire, over HTTP/1.
    pub fn wire(&self) -> Option<&Rc<Shared>> {
        self.wire.as_ref()
    }

    /// Watches the connection, and its exchanges over HTTP/1, which come one at a time.
    pub fn watched(&self) -> &Rc<Watched> {
        &self.watched
    }

    /// Which framing rule a request body broke.
    pub fn wire_body_fault(&self) -> Option<Kind> {
        self.wire.as_ref().and_then(|wire| wire.body_fault())
    }

    /// The number of the next request, from 1.
    pub fn next_head(&self) -> u64 {
        self.heads.set(self.heads.get() + 1);
        self.heads.get()
    }

    /// A request has come.
    pub fn exchange_begins(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.watched.clear();
    }

    /// The head of an answer goes out. `ends_with_connection`: its body has no other end.
    pub fn answering(&self, ends_with_connection: bool) {
        self.answering.set(true);
        self.ends_with_connection.set(ends_with_connection);
    }

    /// An exchange is over; over HTTP/1 the next head may be waited for.
    pub fn exchange_ends(&self, exchange: &Exchange, watched: &Watched) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        watched.clear();
        self.answering.set(false);
        if !exchange.is_request_ended() {
            self.unread.set(true);
        }
        if self.in_flight.get() == 0 {
            // The beginning of a head that came early has lost its deadline to this exchange.
            let partial = self.wire.as_ref().is_some_and(|wire| wire.has_partial_head());
            let limits = self.limits();
            let limit = if partial { limits.head_timeout } else { limits.idle_timeout };
            self.watched.wait(Wait::Head, limit);
        }
    }

    /// The answer cannot be finished: the connection ends without a clean end.
    pub fn cut(&self) {
        if self.wire.is_some() {
            let how = if self.ends_with_connection.get() { Cut::Reset } else { Cut::Close };
            self.cut.set(Some(how));
        }
    }

    /// An interim response of the server (RFC 9110 section 15.2). hyper cannot send one over
    /// HTTP/2, and HTTP/1.0 knows none; there it is dropped, as the RFC allows.
    pub fn pass_interim(&self, head: &[u8], version: http::Version) {
        if let (Some(wire), http::Version::HTTP_11) = (&self.wire, version) {
            wire.inject(&headers::interim(head));
        }
    }

    /// The tunnel that the connection becomes once the answer is out.
    pub fn hand_over(&self, handover: Handover) {
        *self.handover.borrow_mut() = Some(handover);
    }
}

/// Serves one accepted connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    mut stream: TcpStream,
    peer: SocketAddr,
    open: OpenConnection,
) {
    let watched = worker.watchdog.watch();
    watched.wait(Wait::Head, listener.config.limits.head_timeout);
    let mut early = BytesMut::with_capacity(1024);
    let is_h2 =
        match poll_fn(|cx| poll_protocol(&mut stream, &mut early, &worker, &watched, cx)).await {
            Some(is_h2) => is_h2,
            None => return,
        };
    watched.clear();
    let wire = (!is_h2).then(|| {
        let limits = &listener.config.limits;
        Shared::new(Rc::clone(&watched), limits.head_timeout, limits.body_idle_timeout)
    });
    let client = Rc::new(Client {
        forwarding: RefCell::new(Forwarding::new(listener.config.forwarded, peer)),
        worker,
        listener,
        peer,
        watched,
        wire: wire.clone(),
        heads: Cell::new(0),
        in_flight: Cell::new(0),
        answering: Cell::new(false),
        unread: Cell::new(false),
        ends_with_connection: Cell::new(false),
        cut: Cell::new(None),
        handover: RefCell::new(None),
        next_stream: RefCell::new(None),
    });
    match wire {
        Some(wire) => serve_http1(client, wire, stream, early).await,
        None => serve_http2(client, stream, early.freeze()).await,
    }
    drop(open);
}

/// Reads until it is clear which version is spoken. `None`: nothing will come.
fn poll_protocol(
    stream: &mut TcpStream,
    early: &mut BytesMut,
    worker: &Worker,
    watched: &Watched,
    cx: &mut Context<'_>,
) -> Poll<Option<bool>> {
    watched.register(cx);
    loop {
        let known = early.len().min(PREFACE.len());
        if known > 0 && early[..known] != PREFACE[..known] {
            return Poll::Ready(Some(false));
        }
        if known == PREFACE.len() {
            return Poll::Ready(Some(true));
        }
        if watched.expired().is_some() || worker.is_draining() {
            return Poll::Ready(None);
        }
        let mut read = std::pin::pin!(stream.read_buf(early));
        match ready!(read.as_mut().poll(cx)) {
            Ok(0) | Err(_) => return Poll::Ready(None),
            Ok(_) => {}
        }
    }
}

/// Bounds of requests' heads, and of the answers'.
pub fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        max_bytes: limits.max_head_bytes,
        max_headers: limits.max_headers,
        max_uri_bytes: limits.max_uri_bytes,
    }
}

async fn serve_http1(client: Rc<Client>, wire: Rc<Shared>, stream: TcpStream, early: BytesMut) {
    let bounds = bounds(client.limits());
    let io = DownstreamIo::new(stream, early, bounds, Rc::clone(&wire));
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(&client);
        async move { Ok::<Response<BodyStream>, Infallible>(relay::http1(client, request).await) }
    });
    let mut connection = http1::Builder::new()
        .preserve_header_case(client.listener.config.preserve_header_case)
        .max_headers(bounds.max_headers)
        .max_buf_size(buffer_bytes(bounds.max_bytes))
        .serve_connection(io, service);
    let mut closing = false;
    let ended = poll_fn(|cx| {
        client.watched.register(cx);
        loop {
            if client.worker.is_forced() {
                if client.in_flight.get() > 0 || wire.is_writing() {
                    client.cut();
                }
                return Poll::Ready(false);
            }
            if !closing && client.worker.is_draining() {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let poll = Pin::new(&mut connection).poll(cx);
            if client.cut.get().is_some() {
                return Poll::Ready(false);
            }
            if let Poll::Ready(ended) = poll {
                if let Err(error) = &ended {
                    tracing::debug!(peer = %client.peer, %error, "connection ended");
                }
                return Poll::Ready(true);
            }
            match client.on_expiry() {
                Expiry::None => return Poll::Pending,
                Expiry::Again => {}
                Expiry::Close => return Poll::Ready(false),
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    let (stream, held) = parts.io.into_tunnel();
    let handover = client.handover.borrow_mut().take();
    if let Some(handover) = handover {
        let early = join(parts.read_buf, held);
        return run_tunnel(&client, handover, tunnel::Downstream::Tcp(stream), early).await;
    }
    if client.cut.get() == Some(Cut::Reset) {
        // Without it the client would take the end of the connection for the body's.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    } else if ended && (client.unread.get() || wire.has_fault()) {
        linger(&client, stream).await;
    }
}

/// What to do about a passed deadline.
enum Expiry {
    None,
    /// Something was decided that hyper has to see.
    Again,
    Close,
}

impl Client {
    fn on_expiry(&self) -> Expiry {
        let Some(wait) = self.watched.expired() else {
            return Expiry::None;
        };
        let limits = self.limits();
        match (wait, self.in_flight.get(), self.wire.as_ref()) {
            // The end of the last answer is on its way still: a slow reader is not idle,
            // as long as it reads.
            (Wait::Head, 0, Some(wire)) if wire.is_writing() => {
                self.watched.forgive();
                self.watched.wait_on(Wait::Response, limits.body_idle_timeout);
                self.watched.wait(Wait::Head, limits.idle_timeout);
                Expiry::None
            }
            (Wait::Response, 0, Some(wire)) => {
                self.watched.forgive();
                if !wire.is_writing() {
                    return Expiry::None;
                }
                self.cut();
                Expiry::Close
            }
            (Wait::Head, 0, Some(wire)) if wire.has_partial_head() => {
                self.watched.forgive();
                wire.impose(Kind::HeadTimeout);
                Expiry::Again
            }
            // Idle, or a browser's spare connection: no answer is expected, none is sent.
            (Wait::Head, 0, _) => Expiry::Close,
            // A pipelined head is incomplete while an answer goes out: not its turn yet.
            (Wait::Head, ..) => {
                self.watched.forgive();
                Expiry::None
            }
            // Before the head of the answer the relay answers for itself.
            _ if !self.answering.get() => Expiry::None,
            (Wait::Request | Wait::Response, ..) => {
                self.cut();
                Expiry::Close
            }
        }
    }
}

/// Lets the client finish sending, so that it reads our last answer (RFC 9112 section 9.6).
async fn linger(client: &Client, mut stream: TcpStream) {
    // hyper has not, if it ended for an error or had ever been asked for an upgrade.
    let _ = stream.shutdown().await;
    let mut scrap = [0u8; 4096];
    let mut left = LINGER.1;
    let deadline = Instant::now() + LINGER.0;
    let drain = async {
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => break,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    };
    if !client.worker.is_forced() {
        let _ = tokio::time::timeout_at(deadline, drain).await;
    }
}

/// Runs a tunnel to its end and reports it.
pub async fn run_tunnel(
    client: &Client,
    handover: Handover,
    downstream: tunnel::Downstream,
    downstream_early: Bytes,
) {
    let Handover { kind, upstream, upstream_early, exchange, upstream_name, lease } = handover;
    let worker = &client.worker;
    let ticket = worker.process.tunnels.open(tunnel::registry::Info {
        kind,
        client: client.peer,
        upstream: upstream_name,
        listener: client.listener.name.clone(),
    });
    let settings = tunnel::Settings {
        mode: worker.process.splice,
        idle_timeout: client.limits().tunnel_idle_timeout,
    };
    let drain = worker.drain.clone();
    let parts = tunnel::Handover { downstream, downstream_early, upstream, upstream_early };
    let outcome = worker.report_tunnel(tunnel::run(parts, settings, ticket, drain)).await;
    let end = access_log::End::Tunnel {
        kind: kind.name(),
        engine_up: outcome.engines.to_upstream.name(),
        engine_down: outcome.engines.to_downstream.name(),
        end: outcome.end.name(),
    };
    drop(lease);
    exchange.tunnel_ended(end, outcome.upstream_bytes, outcome.downstream_bytes);
}

async fn serve_http2(client: Rc<Client>, stream: TcpStream, early: Bytes) {
    let limits = client.limits().clone();
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(&client);
        let watched = client.worker.watchdog.watch();
        *client.next_stream.borrow_mut() = Some(Rc::clone(&watched));
        async move {
            Ok::<Response<BodyStream>, Infallible>(relay::http2(client, watched, request).await)
        }
    });
    let io = TokioIo::new(Rewound { early, stream });
    let mut connection = http2::Builder::new(Streams(Rc::clone(&client)))
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(128)
        // Room for a stream that is read fast; a stalled one holds no more than this.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(256 * 1024)
        // A client that is gone without a word is noticed while it owes nothing.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(io, service);
    client.watched.wait(Wait::Head, limits.idle_timeout);
    let mut closing = false;
    poll_fn(|cx| {
        client.watched.register(cx);
        if client.worker.is_forced() {
            return Poll::Ready(());
        }
        let idle = client.watched.expired() == Some(Wait::Head) && client.in_flight.get() == 0;
        if idle && closing {
            // Told to go, it has nothing to do and does not go: it may not even read.
            return Poll::Ready(());
        }
        if idle || client.worker.is_draining() && !closing {
            closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if idle {
            client.watched.clear();
            client.watched.wait(Wait::Head, limits.body_idle_timeout);
        }
        Pin::new(&mut connection).poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(peer = %client.peer, %error, "connection ended");
            }
        })
    })
    .await;
}

/// Runs hyper's HTTP/2 streams on this worker.
#[derive(Debug, Clone)]
struct Streams(Rc<Client>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        // hyper calls the service and this one right after the other. What it runs besides
        // (the writing end of a tunnel) has no watch.
        let watched = self.0.next_stream.take();
        tokio::task::spawn_local(async move {
            let mut future = std::pin::pin!(future);
            poll_fn(|cx| {
                if future.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(watched) = &watched else { return Poll::Pending };
                watched.register(cx);
                // Not dealt with by the exchange: hyper waits for the client to open its
                // window and does not ask for the body. Dropping the stream resets it.
                match watched.expired() {
                    Some(Wait::Response) => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
            .await;
        });
    }
}

/// A socket whose first bytes have been read already.
#[derive(Debug)]
struct Rewound {
    early: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let n = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Rewound {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

//! One client connection: hyper's server over the wrapped socket, with its deadlines and
//! its part in a drain. After a 101 or a 2xx to CONNECT the connection becomes a tunnel; idle
//! for a while it is parked, which leaves no more of it than a socket (`parked.rs`).
//!
//! Implements: REQ-CORE-001.F-003

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::{
    access_log, client_address,
    config::{ForwardedPolicy, Limits, Protocol},
    error::Kind,
    exchange::Exchange,
    headers::{self, Forwarding},
    listener::{Listener, slots::Slot},
    metrics::{ListenerMetrics, OpenConnection, WorkerMetrics},
    proxy_protocol::{Announced, write},
    tls::Session,
    transport::Transport,
    watchdog::{Wait, Watched},
    wire::{downstream::Shared, head::Bounds},
    worker::{ConnectionGuard, Worker},
};

pub mod announced;
mod client_hello;
mod handover;
mod http1;
mod http2;
mod intercept;
mod linger;
pub mod parked;
mod resets;
mod spoken;
pub mod tcp;
mod tls;

pub use handover::{Handover, Next, run_tunnel};
pub use intercept::{Inside, Intercepting};
use resets::Resets;
use spoken::{FIRST_READ_BYTES, Spoken, may_be_http2, poll_protocol};
use tls::secured;

/// How a connection is to be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The framing tells the client that something is missing.
    Close,
    /// Only a reset does: the body would have ended with the connection.
    Reset,
}

/// A connection's places among the open ones; given back when dropped.
#[derive(Debug)]
pub struct Places {
    /// Of the listener, over all workers.
    pub slot: Slot,
    /// In the metrics.
    pub open: OpenConnection,
    /// Of the worker.
    pub guard: ConnectionGuard,
}

/// A connection that is to be served: a new one, or one that has rested.
#[derive(Debug)]
pub struct Arrival {
    /// Where it came in.
    pub listener: Rc<Listener>,
    /// The socket.
    pub stream: Transport,
    /// The client's address.
    pub peer: SocketAddr,
    /// What a proxy in front said of it.
    pub announced: Option<Rc<Announced>>,
    /// Held while it is open.
    pub places: Places,
    /// Read from the socket already.
    pub early: BytesMut,
    /// Whether it has carried a request, so that it is clear what is spoken.
    pub kept: bool,
    /// Until when the next byte is waited for; `None`: for ever.
    pub deadline: Option<Instant>,
}

impl Arrival {
    /// One that has just been accepted.
    pub fn new(
        listener: Rc<Listener>,
        stream: Transport,
        peer: SocketAddr,
        announced: Option<Rc<Announced>>,
        places: Places,
    ) -> Self {
        // A limit too far away to be a time is none.
        let deadline = Instant::now().checked_add(listener.config.limits.head_timeout);
        let early = BytesMut::new();
        Self { listener, stream, peer, announced, places, early, kept: false, deadline }
    }
}

/// What the exchanges of one connection share.
#[derive(Debug)]
pub struct Client {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    peer: SocketAddr,
    announced: Option<Rc<Announced>>,
    /// Where it connected to, if servers are told.
    local: Option<SocketAddr>,
    /// What its handshake has settled, where it had one.
    tls: Option<Rc<Session>>,
    /// What it is the inside of, where it is intercepted.
    inside: Option<Rc<Inside>>,
    watched: Rc<Watched>,
    /// HTTP/1 only.
    wire: Option<Rc<Shared>>,
    /// The fields that tell of this hop.
    pub forwarding: RefCell<Forwarding>,
    heads: Cell<u64>,
    in_flight: Cell<usize>,
    /// Whether a request has come.
    asked: Cell<bool>,
    answering: Cell<bool>,
    unread: Cell<bool>,
    ends_with_connection: Cell<bool>,
    cut: Cell<Option<Cut>>,
    next: RefCell<Option<Next>>,
    /// HTTP/2 only.
    resets: Resets,
    /// Watches the HTTP/2 stream that is about to be spawned.
    next_stream: RefCell<Option<Rc<Watched>>>,
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

    /// Whether it is to end with its next answer.
    pub fn is_leaving(&self) -> bool {
        self.worker.is_leaving() || self.listener.is_leaving()
    }

    /// Its address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Takes out of a head or of trailers what only we may write: by the configuration that this
    /// connection goes by, and by the one in force.
    pub fn guard(&self, fields: &mut http::HeaderMap) {
        headers::remove_alike(fields, &self.listener.config.guarded_fields);
        self.worker.guarded(|guarded| headers::remove_alike(fields, guarded));
    }

    /// Whose request this is, as far as that can be believed.
    pub fn asking(&self, headers: &http::HeaderMap) -> SocketAddr {
        match &self.listener.config.trusted_proxies {
            None => self.peer,
            Some(trusted) => client_address::of(headers, trusted, self.peer),
        }
    }

    /// The PROXY header that tells a server of this client, where it is to be told.
    pub fn announcement(&self, version: Option<write::Version>) -> Option<Vec<u8>> {
        // A connection that is older than the wish knows the listener's address only.
        let local = || self.local.unwrap_or(self.listener.config.address);
        Some(write::header(version?, self.announced.as_deref(), self.peer, local))
    }

    /// Limits in force.
    pub fn limits(&self) -> &Limits {
        &self.listener.config.limits
    }

    /// What its handshake has settled, where it had one.
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// What it is the inside of, where it is intercepted.
    pub fn inside(&self) -> Option<&Inside> {
        self.inside.as_deref()
    }

    /// How it reached us.
    pub fn scheme(&self) -> &'static str {
        scheme(self.tls())
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
        self.asked.set(true);
        self.watched.clear();
    }

    /// The head of an answer goes out. `ends_with_connection`: its body has no other end.
    pub fn answering(&self, ends_with_connection: bool) {
        self.answering.set(true);
        self.ends_with_connection.set(ends_with_connection);
    }

    /// An exchange is over, `taken_back` by the client or not; over HTTP/1 the next head may be waited for.
    pub fn exchange_ends(
        &self,
        exchange: &Exchange,
        watched: &Watched,
        taken_back: bool,
        now: Instant,
    ) {
        if self.wire.is_none() && self.resets.ended(taken_back, exchange.age()) {
            // Its connection looks.
            self.watched.wake();
        }
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
            self.watched.wait_from(now, Wait::Head, limit);
            if self.wire.is_some() {
                self.watched.rest();
            }
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

    /// What the connection becomes once the answer is out.
    pub fn then(&self, next: Next) {
        *self.next.borrow_mut() = Some(next);
    }
}

/// Serves a connection that is as it was accepted, by a task of its own.
pub fn begin(worker: Rc<Worker>, arrival: Arrival) {
    if let Protocol::Tcp = arrival.listener.config.protocol {
        let Arrival { listener, stream, peer, announced, places, .. } = arrival;
        let tunnel = tcp::serve(worker, listener, stream, peer, announced, places);
        tokio::task::spawn_local(tunnel);
    } else {
        tokio::task::spawn_local(serve(worker, arrival));
    }
}

/// Serves a connection to its end, or until it rests.
pub async fn serve(worker: Rc<Worker>, mut arrival: Arrival) {
    let (stream, tls) =
        match secured(&worker, &arrival.listener, arrival.stream, arrival.peer).await {
            Some((stream, tls)) => (stream, tls),
            None => return,
        };
    arrival.stream = stream;
    if tls.is_some() {
        // The handshake had a deadline of its own.
        arrival.deadline = Instant::now().checked_add(arrival.listener.config.limits.head_timeout);
    }
    speak(worker, arrival, tls, None).await;
}

/// The same after the handshake. `inside`: of a connection that is intercepted.
async fn speak(
    worker: Rc<Worker>,
    arrival: Arrival,
    tls: Option<Rc<Session>>,
    inside: Option<Rc<Inside>>,
) {
    let Arrival { listener, mut stream, peer, announced, places, mut early, kept, deadline } =
        arrival;
    let watched = worker.watchdog.watch();
    watched.wait_until(Wait::Head, deadline);
    watched.rest();
    let spoken = match kept {
        true => Spoken::Http1,
        false => {
            early.reserve(FIRST_READ_BYTES);
            let http2 = may_be_http2(&listener, &stream);
            poll_fn(|cx| poll_protocol(&mut stream, &mut early, http2, &worker, &watched, cx)).await
        }
    };
    let is_h2 = match spoken {
        Spoken::Http1 => false,
        Spoken::Http2 => true,
        Spoken::NothingYet => {
            let early = BytesMut::new();
            let arrival =
                Arrival { listener, stream, peer, announced, places, early, kept, deadline };
            return parked::park(&worker, arrival, Bytes::new());
        }
        Spoken::Nothing => {
            if let Some(inside) = &inside {
                inside.was_not_asked();
            }
            return stream.farewell();
        }
    };
    if !kept {
        watched.clear();
    }
    let wire = (!is_h2).then(|| {
        let limits = &listener.config.limits;
        Shared::new(Rc::clone(&watched), limits.head_timeout, limits.body_idle_timeout)
    });
    let scheme = scheme(tls.as_deref());
    let client = Rc::new(Client {
        forwarding: RefCell::new(Forwarding::new(forwarded(&listener, peer), peer, scheme)),
        tls,
        inside,
        local: worker.announces().then(|| stream.tcp().local_addr().ok()).flatten(),
        worker,
        listener,
        peer,
        announced: announced.clone(),
        watched,
        wire: wire.clone(),
        heads: Cell::new(0),
        in_flight: Cell::new(0),
        asked: Cell::new(false),
        answering: Cell::new(false),
        unread: Cell::new(false),
        ends_with_connection: Cell::new(false),
        cut: Cell::new(None),
        next: RefCell::new(None),
        resets: Resets::default(),
        next_stream: RefCell::new(None),
    });
    let Some(wire) = wire else {
        http2::serve(Rc::clone(&client), stream, early.freeze()).await;
        client.says_if_unasked();
        drop(places);
        return;
    };
    match http1::serve(Rc::clone(&client), wire, stream, early).await {
        http1::Served::Over => client.says_if_unasked(),
        http1::Served::AtRest(stream, rest) => {
            let listener = Rc::clone(&client.listener);
            let deadline = client.watched.deadline(Wait::Head);
            let early = BytesMut::new();
            let arrival =
                Arrival { listener, stream, peer, announced, places, early, kept: true, deadline };
            parked::park(&client.worker, arrival, rest);
        }
        // Boxed: few come to it, and it has a connection inside.
        http1::Served::Intercept(what, stream, early) => {
            Box::pin(intercept::serve(client, what, stream, early, places)).await;
        }
    }
}

/// What is done with forwarding fields of this peer: a trusted proxy's are added to.
fn forwarded(listener: &Listener, peer: SocketAddr) -> ForwardedPolicy {
    let trusted = listener.config.trusted_proxies.as_ref();
    match listener.config.forwarded {
        ForwardedPolicy::Replace if trusted.is_some_and(|trusted| trusted.has(peer.ip())) => {
            ForwardedPolicy::Append
        }
        policy => policy,
    }
}

fn scheme(tls: Option<&Session>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

/// Bounds of requests' heads, and of the answers'.
pub fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        max_bytes: limits.max_head_bytes,
        max_headers: limits.max_headers,
        max_uri_bytes: limits.max_uri_bytes,
    }
}

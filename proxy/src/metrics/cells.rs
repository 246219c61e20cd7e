//! The cells that workers count in, and the handles to them.
//!
//! Invariant: a cell has one writing thread. Everything open is counted by a guard that
//! gives its count back in `Drop`, so a gauge cannot drift, whichever way things end.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;

use super::{Shared, histogram::Histogram, resolve, tls};
use crate::{error::Kind, placement::Place, splice::Engine};

/// Counters of one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerMetrics {
    pub(super) index: usize,
    pub(super) cells: Arc<WorkerCells>,
    pub(super) shared: Arc<Shared>,
}

/// Counters of one listener at one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ListenerMetrics(Arc<ListenerCells>);

/// Counters of one upstream at one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics(Arc<UpstreamCells>);

/// A client connection, counted as open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<ListenerCells>);

/// A client connection that rests, counted as open and as parked until this is dropped.
#[derive(Debug)]
pub struct ParkedConnection(Option<OpenConnection>);

/// An idle connection to a server that rests, counted as parked until this is dropped.
#[derive(Debug)]
pub struct ParkedUpstream(Arc<UpstreamCells>);

/// A tunnel, counted as open until this is dropped.
#[derive(Debug)]
pub struct OpenTunnel {
    engine: Engine,
    cells: Arc<WorkerCells>,
}

// Aligned so that two workers never write to the same cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct WorkerCells {
    /// Where it runs; written at its start, read by a scrape.
    pub(super) place: Mutex<Place>,
    pub(super) errors: Errors,
    pub(super) tunnels_opened: [AtomicU64; ENGINES],
    pub(super) tunnels_open: [AtomicI64; ENGINES],
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct ListenerCells {
    pub(super) accepted: AtomicU64,
    pub(super) open: AtomicI64,
    pub(super) parked: AtomicI64,
    pub(super) accept_pauses: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    /// By first digit of the status, 1 to 5.
    pub(super) requests: [AtomicU64; 5],
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) duration: Histogram,
    pub(super) ttfb: Histogram,
    pub(super) tls: tls::Cells,
}

#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct UpstreamCells {
    pub(super) connects: AtomicU64,
    pub(super) reuses: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) stale_retries: AtomicU64,
    pub(super) opened_early: AtomicU64,
    pub(super) early_failed: AtomicU64,
    /// In the order of [`Again::ALL`].
    pub(super) retries: [AtomicU64; Again::ALL.len()],
    pub(super) retries_denied: AtomicU64,
    pub(super) hedges_won: AtomicU64,
    pub(super) parked: AtomicI64,
}

/// Why a request was sent to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer, or the answer was no HTTP.
    Failure,
    /// The status of the answer.
    Status,
    /// No answer in time.
    Timeout,
    /// No answer yet: the first server goes on with it.
    Hedge,
}

impl Again {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::Failure, Self::Status, Self::Timeout, Self::Hedge];

    /// For labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Failure => "failure",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Hedge => "hedge",
        }
    }
}

/// Errors by kind; an array of this length has no default of its own.
#[derive(Debug)]
pub(super) struct Errors(pub(super) [AtomicU64; KINDS.len()]);

impl Default for Errors {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::default()))
    }
}

const ENGINES: usize = Engine::ALL.len();

/// Every kind of error, at its [`index`].
pub(super) const KINDS: [Kind; 36] = [
    Kind::BadRequest(""),
    Kind::HeadTooLarge,
    Kind::UriTooLong,
    Kind::HeadTimeout,
    Kind::RequestBodyTimeout,
    Kind::RequestBodyTooLarge,
    Kind::NotImplemented(""),
    Kind::VersionNotSupported,
    Kind::ExpectationFailed,
    Kind::ProxyAuthRequired,
    Kind::Forbidden(""),
    Kind::NoRoute,
    Kind::ClientGone,
    Kind::Resolve,
    Kind::Connect,
    Kind::ConnectTimeout,
    Kind::PoolExhausted,
    Kind::UpstreamClosed,
    Kind::BadResponse(""),
    Kind::ResponseTimeout,
    Kind::ResponseBodyBroken,
    Kind::ResponseBodyTimeout,
    Kind::Draining,
    Kind::Internal,
    Kind::MethodNotAllowed,
    Kind::BadClientHello(""),
    Kind::NoServer,
    Kind::Unauthorized,
    Kind::RateLimited,
    Kind::TooManyAtOnce,
    Kind::Overloaded(""),
    Kind::BadProxyHeader(""),
    Kind::DeadlineExceeded,
    Kind::Misdirected,
    Kind::Handshake,
    Kind::UpstreamTls,
];

/// Place of a kind in [`KINDS`]; a new kind does not compile until it has one.
pub(super) fn index(kind: Kind) -> usize {
    match kind {
        Kind::BadRequest(_) => 0,
        Kind::HeadTooLarge => 1,
        Kind::UriTooLong => 2,
        Kind::HeadTimeout => 3,
        Kind::RequestBodyTimeout => 4,
        Kind::RequestBodyTooLarge => 5,
        Kind::NotImplemented(_) => 6,
        Kind::VersionNotSupported => 7,
        Kind::ExpectationFailed => 8,
        Kind::ProxyAuthRequired => 9,
        Kind::Forbidden(_) => 10,
        Kind::NoRoute => 11,
        Kind::ClientGone => 12,
        Kind::Resolve => 13,
        Kind::Connect => 14,
        Kind::ConnectTimeout => 15,
        Kind::PoolExhausted => 16,
        Kind::UpstreamClosed => 17,
        Kind::BadResponse(_) => 18,
        Kind::ResponseTimeout => 19,
        Kind::ResponseBodyBroken => 20,
        Kind::ResponseBodyTimeout => 21,
        Kind::Draining => 22,
        Kind::Internal => 23,
        Kind::MethodNotAllowed => 24,
        Kind::BadClientHello(_) => 25,
        Kind::NoServer => 26,
        Kind::Unauthorized => 27,
        Kind::RateLimited => 28,
        Kind::TooManyAtOnce => 29,
        Kind::Overloaded(_) => 30,
        Kind::BadProxyHeader(_) => 31,
        Kind::DeadlineExceeded => 32,
        Kind::Misdirected => 33,
        Kind::Handshake => 34,
        Kind::UpstreamTls => 35,
    }
}

/// Implements: REQ-CTRL-005
impl WorkerMetrics {
    /// Counters of a listener, by its name. Takes a lock: once per listener, not per request.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics(resolve(&self.shared.listeners, name, self.index))
    }

    /// Counters of an upstream, by its name. Takes a lock: once per upstream, not per request.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics(resolve(&self.shared.upstreams, name, self.index))
    }

    /// An exchange or a connection went wrong.
    pub fn error(&self, kind: Kind) {
        self.cells.errors.0[index(kind)].fetch_add(1, Relaxed);
    }

    /// A tunnel opens.
    pub fn tunnel(&self, engine: Engine) -> OpenTunnel {
        self.cells.tunnels_opened[engine as usize].fetch_add(1, Relaxed);
        self.cells.tunnels_open[engine as usize].fetch_add(1, Relaxed);
        OpenTunnel { engine, cells: self.cells.clone() }
    }
}

impl OpenTunnel {
    /// The tunnel goes on with another engine.
    pub fn switched(&mut self, engine: Engine) {
        self.cells.tunnels_open[self.engine as usize].fetch_sub(1, Relaxed);
        self.cells.tunnels_open[engine as usize].fetch_add(1, Relaxed);
        self.engine = engine;
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.cells.tunnels_open[self.engine as usize].fetch_sub(1, Relaxed);
    }
}

impl ListenerMetrics {
    pub(super) fn tls(&self) -> &tls::Cells {
        &self.0.tls
    }

    /// A client has connected.
    pub fn connection(&self) -> OpenConnection {
        self.0.accepted.fetch_add(1, Relaxed);
        self.0.open.fetch_add(1, Relaxed);
        OpenConnection(self.0.clone())
    }

    /// Accepting pauses because the limit of connections is reached.
    pub fn accept_paused(&self) {
        self.0.accept_pauses.fetch_add(1, Relaxed);
    }

    /// accept(2) failed.
    pub fn accept_error(&self) {
        self.0.accept_errors.fetch_add(1, Relaxed);
    }

    /// A request has ended: answered with `status`, first byte of the answer after `ttfb`.
    pub fn request(&self, status: StatusCode, ttfb: Option<Duration>, duration: Duration) {
        // Statuses of 600 and more are refused at the upstream; should one pass, it is a fault.
        let class = (status.as_u16() / 100).clamp(1, 5) as usize;
        self.0.requests[class - 1].fetch_add(1, Relaxed);
        self.0.duration.observe(duration);
        if let Some(ttfb) = ttfb {
            self.0.ttfb.observe(ttfb);
        }
    }

    /// Bytes of request bodies that came from the client.
    pub fn received(&self, bytes: u64) {
        self.0.received_bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes of response bodies that went to the client.
    pub fn sent(&self, bytes: u64) {
        self.0.sent_bytes.fetch_add(bytes, Relaxed);
    }
}

impl OpenConnection {
    /// It rests from now on.
    pub fn parks(self) -> ParkedConnection {
        self.0.parked.fetch_add(1, Relaxed);
        ParkedConnection(Some(self))
    }
}

impl ParkedConnection {
    /// It rests no more. `None` only if it has been asked before.
    pub fn returns(mut self) -> Option<OpenConnection> {
        self.leave()
    }

    fn leave(&mut self) -> Option<OpenConnection> {
        let open = self.0.take()?;
        open.0.parked.fetch_sub(1, Relaxed);
        Some(open)
    }
}

impl Drop for ParkedConnection {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl UpstreamMetrics {
    /// A connection was made.
    pub fn connected(&self) {
        self.0.connects.fetch_add(1, Relaxed);
    }

    /// A request took an idle connection from the pool.
    pub fn reused(&self) {
        self.0.reuses.fetch_add(1, Relaxed);
    }

    /// A connection could not be made.
    pub fn connect_failed(&self) {
        self.0.connect_failures.fetch_add(1, Relaxed);
    }

    /// A pooled connection was dead; the request went out again on another.
    pub fn stale_retry(&self) {
        self.0.stale_retries.fetch_add(1, Relaxed);
    }

    /// A request goes out with the first segment of its connection.
    pub fn opened_early(&self) {
        self.0.opened_early.fetch_add(1, Relaxed);
    }

    /// Nothing has come of such a connection; the request goes out again on an ordinary one.
    pub fn early_failed(&self) {
        self.0.early_failed.fetch_add(1, Relaxed);
    }

    /// A request is sent to another server, or once more.
    pub fn retried(&self, why: Again) {
        self.0.retries[why as usize].fetch_add(1, Relaxed);
    }

    /// The budget had no retry left.
    pub fn retry_denied(&self) {
        self.0.retries_denied.fetch_add(1, Relaxed);
    }

    /// The second server was the first to answer.
    pub fn hedge_won(&self) {
        self.0.hedges_won.fetch_add(1, Relaxed);
    }

    /// An idle connection rests.
    pub fn parked(&self) -> ParkedUpstream {
        self.0.parked.fetch_add(1, Relaxed);
        ParkedUpstream(self.0.clone())
    }
}

impl Drop for ParkedUpstream {
    fn drop(&mut self) {
        self.0.parked.fetch_sub(1, Relaxed);
    }
}

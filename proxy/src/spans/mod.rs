//! Distributed tracing: each exchange takes part in the trace of its request (W3C Trace
//! Context), and those that are sampled are told to a collector (OTLP over HTTP).
//!
//! `context.rs` reads and writes the field, `otlp.rs` is the form of a batch, `export.rs` sends
//! it. A worker decides, and gives a finished span away without waiting; everything else is the
//! control plane's. Without a collector in the configuration nothing of this is done: then
//! `traceparent` and `tracestate` pass as any other field.

mod context;
mod export;
mod otlp;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName};
use tokio::sync::mpsc;

pub use context::Context;
pub use export::{Collector, Exporter};

use crate::error::Kind;

/// Spans that wait for the exporter, each with the texts of its exchange.
const QUEUE: usize = 8192;

/// What a worker needs to take part.
#[derive(Debug, Clone)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Of traces that begin here, how many are sampled, in 2^56ths.
    threshold: u64,
    trust_parent: bool,
    queue: mpsc::Sender<Span>,
    counters: Counters,
}

/// What becomes of spans.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Taken by the collector.
    pub exported: prometheus_client::metrics::counter::Counter,
    /// Found the queue full, or no collector that takes them.
    pub dropped: prometheus_client::metrics::counter::Counter,
}

/// A finished exchange.
#[derive(Debug)]
pub struct Span {
    /// Its place in its trace.
    pub context: Context,
    /// When the request's head was there.
    pub start: SystemTime,
    /// From there to the end of the answer or the tunnel.
    pub duration: Duration,
    /// Method.
    pub method: String,
    /// Path without its query, which may hold what nobody else should read.
    pub path: String,
    /// `http`, or `https` where there was TLS.
    pub scheme: &'static str,
    /// What was asked for.
    pub host: Option<String>,
    /// HTTP version of the request, as `1.1` or `2`.
    pub version: &'static str,
    /// Status that the client got.
    pub status: u16,
    /// The client.
    pub client: SocketAddr,
    /// Name of the listener.
    pub listener: String,
    /// Name of the route.
    pub route: Option<String>,
    /// Name of the upstream.
    pub upstream: Option<String>,
    /// The server.
    pub server: Option<SocketAddr>,
    /// How often the request was sent once more.
    pub resends: u8,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// What went wrong.
    pub error: Option<Kind>,
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Tracer {
    /// A tracer and where its spans come out. `ratio`: of traces that begin here, how many are
    /// sampled, 0 to 1. `trust_parent`: whether a request may bring its trace, and say whether
    /// it is sampled.
    fn new(ratio: f64, trust_parent: bool, counters: Counters) -> (Self, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let threshold = (ratio.clamp(0.0, 1.0) * (1_u64 << 56) as f64) as u64;
        (Self(Arc::new(Shared { threshold, trust_parent, queue, counters })), spans)
    }

    /// Makes the exchange a part of its request's trace, or begins one, and has the server told.
    pub fn join(&self, request: &mut HeaderMap) -> Context {
        let parent = self.0.trust_parent.then(|| context::of(request)).flatten();
        let context = match parent {
            Some(parent) => parent.child(),
            None => {
                // W3C Trace Context, section 4.3: what belongs to a trace that is not gone on
                // with goes with it.
                request.remove(TRACESTATE);
                Context::root(self.0.threshold)
            }
        };
        request.insert(TRACEPARENT, context.field());
        context
    }

    /// Gives a finished span away.
    pub fn record(&self, span: Span) {
        if self.0.queue.try_send(span).is_err() {
            self.0.counters.dropped.inc();
        }
    }
}

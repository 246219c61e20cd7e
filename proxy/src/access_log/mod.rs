//! The access log: one line for each exchange, and for each connection of a tcp listener,
//! written when it has ended.
//!
//! A worker formats the line into memory of its own and goes on; a thread of its own
//! writes what the workers have left there. A worker never waits for the disk or for
//! whoever reads standard error: if the queue is full the line is dropped and counted.
//!
//! Invariant: an exchange makes exactly one line or one count of a dropped line, and
//! nothing that a peer sent can end a line or look like another field.

use std::{
    fs::{File, OpenOptions},
    io,
    net::SocketAddr,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

use crate::{
    config::{self, LogFormat},
    error::Kind,
    tls::Session,
};

mod fields;
mod format;
mod queue;
#[cfg(test)]
mod tests;
pub(crate) mod timestamp;

pub use fields::Field;
pub use queue::Writer;
use queue::{QUEUE_BYTES, Queue};

/// What is told about one exchange.
#[derive(Debug, Clone)]
pub struct Exchange<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// Who asked.
    pub client: SocketAddr,
    /// What was asked; `None` for a connection of a tcp listener.
    pub request: Option<Request<'a>>,
    /// `Host` or `:authority`; on a tcp listener the server name of TLS.
    pub host: Option<&'a str>,
    /// What the handshake has settled, where there was one.
    pub tls: Option<&'a Session>,
    /// Name of the route, once found.
    pub route: Option<&'a str>,
    /// The name that the request was given, where that is asked for.
    pub request_id: Option<&'a str>,
    /// The trace that it is a part of, where there is a collector.
    pub trace_id: Option<&'a str>,
    /// Name of the upstream, once chosen.
    pub upstream: Option<&'a str>,
    /// The server that was connected to.
    pub server: Option<SocketAddr>,
    /// How often the request was sent once more, for whatever reason.
    pub resends: u8,
    /// What came of it at the cache, where its route has one.
    pub cache: Option<&'a str>,
    /// Body bytes from the client, or bytes up through the tunnel.
    pub request_bytes: u64,
    /// Body bytes to the client, or bytes down through the tunnel.
    pub response_bytes: u64,
    /// From the head of the request to the head of the answer.
    pub ttfb: Option<Duration>,
    /// From the head of the request to the end of the exchange.
    pub duration: Duration,
    /// Why it ended.
    pub end: End<'a>,
}

/// A request, and the status that answered it.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Request method.
    pub method: &'a str,
    /// Request target as it came.
    pub target: &'a str,
    /// HTTP version of the request.
    pub version: http::Version,
    /// Status that the client was sent; 0 if none was.
    pub status: u16,
}

/// How an exchange ended. The names in the log are stable.
#[derive(Debug, Clone, Copy)]
pub enum End<'a> {
    /// `complete`: the client has the whole answer.
    Complete,
    /// `error`: something went wrong on the way.
    Error(Kind),
    /// `client_gone`: the client left before the end.
    ClientGone,
    /// `tunnel`: the exchange became a tunnel, and that has ended.
    Tunnel {
        /// What asked for it: `websocket`, `connect`, …
        kind: &'a str,
        /// Engine from client to server.
        engine_up: &'a str,
        /// Engine from server to client.
        engine_down: &'a str,
        /// Why it ended: `closed`, `idle`, …
        end: &'a str,
    },
}

impl End<'_> {
    /// What went wrong, if anything.
    pub fn fault(&self) -> Option<Kind> {
        match self {
            Self::Error(kind) => Some(*kind),
            Self::ClientGone => Some(Kind::ClientGone),
            Self::Complete | Self::Tunnel { .. } => None,
        }
    }
}

/// What lines look like, and which there are.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    format: LogFormat,
    fields: Vec<Field>,
    /// Of exchanges without a fault, how many have a line: 0 to 1.
    ratio: f64,
}

impl Form {
    fn of(log: &config::Log) -> Self {
        Self { format: log.format, fields: log.fields.clone(), ratio: log.sample_ratio }
    }

    /// Whether this exchange has a line. What went wrong always has.
    fn keeps(&self, exchange: &Exchange<'_>) -> bool {
        let status = exchange.request.as_ref().map_or(0, |request| request.status);
        let fine = status < 500 && exchange.end.fault().is_none();
        !fine || self.ratio >= 1.0 || fastrand::f64() < self.ratio
    }
}

/// The log of the process. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog(Queue);

/// Implements: REQ-CTRL-005
impl AccessLog {
    /// Opens what the configuration names. Lost lines are counted in `dropped`
    /// (see `Metrics::access_log_dropped`).
    ///
    /// # Errors
    /// As open(2), or if there is no thread to be had.
    pub fn open(log: &config::Log, dropped: Counter) -> io::Result<Self> {
        match Self::sink(log)? {
            Some(file) => Self::into_sink(file, Form::of(log), QUEUE_BYTES, dropped, true),
            // It may be switched on later.
            None => Self::into_sink(io::sink(), Form::of(log), QUEUE_BYTES, dropped, false),
        }
    }

    /// Where lines are to go by this configuration, for [`Self::switch`]; `None`: nowhere. A
    /// file is opened anew, so that one that was moved away is let go.
    ///
    /// # Errors
    /// As open(2).
    pub fn sink(log: &config::Log) -> io::Result<Option<File>> {
        Ok(match &log.access {
            config::AccessLog::Off => None,
            // A descriptor of its own: whoever holds the lock of `io::stderr` while a
            // slow reader blocks it would hold up every thread that traces.
            config::AccessLog::Stderr => Some(io::stderr().as_fd().try_clone_to_owned()?.into()),
            config::AccessLog::File(path) => Some(append(path)?),
        })
    }

    /// Has lines go there. What was logged before goes where it was to go, and what is logged
    /// at this moment to either.
    pub fn switch(&self, sink: Option<File>) {
        self.0.switch(sink);
    }

    /// The end that a worker writes to. One for each thread.
    pub fn worker(&self) -> Writer {
        Writer::new(&self.0)
    }

    /// Writes all lines that were logged before this call, then closes.
    ///
    /// Waits at most five seconds for a reader that has stalled. Lines logged later are
    /// counted as dropped. The same as dropping it, said aloud.
    pub fn shutdown(self) {
        drop(self);
    }

    fn into_sink(
        sink: impl io::Write + Send + 'static,
        form: Form,
        queue_bytes: usize,
        dropped: Counter,
        on: bool,
    ) -> io::Result<Self> {
        Ok(Self(Queue::start(sink, form, queue_bytes, dropped, on)?))
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Client addresses are personal data: not for everybody on the machine.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

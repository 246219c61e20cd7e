//! One connection of a tcp listener: a server for it, and then it is a tunnel.
//!
//! Where no route goes by the server name, nothing is read before the tunnel runs, so a
//! server that speaks first is heard at once. Where one does, the client's TLS ClientHello
//! is waited for, and each byte of it goes to the server first ([`client_hello`]).
//!
//! Invariant: until a server is connected nothing has been sent to any, so that trying the
//! next one is always safe. A client that leaves meanwhile ends the attempt; one that only
//! finishes sending does not. Without a server the client sees a reset, for an end would say
//! that the server had nothing to say.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    client_hello::{Collector, Seen},
    linger::linger,
};
use crate::{
    access_log,
    config::SpliceMode,
    error::{Error, Kind},
    listener::Listener,
    metrics::OpenConnection,
    splice::{Endpoint as _, Engine, socket},
    tunnel::{self, registry},
    upstream::{balance::Upstream, pool::Lease},
    worker::Worker,
};

/// AlertDescription of RFC 8446 section 6.
const DECODE_ERROR: u8 = 50;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;

/// How long an alert may take to leave; the socket of a new connection has room for it.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of the connection, for its one report.
struct Connection {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    peer: SocketAddr,
    started: Instant,
    server_name: Option<Box<str>>,
    upstream: Option<Rc<Upstream>>,
    server: Option<SocketAddr>,
    _open: OpenConnection,
}

/// A connection that has become a tunnel.
struct Opened {
    kind: registry::Kind,
    upstream: Rc<Upstream>,
    lease: Lease,
    handover: tunnel::Handover,
}

/// What the client's first bytes say about where it wants to go.
enum Asked {
    /// Nobody looked.
    Nothing,
    /// A ClientHello, and its server name.
    Tls(Option<String>),
    /// No ClientHello; the text says why.
    Unknown(&'static str),
}

/// Serves one accepted connection to its end.
///
/// Implements: REQ-TUN-001, REQ-TUN-005
pub async fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    open: OpenConnection,
) {
    let mut connection = Connection {
        worker,
        listener,
        peer,
        started: Instant::now(),
        server_name: None,
        upstream: None,
        server: None,
        _open: open,
    };
    // Boxed: the tunnel does not carry the state of its making.
    match Box::pin(connection.open(stream)).await {
        Ok(opened) => connection.tunnel(opened).await,
        Err(error) => {
            tracing::debug!(peer = %connection.peer, %error, "connection refused");
            let end = match error.kind {
                Kind::ClientGone => access_log::End::ClientGone,
                kind => access_log::End::Error(kind),
            };
            connection.worker.metrics.error(error.kind);
            connection.report(end, 0, 0);
        }
    }
}

impl Connection {
    /// From accept to a server. An error has closed the connection.
    async fn open(&mut self, mut stream: TcpStream) -> Result<Opened, Error> {
        let index = self.listener.index;
        let mut early = BytesMut::new();
        let wants_name = self.worker.process.snapshot.load().routes.wants_server_name(index);
        let asked = match wants_name {
            true => self.ask(&mut stream, &mut early).await?,
            false => Asked::Nothing,
        };
        let (kind, routed) = match asked {
            Asked::Nothing => (registry::Kind::Tcp, self.worker.route_tcp(index, None)),
            Asked::Unknown(rule) => {
                let routed = self.worker.route_tcp(index, None);
                let bad = |_| Error::new(Kind::BadClientHello(rule));
                (registry::Kind::Tcp, routed.map_err(bad))
            }
            Asked::Tls(name) => {
                let routed = self.worker.route_tcp(index, name.as_deref());
                self.server_name = name.map(String::into_boxed_str);
                (registry::Kind::Tls, routed)
            }
        };
        let upstream = match routed {
            Ok(upstream) => upstream,
            Err(error) => {
                if let Some(description) = alert_for(error.kind, &self.server_name, &early) {
                    self.refuse(stream, description).await;
                }
                return Err(error);
            }
        };
        // However this ends before the tunnel runs, there is no answer to be taken for whole.
        socket::reset_on_close(&stream, true);
        self.upstream = Some(Rc::clone(&upstream));
        let mut drain = self.worker.drain.clone();
        let (server, lease) = tokio::select! {
            connected = self.connect(&upstream) => connected?,
            error = stream.failed() => return Err(Error::because(Kind::ClientGone, error)),
            () = drain.forced() => return Err(Error::new(Kind::Draining)),
        };
        let handover = tunnel::Handover {
            downstream: tunnel::Downstream::Tcp(stream),
            downstream_early: early.freeze(),
            upstream: server,
            upstream_early: Bytes::new(),
        };
        Ok(Opened { kind, upstream, lease, handover })
    }

    /// Reads until it is clear what the client asks for.
    async fn ask(&self, stream: &mut TcpStream, early: &mut BytesMut) -> Result<Asked, Error> {
        let deadline = Instant::now() + self.listener.config.limits.head_timeout;
        let (mut draining, mut forced) = (self.worker.drain.clone(), self.worker.drain.clone());
        let mut collector = Collector::default();
        loop {
            early.reserve(2048);
            let read = tokio::select! {
                read = stream.read_buf(early) => read,
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Error::new(Kind::HeadTimeout));
                }
                () = draining.draining(), if early.is_empty() => {
                    return Err(Error::new(Kind::Draining));
                }
                () = forced.forced() => return Err(Error::new(Kind::Draining)),
            };
            match read {
                Ok(0) => return Err(Error::new(Kind::ClientGone)),
                Ok(_) => {}
                Err(error) => return Err(Error::because(Kind::ClientGone, error)),
            }
            match collector.look(early) {
                Seen::Part => {}
                Seen::Hello(name) => return Ok(Asked::Tls(name)),
                Seen::Other => return Ok(Asked::Unknown("not TLS")),
                Seen::Malformed(rule) => return Ok(Asked::Unknown(rule)),
            }
        }
    }

    /// A connection to one of the upstream's servers: each is tried once.
    async fn connect(&mut self, upstream: &Upstream) -> Result<(TcpStream, Lease), Error> {
        let timeout = self.listener.config.limits.connect_timeout;
        let mut servers_left = upstream.len();
        loop {
            let pool = Rc::clone(upstream.pick());
            let error = match pool.connect(timeout).await {
                Ok((server, address, lease)) => {
                    self.server = Some(address);
                    return Ok((server, lease));
                }
                Err(error) => error,
            };
            let ip = pool.server().host.parse().ok();
            self.server = ip.map(|ip| SocketAddr::new(ip, pool.server().port)).or(self.server);
            servers_left -= 1;
            if servers_left == 0 {
                return Err(error);
            }
            tracing::warn!(server = %pool.server(), %error, "trying another server");
        }
    }

    /// Tells a TLS client why it is not served.
    async fn refuse(&self, mut stream: TcpStream, description: u8) {
        // A record of type alert; level fatal. 3.3 is what TLS 1.3 has in its records, too.
        let alert = [21, 3, 3, 0, 2, 2, description];
        let sent = tokio::time::timeout(ALERT_TIMEOUT, stream.write_all(&alert)).await;
        if let Ok(Ok(())) = sent {
            linger(&self.worker, stream).await;
        }
    }

    async fn tunnel(self, opened: Opened) {
        let Opened { kind, upstream, lease, handover } = opened;
        let worker = &self.worker;
        let upstream_name = match self.server {
            Some(server) => format!("{} ({server})", upstream.name),
            None => upstream.name.to_string(),
        };
        let ticket = worker.process.tunnels.open(registry::Info {
            kind,
            client: self.peer,
            upstream: upstream_name,
            listener: self.listener.name.clone(),
        });
        let settings = tunnel::Settings {
            mode: worker.process.splice,
            kernel: worker.process.kernel.clone(),
            local_bypass: [self.listener.config.local_bypass, upstream.local_bypass],
            idle_timeout: self.listener.config.limits.tunnel_idle_timeout,
        };
        let begins_with = match settings.mode {
            SpliceMode::Pipe => Engine::Pipe,
            _ => Engine::Copy,
        };
        let run = Box::pin(tunnel::run(handover, settings, ticket, worker.drain.clone()));
        let outcome = worker.report_tunnel(begins_with, run).await;
        drop(lease);
        let end = access_log::End::Tunnel {
            kind: kind.name(),
            engine_up: outcome.engines.to_upstream.name(),
            engine_down: outcome.engines.to_downstream.name(),
            end: outcome.end.name(),
        };
        self.report(end, outcome.upstream_bytes, outcome.downstream_bytes);
    }

    fn report(&self, end: access_log::End<'_>, up: u64, down: u64) {
        let listener = &self.listener;
        listener.metrics.received(up);
        listener.metrics.sent(down);
        self.worker.log.log(&access_log::Exchange {
            listener: &listener.name,
            client: self.peer,
            request: None,
            host: self.server_name.as_deref(),
            upstream: self.upstream.as_ref().map(|upstream| &*upstream.name),
            server: self.server,
            request_bytes: up,
            response_bytes: down,
            ttfb: None,
            duration: self.started.elapsed(),
            end,
        });
    }
}

/// What a client that speaks TLS is told; `None` for others.
fn alert_for(kind: Kind, server_name: &Option<Box<str>>, bytes: &[u8]) -> Option<u8> {
    match kind {
        // What is not TLS at all begins with another byte.
        Kind::BadClientHello(_) => (bytes.starts_with(&[22, 3])).then_some(DECODE_ERROR),
        _ if bytes.is_empty() => None,
        // RFC 8446 section 9.2: for servers that want a name.
        _ if server_name.is_none() => Some(MISSING_EXTENSION),
        _ => Some(UNRECOGNIZED_NAME),
    }
}

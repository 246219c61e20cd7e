//! One connection of a tcp listener: a server for it, and then it is a tunnel.
//!
//! Where no route goes by the server name, nothing is read before the tunnel runs, so a
//! server that speaks first is heard at once. Where one does, the client's TLS ClientHello
//! is waited for, and each byte of it goes to the server first (`client_hello.rs`).
//!
//! Invariant: until a server is connected nothing has been sent to any, so that trying the
//! next one is always safe. A client that leaves meanwhile ends the attempt; one that only
//! finishes sending does not. Without a server the client sees a reset, for an end would say
//! that the server had nothing to say.

use std::{net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    Places,
    client_hello::{Collector, Seen},
    linger::linger,
    secured,
};
use crate::{
    access_log,
    config::SpliceMode,
    error::{Error, Kind},
    listener::{Listener, slots::Slot},
    metrics::OpenConnection,
    proxy_protocol::{Announced, write},
    route::Matched,
    splice::{Engine, hop_bypass::HopBypass, socket},
    tls::Session,
    transport::Transport,
    tunnel::{self, registry},
    upstream::{
        balance::{Tried, Upstream},
        carried::Carried,
        pool::Lease,
    },
    worker::{ConnectionGuard, Worker},
};

/// AlertDescription of RFC 8446 section 6.
const DECODE_ERROR: u8 = 50;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;

/// How long an alert may take to leave; the socket of a new connection has room for it.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// What is known of the connection, for its one report, and its places among the open ones.
struct Connection {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    peer: SocketAddr,
    announced: Option<Rc<Announced>>,
    started: Instant,
    server_name: Option<Box<str>>,
    tls: Option<Rc<Session>>,
    route: Option<Rc<Matched>>,
    upstream: Option<Rc<Upstream>>,
    server: Option<SocketAddr>,
    lease: Option<Lease>,
    _open: OpenConnection,
    _slot: Slot,
    _guard: ConnectionGuard,
}

/// A connection that has become a tunnel, which runs as `run`.
struct Opened<F> {
    connection: Box<Connection>,
    kind: registry::Kind,
    run: Pin<Box<F>>,
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
/// Not `async fn`, and boxed part by part: thousands of idle tunnels keep only what runs
/// them, and neither the state of their making nor their arguments a second time.
///
/// Implements: REQ-TUN-001, REQ-TUN-005
pub fn serve(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    stream: Transport,
    peer: SocketAddr,
    announced: Option<Rc<Announced>>,
    Places { slot, open, guard }: Places,
) -> impl Future<Output = ()> {
    let connection = Box::new(Connection {
        worker,
        listener,
        peer,
        announced,
        started: Instant::now(),
        server_name: None,
        tls: None,
        route: None,
        upstream: None,
        server: None,
        lease: None,
        _open: open,
        _slot: slot,
        _guard: guard,
    });
    let opening = Box::pin(begin(connection, stream));
    async move {
        if let Some(opened) = opening.await {
            opened.finish().await;
        }
    }
}

/// From accept to a tunnel; `None` if the connection has been refused and reported.
async fn begin(
    mut connection: Box<Connection>,
    stream: Transport,
) -> Option<Opened<impl Future<Output = tunnel::Outcome>>> {
    match connection.open(stream).await {
        Ok((kind, upstream, handover)) => Some(connection.into_tunnel(kind, upstream, handover)),
        Err(error) => {
            tracing::debug!(peer = %connection.peer, %error, "connection refused");
            let end = match error.kind {
                Kind::ClientGone => access_log::End::ClientGone,
                kind => access_log::End::Error(kind),
            };
            connection.worker.metrics.error(error.kind);
            connection.report(end, 0, 0);
            None
        }
    }
}

impl Connection {
    /// From accept to a server. An error has closed the connection.
    async fn open(
        &mut self,
        stream: Transport,
    ) -> Result<(registry::Kind, Rc<Upstream>, tunnel::Handover), Error> {
        let listener = Rc::clone(&self.listener);
        let secured = secured(&self.worker, &listener, stream, self.peer).await;
        let (mut stream, session) = secured.ok_or(Error::new(Kind::Handshake))?;
        let mut early = BytesMut::new();
        let asked = match &session {
            Some(session) => Asked::Tls(session.server_name.as_deref().map(str::to_owned)),
            None if self.worker.wants_server_name(&self.listener) => {
                self.ask(&mut stream, &mut early).await?
            }
            None => Asked::Nothing,
        };
        self.tls = session;
        let (kind, routed) = match asked {
            Asked::Nothing => (registry::Kind::Tcp, self.worker.route_tcp(&self.listener, None)),
            Asked::Unknown(rule) => {
                let routed = self.worker.route_tcp(&self.listener, None);
                let bad = |_| Error::new(Kind::BadClientHello(rule));
                (registry::Kind::Tcp, routed.map_err(bad))
            }
            Asked::Tls(name) => {
                let routed = self.worker.route_tcp(&self.listener, name.as_deref());
                self.server_name = name.map(String::into_boxed_str);
                (registry::Kind::Tls, routed)
            }
        };
        let route = match routed {
            Ok(route) => route,
            Err(error) => {
                if let Some(description) = alert_for(error.kind, &self.server_name, &early) {
                    self.refuse(stream, description).await;
                }
                return Err(error);
            }
        };
        // However this ends before the tunnel runs, there is no answer to be taken for whole.
        socket::reset_on_close(stream.tcp(), true);
        let upstream = route.upstream_of_connection(self.peer.ip());
        let upstream = Rc::clone(upstream.ok_or(Error::new(Kind::Internal))?);
        self.route = Some(route);
        self.upstream = Some(Rc::clone(&upstream));
        let announcement = self.announcement(&upstream, &stream);
        let mut drain = self.worker.drain.clone();
        let server = tokio::select! {
            connected = self.connect(&upstream, announcement.as_deref()) => connected?,
            error = socket::failed(stream.tcp()) => return Err(Error::because(Kind::ClientGone, error)),
            () = drain.forced() => return Err(Error::new(Kind::Draining)),
        };
        let handover = tunnel::Handover {
            downstream: tunnel::Downstream::Tcp(stream, HopBypass::default()),
            downstream_early: early.freeze(),
            upstream: server.into(),
            upstream_early: Bytes::new(),
            tap: None,
        };
        Ok((kind, upstream, handover))
    }

    /// Reads until it is clear what the client asks for.
    async fn ask(&self, stream: &mut Transport, early: &mut BytesMut) -> Result<Asked, Error> {
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

    /// The PROXY header that tells a server of this client, where it is to be told.
    fn announcement(&self, upstream: &Upstream, stream: &Transport) -> Option<Vec<u8>> {
        // What is not connected any more is about to be found out.
        let local = || stream.tcp().local_addr().unwrap_or(self.listener.config.address);
        Some(write::header(upstream.proxy_protocol?, self.announced.as_deref(), self.peer, local))
    }

    /// A connection to one of the upstream's servers: each is tried once.
    async fn connect(
        &mut self,
        upstream: &Upstream,
        announcement: Option<&[u8]>,
    ) -> Result<Transport, Error> {
        let timeout = self.listener.config.limits.connect_timeout;
        let permit = upstream.admit()?;
        let mut tried = Tried::default();
        let key = upstream.key_of_connection(self.peer.ip());
        let mut picked = upstream.pick(key, &tried).ok_or(Error::new(Kind::NoServer))?;
        loop {
            let pool = &picked.pool;
            let connecting = async {
                let _waits = upstream.wait()?;
                pool.connect(timeout, announcement).await
            };
            let error = match connecting.await {
                Ok((server, address, lease)) => {
                    self.server = Some(address);
                    picked.connected();
                    self.lease = Some(lease.carry(Carried::of(picked.load, permit)));
                    return Ok(server);
                }
                Err(error) => error,
            };
            let ip = pool.server().host.parse().ok();
            self.server = ip.map(|ip| SocketAddr::new(ip, pool.server().port)).or(self.server);
            if !error.retry_safe {
                return Err(error);
            }
            picked.failed(error.kind);
            tried.add(&picked.pool);
            let Some(next) = upstream.pick(key, &tried) else { return Err(error) };
            tracing::warn!(server = %picked.pool.server(), %error, "trying another server");
            picked = next;
        }
    }

    /// Tells a TLS client why it is not served.
    async fn refuse(&self, mut stream: Transport, description: u8) {
        // A record of type alert; level fatal. 3.3 is what TLS 1.3 has in its records, too.
        let alert = [21, 3, 3, 0, 2, 2, description];
        let sent = tokio::time::timeout(ALERT_TIMEOUT, stream.write_all(&alert)).await;
        if let Ok(Ok(())) = sent {
            linger(&self.worker, stream).await;
        }
    }

    fn into_tunnel(
        self: Box<Self>,
        kind: registry::Kind,
        upstream: Rc<Upstream>,
        handover: tunnel::Handover,
    ) -> Opened<impl Future<Output = tunnel::Outcome>> {
        let process = &self.worker.process;
        let upstream_name = match self.server {
            Some(server) => upstream.label(server),
            None => (&*upstream.name).into(),
        };
        let ticket = process.tunnels.open(registry::Info {
            kind,
            client: self.peer,
            upstream: upstream_name,
            listener: self.listener.name.clone(),
            log_interval: self.listener.config.limits.tunnel_log_interval,
        });
        let settings = tunnel::Settings {
            mode: process.splice,
            ktls: process.ktls,
            kernel: process.kernel.clone(),
            local_bypass: [self.listener.config.local_bypass, upstream.local_bypass],
            idle_timeout: self.listener.config.limits.tunnel_idle_timeout,
        };
        let watched = self.worker.watchdog.watch();
        let run = Box::pin(tunnel::run(handover, settings, ticket, watched));
        Opened { connection: self, kind, run }
    }

    fn report(&self, end: access_log::End<'_>, up: u64, down: u64) {
        let listener = &self.listener;
        listener.metrics.received(up);
        listener.metrics.sent(down);
        self.worker.log.log(&access_log::Exchange {
            cache: None,
            listener: &listener.name,
            client: self.peer,
            request: None,
            host: self.server_name.as_deref(),
            tls: self.tls.as_deref(),
            route: self.route.as_ref().map(|route| &*route.name),
            request_id: None,
            trace_id: None,
            upstream: self.upstream.as_ref().map(|upstream| &*upstream.name),
            server: self.server,
            resends: 0,
            request_bytes: up,
            response_bytes: down,
            ttfb: None,
            duration: self.started.elapsed(),
            end,
        });
    }
}

impl<F: Future<Output = tunnel::Outcome>> Opened<F> {
    /// Carries the tunnel to its end.
    async fn finish(self) {
        let Self { mut connection, kind, run } = self;
        let begins_with = match connection.worker.process.splice {
            SpliceMode::Pipe => Engine::Pipe,
            _ => Engine::Copy,
        };
        let outcome = connection.worker.report_tunnel(begins_with, run).await;
        connection.lease = None;
        let end = access_log::End::Tunnel {
            kind: kind.name(),
            engine_up: outcome.engines.to_upstream.name(),
            engine_down: outcome.engines.to_downstream.name(),
            end: outcome.end.name(),
        };
        connection.report(end, outcome.upstream_bytes, outcome.downstream_bytes);
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

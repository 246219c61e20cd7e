//! A connection whose CONNECT was for a host that is intercepted: what the client sends next is
//! taken for TLS, and that is taken apart.
//!
//! What it reads is kept until it is clear that it is TLS, so that whatever else it is goes to
//! the server byte for byte. What begins as TLS and is none that we read is closed: a server may
//! read it otherwise, and nobody would see what is said inside. The name that the client asks for
//! has to be the host that it connected to: another one could lead past the rules that CONNECT
//! was judged by, and be recorded as somebody else.
//!
//! Implements: REQ-REC-007

use std::{io, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use rustls::{
    AlertDescription, Error as TlsError,
    server::{Accepted, Acceptor},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsStream, server::StartHandshake};

use super::{Arrival, Client, Handover, Places, run_tunnel, speak};
use crate::{
    access_log::End,
    config::{ForwardPolicy, Intercept, NotTls, Protocol, Server, intercept::plain},
    error::{Error, Kind},
    exchange::Exchange,
    intercept::figures::{Came, count},
    splice::hop_bypass::HopBypass,
    tls::{Followed, Session},
    transport::Transport,
    tunnel,
    upstream::connect::{self, First},
    worker::Worker,
};

/// ContentType handshake: how a ClientHello begins (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// A fatal alert `unrecognized_name` (RFC 6066 section 3), in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The largest ClientHello that is waited for. rustls takes no larger handshake message.
const MOST_HELLO: usize = 72 << 10;

/// What a CONNECT has been granted that is to be intercepted.
#[derive(Debug)]
pub struct Intercepting {
    /// What goes for it.
    pub rules: Arc<Intercept>,
    /// Where it was for.
    pub server: Server,
    /// Its exchange, which ends when it is clear what comes.
    pub exchange: Rc<Exchange>,
    /// Its head, for a tunnel that it may come to.
    pub head: Request<()>,
}

/// The inside of an intercepted connection.
#[derive(Debug)]
pub struct Inside {
    /// What goes for it.
    pub rules: Arc<Intercept>,
    /// Where all of its requests go.
    pub server: Server,
}

impl Inside {
    /// The client has taken our certificate, and asks nothing.
    pub(super) fn was_not_asked(&self) {
        let host = plain(&self.server.host);
        if self.rules.authority.unasked.first(&host) {
            tracing::info!(
                "a client took our certificate for {host} and left without a request: if it accepts \
                 no certificate but one it knows, take the host out of `hosts`"
            );
        }
    }
}

impl Client {
    /// Tells of a client that took our certificate and asked nothing.
    pub(super) fn says_if_unasked(&self) {
        if let Some(inside) = self.inside().filter(|_| !self.asked.get()) {
            inside.was_not_asked();
        }
    }
}

/// What a client begins with.
enum Begun {
    /// A ClientHello. Boxed: it is large.
    Tls(Box<StartHandshake<Followed>>),
    /// What is no TLS, or nothing for a while.
    Other(TcpStream, Bytes),
    /// What begins as TLS, and is no ClientHello that we take.
    Broken,
    /// It leaves, or we do.
    Gone,
}

/// Serves what comes behind the 200 to CONNECT.
pub(super) async fn serve(
    client: Rc<Client>,
    what: Box<Intercepting>,
    stream: Transport,
    early: Bytes,
    places: Places,
) {
    let Some(stream) = stream.into_plain() else { return };
    let worker = Rc::clone(&client.worker);
    let mut drain = worker.drain.clone();
    let limit = client.limits().head_timeout;
    let begun = tokio::select! {
        begun = first(&worker, stream, early, limit) => begun,
        () = drain.forced() => Begun::Gone,
    };
    match begun {
        Begun::Gone => {
            count(Came::Failed);
            what.exchange.tunnel_ended(End::ClientGone, 0, 0);
        }
        Begun::Broken => {
            count(Came::Failed);
            let Intercepting { rules, server, exchange, .. } = *what;
            if rules.authority.broken.first(&plain(&server.host)) {
                tracing::warn!(
                    "what a client sends to {server} begins as TLS and is no hello that we read: \
                     closed"
                );
            }
            exchange.tunnel_ended(End::Error(Kind::Handshake), 0, 0);
        }
        Begun::Other(stream, seen) => other(&client, *what, stream, seen).await,
        Begun::Tls(start) => {
            let secured = tokio::select! {
                secured = secure(&client, &what, *start) => secured,
                () = drain.forced() => None,
            };
            let Some((stream, session)) = secured else {
                what.exchange.tunnel_ended(End::Error(Kind::Handshake), 0, 0);
                return;
            };
            let Intercepting { rules, server, exchange, .. } = *what;
            exchange.tunnel_ended(End::Complete, 0, 0);
            let (listener, peer) = (Rc::clone(&client.listener), client.peer);
            let announced = client.announced.clone();
            drop((exchange, client));
            let arrival = Arrival::new(listener, stream, peer, announced, places);
            let inside = Rc::new(Inside { rules, server });
            speak(worker, arrival, Some(Rc::new(session)), Some(inside)).await;
        }
    }
}

/// Reads up to the end of a ClientHello, or to where there can be none.
async fn first(
    worker: &Worker,
    mut stream: TcpStream,
    early: Bytes,
    limit: std::time::Duration,
) -> Begun {
    let now = Instant::now();
    let deadline = now.checked_add(limit).unwrap_or(now);
    let mut drain = worker.drain.clone();
    let mut seen = BytesMut::from(early);
    let (mut acceptor, mut fed) = (Acceptor::default(), 0);
    loop {
        if seen.first().is_some_and(|first| *first != HANDSHAKE) {
            return Begun::Other(stream, seen.freeze());
        }
        while fed < seen.len() {
            match acceptor.read_tls(&mut &seen[fed..]) {
                Ok(taken) if taken > 0 => fed += taken,
                _ => return Begun::Broken,
            }
            match acceptor.accept() {
                Ok(None) => {}
                Err(_) => return Begun::Broken,
                Ok(Some(accepted)) => return begun(accepted, stream, seen.split_at(fed)),
            }
        }
        if seen.len() > MOST_HELLO {
            return Begun::Broken;
        }
        seen.reserve(4096);
        let read = tokio::select! {
            read = timeout_at(deadline, stream.read_buf(&mut seen)) => read,
            () = drain.draining(), if seen.is_empty() => return Begun::Gone,
        };
        match read {
            Ok(Ok(read)) if read > 0 => {}
            // A protocol in which the server speaks first.
            Err(_) if seen.is_empty() => return Begun::Other(stream, Bytes::new()),
            _ => return Begun::Gone,
        }
    }
}

/// What came behind the ClientHello may be read once only, by rustls. Of what it took along, records
/// may be cut anywhere.
fn begun(accepted: Accepted, stream: TcpStream, (taken, behind): (&[u8], &[u8])) -> Begun {
    let stream = Followed::behind(stream, taken);
    match behind.is_empty() {
        true => Begun::Tls(Box::new(StartHandshake::from_parts(accepted, stream))),
        // A client has nothing to say before it is answered: we offer no early data.
        false => Begun::Gone,
    }
}

/// The handshake. `None`: there is no session, which has been counted and told.
async fn secure(
    client: &Client,
    what: &Intercepting,
    start: StartHandshake<Followed>,
) -> Option<(Transport, Session)> {
    let Intercepting { rules, server, .. } = what;
    let host = plain(&server.host);
    let authority = &rules.authority;
    let hello = start.client_hello();
    if let Some(name) = hello.server_name()
        && plain(name) != host
    {
        count(Came::OtherName);
        if authority.misnamed.first(&host) {
            tracing::warn!(
                "a client that connected to {server} asked for {name:?} in TLS: refused, for a \
                 connection is for one host"
            );
        }
        // rustls lets nobody say so before it has a certificate.
        let mut stream = start.io;
        let _ = timeout(client.limits().head_timeout, stream.write_all(&UNRECOGNIZED_NAME)).await;
        return None;
    }
    let asks_http2 = hello.alpn().is_some_and(|mut all| all.any(|name| name == b"h2"));
    let http2 = asks_http2 && speaks_http2(client, rules, server).await;
    let config = match authority.config(&host, http2) {
        Ok(config) => config,
        Err(error) => {
            count(Came::Failed);
            tracing::warn!("no certificate for {host}: {error:#}");
            return None;
        }
    };
    let handshake = start.into_stream(config).into_fallible();
    match timeout(client.limits().head_timeout, handshake).await {
        Ok(Ok(stream)) => {
            count(Came::Intercepted);
            let session = Session::inside(stream.get_ref().1);
            Some((Transport::Tls(Box::new(TlsStream::Server(stream))), session))
        }
        Ok(Err((error, _))) => {
            refused(rules, &host, &error);
            None
        }
        Err(_) => {
            count(Came::Failed);
            None
        }
    }
}

/// A handshake has failed: perhaps for what the client thinks of our certificate.
fn refused(rules: &Intercept, host: &str, error: &io::Error) {
    use AlertDescription::*;
    let alert = match error.get_ref().and_then(|error| error.downcast_ref::<TlsError>()) {
        Some(TlsError::AlertReceived(alert)) => Some(*alert),
        _ => None,
    };
    let of_certificate = matches!(
        alert,
        Some(
            UnknownCA
                | BadCertificate
                | CertificateUnknown
                | UnsupportedCertificate
                | CertificateExpired
                | CertificateRevoked
                | AccessDenied
        )
    );
    if !of_certificate {
        count(Came::Failed);
        tracing::debug!(host, %error, "no TLS with a client");
        return;
    }
    count(Came::Refused);
    if rules.authority.refused.first(host) {
        tracing::warn!(
            "client refused our certificate for {host} ({error}): have it trust {} (`underpass \
             record ca export`), or take the host out of `hosts` if the client accepts no \
             certificate but one it knows",
            crate::intercept::files::certificate(&rules.ca).display()
        );
    }
}

/// Whether the server does, as far as that can be known.
async fn speaks_http2(client: &Client, rules: &Intercept, server: &Server) -> bool {
    let protocol = client.listener.protocol();
    let Protocol::Forward(policy) = &*protocol else { return false };
    let known = client.worker.origins().known(server);
    if let Some(known) = known {
        return known;
    }
    let asked = ask(rules, server, policy);
    match timeout(client.limits().connect_timeout, asked).await {
        Ok(Some(speaks)) => {
            client.worker.origins().learn(server, speaks);
            speaks
        }
        // What is wrong is told to the request.
        _ => false,
    }
}

async fn ask(rules: &Intercept, server: &Server, policy: &ForwardPolicy) -> Option<bool> {
    let (stream, _) = connect::connect(server, Some(policy), First::Once).await.ok()?;
    let name = server.host.clone().try_into().ok()?;
    rules.servers.connector.speaks_http2(stream, name).await.ok()
}

/// A connection that does not begin with TLS.
async fn other(client: &Rc<Client>, what: Intercepting, stream: TcpStream, seen: Bytes) {
    let Intercepting { rules, server, exchange, head } = what;
    count(Came::NotTls);
    let tunnels = rules.not_tls == NotTls::Tunnel;
    if rules.authority.plain.first(&plain(&server.host)) {
        let then = if tunnels { "passed on as it is" } else { "closed" };
        tracing::warn!("what a client sends to {server} is not TLS: {then}");
    }
    if !tunnels {
        return exchange.tunnel_ended(End::Error(Kind::Handshake), 0, 0);
    }
    match connect(client, &server).await {
        Ok((upstream, address)) => {
            exchange.reached(address);
            exchange.begin_record(&head).await;
            exchange.record_answer(StatusCode::OK, &HeaderMap::new(), false);
            let handover = Handover {
                kind: tunnel::registry::Kind::Connect,
                upstream: upstream.into(),
                upstream_early: Bytes::new(),
                exchange,
                upstream_name: server.to_string().into(),
                upstream_bypass: client.listener.config.local_bypass,
                lease: None,
                held: None,
            };
            let downstream = tunnel::Downstream::Tcp(stream.into(), HopBypass::default());
            run_tunnel(client, handover, downstream, seen).await;
        }
        Err(error) => {
            tracing::debug!(peer = %client.peer, %error, "no tunnel");
            // It was promised a connection that there is not: a reset, no clean end.
            crate::splice::socket::reset_on_close(&stream, true);
            exchange.tunnel_ended(End::Error(error.kind), 0, 0);
        }
    }
}

async fn connect(
    client: &Client,
    server: &Server,
) -> Result<(TcpStream, std::net::SocketAddr), Error> {
    let protocol = client.listener.protocol();
    let Protocol::Forward(policy) = &*protocol else {
        return Err(Error::new(Kind::MethodNotAllowed));
    };
    let connecting = connect::connect(server, Some(policy), First::Once);
    timeout(client.limits().connect_timeout, connecting)
        .await
        .map_err(|_| Error::new(Kind::ConnectTimeout))?
}

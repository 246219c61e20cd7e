//! The step between accept and the first byte of a connection on a listener with TLS.
//!
//! Runs on the worker that has the connection. What it computes holds up that worker's other
//! connections meanwhile: one signature and one key agreement (`cargo xtask bench tls` measures
//! them), which is less than handing it to another thread and back would cost them for the keys
//! that are usual.
//!
//! Invariant: there is a deadline from the first moment, and nothing is read that could be
//! meant for anybody else. A client that speaks plain HTTP is told so in plain HTTP.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use rustls::{
    Error, ServerConfig,
    server::{Acceptor, ClientHello},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::yield_now,
    time::{Instant, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::linger::linger;
use crate::{
    acme::{Challenge, TLS_PROTOCOL},
    listener::Listener,
    metrics::HandshakeFailure as Failure,
    tls::{Followed, Live, Session, Tls, without_dot},
    transport::Transport,
    worker::Worker,
};

/// ContentType handshake: how a ClientHello begins (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// A fatal alert in a record of its own: unrecognized_name (RFC 8446 section 6).
const UNRECOGNISED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What a client reads that has forgotten the `s` of `https`.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 67\r\n\
    connection: close\r\n\r\n\
    400 Bad Request: plain HTTP was sent to a port that speaks TLS only";

/// A connection after its handshake; `None` if there was none. That has been counted.
///
/// Implements: REQ-EDGE-006
async fn secure(
    worker: &Worker,
    listener: &Listener,
    tls: &Tls,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Transport, Rc<Session>)> {
    let handshake = handshake(worker, listener, tls, stream);
    let mut drain = worker.drain.clone();
    let done = tokio::select! {
        done = handshake => done,
        () = drain.forced() => return None,
    };
    match done {
        Ok((transport, session)) => {
            listener.metrics.handshake(session.version, session.resumed);
            Some((transport, Rc::new(session)))
        }
        Err(Refused { failure, error, rest }) => {
            if let Some(failure) = failure {
                if let Some(error) = error {
                    tracing::debug!(%peer, %error, cause = failure.name(), "no TLS");
                }
                listener.metrics.handshake_failed(failure);
            }
            // It may be sending still, and is to read what it was told.
            if let Some(stream) = rest {
                Box::pin(linger(worker, stream)).await;
            }
            None
        }
    }
}

/// The connection after its handshake, if there is to be one; `None` if that has failed.
pub(super) async fn secured(
    worker: &Worker,
    listener: &Listener,
    stream: Transport,
    peer: SocketAddr,
) -> Option<(Transport, Option<Rc<Session>>)> {
    match (&listener.config.tls, stream) {
        (Some(tls), Transport::Plain(stream)) => {
            // Boxed, so that connections do not carry its state for the rest of their lives.
            let secured = Box::pin(secure(worker, listener, tls, stream, peer)).await;
            secured.map(|(stream, session)| (stream, Some(session)))
        }
        (_, stream) => Some((stream, None)),
    }
}

/// Why there is no session that a client could use.
struct Refused {
    /// `None`: nothing has failed, a CA has seen what it came for.
    failure: Option<Failure>,
    error: Option<io::Error>,
    /// The connection, where something was said on it.
    rest: Option<Transport>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure: Some(failure), error: None, rest: None }
    }
}

impl Refused {
    /// Of a handshake; the client has been told by an alert.
    fn of(error: io::Error, stream: Option<Followed>) -> Self {
        let failure = failure_of(&error);
        let stream = stream.filter(|_| failure != Failure::ClientGone);
        let rest = stream.map(|stream| Transport::from(stream.into_parts().0));
        Self { failure: Some(failure), error: Some(error), rest }
    }
}

/// What a handshake is for.
enum Purpose {
    /// A session.
    Serve,
    /// A look of a CA at a name that it is asked for a certificate for.
    Prove(Arc<ServerConfig>),
    /// A certificate that is being ordered yet.
    Nothing,
}

fn purpose(worker: &Worker, live: &Live, hello: &ClientHello<'_>) -> Purpose {
    let name = hello.server_name().map(without_dot);
    let proves = hello.alpn().is_some_and(|offered| offered.eq([TLS_PROTOCOL]));
    let answers = &worker.process.answers;
    if let Some(config) = name.filter(|_| proves).and_then(|name| answers.tls(name)) {
        return Purpose::Prove(config);
    }
    match live.chooser.for_name(name) {
        Some(_) => Purpose::Serve,
        None => Purpose::Nothing,
    }
}

async fn handshake(
    worker: &Worker,
    listener: &Listener,
    tls: &Tls,
    mut stream: TcpStream,
) -> Result<(Transport, Session), Refused> {
    let now = Instant::now();
    let deadline = now.checked_add(tls.settings.handshake_timeout).unwrap_or(now);
    match timeout_at(deadline, first_byte(worker, &stream)).await {
        Err(_) => return Err(Failure::Timeout.into()),
        Ok(None) => return Err(Failure::ClientGone.into()),
        Ok(Some(HANDSHAKE)) => {}
        // Methods are in capitals (RFC 9110 section 9.1).
        Ok(Some(b'A'..=b'Z')) => {
            // There is room for it in the socket of a new connection.
            let told = timeout_at(deadline, stream.write_all(PLAIN_HTTP)).await;
            let rest = matches!(told, Ok(Ok(()))).then(|| stream.into());
            return Err(Refused { failure: Some(Failure::NotTls), error: None, rest });
        }
        Ok(Some(_)) => return Err(Failure::NotTls.into()),
    }
    let live = tls.live();
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), Followed::from(stream));
    let start = match timeout_at(deadline, &mut hello).await {
        Err(_) => return Err(Failure::Timeout.into()),
        Ok(Err(error)) => return Err(Refused::of(error, hello.take_io())),
        Ok(Ok(start)) => start,
    };
    let (config, proves) = match purpose(worker, &live, &start.client_hello()) {
        Purpose::Serve => (live.config.clone(), false),
        Purpose::Prove(config) => (config, true),
        Purpose::Nothing => {
            if tls.tells_of_missing() {
                let client_hello = start.client_hello();
                let name = client_hello.server_name().unwrap_or("(none)");
                let listener = &tls.settings.listener;
                tracing::warn!(
                    "listener `{listener}` has no certificate for {name} yet; clients are told so"
                );
            }
            return Err(no_certificate(start.io.into_parts().0, deadline).await);
        }
    };
    let mut accept = pin!(start.into_stream(config).into_fallible());
    let answered = timeout_at(deadline, answer(listener, accept.as_mut())).await;
    let done = match answered {
        Ok(Some(done)) => Ok(done),
        Ok(None) => timeout_at(deadline, accept).await,
        Err(late) => Err(late),
    };
    let mut stream = match done {
        Err(_) => return Err(Failure::Timeout.into()),
        Ok(Err((error, stream))) => return Err(Refused::of(error, Some(stream))),
        Ok(Ok(stream)) => stream,
    };
    if proves {
        worker.process.answers.count(Challenge::Tls);
        // It has seen the certificate, and nothing is spoken inside (RFC 8737 section 3).
        let _ = timeout_at(deadline, stream.shutdown()).await;
        let rest = Some(Transport::Tls(Box::new(TlsStream::Server(stream))));
        return Err(Refused { failure: None, error: None, rest });
    }
    let session = Session::new(stream.get_ref().1, &tls.settings, live);
    Ok((Transport::Tls(Box::new(TlsStream::Server(stream))), session))
}

/// Takes a handshake up to where it waits for its client; `Some` if it is over by then.
///
/// That is where the signature is computed, and the key agreement, so where turns are limited this
/// is done in one: so many, and then the worker's other connections, before the next. Nothing is
/// waited for in it that is the client's to do, so one that stalls holds up nobody. (One that is
/// asked for another key share, RFC 8446 section 4.1.4, has its signature behind its turn.)
async fn answer<T>(
    listener: &Listener,
    mut accept: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut once = async || {
        poll_fn(|cx| match accept.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    };
    let Some(turns) = &listener.handshakes else { return once().await };
    // Never closed.
    let _turn = turns.acquire().await.ok()?;
    let done = once().await;
    yield_now().await;
    done
}

/// Tells the client that there is nothing to show for the name (RFC 6066 section 3).
async fn no_certificate(mut stream: TcpStream, deadline: Instant) -> Refused {
    let told = timeout_at(deadline, stream.write_all(&UNRECOGNISED_NAME)).await;
    let rest = matches!(told, Ok(Ok(()))).then(|| stream.into());
    Refused { failure: Some(Failure::NoCertificate), error: None, rest }
}

/// The first byte, which stays where it is; `None` if there will be none.
async fn first_byte(worker: &Worker, stream: &TcpStream) -> Option<u8> {
    let mut drain = worker.drain.clone();
    let mut first = [0];
    tokio::select! {
        biased;
        peeked = stream.peek(&mut first) => (peeked.ok()? > 0).then_some(first[0]),
        () = drain.draining() => None,
    }
}

/// What to call an error of a handshake.
fn failure_of(error: &io::Error) -> Failure {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        // The socket's.
        return Failure::ClientGone;
    };
    match error {
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Failure::ClientCertificate,
        Error::AlertReceived(_) => Failure::Alert,
        _ => Failure::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::PLAIN_HTTP;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}

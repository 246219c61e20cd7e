//! The step between accept and the first byte of a connection on a listener with TLS.
//!
//! Runs on the worker that has the connection. What it computes holds up that worker's other
//! connections meanwhile: one signature and one key agreement (`cargo xtask bench tls` measures
//! them), which is less than handing it to another thread and back would cost them for the keys
//! that are usual.
//!
//! Invariant: there is a deadline from the first moment, and nothing is read that could be
//! meant for anybody else. A client that speaks plain HTTP is told so in plain HTTP.

use std::{io, net::SocketAddr, pin::pin, rc::Rc};

use rustls::Error;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::linger::linger;
use crate::{
    listener::Listener,
    metrics::HandshakeFailure as Failure,
    tls::{Session, Tls},
    transport::Transport,
    worker::Worker,
};

/// ContentType handshake: how a ClientHello begins (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

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
            if let Some(error) = error {
                tracing::debug!(%peer, %error, cause = failure.name(), "no TLS");
            }
            listener.metrics.handshake_failed(failure);
            // It may be sending still, and is to read what it was told.
            if let Some(stream) = rest {
                Box::pin(linger(worker, stream.into())).await;
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

/// Why there is no session.
struct Refused {
    failure: Failure,
    error: Option<io::Error>,
    /// The socket, where something was said on it.
    rest: Option<TcpStream>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, error: None, rest: None }
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
            let rest = matches!(told, Ok(Ok(()))).then_some(stream);
            return Err(Refused { failure: Failure::NotTls, error: None, rest });
        }
        Ok(Some(_)) => return Err(Failure::NotTls.into()),
    }
    let _turn = match &listener.handshakes {
        // Never closed.
        Some(turns) => Some(timeout_at(deadline, turns.acquire()).await),
        None => None,
    };
    if let Some(Err(_)) = _turn {
        return Err(Failure::Timeout.into());
    }
    let live = tls.live();
    let acceptor = TlsAcceptor::from(live.config.clone());
    let accept = pin!(acceptor.accept(stream).into_fallible());
    match timeout_at(deadline, accept).await {
        Err(_) => Err(Failure::Timeout.into()),
        Ok(Err((error, stream))) => {
            let failure = failure_of(&error);
            let rest = (failure != Failure::ClientGone).then_some(stream);
            Err(Refused { failure, error: Some(error), rest })
        }
        Ok(Ok(stream)) => {
            let session = Session::new(stream.get_ref().1, &tls.settings, live);
            Ok((Transport::Tls(Box::new(TlsStream::Server(stream))), session))
        }
    }
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

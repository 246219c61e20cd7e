//! Which version of HTTP a client speaks, by its first bytes.

use std::{
    future::Future,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::{listener::Listener, transport::Transport, watchdog::Watched, worker::Worker};

/// Room for the bytes that say which version is spoken, and for those that come with them.
pub(super) const FIRST_READ_BYTES: usize = 1024;

/// How HTTP/2 with prior knowledge begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection say.
pub(super) enum Spoken {
    Http1,
    Http2,
    /// None have come for a while.
    NothingYet,
    /// None will come.
    Nothing,
}

/// Whether HTTP/2 may be spoken on a connection: the listener offers it, and neither side has
/// settled on something else when TLS began (RFC 7301 section 3.1). Where it may not, its preface
/// is a request of HTTP/1 for a version that is not spoken.
pub(super) fn may_be_http2(listener: &Listener, stream: &Transport) -> bool {
    let offers = listener.config.tls.as_ref().is_none_or(|tls| {
        let alpn = &tls.settings.alpn;
        alpn.is_empty() || alpn.iter().any(|name| name == "h2")
    });
    offers && !stream.has_settled_on_other_than_http2()
}

/// Reads until it is clear which version is spoken.
pub(super) fn poll_protocol(
    stream: &mut Transport,
    early: &mut BytesMut,
    may_be_http2: bool,
    worker: &Worker,
    watched: &Watched,
    cx: &mut Context<'_>,
) -> Poll<Spoken> {
    watched.register(cx);
    loop {
        let known = early.len().min(PREFACE.len());
        if known > 0 && (!may_be_http2 || early[..known] != PREFACE[..known]) {
            return Poll::Ready(Spoken::Http1);
        }
        if known == PREFACE.len() {
            return Poll::Ready(Spoken::Http2);
        }
        if watched.expired().is_some() || worker.is_draining() {
            return Poll::Ready(Spoken::Nothing);
        }
        let mut read = std::pin::pin!(stream.read_buf(early));
        match read.as_mut().poll(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Spoken::Nothing),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending if watched.take_rest() && early.is_empty() && !stream.is_tls() => {
                return Poll::Ready(Spoken::NothingYet);
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

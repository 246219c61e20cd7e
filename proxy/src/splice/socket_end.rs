//! A connection as one end of a tunnel: its socket, or TLS over it.

use std::{
    io,
    task::{Context, Poll},
};

use super::{
    endpoint::Endpoint, hop_bypass::HopBypass, ktls::Ktls, tcp_end::TcpEnd, tls_end::TlsEnd,
    why::Why,
};
use crate::transport::Transport;

/// One of the two.
#[derive(Debug)]
pub(crate) enum SocketEnd {
    /// Its bytes are those of the socket.
    Tcp(TcpEnd),
    /// They are inside records. Boxed: most tunnels have none, and it is large.
    Tls(Box<TlsEnd>),
}

impl SocketEnd {
    pub(crate) fn new(transport: Transport) -> Self {
        match transport {
            Transport::Plain(stream) => Self::Tcp(TcpEnd::new(stream)),
            Transport::Tls(stream) => Self::Tls(Box::new(TlsEnd::new(*stream))),
        }
    }

    /// Local bypass of this connection goes on while it is open. One with TLS has none.
    pub(crate) fn keep(&mut self, hop: HopBypass) {
        if let Self::Tcp(end) = self {
            end.keep(hop);
        }
    }
}

impl From<Transport> for SocketEnd {
    fn from(transport: Transport) -> Self {
        Self::new(transport)
    }
}

impl Endpoint for SocketEnd {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(end) => end.poll_readable(cx),
            Self::Tls(end) => end.poll_readable(cx),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(end) => end.poll_read(cx, room),
            Self::Tls(end) => end.poll_read(cx, room),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(end) => end.poll_write(cx, bytes),
            Self::Tls(end) => end.poll_write(cx, bytes),
        }
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(end) => end.poll_shutdown(cx),
            Self::Tls(end) => end.poll_shutdown(cx),
        }
    }

    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Tcp(end) => end.poll_failed(cx),
            Self::Tls(end) => end.poll_failed(cx),
        }
    }

    fn queued(&self) -> usize {
        match self {
            Self::Tcp(end) => end.queued(),
            Self::Tls(end) => end.queued(),
        }
    }

    async fn delivered(&self) {
        match self {
            Self::Tcp(end) => end.delivered().await,
            Self::Tls(end) => end.delivered().await,
        }
    }

    fn tcp(&self) -> Option<&TcpEnd> {
        match self {
            Self::Tcp(end) => Some(end),
            Self::Tls(_) => None,
        }
    }

    fn spliced(&self) -> Option<&TcpEnd> {
        match self {
            Self::Tcp(end) => Some(end),
            Self::Tls(end) => end.spliced(),
        }
    }

    fn gave(&self, bytes: usize) {
        if let Self::Tls(end) = self {
            end.gave(bytes);
        }
    }

    fn has_records(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    fn socket(&self) -> Option<&TcpEnd> {
        Some(match self {
            Self::Tcp(end) => end,
            Self::Tls(end) => end.tcp(),
        })
    }

    fn must_copy(&self) -> Option<Why> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(end) => end.must_copy(),
        }
    }

    fn suits(&self, ktls: Ktls) -> Result<(), Why> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(end) => end.suits(ktls),
        }
    }

    fn ask(&self, ktls: Result<Ktls, Why>) {
        if let Self::Tls(end) = self {
            end.ask(ktls);
        }
    }

    fn is_tls_in_kernel(&self) -> bool {
        matches!(self, Self::Tls(end) if end.is_tls_in_kernel())
    }

    fn may_yet_splice(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Tls(end) => end.may_yet_splice(),
        }
    }
}

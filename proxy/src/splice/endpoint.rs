//! What a lane needs of the two ends that it joins; TCP's answer to it.
//!
//! Both lanes of a tunnel share both ends, so everything works through `&self`. Each
//! direction of an end has one reader and one writer, both in the same task: the wakers
//! that tokio keeps per direction are never taken from one another.

use std::{
    future::Future,
    io,
    task::{Context, Poll, ready},
};

use rustix::{io::retry_on_intr, net::SendFlags};
use tokio::{io::Interest, net::TcpStream};

use super::socket;

/// One end of a tunnel.
pub(crate) trait Endpoint {
    /// Ready when a read is worth trying. Lets a lane wait without holding a buffer; ends
    /// that cannot tell say ready.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there; 0 is the end.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes what there is room for, of bytes that are not none.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Says to the peer that no more will come (FIN, END_STREAM).
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Resolves when the connection has failed, though nobody reads or writes.
    fn failed(&self) -> impl Future<Output = io::Error>;

    /// Bytes handed over that the peer does not have yet, as far as that can be known.
    fn queued(&self) -> usize;

    /// Resolves when the peer has been given everything, or cannot be.
    fn delivered(&self) -> impl Future<Output = ()>;

    /// The socket, where bytes of this end are bytes of a socket.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Endpoint for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let all = room.len();
            let read = || Ok(retry_on_intr(|| rustix::io::read(self, &mut *room))?);
            if let Some(result) = attempt(self, Interest::READABLE, all, read) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            let write =
                || Ok(retry_on_intr(|| rustix::net::send(self, bytes, SendFlags::NOSIGNAL))?);
            match attempt(self, Interest::WRITABLE, bytes.len(), write) {
                Some(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(result) => return Poll::Ready(result),
                None => {}
            }
        }
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(self, rustix::net::Shutdown::Write)?))
    }

    async fn failed(&self) -> io::Error {
        loop {
            // EPOLLERR comes with a reset even while our receive side is not being read.
            if let Err(error) = self.ready(Interest::ERROR).await {
                return error;
            }
            match self.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return error,
            }
            // A read or write has taken the error and reported it: wait for the next event.
            let _ = self.try_io(Interest::ERROR, || -> io::Result<()> {
                Err(io::ErrorKind::WouldBlock.into())
            });
        }
    }

    fn queued(&self) -> usize {
        socket::unacknowledged(self).unwrap_or(0)
    }

    fn delivered(&self) -> impl Future<Output = ()> {
        socket::delivered(self)
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// One system call, `None` if it would block. On an edge-triggered epoll a transfer that
/// was shorter than asked for shows that the queue is empty (or full), so readiness is
/// cleared with it and the call that would only find EAGAIN is saved. Closed states are
/// never cleared: a FIN that came along is still found.
fn attempt(
    stream: &TcpStream,
    interest: Interest,
    wanted: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let mut short = None;
    let result = stream.try_io(interest, || match call() {
        Ok(n) if 0 < n && n < wanted => {
            short = Some(n);
            Err(io::ErrorKind::WouldBlock.into())
        }
        other => other,
    });
    match (short, result) {
        (Some(n), _) => Some(Ok(n)),
        (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
        (None, result) => Some(result),
    }
}

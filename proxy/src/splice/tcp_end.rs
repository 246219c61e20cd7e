//! A TCP socket as one end of a tunnel: when to try, when to wait, and how a reset is
//! noticed by a task that does neither.
//!
//! Each direction of an end has one reader and one writer, both in the tunnel's task, so the
//! wakers that tokio keeps per direction are never taken from one another. What is kept here
//! beside tokio's readiness saves the work that a message does not need:
//!
//! - A task that is woken for one end polls the other, too. `awaits_read` says that tokio has
//!   its waker there already; as long as nothing has happened that is all there is to do.
//! - A write is tried without asking: the send queue of a tunnel in use is rarely full. After
//!   EAGAIN, or a write that came short, `awaits_write` has it wait for tokio.
//! - Nobody waits for errors as such. The kernel reports a reset to readers and writers alike,
//!   so an end that neither lane waits for is watched by its writing side (`poll_failed`).

use std::{
    cell::Cell,
    io::{self, ErrorKind::WouldBlock},
    task::{Context, Poll, ready},
};

use rustix::{
    io::retry_on_intr,
    net::{RecvFlags, SendFlags, Shutdown},
};
use tokio::{io::Interest, net::TcpStream, task::coop::has_budget_remaining};

use super::{endpoint::Endpoint, hop_bypass::HopBypass, socket, why::Why};

/// A socket and what is known of its readiness.
#[derive(Debug)]
pub(crate) struct TcpEnd {
    stream: TcpStream,
    awaits_read: Cell<bool>,
    awaits_write: Cell<bool>,
    /// Whether a read that came short shows that nothing is left.
    short_is_empty: Cell<bool>,
    /// Last: the socket is closed first.
    hop: Option<Box<HopBypass>>,
}

impl TcpEnd {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            awaits_read: Cell::new(false),
            awaits_write: Cell::new(false),
            short_is_empty: Cell::new(true),
            hop: None,
        }
    }

    /// Local bypass of this connection goes on while it is open.
    pub(crate) fn keep(&mut self, hop: HopBypass) {
        self.has_two_queues();
        self.hop = Some(Box::new(hop));
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket has two queues from now on, the psock's and TCP's, and a read takes from
    /// one of them only (`tcp_bpf_recvmsg`): one that comes short says nothing.
    pub(crate) fn has_two_queues(&self) {
        self.short_is_empty.set(false);
    }

    /// The task that polls has another waker than before.
    pub(crate) fn waker_changed(&self) {
        self.awaits_read.set(false);
    }

    /// Reads by `call`, which is asked for `all` bytes. On an edge-triggered epoll a read that
    /// is shorter than that shows that the queue is empty, so readiness is cleared with it and
    /// the call that would only find EAGAIN is saved. Closed states are never cleared: a FIN
    /// that came along is still found. `usize::MIN` for calls that say nothing by being short.
    pub(super) fn poll_read_with(
        &self,
        cx: &mut Context<'_>,
        all: usize,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let all = if self.short_is_empty.get() { all } else { usize::MIN };
        loop {
            ready!(self.poll_readable(cx))?;
            let mut short = None;
            let result = self.stream.try_io(Interest::READABLE, || match call() {
                Ok(n) if 0 < n && n < all => {
                    short = Some(n);
                    Err(WouldBlock.into())
                }
                other => other,
            });
            match (short, result) {
                (Some(n), _) => return Poll::Ready(Ok(n)),
                (None, Err(error)) if error.kind() == WouldBlock => {}
                (None, result) => return Poll::Ready(result),
            }
        }
    }

    /// Writes by `call`, which offers `all` bytes; 0 for calls that say nothing by being short.
    pub(super) fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        all: usize,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let result = if self.awaits_write.get() {
                ready!(self.stream.poll_write_ready(cx))?;
                self.stream.try_io(Interest::WRITABLE, &mut call)
            } else {
                call()
            };
            match result {
                Err(error) if error.kind() == WouldBlock => self.is_full(),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.awaits_write.set(false);
                    if n < all {
                        self.is_full();
                    }
                    return Poll::Ready(Ok(n));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    /// Only an edge that comes from now on says that there is room.
    fn is_full(&self) {
        self.awaits_write.set(true);
        self.clear(Interest::WRITABLE);
    }

    fn clear(&self, interest: Interest) {
        let _ = self.stream.try_io(interest, || Err::<(), _>(WouldBlock.into()));
    }
}

impl Endpoint for TcpEnd {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.awaits_read.get() {
            if self.stream.try_io(Interest::READABLE, || Ok(())).is_err() {
                return Poll::Pending;
            }
            self.awaits_read.set(false);
            return Poll::Ready(Ok(()));
        }
        let ready = self.stream.poll_read_ready(cx);
        // Without budget it is tokio that wakes us, and nobody else has our waker.
        self.awaits_read.set(ready.is_pending() && has_budget_remaining());
        ready
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        // recv(2), not read(2): no file position to lock, no detour by the file system.
        self.poll_read_with(cx, room.len(), || {
            let (n, _) =
                retry_on_intr(|| rustix::net::recv(&self.stream, &mut *room, RecvFlags::DONTWAIT))?;
            Ok(n)
        })
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        self.poll_write_with(cx, bytes.len(), || {
            Ok(retry_on_intr(|| rustix::net::send(&self.stream, bytes, flags))?)
        })
    }

    fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(&self.stream, Shutdown::Write)?))
    }

    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.stream.try_io(Interest::ERROR, || self.stream.take_error()) {
            Ok(Some(error)) => return Poll::Ready(error),
            // A read or a write has taken the error and reported it.
            Ok(None) => self.clear(Interest::ERROR),
            Err(error) if error.kind() == WouldBlock => {}
            Err(error) => return Poll::Ready(error),
        }
        if self.awaits_read.get() || self.awaits_write.get() {
            return Poll::Pending;
        }
        // What is ready now is so for good (both directions have ended), or cleared: a write
        // does not go by it.
        for _ in 0..2 {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(_) => self.clear(Interest::WRITABLE),
            }
        }
        Poll::Pending
    }

    fn queued(&self) -> usize {
        socket::unacknowledged(&self.stream).unwrap_or(0)
    }

    fn delivered(&self) -> impl Future<Output = ()> {
        socket::delivered(&self.stream)
    }

    fn tcp(&self) -> Option<&TcpEnd> {
        Some(self)
    }

    fn socket(&self) -> Option<&TcpEnd> {
        Some(self)
    }

    fn must_copy(&self) -> Option<Why> {
        None
    }
}

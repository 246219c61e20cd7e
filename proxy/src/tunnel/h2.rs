//! One HTTP/2 stream as the downstream end of a tunnel.
//!
//! Invariant: a stream that the client has reset does not read as a clean end. hyper maps
//! RST_STREAM with CANCEL (what browsers and curl send when they give up) to an end of
//! file; its sending half knows better. Bytes in flight towards the client: what hyper
//! queues, at most three writes of one copy buffer each, and h2's flow-control window.

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::{
    rt::{Read, ReadBuf, Write},
    upgrade::Upgraded,
};
use tokio::net::TcpStream;

use crate::splice::Endpoint;

/// An upgraded stream that both lanes share.
#[derive(Debug)]
pub(super) struct Stream {
    io: RefCell<Upgraded>,
    end_seen: Cell<bool>,
}

impl Stream {
    pub(super) fn new(io: Upgraded) -> Self {
        Self { io: RefCell::new(io), end_seen: Cell::new(false) }
    }

    /// Borrowed for the length of one poll only.
    fn with<T>(&self, call: impl FnOnce(Pin<&mut Upgraded>) -> T) -> T {
        call(Pin::new(&mut *self.io.borrow_mut()))
    }
}

impl Endpoint for Stream {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
        ready!(self.with(|io| io.poll_read(cx, buffer.unfilled())))?;
        let n = buffer.filled().len();
        if n > 0 {
            return Poll::Ready(Ok(n));
        }
        if !self.end_seen.replace(true) {
            // The task that sends on this stream was woken by the same RST_STREAM, perhaps
            // after us: let it run, then ask it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.with(|io| io.poll_flush(cx)) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write(cx, bytes))
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Not waited for: hyper reports "pending" until the queue is sent, and END_STREAM
        // follows it without us.
        match self.with(|io| io.poll_shutdown(cx)) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// hyper tells only those who read or write.
    fn failed(&self) -> impl Future<Output = io::Error> {
        pending()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

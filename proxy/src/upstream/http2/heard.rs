//! The socket of a shared connection: when something came from it, whether the server has
//! said by which settings it goes, and resets as hyper is to read them (`wire/cancels.rs`).
//!
//! The first thing that a server sends is SETTINGS (RFC 9113 section 3.4). hyper keeps those to
//! itself, and what it tells of them before they came cannot be told from what they say; so the
//! bytes of that first frame are counted.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::carrier::Carrier;
use crate::wire::{cancels::Cancels, socket::Socket};

/// Of a frame, before its payload (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

/// How much of the first frame has come.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// Bytes of the connection, until the frame is whole.
    come: Cell<usize>,
    /// Of the payload: the first three bytes.
    length: Cell<usize>,
}

impl Greeting {
    /// Whether all of it has.
    pub(super) fn is_whole(&self) -> bool {
        self.come.get() >= HEAD_BYTES + self.length.get()
    }

    fn came(&self, bytes: &[u8]) {
        if self.is_whole() {
            return;
        }
        let before = self.come.get();
        for byte in bytes.iter().take(3_usize.saturating_sub(before)) {
            self.length.set(self.length.get() << 8 | usize::from(*byte));
        }
        self.come.set(before + bytes.len());
    }
}

/// The socket.
#[derive(Debug)]
pub(super) struct Heard {
    socket: Socket,
    carrier: Rc<Carrier>,
    cancels: Cancels,
}

impl Heard {
    pub(super) fn new(socket: Socket, carrier: Rc<Carrier>) -> Self {
        Self { socket, carrier, cancels: Cancels::of_server() }
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.carrier.heard.set(Instant::now());
            let came = &mut buf.filled_mut()[before..];
            self.carrier.greeting.came(came);
            self.cancels.came(came);
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_whole_with_its_last_byte() {
        // SETTINGS with two parameters, and what follows.
        let mut bytes = vec![0, 0, 12, 4, 0, 0, 0, 0, 0];
        bytes.extend([0; 12]);
        bytes.extend([0, 0, 0, 4, 1, 0, 0, 0, 0]);
        for size in 1..=bytes.len() {
            let (greeting, mut come) = (Greeting::default(), 0);
            for chunk in bytes.chunks(size) {
                assert_eq!(greeting.is_whole(), come >= 21, "{come} by {size}");
                greeting.came(chunk);
                come += chunk.len();
            }
            assert!(greeting.is_whole());
        }
        let greeting = Greeting::default();
        greeting.came(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert!(greeting.is_whole());
    }
}

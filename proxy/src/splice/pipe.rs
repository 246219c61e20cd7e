//! Engine `pipe`: splice(2) from a socket into a pipe and on into the other socket.
//!
//! Invariant: `len` is exactly what the pipe holds, and it is filled only when that is 0.
//! A splice may move less than there is, for want of slots (one per fragment of an skb,
//! however small), so neither a short fill nor a short drain says anything about the
//! socket; only EAGAIN does, and only because the pipe cannot be its cause (see `mod.rs`), and
//! where there is no urgent data.

use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use super::{PIPE_BYTES, socket::is_at_urgent, tcp_end::TcpEnd};
use rustix::{
    io::{Errno, retry_on_intr},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};

/// 16 slots, one for each piece of a record: 16 KiB and what surrounds them (RFC 8446 section
/// 5.2), in pages.
const RECORD_ROOM: usize = 64 * 1024;

/// No error of splice(2) from a socket.
const STUCK: io::ErrorKind = io::ErrorKind::ResourceBusy;

/// A pipe and how much is in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    room: usize,
    len: usize,
}

impl Pipe {
    /// Makes one; smaller than asked for where the system does not grant it.
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // EPERM above fs.pipe-max-size or pipe-user-pages-soft: the default is good enough.
        let room = match fcntl_setpipe_size(&write, PIPE_BYTES) {
            Ok(room) => room,
            Err(_) => fcntl_getpipe_size(&write)?,
        };
        Ok(Self { read, write, room, len: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a record of TLS finds room, in whatever pages: of one that does not the kernel
    /// drops the rest (`tls_sw_splice_read`, Linux 6.12).
    pub(super) fn holds_a_record(&self) -> bool {
        self.room >= RECORD_ROOM
    }

    /// Moves what the socket has, as far as there is room; 0 is the end.
    ///
    /// # Errors
    /// Of the connection; and see [`is_unsupported`] and [`is_stuck`].
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpEnd,
    ) -> Poll<io::Result<usize>> {
        assert!(self.is_empty(), "filled before it was drained");
        let moved = ready!(from.poll_read_with(cx, usize::MIN, || {
            let (socket, room) = (from.stream(), self.room);
            let moved = retry_on_intr(|| splice(socket, None, &self.write, None, room, flags()));
            // In front of urgent data it finds nothing, or the end where a FIN is behind it.
            match moved {
                Ok(0) | Err(Errno::AGAIN) if is_at_urgent(socket) => Err(STUCK.into()),
                moved => Ok(moved?),
            }
        }));
        Poll::Ready(moved.inspect(|n| self.len = *n))
    }

    /// Moves what the socket takes; returns how much.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpEnd,
    ) -> Poll<io::Result<usize>> {
        let moved = ready!(to.poll_write_with(cx, 0, || {
            // Not more than is there: else the kernel expects more and holds the last
            // segment back (MSG_MORE).
            let (socket, len) = (to.stream(), self.len);
            Ok(retry_on_intr(|| splice(&self.read, None, socket, None, len, flags()))?)
        }));
        Poll::Ready(moved.inspect(|n| self.len -= *n))
    }
}

/// Whether this error says that splice(2) is not to be had for these sockets (an old or
/// emulated kernel, a seccomp filter), as opposed to a fault of the connection.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP)
    )
}

/// Whether there are bytes that splice(2) does not move: urgent ones, in front of which it stops until
/// somebody reads them by recv(2) (`tcp_read_sock`).
pub(super) fn is_stuck(error: &io::Error) -> bool {
    error.kind() == STUCK
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

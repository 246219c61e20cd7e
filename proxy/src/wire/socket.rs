//! What both wrapped sockets share: reading in place, memory held only while needed, and local
//! bypass of the connection.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use hyper::rt::ReadBufCursor;
use rustix::{io::retry_on_intr, net::RecvFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::stand_in::StandIn;
use crate::{lend::Loan, splice::hop_bypass::HopBypass, transport::Transport};

/// Read size while a head is incomplete or bytes are held.
const STASH_READ_BYTES: usize = 8 * 1024;

/// A connection, and its local bypass.
#[derive(Debug)]
pub(crate) struct Socket {
    /// First: it is closed before its bypass ends.
    pub(crate) stream: Transport,
    pub(crate) hop: HopBypass,
    /// Where what is to be written was lent, and has left memory.
    stand_in: Option<Box<StandIn>>,
}

impl Socket {
    /// Records of TLS do not bypass TCP.
    pub(crate) fn new(stream: Transport, hop: HopBypass) -> Self {
        let hop = if stream.is_tls() { HopBypass::default() } else { hop };
        Self { stream, hop, stand_in: None }
    }

    /// To be called before a message of ours begins.
    pub(crate) fn turn(&mut self) {
        if let Transport::Plain(stream) = &self.stream {
            self.hop.turn(stream);
        }
    }

    /// Whether the connection is more than its socket: a second queue, and the bypass that has to
    /// be looked after, or a session of TLS. Then it is not parked.
    pub(crate) fn is_more_than_a_socket(&self) -> bool {
        self.hop.is_on() || self.stream.is_tls()
    }

    /// Writes by reference what can be lent ([`crate::lend`]), with what is in front of it, or what
    /// stands in its place; `None` where nothing can be.
    pub(super) fn poll_lend(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        if let Some(stand_in) = &mut self.stand_in {
            let written = stand_in.poll_write(&mut self.stream, cx, slices);
            if stand_in.is_over() {
                self.stand_in = None;
            }
            return Some(written);
        }
        let Transport::Plain(stream) = &self.stream else { return None };
        if self.hop.is_on() {
            return None;
        }
        let mut loan = Loan::of(slices)?;
        loop {
            match stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            if !loan.is_here() {
                self.stand_in = Some(Box::new(StandIn::of(&loan, slices)));
                return self.poll_lend(cx, slices);
            }
            match stream.try_io(Interest::WRITABLE, || loan.send(stream, slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if loan.is_refused(&error) => {
                    self.stand_in = Some(Box::new(StandIn::of(&loan, slices)));
                    return self.poll_lend(cx, slices);
                }
                sent => return Some(Poll::Ready(sent)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, hop, .. } = &mut *self;
        let stream = match stream {
            Transport::Plain(stream) if hop.is_on() => stream,
            stream => return Pin::new(stream).poll_read(cx, buf),
        };
        // tokio takes a read that comes short for the last one until the next edge. With two
        // queues that is so only where one of them is known to be empty.
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let sent_by_tcp = hop.received_by_tcp();
            // SAFETY: only what recv(2) has filled is taken for initialised.
            let room = unsafe { buf.unfilled_mut() };
            let all = room.len();
            let mut read = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let flags = RecvFlags::DONTWAIT;
                let n = retry_on_intr(|| {
                    rustix::net::recv(&*stream, &mut *room, flags).map(|(_, n)| n)
                })?;
                read = Some(n);
                match 0 < n && n < all && hop.one_queue_is_empty() {
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            });
            match (read, tried) {
                (Some(n), _) => {
                    // SAFETY: recv(2) has filled so many.
                    unsafe { buf.assume_init(n) };
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    hop.both_queues_are_empty(sent_by_tcp);
                }
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => {}
            }
        }
    }
}

/// For what goes both ways at once (HTTP/2): any write may be one that the peer has read all before
/// of.
impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.turn();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.turn();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What one read brought.
pub(super) struct ReadInPlace {
    /// Bytes read, 0 at the end of the stream.
    pub(super) read: usize,
    /// Bytes of them that the judge let pass; they stand in the caller's buffer.
    pub(super) passed: usize,
}

/// Reads into hyper's own buffer, shows the bytes to `judge`, lets those pass that it
/// says, and keeps the others in `stash`. No byte of a body is copied.
pub(super) fn poll_read_in_place(
    stream: &mut Socket,
    cx: &mut Context<'_>,
    buf: &mut ReadBufCursor<'_>,
    stash: &mut BytesMut,
    judge: impl FnOnce(&[u8]) -> usize,
) -> Poll<io::Result<ReadInPlace>> {
    // SAFETY: the slice goes only to `ReadBuf::uninit`, which never de-initialises it.
    let mut target = ReadBuf::uninit(unsafe { buf.as_mut() });
    ready!(Pin::new(stream).poll_read(cx, &mut target))?;
    let filled = target.filled();
    let read = filled.len();
    let passed = if read == 0 { 0 } else { judge(filled) };
    stash.extend_from_slice(&filled[passed..]);
    // SAFETY: `passed <= read`, and the first `read` bytes have been filled above.
    unsafe { buf.advance(passed) };
    Poll::Ready(Ok(ReadInPlace { read, passed }))
}

/// Reads more behind what is in `stash`. Returns the number of bytes, 0 at the end.
pub(super) fn poll_read_to_stash(
    stream: &mut Socket,
    cx: &mut Context<'_>,
    stash: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    poll_read_behind(stream, cx, stash, STASH_READ_BYTES)
}

/// Reads so many bytes at most behind what is in `buffer`. Returns their number, 0 at the end.
pub(crate) fn poll_read_behind(
    stream: &mut Socket,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    most: usize,
) -> Poll<io::Result<usize>> {
    buffer.reserve(most);
    let mut room = buffer.limit(most);
    let mut read = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(stream, &mut room));
    read.as_mut().poll(cx)
}

/// Moves up to `passable` bytes from `stash` to hyper. Gives the memory back when empty.
pub(super) fn deliver(stash: &mut BytesMut, passable: &mut usize, buf: &mut ReadBufCursor<'_>) {
    let n = (*passable).min(buf.remaining());
    buf.put_slice(&stash[..n]);
    *passable -= n;
    let rest = stash.split_off(n);
    *stash = if rest.is_empty() { BytesMut::new() } else { rest };
}

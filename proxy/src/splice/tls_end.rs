//! TLS over a TCP socket as one end of a tunnel.
//!
//! Between the lanes and the socket stands the session: what it reads are records, what it is
//! given leaves as records, so nothing but engine `copy` can move these bytes. The socket is
//! a [`TcpEnd`] all the same, for readiness, resets and what is queued in the kernel.
//!
//! Invariants: the session holds at most one write of a lane, which counts as written when the
//! kernel has all of its records; a read that found a record incomplete leaves what came of it
//! in the session (18 KiB at most). The end of the other side is its close_notify: a FIN
//! without one fails the tunnel as a reset does. Our own end is close_notify and FIN; a peer that
//! has been told it, has nothing under way and just closes has ended as well as many do: RFC 5246
//! section 7.2.1 had it close at once, and a reset would say to the other side that something is
//! missing.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{
        self,
        ErrorKind::{UnexpectedEof, WouldBlock},
        IoSlice, Read as _, Write as _,
    },
    task::{Context, Poll, ready},
};

use rustix::{
    io::retry_on_intr,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags},
};
use rustls::Connection;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::{endpoint::Endpoint, meter::Why, tcp_end::TcpEnd};

/// A session and its socket.
#[derive(Debug)]
pub(crate) struct TlsEnd {
    tcp: TcpEnd,
    /// Borrowed for the length of one poll only.
    session: RefCell<Connection>,
    /// Bytes of a lane's write that the session has taken, until the kernel has them.
    taken: Cell<usize>,
    end_said: Cell<bool>,
    /// Where a record ends in what has been read.
    record: Record,
}

impl TlsEnd {
    /// Of a connection whose handshake is over.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        let (stream, session) = match stream {
            TlsStream::Client(stream) => {
                let (stream, session) = stream.into_inner();
                (stream, Connection::Client(session))
            }
            TlsStream::Server(stream) => {
                let (stream, session) = stream.into_inner();
                (stream, Connection::Server(session))
            }
        };
        Self {
            tcp: TcpEnd::new(stream),
            session: RefCell::new(session),
            taken: Cell::new(0),
            end_said: Cell::new(false),
            record: Record::default(),
        }
    }

    /// The socket, which carries records.
    pub(crate) fn tcp(&self) -> &TcpEnd {
        &self.tcp
    }

    /// Whether a FIN alone is an end: it knows that we have finished, and is not in the middle of
    /// a record.
    fn may_just_close(&self) -> bool {
        self.end_said.get() && self.record.is_whole()
    }

    /// Ready when the kernel has all records.
    fn poll_flush(&self, cx: &mut Context<'_>, session: &mut Connection) -> Poll<io::Result<()>> {
        while session.wants_write() {
            // Records come with a length of their own: a short call says nothing here.
            ready!(self.tcp.poll_write_with(cx, 0, || {
                session.write_tls(&mut Records(self.tcp.stream()))
            }))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Endpoint for TlsEnd {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.session.borrow().wants_read() {
            true => self.tcp.poll_readable(cx),
            // Something is there, or the end is.
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let session = &mut *self.session.borrow_mut();
        loop {
            match session.reader().read(room) {
                Err(error) if error.kind() == WouldBlock => {}
                Err(error) if error.kind() == UnexpectedEof && self.may_just_close() => {
                    return Poll::Ready(Ok(0));
                }
                read => return Poll::Ready(read),
            }
            ready!(self.tcp.poll_read_with(cx, usize::MIN, || {
                session.read_tls(&mut Followed(Records(self.tcp.stream()), &self.record))
            }))?;
            if let Err(error) = session.process_new_packets() {
                // The alert that says so, if there is room for it.
                let _ = self.poll_flush(cx, session);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    /// Not ready before the kernel has what the session took; to be polled with the same bytes
    /// until then, as a lane does.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let session = &mut *self.session.borrow_mut();
        if self.taken.get() == 0 {
            // Answers to key updates, and tickets.
            ready!(self.poll_flush(cx, session))?;
            match session.writer().write(bytes)? {
                // A session of TLS 1.2 that has used its keys up.
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.taken.set(taken),
            }
        }
        ready!(self.poll_flush(cx, session))?;
        Poll::Ready(Ok(self.taken.take()))
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.session.borrow_mut();
        if !self.end_said.replace(true) {
            session.send_close_notify();
        }
        ready!(self.poll_flush(cx, session))?;
        self.tcp.poll_shutdown(cx)
    }

    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.tcp.poll_failed(cx)
    }

    fn queued(&self) -> usize {
        self.tcp.queued()
    }

    async fn delivered(&self) {
        let flushed = poll_fn(|cx| self.poll_flush(cx, &mut self.session.borrow_mut())).await;
        if flushed.is_ok() {
            self.tcp.delivered().await;
        }
    }

    fn tcp(&self) -> Option<&TcpEnd> {
        None
    }

    fn socket(&self) -> Option<&TcpEnd> {
        Some(&self.tcp)
    }

    fn must_copy(&self) -> Option<Why> {
        Some(Why::Tls)
    }
}

/// How far a record has come (RFC 8446 section 5.1). What had been read before the tunnel was in
/// whole records, or the rest of one comes first and is taken for its head; then records are
/// followed at the wrong places, and an end hardly falls between two.
#[derive(Debug, Default)]
struct Record {
    /// Bytes of its head: type, version and length.
    head: Cell<usize>,
    /// Bytes that are missing of its payload.
    missing: Cell<usize>,
}

impl Record {
    fn is_whole(&self) -> bool {
        self.head.get() == 0 && self.missing.get() == 0
    }

    fn came(&self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match self.head.get() {
                // The length is in the last two of five.
                at @ 0..3 => self.head.set(at + 1),
                3 => {
                    self.head.set(4);
                    self.missing.set(usize::from(*first) << 8);
                }
                4 => {
                    self.missing.set(self.missing.get() | usize::from(*first));
                    self.head.set(if self.missing.get() == 0 { 0 } else { 5 });
                }
                _ => {
                    let taken = bytes.len().min(self.missing.get());
                    self.missing.set(self.missing.get() - taken);
                    if self.missing.get() == 0 {
                        self.head.set(0);
                    }
                    bytes = &bytes[taken..];
                    continue;
                }
            }
            bytes = rest;
        }
    }
}

/// The socket, and where records end in what is read from it.
struct Followed<'a>(Records<'a>, &'a Record);

impl io::Read for Followed<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(room)?;
        self.1.came(&room[..n]);
        Ok(n)
    }
}

/// The socket as a session of TLS reads and writes it.
struct Records<'a>(&'a TcpStream);

impl io::Read for Records<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let (n, _) = retry_on_intr(|| rustix::net::recv(self.0, &mut *room, RecvFlags::DONTWAIT))?;
        Ok(n)
    }
}

impl io::Write for Records<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(retry_on_intr(|| {
            rustix::net::sendmsg(self.0, bytes, &mut SendAncillaryBuffer::default(), flags)
        })?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn records_are_whole_where_the_next_begins() {
        let bytes = [&[23, 3, 3, 1, 2][..], &[0; 258], &[21, 3, 3, 0, 2, 1, 0]].concat();
        for size in 1..=bytes.len() {
            let (record, mut come) = (Record::default(), 0);
            for chunk in bytes.chunks(size) {
                record.came(chunk);
                come += chunk.len();
                assert_eq!(record.is_whole(), matches!(come, 263 | 270), "{come} by {size}");
            }
        }
    }
}

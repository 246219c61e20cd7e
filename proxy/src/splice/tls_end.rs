//! TLS over a TCP socket as one end of a tunnel.
//!
//! Between the lanes and the socket stands the session: what it reads are records, what it is
//! given leaves as records, so nothing but engine `copy` can move these bytes. The socket is
//! a [`TcpEnd`] all the same, for readiness, resets and what is queued in the kernel.
//!
//! Invariants: the session holds at most one write of a lane, which counts as written when the
//! kernel has all of its records; a read that found a record incomplete leaves what came of it
//! in the session (18 KiB at most). The end of the other side is its close_notify: a FIN
//! without one fails the tunnel as a reset does. Our own end is close_notify and FIN.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, ErrorKind::WouldBlock, IoSlice, Read as _, Write as _},
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
        }
    }

    /// The socket, which carries records.
    pub(crate) fn tcp(&self) -> &TcpEnd {
        &self.tcp
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
                read => return Poll::Ready(read),
            }
            ready!(self.tcp.poll_read_with(cx, usize::MIN, || {
                session.read_tls(&mut Records(self.tcp.stream()))
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

//! TLS over a TCP socket as one end of a tunnel.
//!
//! Between the lanes and the socket stands the session: what it reads are records, what it is
//! given leaves as records, so nothing but engine `copy` can move these bytes. Unless the kernel
//! has the keys (`ktls/`): then the session is gone, and the socket reads and writes what is
//! inside. The socket is a [`TcpEnd`] in any case, for readiness, resets and what is queued in the
//! kernel.
//!
//! Invariants: the session holds at most one write of a lane, which counts as written when the
//! kernel has all of its records; a read that found a record incomplete leaves what came of it
//! in the session (18 KiB at most). The end of the other side is its close_notify: a FIN
//! without one fails the tunnel as a reset does. Our own end is close_notify and FIN; a peer that
//! has been told it, has nothing under way and just closes has ended as well as many do: RFC 5246
//! section 7.2.1 had it close at once, and a reset would say to the other side that something is
//! missing. Not where the kernel has the keys: it does not say where a record stands.
//!
//! **Hand-over.** The kernel begins with whole records, in both directions at once, because a
//! session gives up its keys once. So it is given them when the session holds nothing: no record
//! that the socket does not have yet, no part of one that it has read, and not a byte that no
//! lane has fetched. Mostly that is so before the first byte of the tunnel; otherwise nothing is
//! read beyond the record that is under way until it is. Nor is it done behind a record that was
//! no data, but behind the next that is: a message of the handshake may go on in another record
//! (RFC 8446 section 5.1), of which rustls would keep the beginning to itself.

use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    io::{
        self,
        ErrorKind::{InvalidData, UnexpectedEof, WouldBlock},
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

use super::{
    endpoint::Endpoint,
    ktls::{self, InKernel, Ktls, Suite},
    tcp_end::TcpEnd,
    why::Why,
};
use crate::tls::{Followed, Record};

/// A session and its socket.
#[derive(Debug)]
pub(crate) struct TlsEnd {
    tcp: TcpEnd,
    /// `None`: the kernel has the keys. Borrowed for the length of one poll only.
    session: RefCell<Option<Box<Connection>>>,
    kernel: OnceCell<InKernel>,
    /// What the kernel is to have keys of, or why it is not.
    asked: Cell<Result<Suite, Why>>,
    /// Bytes of a lane's write that the session has taken, until the kernel has them.
    taken: Cell<usize>,
    end_said: Cell<bool>,
    /// Where a record ends in what has been read.
    record: Record,
    /// Whether the last record that was read here, if any was, was data. Holds while no more than
    /// one is read at a time.
    was_data: Cell<bool>,
}

impl TlsEnd {
    /// Of a connection whose handshake is over; its session stays here.
    pub(crate) fn new(stream: TlsStream<Followed>) -> Self {
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
        let (stream, record) = stream.into_parts();
        Self {
            tcp: TcpEnd::new(stream),
            session: RefCell::new(Some(Box::new(session))),
            kernel: OnceCell::new(),
            asked: Cell::new(Err(Why::Tls)),
            taken: Cell::new(0),
            end_said: Cell::new(false),
            record,
            was_data: Cell::new(true),
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

    /// Gives the kernel the keys, if it is to have them and the session holds nothing.
    fn hand_over(&self, cx: &mut Context<'_>) {
        let Ok(suite) = self.asked.get() else { return };
        if self.end_said.get() || self.taken.get() > 0 {
            return;
        }
        if !self.record.is_whole() || !self.was_data.get() {
            return;
        }
        let mut slot = self.session.borrow_mut();
        // It does not want to read where it has bytes for us, or has been told the end.
        let Some(session) = slot.as_mut().filter(|session| session.wants_read()) else { return };
        // The answer to a key update waits for the next write, however short.
        if session.is_handshaking() || session.writer().write(&[]).is_err() {
            return;
        }
        let Poll::Ready(Ok(())) = self.poll_flush(cx, session) else { return };
        if let Err(error) = ktls::sys::attach(self.tcp.stream()) {
            tracing::debug!(%error, "the kernel does not take over a session of TLS");
            self.asked.set(Err(Why::TlsRefused));
            return;
        }
        let Some(session) = slot.take() else { return };
        let begun = session
            .dangerous_extract_secrets()
            .map_err(io::Error::other)
            .and_then(|secrets| InKernel::begin(&self.tcp, suite, &secrets));
        match begun {
            Ok(kernel) => drop(self.kernel.set(kernel)),
            // There is no session any more: reading and writing fail from here on.
            Err(error) => tracing::warn!(%error, "a session of TLS is lost to the kernel"),
        }
    }

    /// What a session does with its socket.
    fn with<T>(
        &self,
        call: impl FnOnce(&mut Connection) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.session.borrow_mut() {
            Some(session) => call(session),
            None => Poll::Ready(Err(io::Error::new(InvalidData, "the kernel refused the keys"))),
        }
    }

    /// Whether the session is to hold nothing soon.
    fn is_leaving(&self) -> bool {
        self.asked.get().is_ok() && !self.end_said.get()
    }
}

impl Endpoint for TlsEnd {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hand_over(cx);
        if let Some(kernel) = self.kernel.get() {
            return kernel.poll_readable(cx, &self.tcp);
        }
        let wants = self.session.borrow().as_ref().is_some_and(|session| session.wants_read());
        match wants {
            true => self.tcp.poll_readable(cx),
            // Something is there, or the end is.
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(kernel) = self.kernel.get() {
            return kernel.poll_read(cx, &self.tcp, room);
        }
        self.with(|session| {
            loop {
                match session.reader().read(room) {
                    Err(error) if error.kind() == WouldBlock => {}
                    Err(error) if error.kind() == UnexpectedEof && self.may_just_close() => {
                        return Poll::Ready(Ok(0));
                    }
                    read => return Poll::Ready(read),
                }
                let to_the_end = self.is_leaving();
                ready!(self.tcp.poll_read_with(cx, usize::MIN, || {
                    let most = if to_the_end { self.record.left() } else { usize::MAX };
                    session.read_tls(&mut Bounded(Records(self.tcp.stream()), &self.record, most))
                }))?;
                match session.process_new_packets() {
                    Ok(state) => self.was_data.set(state.plaintext_bytes_to_read() > 0),
                    Err(error) => {
                        // The alert that says so, if there is room for it.
                        let _ = self.poll_flush(cx, session);
                        return Poll::Ready(Err(io::Error::new(InvalidData, error)));
                    }
                }
            }
        })
    }

    /// Not ready before the kernel has what the session took; to be polled with the same bytes
    /// until then, as a lane does.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(kernel) = self.kernel.get() {
            return kernel.poll_write(cx, &self.tcp, bytes);
        }
        self.with(|session| {
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
        })
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kernel) = self.kernel.get() {
            return kernel.poll_shutdown(cx, &self.tcp);
        }
        self.with(|session| {
            if !self.end_said.replace(true) {
                session.send_close_notify();
            }
            ready!(self.poll_flush(cx, session))?;
            self.tcp.poll_shutdown(cx)
        })
    }

    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.tcp.poll_failed(cx)
    }

    fn queued(&self) -> usize {
        self.tcp.queued()
    }

    async fn delivered(&self) {
        if let Some(kernel) = self.kernel.get() {
            return kernel.delivered(&self.tcp).await;
        }
        let flushed = poll_fn(|cx| self.with(|session| self.poll_flush(cx, session))).await;
        if flushed.is_ok() {
            self.tcp.delivered().await;
        }
    }

    /// No program of the kernel's is to touch it.
    fn tcp(&self) -> Option<&TcpEnd> {
        None
    }

    fn spliced(&self) -> Option<&TcpEnd> {
        self.kernel.get().map(|_| &self.tcp)
    }

    fn gave(&self, bytes: usize) {
        if let Some(kernel) = self.kernel.get() {
            kernel.gave(bytes);
        }
    }

    fn has_records(&self) -> bool {
        true
    }

    fn socket(&self) -> Option<&TcpEnd> {
        Some(&self.tcp)
    }

    fn must_copy(&self) -> Option<Why> {
        match (self.kernel.get(), self.asked.get()) {
            (Some(_), _) => None,
            (None, Ok(_)) => Some(Why::Tls),
            (None, Err(why)) => Some(why),
        }
    }

    fn suits(&self, ktls: Ktls) -> Result<(), Why> {
        let session = self.session.borrow();
        session.as_ref().ok_or(Why::Tls).and_then(|session| ktls.suits(session)).map(drop)
    }

    fn ask(&self, ktls: Result<Ktls, Why>) {
        if let Some(session) = &*self.session.borrow() {
            self.asked.set(ktls.and_then(|ktls| ktls.suits(session)));
        }
    }

    fn is_tls_in_kernel(&self) -> bool {
        self.kernel.get().is_some()
    }

    fn may_yet_splice(&self) -> bool {
        self.kernel.get().is_none() && self.is_leaving()
    }
}

/// The socket, no further than so many bytes, and where records end in what is read from it.
struct Bounded<'a>(Records<'a>, &'a Record, usize);

impl io::Read for Bounded<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let most = room.len().min(self.2);
        let n = self.0.read(&mut room[..most])?;
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

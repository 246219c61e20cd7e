//! The client's socket as hyper's HTTP/1 server sees it: whole, strictly valid heads only.
//!
//! A head that must not pass is replaced by a stand-in request; the service recognises
//! it by its number ([`Shared::fault_of`]) and answers with the fault's status. So a
//! refusal takes its turn behind earlier pipelined requests and goes through the same
//! response code and log as everything else.
//!
//! Bytes behind an Upgrade or CONNECT head stay here until the answer decides whether
//! they are HTTP ([`Shared::resume_http`]) or belong to a tunnel ([`DownstreamIo::into_tunnel`]).
//!
//! Implements: REQ-CORE-001.F-002, REQ-CORE-001.F-003

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWrite;

use super::{
    head::Bounds,
    socket::{Socket, deliver, poll_read_in_place, poll_read_to_stash},
    spelling::{respelled, skip},
    track::{RequestStop, Requests},
};
use crate::{lend::Loan, splice::hop_bypass::HopBypass, transport::Transport, watchdog::Wait};

mod shared;

pub use shared::Shared;

/// Bytes held at most while it is open whether a tunnel comes; then TCP pushes back.
const MAX_HELD_BYTES: usize = 16 * 1024;

/// What hyper reads instead of a head that must not pass.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// The wrapped socket.
#[derive(Debug)]
pub struct DownstreamIo {
    socket: Socket,
    requests: Requests,
    shared: Rc<Shared>,
    /// Read but not passed; the first `passable` bytes have been judged and may go on.
    stash: BytesMut,
    passable: usize,
    stop: Option<RequestStop>,
    stand_in_sent: bool,
    /// How much of the injected bytes is under way.
    injecting: bool,
    /// What is left of the head that goes out, with its names as the server wrote them.
    respelled: BytesMut,
}

impl DownstreamIo {
    /// At the start of a connection.
    pub fn new(stream: Transport, hop: HopBypass, bounds: Bounds, shared: Rc<Shared>) -> Self {
        Self {
            socket: Socket::new(stream, hop),
            requests: Requests::new(bounds),
            shared,
            stash: BytesMut::new(),
            passable: 0,
            stop: None,
            stand_in_sent: false,
            injecting: false,
            respelled: BytesMut::new(),
        }
    }

    /// The names in heads are told as they were written ([`Shared::spelling_of`]).
    pub fn keeps_case(&mut self) {
        self.requests.keep_case();
    }

    /// This has been read from the socket already.
    pub fn begins_with(&mut self, early: BytesMut) {
        self.stash = early;
        if !self.stash.is_empty() {
            self.judge_stash();
        }
    }

    /// After the hand-over, or when hyper has let go: the socket with its bypass, which outlives
    /// it, and what the client sent behind the head.
    pub fn into_tunnel(self) -> (Transport, HopBypass, Bytes) {
        (self.socket.stream, self.socket.hop, self.stash.freeze())
    }

    fn judge_stash(&mut self) {
        let verdict = self.requests.advance(&self.stash[self.passable..]);
        self.passable += verdict.pass;
        self.stop = verdict.then;
        self.note();
    }

    /// Tells the connection's code where we are.
    fn note(&mut self) {
        self.shared.between.set(false);
        if !self.requests.spelled.is_empty() {
            self.shared.spelled.borrow_mut().append(&mut self.requests.spelled);
        }
        self.shared.in_body.set(self.requests.in_body());
        self.shared.for_server.set(self.requests.for_server());
        let partial = matches!(self.stop, Some(RequestStop::PartialHead));
        if partial && !self.shared.partial.replace(true) {
            self.shared.watched.wait(Wait::Head, self.shared.head_timeout);
        } else if !partial && self.shared.partial.replace(false) {
            self.shared.watched.done(Wait::Head);
        }
        match self.stop {
            Some(RequestStop::Hold) => self.shared.may_tunnel.set(self.requests.heads()),
            Some(RequestStop::BadHead(kind)) if self.shared.fault.get().is_none() => {
                self.shared.fault.set(Some((self.requests.heads() + 1, kind)));
            }
            Some(RequestStop::BadBody(kind)) => self.shared.body_fault.set(Some(kind)),
            _ => {}
        }
    }
}

impl Read for DownstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passable > 0 {
                deliver(&mut this.stash, &mut this.passable, &mut buf);
                return Poll::Ready(Ok(()));
            }
            if this.requests.in_head()
                && let Some(kind) = this.shared.imposed.take()
            {
                this.stop = Some(RequestStop::BadHead(kind));
                this.note();
            }
            match this.stop {
                Some(RequestStop::BadHead(_)) => {
                    this.shared.park(cx);
                    if std::mem::replace(&mut this.stand_in_sent, true) {
                        return Poll::Pending;
                    }
                    this.stash = BytesMut::new();
                    buf.put_slice(STAND_IN);
                    return Poll::Ready(Ok(()));
                }
                Some(RequestStop::BadBody(kind)) => {
                    let rule = kind.detail().unwrap_or(kind.name());
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, rule)));
                }
                Some(RequestStop::Hold) if this.shared.resumed.get() == this.requests.heads() => {
                    this.requests.resume();
                    this.judge_stash();
                    continue;
                }
                Some(RequestStop::Hold) if this.stash.len() >= MAX_HELD_BYTES => {
                    this.shared.park(cx);
                    return Poll::Pending;
                }
                _ => {}
            }
            if this.stash.is_empty() {
                let between = this.requests.in_head() && this.stop.is_none();
                this.shared.between.set(between && !this.socket.is_more_than_a_socket());
                let (requests, stop) = (&mut this.requests, &mut this.stop);
                let done = ready!(poll_read_in_place(
                    &mut this.socket,
                    cx,
                    &mut buf,
                    &mut this.stash,
                    |bytes| {
                        let verdict = requests.advance(bytes);
                        *stop = verdict.then;
                        verdict.pass
                    },
                ));
                let done = match done {
                    Ok(done) => done,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                this.note();
                this.shared.watched.progress(Wait::Request, this.shared.body_idle_timeout);
                if done.read == 0 || done.passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.shared.park(cx);
                let read = ready!(poll_read_to_stash(&mut this.socket, cx, &mut this.stash))?;
                if read == 0 {
                    // The end of the stream within a head is an end, not a request. What is
                    // held for a tunnel goes on to it: the client only half-closed.
                    if matches!(this.stop, Some(RequestStop::Hold)) {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(()));
                }
                this.judge_stash();
            }
        }
    }
}

impl DownstreamIo {
    /// Writes what is injected; only between two messages, or to finish what was begun.
    fn poll_inject(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inject = self.shared.inject.borrow_mut();
        while !inject.is_empty() {
            self.injecting = true;
            let written = ready!(Pin::new(&mut self.socket.stream).poll_write(cx, &inject))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            inject.advance(written);
        }
        if std::mem::take(&mut self.injecting) {
            *inject = BytesMut::new();
            self.shared.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes of an answer.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.shared.writing.replace(true) {
            self.socket.turn();
            if let Some(spelling) = self.shared.spell.take() {
                self.respelled = respelled(&spelling, bufs);
            }
        }
        let is_as_it_goes = self.respelled.is_empty() && !self.shared.trailers.is_next();
        debug_assert!(is_as_it_goes || !Loan::is_in_file(bufs), "what nobody may read is copied");
        let lent = if is_as_it_goes { self.socket.poll_lend(cx, bufs) } else { None };
        let written = if let Some(lent) = lent {
            ready!(lent)?
        } else if self.respelled.is_empty() {
            ready!(self.shared.trailers.poll_write(&mut self.socket.stream, cx, bufs))?
        } else {
            // It takes the place of as many bytes.
            let behind = skip(bufs, self.respelled.len());
            let head = std::iter::once(&self.respelled[..]).chain(behind);
            let slices: Vec<_> = head.map(io::IoSlice::new).collect();
            let trailers = &self.shared.trailers;
            let written = ready!(trailers.poll_write(&mut self.socket.stream, cx, &slices))?;
            self.respelled.advance(written.min(self.respelled.len()));
            written
        };
        self.shared.watched.progress(Wait::Response, self.shared.body_idle_timeout);
        Poll::Ready(Ok(written))
    }
}

impl Write for DownstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.injecting {
            ready!(this.poll_inject(cx))?;
        }
        this.poll_message(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.injecting {
            ready!(this.poll_inject(cx))?;
        }
        this.poll_message(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper calls this once its own buffer is empty: a point between two messages.
        let this = self.get_mut();
        ready!(this.poll_inject(cx))?;
        ready!(Pin::new(&mut this.socket).poll_flush(cx))?;
        this.shared.writing.set(false);
        if this.requests.keeps_case() {
            // An answer may wait for that.
            this.shared.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.parting.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.socket.stream).poll_shutdown(cx)
    }
}

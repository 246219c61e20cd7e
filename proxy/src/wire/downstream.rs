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
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWrite;

use super::{
    head::Bounds,
    socket::{Socket, deliver, poll_read_in_place, poll_read_to_stash},
    track::{RequestStop, Requests},
    trailers::Tail,
};
use crate::{
    error::Kind,
    splice::hop_bypass::HopBypass,
    transport::Transport,
    watchdog::{Wait, Watched},
};

/// Bytes held at most while it is open whether a tunnel comes; then TCP pushes back.
const MAX_HELD_BYTES: usize = 16 * 1024;

/// What hyper reads instead of a head that must not pass.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// What the socket and the connection's code tell each other. Lives on one thread.
#[derive(Debug)]
pub struct Shared {
    watched: Rc<Watched>,
    head_timeout: Duration,
    body_idle_timeout: Duration,
    fault: Cell<Option<(u64, Kind)>>,
    body_fault: Cell<Option<Kind>>,
    imposed: Cell<Option<Kind>>,
    may_tunnel: Cell<u64>,
    for_server: Cell<u64>,
    /// The last request whose answer left the connection to HTTP.
    resumed: Cell<u64>,
    partial: Cell<bool>,
    in_body: Cell<bool>,
    between: Cell<bool>,
    writing: Cell<bool>,
    parting: Cell<bool>,
    inject: RefCell<BytesMut>,
    /// Trailers of the answer that goes out.
    pub trailers: Tail,
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    /// For one connection.
    pub fn new(
        watched: Rc<Watched>,
        head_timeout: Duration,
        body_idle_timeout: Duration,
    ) -> Rc<Self> {
        Rc::new(Self {
            watched,
            head_timeout,
            body_idle_timeout,
            fault: Cell::new(None),
            body_fault: Cell::new(None),
            imposed: Cell::new(None),
            may_tunnel: Cell::new(0),
            for_server: Cell::new(0),
            resumed: Cell::new(0),
            partial: Cell::new(false),
            in_body: Cell::new(false),
            between: Cell::new(false),
            writing: Cell::new(false),
            parting: Cell::new(false),
            inject: RefCell::new(BytesMut::new()),
            trailers: Tail::default(),
            waker: RefCell::new(None),
        })
    }

    /// The fault for which request number `head` (from 1) stands in, if it does.
    pub fn fault_of(&self, head: u64) -> Option<Kind> {
        self.fault.get().and_then(|(number, kind)| (number == head).then_some(kind))
    }

    /// Why the body being read ended in an error, where its framing was at fault.
    pub fn body_fault(&self) -> Option<Kind> {
        self.body_fault.get()
    }

    /// Whether anything was refused; then the rest of the input is of no interest.
    pub fn has_fault(&self) -> bool {
        self.fault.get().is_some() || self.body_fault.get().is_some()
    }

    /// Whether the target of request number `head` (from 1) is the server itself.
    pub fn is_for_server(&self, head: u64) -> bool {
        self.for_server.get() == head
    }

    /// Whether request number `head` (from 1) asks properly for a tunnel.
    pub fn may_tunnel(&self, head: u64) -> bool {
        self.may_tunnel.get() == head
    }

    /// The answer to request number `head` (from 1) was an ordinary one: what follows is
    /// HTTP. Numbered, because most answers find nothing held, and must not let go what a
    /// later request will hold.
    pub fn resume_http(&self, head: u64) {
        self.resumed.set(head);
        self.wake();
    }

    /// Whether the beginning of a head has come, and not yet its end.
    pub fn has_partial_head(&self) -> bool {
        self.partial.get()
    }

    /// Whether the end of a request's body has yet to come.
    pub fn is_in_body(&self) -> bool {
        self.in_body.get()
    }

    /// Whether the last byte that came was the end of a request, hyper has asked for more,
    /// and everything written before has been taken: nothing is under way on this wire.
    pub fn is_at_rest(&self) -> bool {
        self.between.get() && !self.writing.get() && self.inject.borrow().is_empty()
    }

    /// hyper is to let go of the socket: when it next ends the connection, the socket stays
    /// open, for [`DownstreamIo::into_tunnel`].
    pub fn parts(&self, parting: bool) {
        self.parting.set(parting);
    }

    /// Whether there are bytes that the client has yet to take.
    pub fn is_writing(&self) -> bool {
        self.writing.get()
    }

    /// Refuses the head that is being waited for (a timeout).
    pub fn impose(&self, kind: Kind) {
        self.imposed.set(Some(kind));
        self.wake();
    }

    /// Queues an interim response. It goes out at the next point between two messages.
    pub fn inject(&self, head: &[u8]) {
        self.inject.borrow_mut().extend_from_slice(head);
        self.wake();
    }

    /// Resolves when everything injected has been written: the final head may follow.
    pub fn poll_injected(&self, cx: &Context<'_>) -> Poll<()> {
        if self.inject.borrow().is_empty() {
            return Poll::Ready(());
        }
        // hyper flushes after it has polled the service, in the same turn; whoever has
        // written the last of it wakes us.
        self.park(cx);
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn park(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }
}

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
}

impl DownstreamIo {
    /// `early` has been read from the socket already.
    pub fn new(
        stream: Transport,
        hop: HopBypass,
        early: BytesMut,
        bounds: Bounds,
        shared: Rc<Shared>,
    ) -> Self {
        let mut io = Self {
            socket: Socket::new(stream, hop),
            requests: Requests::new(bounds),
            shared,
            stash: early,
            passable: 0,
            stop: None,
            stand_in_sent: false,
            injecting: false,
        };
        if !io.stash.is_empty() {
            io.judge_stash();
        }
        io
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
        }
        let written = ready!(self.shared.trailers.poll_write(&mut self.socket.stream, cx, bufs))?;
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
        ready!(this.socket.poll_flush(cx))?;
        this.shared.writing.set(false);
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

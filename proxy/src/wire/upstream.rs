//! The server's socket as hyper's HTTP/1 client sees it: strictly valid answers only.
//!
//! Interim heads (1xx other than 101) are taken off here and handed to whoever sent the
//! request ([`Shared::poll_interim`]), so that they can be passed on. A broken answer
//! becomes a read error; [`Shared::fault`] says which rule it broke.
//!
//! Implements: REQ-CORE-001.F-002, REQ-CORE-001.F-003

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWrite;

use super::{
    head::Bounds,
    socket::{Socket, deliver, poll_read_in_place, poll_read_to_stash},
    track::{ResponseStop, Responses},
    trailers::Tail,
};
use crate::{splice::hop_bypass::HopBypass, transport::Transport};

/// Interim responses to one request; a server that sends more is broken.
const MAX_INTERIM: u32 = 32;

/// An interim response head, with its empty line.
#[derive(Debug, Clone)]
pub struct Interim {
    /// 100 to 199, not 101.
    pub status: u16,
    /// As the server sent it.
    pub head: Bytes,
}

/// What the socket and the exchange tell each other. Lives on one thread.
#[derive(Debug, Default)]
pub struct Shared {
    /// A request goes out; `Some(true)`: HEAD.
    expected: Cell<Option<bool>>,
    fault: Cell<Option<&'static str>>,
    /// Whether a byte of the request has been written.
    begun: Cell<bool>,
    answered: Cell<bool>,
    writing: Cell<bool>,
    stays: Cell<bool>,
    interim: RefCell<VecDeque<Interim>>,
    interim_count: Cell<u32>,
    /// Trailers of the request that goes out.
    pub trailers: Tail,
    waker: RefCell<Option<Waker>>,
}

impl Shared {
    /// Announces that a request goes out. To be called before hyper gets it.
    pub fn expect(&self, to_head: bool) {
        self.expected.set(Some(to_head));
        self.begun.set(false);
        self.answered.set(false);
        self.interim_count.set(0);
        self.interim.borrow_mut().clear();
    }

    /// The rule that the server broke.
    pub fn fault(&self) -> Option<&'static str> {
        self.fault.get()
    }

    /// Whether a byte of the current answer has come.
    pub fn answered(&self) -> bool {
        self.answered.get()
    }

    /// Whether it is more than its socket, so that it is not parked: bytes may bypass TCP on it,
    /// or it has a session of TLS.
    pub fn stays(&self) -> bool {
        self.stays.get()
    }

    /// Whether there are bytes that the server has yet to take.
    pub fn is_writing(&self) -> bool {
        self.writing.get()
    }

    /// The next interim head.
    pub fn poll_interim(&self, cx: &Context<'_>) -> Poll<Interim> {
        if let Some(interim) = self.interim.borrow_mut().pop_front() {
            return Poll::Ready(interim);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn push(&self, interim: Interim) {
        self.interim.borrow_mut().push_back(interim);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The wrapped socket.
#[derive(Debug)]
pub struct UpstreamIo {
    socket: Socket,
    responses: Responses,
    shared: Rc<Shared>,
    stash: BytesMut,
    passable: usize,
    stop: Option<ResponseStop>,
}

impl UpstreamIo {
    /// A fresh connection.
    pub fn new(stream: Transport, hop: HopBypass, bounds: Bounds, shared: Rc<Shared>) -> Self {
        let socket = Socket::new(stream, hop);
        shared.stays.set(socket.is_more_than_a_socket());
        Self {
            socket,
            responses: Responses::new(bounds),
            shared,
            stash: BytesMut::new(),
            passable: 0,
            stop: None,
        }
    }

    /// After the hand-over, or of an idle connection: the socket, and what the server sent
    /// behind its 101. `None` where bytes bypass TCP: a request that asks for a tunnel goes out
    /// on a connection of its own, and such a one is not parked.
    pub fn into_tunnel(self) -> Option<(Transport, Bytes)> {
        (!self.socket.hop.is_on()).then(|| (self.socket.stream, self.stash.freeze()))
    }

    fn judge_stash(&mut self) {
        let verdict = self.responses.advance(&self.stash[self.passable..]);
        self.passable += verdict.pass;
        self.stop = verdict.then;
    }

    /// Takes the announced interim head off the front of the stash.
    fn take_interim(&mut self, status: u16, length: usize) {
        let head = self.stash.split_to(length).freeze();
        self.responses.interim_taken();
        self.shared.interim_count.set(self.shared.interim_count.get() + 1);
        if self.shared.interim_count.get() > MAX_INTERIM {
            self.stop = Some(ResponseStop::Bad("too many interim responses"));
            return;
        }
        self.shared.push(Interim { status, head });
        self.judge_stash();
    }
}

impl Read for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(to_head) = this.shared.expected.take() {
                this.responses.expect(to_head);
            }
            if this.passable > 0 {
                deliver(&mut this.stash, &mut this.passable, &mut buf);
                return Poll::Ready(Ok(()));
            }
            match this.stop {
                Some(ResponseStop::Bad(rule)) => {
                    this.shared.fault.set(Some(rule));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, rule)));
                }
                Some(ResponseStop::Interim(status, length)) => {
                    this.take_interim(status, length);
                    continue;
                }
                Some(ResponseStop::PartialHead) | None => {}
            }
            if this.stash.is_empty() {
                let UpstreamIo { socket, responses, shared, stash, stop, .. } = &mut *this;
                let done = ready!(poll_read_in_place(socket, cx, &mut buf, stash, |bytes| {
                    if let Some(to_head) = shared.expected.take() {
                        responses.expect(to_head);
                    }
                    let verdict = responses.advance(bytes);
                    *stop = verdict.then;
                    verdict.pass
                }))?;
                if done.read > 0 {
                    this.shared.answered.set(true);
                }
                if done.read == 0 || done.passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let read = ready!(poll_read_to_stash(&mut this.socket, cx, &mut this.stash))?;
                if read == 0 {
                    return Poll::Ready(Ok(()));
                }
                this.judge_stash();
            }
        }
    }
}

impl UpstreamIo {
    /// Writes of a request.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.writing.set(true);
        if !self.shared.begun.replace(true) {
            self.socket.turn();
            self.shared.stays.set(self.socket.is_more_than_a_socket());
        }
        self.shared.trailers.poll_write(&mut self.socket.stream, cx, bufs)
    }
}

impl Write for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_message(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_message(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper calls this once its own buffer is empty.
        let this = self.get_mut();
        ready!(this.socket.poll_flush(cx))?;
        this.shared.writing.set(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket.stream).poll_shutdown(cx)
    }
}

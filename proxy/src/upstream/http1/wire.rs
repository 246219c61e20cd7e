//! The wire of one connection to a server: what has been read and not yet taken, and what is on
//! its way out.
//!
//! Invariant: what a server sends that nobody asked for is never taken for an answer. A wire that
//! holds bytes between two exchanges, or that has seen a rule broken, carries no further one.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use tokio::io::{AsyncRead, Interest, ReadBuf};

use super::{
    Interim,
    outgoing::{Failed, Outgoing},
};
use crate::{
    body::BodyStream,
    splice::hop_bypass::HopBypass,
    transport::Transport,
    wire::{
        answer::{self, Heads, ResponseFacts},
        head::Bounds,
        socket::{Socket, poll_read_behind},
        spelling::Spelling,
    },
};

/// Interim responses to one request; a server that sends more is broken.
const MAX_INTERIM: u32 = 32;

/// What is read at once to begin with. Most answers are smaller.
const LEAST_READ_BYTES: usize = 8 * 1024;

/// What is read at once at most, of bodies that come that fast.
const MOST_READ_BYTES: usize = 64 * 1024;

/// After so many small reads less is read at once.
const SMALL_READS: u8 = 4;

/// Heads that come with no more than this are copied out of the buffer, which then stays: cheaper
/// than another buffer in its place, and the values of fields hold on to no more than the head.
const SMALL_BYTES: usize = 1024;

/// The wire.
#[derive(Debug)]
pub(super) struct Wire {
    /// `None`: it is closed, or goes on as something else.
    socket: Option<Socket>,
    heads: Heads,
    keeps_case: bool,
    /// Reads go here.
    buffer: BytesMut,
    read_bytes: usize,
    /// Reads, one after the other, that would have needed a fourth of that.
    small_reads: u8,
    /// What came and has not been taken.
    pub(super) have: Bytes,
    pub(super) out: Outgoing,
    interim: VecDeque<Interim>,
    interim_count: u32,
    answered: bool,
    fault: Option<&'static str>,
    /// No further exchange: one of both sides has said so, or has broken off.
    closes: bool,
}

impl Wire {
    pub(super) fn new(stream: Transport, hop: HopBypass, bounds: Bounds, keeps_case: bool) -> Self {
        Self {
            socket: Some(Socket::new(stream, hop)),
            heads: Heads::new(bounds),
            keeps_case,
            buffer: BytesMut::new(),
            read_bytes: LEAST_READ_BYTES,
            small_reads: 0,
            have: Bytes::new(),
            out: Outgoing::new(),
            interim: VecDeque::new(),
            interim_count: 0,
            answered: false,
            fault: None,
            closes: false,
        }
    }

    /// The rule that the server broke.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// Whether a byte of the current answer has come.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whether a byte of the current request has been written.
    pub(super) fn has_begun(&self) -> bool {
        self.out.has_begun()
    }

    /// The bounds of a head.
    pub(super) fn bounds(&self) -> &Bounds {
        self.heads.bounds()
    }

    /// The next interim head.
    pub(super) fn next_interim(&mut self) -> Option<Interim> {
        self.interim.pop_front()
    }

    /// Whether it is told how names in the next heads are written.
    pub(super) fn keep_case(&mut self, keeps: bool) {
        self.keeps_case = keeps;
    }

    /// It carries no further exchange.
    pub(super) fn retire(&mut self) {
        self.closes = true;
    }

    /// Begins with a request.
    pub(super) fn begin(&mut self, request: &mut Request<BodyStream>) {
        self.heads.expect(request.method() == http::Method::HEAD);
        self.answered = false;
        self.interim_count = 0;
        self.interim.clear();
        if let Some(socket) = &mut self.socket {
            socket.turn();
        }
        self.out.begin(request);
    }

    /// Sends of the request what can be sent. Ready when there is no more to send; an error is
    /// one of the request's body. Where the server takes no more of it, its answer may be there
    /// all the same.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        if self.out.is_done() {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.out.poll(socket, cx));
        if let Err(failed) = &sent {
            self.closes = true;
            if let Failed::Socket(error) = failed {
                tracing::debug!(%error, "a server takes no more of a request");
            }
        }
        Poll::Ready(sent)
    }

    /// Waits for the head of the final answer, and keeps the interim ones before it.
    ///
    /// # Errors
    /// Of the socket; [`io::ErrorKind::UnexpectedEof`] at its end; or a rule is broken, which
    /// [`Self::fault`] tells.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Response<()>, ResponseFacts)>> {
        loop {
            if !self.have.is_empty() {
                let found = match self.heads.find(&self.have) {
                    Ok(found) => found,
                    Err(rule) => return Poll::Ready(Err(self.broken(rule))),
                };
                if let Some((facts, end)) = found {
                    let head = self.have.split_to(end);
                    if facts.status >= 200 || facts.status == 101 {
                        self.closes |= facts.closes;
                        let read = answer::read(&head, &facts);
                        let mut response = read.map_err(|rule| self.broken(rule))?;
                        if self.keeps_case
                            && let Some(spelling) = Spelling::of(&head)
                        {
                            response.extensions_mut().insert(spelling);
                        }
                        return Poll::Ready(Ok((response, facts)));
                    }
                    self.interim_count += 1;
                    if self.interim_count > MAX_INTERIM {
                        return Poll::Ready(Err(self.broken("too many interim responses")));
                    }
                    self.interim.push_back(Interim { status: facts.status, head });
                    continue;
                }
            }
            if ready!(self.poll_fill(cx, SMALL_BYTES))? == 0 {
                self.closes = true;
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.answered = true;
        }
    }

    /// A rule is broken.
    pub(super) fn broken(&mut self, rule: &'static str) -> io::Error {
        self.closes = true;
        self.fault = Some(rule);
        io::Error::new(io::ErrorKind::InvalidData, rule)
    }

    /// Reads more of a body. 0: the connection has ended.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill(cx, 0)
    }

    /// Reads more, behind what is there. What is no more than `small` is copied.
    fn poll_fill(&mut self, cx: &mut Context<'_>, small: usize) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        // What is left of the buffer will do, if it is not too little: whatever of it is still
        // on its way holds all of it.
        let spare = self.buffer.capacity() - self.buffer.len();
        let room = if spare >= self.read_bytes / 4 { spare } else { self.read_bytes };
        let room = room.min(self.read_bytes);
        let read = match ready!(poll_read_behind(socket, cx, &mut self.buffer, room)) {
            Ok(read) => read,
            Err(error) => {
                self.closes = true;
                return Poll::Ready(Err(error));
            }
        };
        if !self.have.is_empty() {
            // The rest of a head, or of what frames a body.
            let have = std::mem::take(&mut self.have).try_into_mut();
            let mut both = have.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            both.extend_from_slice(&self.buffer);
            self.have = both.freeze();
            self.buffer.clear();
        } else if read <= small {
            self.have = Bytes::copy_from_slice(&self.buffer);
            self.buffer.clear();
        } else {
            self.have = self.buffer.split().freeze();
        }
        self.adapt(read);
        Poll::Ready(Ok(read))
    }

    /// Reads more at once where more comes, and less again where less has come for a while.
    fn adapt(&mut self, read: usize) {
        if read == self.read_bytes {
            self.read_bytes = (2 * read).min(MOST_READ_BYTES);
            self.small_reads = 0;
        } else if read >= self.read_bytes / 4 || self.read_bytes == LEAST_READ_BYTES {
            self.small_reads = 0;
        } else {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS {
                self.small_reads = 0;
                self.read_bytes /= 2;
                if self.read_bytes == LEAST_READ_BYTES {
                    // It may be as large as it ever was.
                    self.buffer = BytesMut::new();
                }
            }
        }
    }

    /// Whether it may carry another exchange: this one is complete both ways, and nothing came
    /// behind it.
    pub(super) fn is_free(&self) -> bool {
        self.is_answered_whole() && !self.closes && self.out.is_done()
    }

    /// Whether nothing came behind the answer, which is over.
    pub(super) fn is_answered_whole(&self) -> bool {
        self.socket.is_some() && self.have.is_empty()
    }

    /// Whether nothing has come on it, as has to be between two exchanges. Costs no system call
    /// unless something has.
    pub(super) fn is_quiet(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        if let Transport::Plain(stream) = &socket.stream
            && !socket.is_more_than_a_socket()
        {
            let peeked = stream.try_io(Interest::READABLE, || {
                rustix::net::recv(stream, &mut [0; 1][..], rustix::net::RecvFlags::PEEK)
                    .map_err(io::Error::from)
            });
            return peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        }
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(socket).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Closes it at once. What is left of a request's body is the caller's to drop.
    #[must_use]
    pub(super) fn close(&mut self) -> Option<BodyStream> {
        self.closes = true;
        self.socket = None;
        self.out.abandon()
    }

    /// The bare socket of one that is between two exchanges. `None`: it is more than that, and
    /// stays as it is.
    pub(super) fn take_plain(&mut self) -> Option<tokio::net::TcpStream> {
        if self.socket.as_ref()?.is_more_than_a_socket() {
            return None;
        }
        self.socket.take()?.stream.into_plain()
    }

    /// After a 101: the connection, and what the server sent behind its head. `None` where bytes
    /// bypass TCP (a request that asks for a tunnel goes out on a connection of its own), or
    /// where a part of the request has yet to go out.
    pub(super) fn take_tunnel(&mut self) -> Option<(Transport, Bytes)> {
        self.closes = true;
        let socket = self.socket.take()?;
        let may = !socket.hop.is_on() && self.out.is_done();
        may.then(|| (socket.stream, std::mem::take(&mut self.have)))
    }
}

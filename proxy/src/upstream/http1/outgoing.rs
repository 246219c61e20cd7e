//! A request on its way to the socket: its head, and its body as that comes.
//!
//! Invariant: a frame of the body is asked for only when what came before it has been taken by
//! the socket, but for so much as is worth one system call. No byte of it is copied.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::{
    body::BodyStream,
    error::Error,
    wire::{Framing, fields, socket::Socket, spelling::Spelling},
};

/// Bytes of a body that are worth a system call: no more is gathered.
const ENOUGH_BYTES: usize = 64 * 1024;

/// Pieces that go into one system call.
const MOST_PIECES: usize = 32;

/// Why a request cannot be sent to its end.
#[derive(Debug)]
pub(super) enum Failed {
    /// The socket takes no more.
    Socket(io::Error),
    /// Its body has broken off.
    Body(Error),
    /// Its body is not as long as its head says.
    Length,
}

#[derive(Debug)]
enum Piece {
    /// So many bytes of `text`.
    Text(usize),
    Data(Bytes),
}

/// What has yet to go out. Its memory for heads is kept from one request to the next.
#[derive(Debug)]
pub(super) struct Outgoing {
    text: BytesMut,
    pieces: VecDeque<Piece>,
    /// Bytes of the body among them.
    queued: usize,
    body: Option<BodyStream>,
    framing: Framing,
    begun: bool,
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            text: BytesMut::new(),
            pieces: VecDeque::new(),
            queued: 0,
            body: None,
            framing: Framing::Empty,
            begun: false,
            unflushed: false,
        }
    }

    /// Whether a byte of the request has been written.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether everything has been taken by the socket.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && self.pieces.is_empty() && !self.unflushed
    }

    /// Takes the body out: nothing more of it is sent.
    pub(super) fn abandon(&mut self) -> Option<BodyStream> {
        self.pieces.clear();
        self.queued = 0;
        self.text.clear();
        self.unflushed = false;
        self.body.take()
    }

    /// Begins with a request of HTTP/1.1 (RFC 9112 section 3), whose body is taken out of it if
    /// there is one.
    pub(super) fn begin(&mut self, request: &mut Request<BodyStream>) {
        self.begun = false;
        let has_body = !request.body().is_end_stream();
        let length = has_body.then(|| length(request)).flatten();
        self.framing = match (has_body, length) {
            (false, _) => Framing::Empty,
            (true, Some(length)) => Framing::Length(length),
            (true, None) => Framing::Chunked,
        };
        self.head(request);
        if let Some(spelling) = request.extensions().get::<Spelling>() {
            spelling.apply(&mut self.text);
        }
        self.pieces.push_back(Piece::Text(self.text.len()));
        if has_body {
            self.body = Some(std::mem::replace(request.body_mut(), BodyStream::empty()));
        }
    }

    fn head(&mut self, request: &Request<BodyStream>) {
        let text = &mut self.text;
        let headers = request.headers();
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        // Enough for all but large fields.
        text.reserve(64 + target.len() + 64 * headers.len());
        text.put_slice(request.method().as_str().as_bytes());
        text.put_u8(b' ');
        if !target.starts_with(['/', '*']) {
            // An absolute-form may have a query without a path.
            text.put_u8(b'/');
        }
        text.put_slice(target.as_bytes());
        text.put_slice(b" HTTP/1.1\r\n");
        for (name, value) in headers {
            let frames = *name == header::TRANSFER_ENCODING
                || *name == header::CONTENT_LENGTH
                    && (self.framing != Framing::Empty || value.as_bytes() != b"0");
            if frames {
                continue;
            }
            text.put_slice(name.as_str().as_bytes());
            text.put_slice(b": ");
            text.put_slice(value.as_bytes());
            text.put_slice(b"\r\n");
        }
        match self.framing {
            Framing::Length(length) => {
                text.put_slice(b"content-length: ");
                text.put_slice(itoa::Buffer::new().format(length).as_bytes());
                text.put_slice(b"\r\n");
            }
            Framing::Chunked => text.put_slice(b"transfer-encoding: chunked\r\n"),
            Framing::Empty | Framing::UntilClose => {}
        }
        text.put_slice(b"\r\n");
    }

    /// Sends what can be sent. Ready when that was all.
    pub(super) fn poll(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failed>> {
        loop {
            self.gather(cx)?;
            if self.pieces.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut *socket).poll_flush(cx)).map_err(Failed::Socket)?;
                    self.unflushed = false;
                }
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let written = ready!(self.poll_write(socket, cx)).map_err(Failed::Socket)?;
            if written == 0 {
                return Poll::Ready(Err(Failed::Socket(io::ErrorKind::WriteZero.into())));
            }
            self.begun = true;
            self.unflushed = true;
            self.advance(written);
        }
    }

    fn poll_write(&self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut socket.stream);
        if let [Piece::Text(length)] = self.pieces.as_slices().0
            && self.pieces.len() == 1
        {
            return stream.poll_write(cx, &self.text[..*length]);
        }
        let mut slices = [IoSlice::new(&[]); MOST_PIECES];
        let mut at = 0;
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match piece {
                Piece::Data(data) => data,
                Piece::Text(length) => {
                    at += length;
                    &self.text[at - length..at]
                }
            });
            used += 1;
        }
        stream.poll_write_vectored(cx, &slices[..used])
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let length = match piece {
                Piece::Text(length) => *length,
                Piece::Data(data) => data.len(),
            };
            let taken = written.min(length);
            match piece {
                Piece::Text(length) => {
                    *length -= taken;
                    self.text.advance(taken);
                }
                Piece::Data(data) => {
                    self.queued -= taken;
                    data.advance(taken);
                }
            }
            if taken < length {
                return;
            }
            written -= taken;
            self.pieces.pop_front();
        }
        self.text.clear();
    }

    /// Takes frames that are there: who sends the body is waited for only while there is room,
    /// for then it is the client whose turn it is.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Failed> {
        // A frame is three pieces at most, and its end a fourth.
        while self.queued < ENOUGH_BYTES && self.pieces.len() + 4 <= MOST_PIECES {
            let Some(body) = &mut self.body else { return Ok(()) };
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = frame.is_trailers() || body.is_end_stream();
                    self.push(frame)?;
                    if is_last {
                        return self.end();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return Err(Failed::Body(error));
                }
                Poll::Ready(None) => return self.end(),
            }
        }
        Ok(())
    }

    fn push(&mut self, frame: Frame<Bytes>) -> Result<(), Failed> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                // Without chunks there is no place for them (RFC 9112 section 7.1.2).
                if let Ok(trailers) = frame.into_trailers()
                    && self.framing == Framing::Chunked
                {
                    self.trailers(&trailers);
                }
                return Ok(());
            }
        };
        // Among chunks it would be the end.
        if data.is_empty() {
            return Ok(());
        }
        let length = data.len();
        self.queued += length;
        match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(length as u64).ok_or(Failed::Length)?;
                self.pieces.push_back(Piece::Data(data));
            }
            Framing::Chunked => {
                let line = self.chunk_line(length);
                self.pieces.push_back(Piece::Text(line));
                self.pieces.push_back(Piece::Data(data));
                self.text.put_slice(b"\r\n");
                self.pieces.push_back(Piece::Text(2));
            }
            Framing::Empty | Framing::UntilClose => return Err(Failed::Length),
        }
        Ok(())
    }

    /// RFC 9112 section 7.1: the size in hexadecimal digits.
    fn chunk_line(&mut self, length: usize) -> usize {
        let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
        for digit in (0..digits).rev() {
            let digit = (length >> (4 * digit)) & 0xf;
            self.text.put_u8(b"0123456789abcdef"[digit]);
        }
        self.text.put_slice(b"\r\n");
        digits as usize + 2
    }

    /// The last chunk and the trailer section. What ends the body, then, is written here.
    fn trailers(&mut self, trailers: &HeaderMap) {
        let before = self.text.len();
        self.text.put_slice(b"0\r\n");
        for (name, value) in trailers {
            if !fields::is_forbidden_trailer(name.as_str().as_bytes()) {
                self.text.put_slice(name.as_str().as_bytes());
                self.text.put_slice(b": ");
                self.text.put_slice(value.as_bytes());
                self.text.put_slice(b"\r\n");
            }
        }
        self.text.put_slice(b"\r\n");
        self.pieces.push_back(Piece::Text(self.text.len() - before));
        self.framing = Framing::Empty;
    }

    fn end(&mut self) -> Result<(), Failed> {
        self.body = None;
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(Failed::Length),
            Framing::Chunked => {
                self.text.put_slice(b"0\r\n\r\n");
                self.pieces.push_back(Piece::Text(5));
            }
            _ => {}
        }
        self.framing = Framing::Empty;
        Ok(())
    }
}

/// How long a body is, where that is known.
fn length(request: &Request<BodyStream>) -> Option<u64> {
    request.body().size_hint().exact().or_else(|| {
        let told = request.headers().get(header::CONTENT_LENGTH)?;
        fields::content_length(told.as_bytes()).ok()
    })
}

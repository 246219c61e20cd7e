//! A request's body on a stream of HTTP/2: hyper has it, and it can be taken back.
//!
//! A server may refuse a stream without having looked at it, as each does that is about to end
//! (GOAWAY). hyper has then taken the first chunks already, and gRPC sends each request with a
//! body; so handles of them are kept until the answer begins, up to [`MOST_BYTES`], and the
//! request can be sent once more. No byte is copied.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::BodyStream;
use crate::{
    error::{Error, Kind},
    upstream::http2::Place,
    wire::http2,
};

/// How much of a body is kept at most for being sent again.
const MOST_BYTES: usize = 64 * 1024;

type Polled = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// A body that is lent.
#[derive(Debug)]
pub struct Lent {
    /// `None`: taken back.
    body: RefCell<Option<BodyStream>>,
    /// What has been given of it. `None`: not all of it is there any more.
    given: RefCell<Option<Given>>,
    place: Rc<Place>,
}

/// What has been taken of a body.
#[derive(Debug, Default)]
struct Given {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

/// A body of which a part is sent again.
#[derive(Debug)]
pub(super) struct Again {
    chunks: VecDeque<Bytes>,
    rest: BodyStream,
}

impl Lent {
    pub(super) fn new(body: BodyStream, place: Rc<Place>) -> Rc<Self> {
        let given = RefCell::new(Some(Given::default()));
        Rc::new(Self { body: RefCell::new(Some(body)), given, place })
    }

    /// It will not be sent again.
    pub fn settle(&self) {
        self.given.take();
    }

    /// The whole body, as it was lent.
    pub fn take_back(&self) -> Option<BodyStream> {
        let Given { chunks, .. } = self.given.take()?;
        let rest = self.body.take()?;
        Some(if chunks.is_empty() { rest } else { BodyStream::again(Again { chunks, rest }) })
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Polled {
        let mut body = self.body.borrow_mut();
        let gone = || Poll::Ready(Some(Err(Error::new(Kind::ClientGone))));
        let Some(body) = body.as_mut() else { return gone() };
        if self.place.poll_cut(cx).is_ready() {
            return gone();
        }
        self.place.asked();
        let mut polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            http2::trailers(trailers);
        }
        let mut given = self.given.borrow_mut();
        match (&polled, given.as_mut()) {
            (Poll::Ready(Some(Ok(frame))), Some(kept)) => match frame.data_ref() {
                Some(data) if kept.bytes + data.len() <= MOST_BYTES => {
                    kept.bytes += data.len();
                    kept.chunks.push_back(data.clone());
                }
                // Too much, or trailers, which cannot be had twice.
                _ => *given = None,
            },
            (Poll::Ready(Some(Err(_))), _) => *given = None,
            _ => {}
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.borrow().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.borrow().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Again {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && self.rest.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let kept: usize = self.chunks.iter().map(Bytes::len).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + kept as u64),
            None => SizeHint::default(),
        }
    }
}

//! `BodyStream`: the frames of a body as the transport gave them, one after the other.
//!
//! Invariant: no byte of a body is copied, collected or looked at. A frame is asked for
//! only when the other side can take it, so backpressure passes through by itself. A
//! body that breaks off ends in an error, never in a clean end.
//!
//! Both directions use the same type: towards the server it carries the request's tap,
//! towards the client the response's.
//!
//! Implements: REQ-CORE-001.F-002, REQ-CTRL-004

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    cache::reader::Reader,
    error::{Error, Kind},
    exchange::Exchange,
    middleware::mirror::{Copied, IsCut},
    record::Side,
    upstream::{
        answer::AnswerBody,
        connection::Connection,
        http2::{Connecting, Place},
    },
};

mod answer;
mod cached;
mod coded;
mod lent;

use answer::{ResponseTap, counted, poll_last, poll_response};
use cached::poll_cached;
use coded::Coded;
use lent::Again;
pub use lent::Lent;

/// A streaming body with its tap.
#[derive(Debug)]
pub struct BodyStream {
    source: Source,
    tap: Tap,
}

#[derive(Debug)]
enum Source {
    Empty,
    /// None either, though the head tells of one (304): hyper writes a length over HTTP/1
    /// only if the body has it.
    Announced(u64),
    Fixed(Bytes),
    Incoming(Incoming),
    /// A server's.
    Answer(AnswerBody),
    /// One of these, put into a content coding.
    Coded(Box<Coded>),
    /// A request's, for a second server.
    Copied {
        copied: Copied,
        length: Option<u64>,
    },
    /// A request's, on a stream of HTTP/2.
    Lent(Rc<Lent>),
    /// The same once more.
    Again(Box<Again>),
    /// None: the request is a CONNECT over HTTP/2.
    Connecting(Connecting),
    /// Out of the cache.
    Cached(Box<Reader>),
}

#[derive(Debug)]
enum Tap {
    None,
    Request(Rc<Exchange>),
    Response(ResponseTap),
}

impl BodyStream {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Empty, tap: Tap::None }
    }

    /// A request body on its way to the server.
    pub fn request(body: Incoming, exchange: &Rc<Exchange>) -> Self {
        if body.is_end_stream() {
            exchange.request_ended();
            return Self::empty();
        }
        Self { source: Source::Incoming(body), tap: Tap::Request(Rc::clone(exchange)) }
    }

    /// A request's body for a second server, as long as `original`.
    pub fn copied(copied: Copied, original: &Self) -> Self {
        let length = original.size_hint().exact();
        Self { source: Source::Copied { copied, length }, tap: Tap::None }
    }

    /// Lends a request's body to a stream: what is to be sent, and what can be taken back.
    pub fn lend(self, place: Rc<Place>) -> (Self, Rc<Lent>) {
        let lent = Lent::new(self, place);
        (Self { source: Source::Lent(Rc::clone(&lent)), tap: Tap::None }, lent)
    }

    fn again(again: Again) -> Self {
        Self { source: Source::Again(Box::new(again)), tap: Tap::None }
    }

    /// What stands for the body of a CONNECT over HTTP/2.
    pub fn connecting(connecting: Connecting) -> Self {
        Self { source: Source::Connecting(connecting), tap: Tap::None }
    }

    /// An answer of our own.
    pub fn fixed(text: Bytes, exchange: Rc<Exchange>) -> Self {
        // Over HTTP/2 hyper does not know that HEAD has no body, and sends what it is given.
        let text = if exchange.is_to_head() { Bytes::new() } else { text };
        // Nobody asks for the end of a body that is empty from the start.
        let tap = ResponseTap::new(exchange, None, text.is_empty());
        Self { source: Source::Fixed(text), tap: Tap::Response(tap) }
    }

    /// A response body on its way to the client. `connection` goes back to its pool at the
    /// body's clean end, and is closed at any other. `announced` is the length that the head
    /// tells of where there is no body.
    pub fn response(
        body: AnswerBody,
        announced: Option<u64>,
        exchange: Rc<Exchange>,
        connection: Connection,
    ) -> Self {
        let ended = body.is_end_stream();
        let mut tap = ResponseTap::new(exchange, Some(connection), ended);
        let source = match announced {
            _ if !ended => Source::Answer(body),
            Some(length) => Source::Announced(length),
            None => Source::Empty,
        };
        if ended {
            tap.release();
        }
        Self { source, tap: Tap::Response(tap) }
    }

    /// Whether the head of the answer is all of it, so that nobody asks for more.
    pub fn is_none(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Announced(_) => true,
            Source::Fixed(text) => text.is_empty(),
            _ => false,
        }
    }

    /// Whether the last frame waits for the recorder.
    fn keeps(&self) -> bool {
        matches!(&self.tap, Tap::Response(tap) if tap.exchange.record_keeps())
    }

    /// Whether the last byte has yet to go.
    fn owes_last(&self) -> bool {
        matches!(&self.tap, Tap::Response(tap) if tap.owes_last())
    }

    fn is_to_head(&self) -> bool {
        matches!(&self.tap, Tap::Response(tap) if tap.exchange.is_to_head())
    }
}

impl Body for BodyStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Tap::Response(tap) = &mut this.tap
            && let Some(last) = tap.take_last()
        {
            return Poll::Ready(Some(Ok(last)));
        }
        match &mut this.source {
            Source::Empty | Source::Announced(_) => match &mut this.tap {
                Tap::Response(tap) => {
                    tap.ended = true;
                    let kept = ready!(tap.exchange.poll_record_kept(cx)).flatten();
                    counted(Poll::Ready(kept.map(Ok)), tap)
                }
                Tap::Request(_) | Tap::None => Poll::Ready(None),
            },
            Source::Fixed(text) => match &mut this.tap {
                Tap::Response(tap) => {
                    ready!(tap.exchange.poll_record_room(Side::Response, cx));
                    let text = std::mem::take(text);
                    this.source = Source::Empty;
                    tap.ended = true;
                    let frame = (!text.is_empty()).then(|| Frame::data(text));
                    if let Some(frame) = &frame {
                        tap.exchange.record_frame(Side::Response, frame);
                    }
                    counted(poll_last(&tap.exchange, frame, cx), tap)
                }
                // Only answers are fixed.
                Tap::Request(_) | Tap::None => Poll::Ready(None),
            },
            Source::Copied { copied, .. } => {
                let chunk = ready!(copied.poll_next(cx));
                Poll::Ready(chunk.map(|chunk| {
                    chunk.map(Frame::data).map_err(|IsCut| Error::new(Kind::Internal))
                }))
            }
            Source::Lent(lent) => lent.poll_frame(cx),
            Source::Again(again) => again.poll_frame(cx),
            Source::Connecting(_) => Poll::Ready(None),
            Source::Coded(coded) => match &mut this.tap {
                Tap::Response(tap) => {
                    let frame = counted(coded.poll_frame(tap, cx), tap);
                    if coded.is_over() {
                        // Nobody asks for the end, then.
                        tap.exchange.answer_ends();
                    }
                    frame
                }
                // Only answers are encoded.
                Tap::Request(_) | Tap::None => Poll::Ready(None),
            },
            Source::Cached(reader) => match &mut this.tap {
                Tap::Response(tap) => counted(poll_cached(reader, tap, cx), tap),
                // Only answers are cached.
                Tap::Request(_) | Tap::None => Poll::Ready(None),
            },
            Source::Incoming(body) => match &mut this.tap {
                Tap::Request(exchange) => poll_request(body, exchange, cx),
                // Clients send requests.
                Tap::Response(_) | Tap::None => Poll::Ready(None),
            },
            Source::Answer(body) => match &mut this.tap {
                Tap::Response(tap) => counted(poll_response(body, tap, cx), tap),
                // Servers send answers.
                Tap::Request(_) | Tap::None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => !self.keeps() && !self.owes_last(),
            Source::Announced(_) => false,
            Source::Fixed(text) => text.is_empty(),
            Source::Incoming(body) => body.is_end_stream(),
            Source::Answer(body) => body.is_end_stream() && !self.keeps() && !self.owes_last(),
            Source::Cached(reader) => {
                reader.left() == Some(0) && !self.keeps() && !self.owes_last()
            }
            Source::Coded(coded) => coded.is_over() && !self.owes_last(),
            Source::Copied { copied, .. } => copied.is_over(),
            Source::Lent(lent) => lent.is_end_stream(),
            Source::Again(again) => again.is_end_stream(),
            Source::Connecting(connecting) => {
                connecting.taken();
                true
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty | Source::Connecting(_) => SizeHint::with_exact(0),
            Source::Announced(length) => SizeHint::with_exact(*length),
            Source::Fixed(text) => SizeHint::with_exact(text.len() as u64),
            Source::Incoming(body) => body.size_hint(),
            Source::Answer(body) => body.size_hint(),
            Source::Lent(lent) => lent.size_hint(),
            Source::Again(again) => again.size_hint(),
            Source::Cached(reader) => {
                reader.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Coded(_) => SizeHint::default(),
            Source::Copied { length, .. } => {
                length.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

fn poll_request(
    body: &mut Incoming,
    exchange: &Exchange,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    // RFC 9110 section 10.1.1: the body is asked for when the server asks for it.
    ready!(exchange.poll_may_send_body(cx));
    ready!(exchange.poll_record_room(Side::Request, cx));
    exchange.waits_for_client();
    let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
    exchange.client_gave();
    Poll::Ready(match frame {
        Some(Ok(mut frame)) => {
            if let Some(trailers) = frame.trailers_mut() {
                exchange.client().guard(trailers);
            }
            // Also what is too much: it has come, and is counted.
            exchange.record_frame(Side::Request, &frame);
            if let Some(data) = frame.data_ref()
                && !exchange.received(data.len())
            {
                return Poll::Ready(Some(Err(exchange.fail_request(Kind::RequestBodyTooLarge))));
            }
            exchange.copy(frame.data_ref());
            if frame.is_trailers() || body.is_end_stream() {
                exchange.request_ended();
            }
            Some(Ok(frame))
        }
        Some(Err(error)) => Some(Err(exchange.request_broke(error))),
        // A reset with NO_ERROR, which is no end that a request may have (RFC 9113 section 8.1).
        None if exchange.version() == Version::HTTP_2
            && !body.is_end_stream()
            && body.size_hint().exact() != Some(0) =>
        {
            Some(Err(exchange.fail_request(Kind::ClientGone)))
        }
        None => {
            exchange.request_ended();
            None
        }
    })
}

//! What servers answer with, whichever version of HTTP it came by.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1;
use crate::body::BodyStream;

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// From a connection of its own.
    Http1(http1::Body),
    /// From a stream of HTTP/2.
    Http2(Incoming),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Http1(body) => body.poll_frame(cx).map_err(Broken::Http1),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Broken::Http2),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_over(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// Why an exchange with a server has come to nothing, or to a part.
#[derive(Debug)]
pub enum Broken {
    /// The connection, or what came on it ([`io::ErrorKind::InvalidData`]).
    Http1(io::Error),
    /// The stream, or the connection that it was one of.
    Http2(hyper::Error),
    /// The body of the request, which could not be sent to its end.
    Request(crate::error::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http1(error) => error.source(),
            Self::Http2(error) => error.source(),
            Self::Request(_) => None,
        }
    }
}

/// A request without the head of an answer.
#[derive(Debug)]
pub struct Unanswered {
    why: Broken,
    request: Option<Request<BodyStream>>,
    written: Option<Request<BodyStream>>,
}

impl Unanswered {
    /// `request`: not a byte of it was written.
    pub fn new(why: Broken, request: Option<Request<BodyStream>>) -> Box<Self> {
        Box::new(Self { why, request, written: None })
    }

    /// `written`: it may have come to the server, and has no body.
    pub fn maybe_seen(why: Broken, written: Option<Request<BodyStream>>) -> Box<Self> {
        Box::new(Self { why, request: None, written })
    }

    /// Why.
    pub fn why(&self) -> &Broken {
        &self.why
    }

    /// The request, if not a byte of it was written.
    pub fn take_request(&mut self) -> Option<Request<BodyStream>> {
        self.request.take()
    }

    /// The request, if it has no body and may have come to the server.
    pub fn take_written(&mut self) -> Option<Request<BodyStream>> {
        self.written.take()
    }

    /// Why, as a cause.
    pub fn into_why(self) -> Broken {
        self.why
    }
}

impl From<hyper::client::conn::TrySendError<Request<BodyStream>>> for Box<Unanswered> {
    fn from(mut error: hyper::client::conn::TrySendError<Request<BodyStream>>) -> Self {
        let request = error.take_message();
        Unanswered::new(Broken::Http2(error.into_error()), request)
    }
}

/// What sending a request comes to. Boxed where it fails: with the request inside it is large,
/// and rare.
pub type Sent = Result<Response<AnswerBody>, Box<Unanswered>>;

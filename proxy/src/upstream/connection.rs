//! A checked-out connection to a server, whichever version of HTTP is spoken on it: one of its
//! own ([`Http1`]), or one stream of a connection that others share ([`Stream`]).
//!
//! One exchange has it. It goes back to its pool only by [`Connection::give_back`]; dropped in
//! any other way it ends at once (the socket is closed, the stream reset), which is how a
//! client that goes away ends the upstream request.

use std::{future::Future, net::SocketAddr, rc::Rc};

use futures_util::future::Either;
use hyper::Request;

use super::{
    answer::{AnswerBody, Broken, Sent},
    carried::Carried,
    fast_open::Opening,
    http1::{Http1, Link},
    http2::Stream,
};
use crate::{body::BodyStream, error::Kind};

/// A checked-out connection.
#[derive(Debug)]
pub enum Connection {
    /// HTTP/1.1, alone on it.
    Http1(Http1),
    /// HTTP/2, among others.
    Http2(Box<Stream>),
}

impl Connection {
    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(http1) => http1.address(),
            Self::Http2(stream) => stream.address(),
        }
    }

    /// Whether it carried a request before, so that the server may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_reused(),
            Self::Http2(stream) => stream.is_reused(),
        }
    }

    /// The connection, over HTTP/1.
    pub fn link(&self) -> Option<&Rc<Link>> {
        match self {
            Self::Http1(http1) => http1.link(),
            Self::Http2(_) => None,
        }
    }

    /// The rule that the server broke, where the wire knows.
    pub fn fault(&self) -> Option<&'static str> {
        self.link().and_then(|link| link.fault())
    }

    /// Has the request that goes out on it count as under way for as long as it is checked out.
    pub fn carry(&mut self, carried: Option<Box<Carried>>) {
        match self {
            Self::Http1(http1) => http1.carry(carried),
            Self::Http2(stream) => stream.carry(carried),
        }
    }

    /// Sends a request, which is one of HTTP/1.1 in any case. The future resolves with the final
    /// response head. `None`: it is of no use any more.
    ///
    /// # Errors
    /// Of the future; the request comes back if not a byte of it was written.
    pub fn send(
        &mut self,
        request: Request<BodyStream>,
    ) -> Option<impl Future<Output = Sent> + 'static + use<>> {
        Some(match self {
            Self::Http1(http1) => Either::Left(http1.send(request)?),
            Self::Http2(stream) => Either::Right(stream.send(request)?),
        })
    }

    /// What a request that came to no answer tells of the server.
    pub fn why(&self, error: &Broken) -> Kind {
        match (self, error) {
            (Self::Http1(http1), _) => http1.why(),
            (Self::Http2(_), Broken::Http2(error)) => super::http2::fault::why(error),
            (Self::Http2(_), _) => Kind::UpstreamClosed,
        }
    }

    /// Whether a kept connection that gave no answer may have been closed before the request
    /// came to the server.
    pub fn may_be_stale(&self, error: &Broken) -> bool {
        match error {
            Broken::Http2(error) => super::http2::fault::is_of_connection(error),
            Broken::Http1(_) => true,
            Broken::Request(_) => false,
        }
    }

    /// The head of the answer is there: the request is not sent again from here on.
    pub fn answered(&mut self) {
        match self {
            Self::Http1(http1) => http1.answered(),
            Self::Http2(stream) => stream.answered(),
        }
    }

    /// How it opens, if the request went out with its first segment.
    pub fn opening(&self) -> Option<&Opening> {
        match self {
            Self::Http1(http1) => http1.opening(),
            Self::Http2(_) => None,
        }
    }

    /// A request that comes back unsent, with its body no more lent to this connection. `None`: a
    /// part of that is gone.
    pub fn unlend(&mut self, request: Request<BodyStream>) -> Option<Request<BodyStream>> {
        match self {
            Self::Http1(_) => Some(request),
            Self::Http2(stream) => {
                let (head, _lent) = request.into_parts();
                Some(Request::from_parts(head, stream.reclaim()?))
            }
        }
    }

    /// No answer has come in time: one that is shared may be dead.
    pub fn unanswered(&self) {
        if let Self::Http2(stream) = self {
            stream.unanswered();
        }
    }

    /// Whether an answer on it that ends so early, with so much missing or unknown of it, has been
    /// broken off, `sent`: behind a whole request.
    ///
    /// hyper takes a reset with NO_ERROR for the end of a body. A server may send one behind a
    /// whole answer, to be spared the rest of the request (RFC 9113 section 8.1); in any other
    /// place the answer is not whole.
    pub fn is_broken_off(&self, body: &AnswerBody, sent: bool) -> bool {
        use http_body::Body;
        match body {
            AnswerBody::Http1(_) => false,
            AnswerBody::Http2(body) if body.is_end_stream() => false,
            AnswerBody::Http2(body) => match body.size_hint().exact() {
                Some(missing) => missing > 0,
                None => sent,
            },
        }
    }

    /// The body of a request that the server says it has not looked at, whole again. `None`: it
    /// says no such thing, or too much of the body is gone.
    pub fn take_refused(&mut self, error: &Broken) -> Option<BodyStream> {
        match (self, error) {
            (Self::Http2(stream), Broken::Http2(error))
                if super::http2::fault::is_unprocessed(error) =>
            {
                stream.reclaim()
            }
            _ => None,
        }
    }

    /// It carries no further exchange.
    pub fn retire(&mut self) {
        if let Self::Http1(http1) = self {
            http1.retire();
        }
    }

    /// The exchange is complete, both ways: keep the connection for the next one.
    pub fn give_back(self) {
        match self {
            Self::Http1(http1) => http1.give_back(),
            Self::Http2(stream) => stream.give_back(),
        }
    }
}

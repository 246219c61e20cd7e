//! The request phase: the route has been found and no server asked yet, so whoever answers
//! by itself does it here.
//!
//! The request's head may be changed, its body has not been touched. An answer from here ends
//! the exchange as one of a server would; what is left of the request's body stays unread.

use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::{body::BodyStream, exchange::Exchange};

/// An answer of our own, if there is one.
pub(super) fn answer(
    exchange: &Rc<Exchange>,
    request: &mut Request<Incoming>,
) -> Option<Response<BodyStream>> {
    max_forwards(exchange, request)
}

/// RFC 9110 section 7.6.2, for OPTIONS (TRACE goes no further anyway).
fn max_forwards(
    exchange: &Rc<Exchange>,
    request: &mut Request<Incoming>,
) -> Option<Response<BodyStream>> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let left: u32 = request.headers().get(header::MAX_FORWARDS)?.to_str().ok()?.parse().ok()?;
    if left > 0 {
        request.headers_mut().insert(header::MAX_FORWARDS, HeaderValue::from(left - 1));
        return None;
    }
    exchange.answer(StatusCode::OK);
    let mut response = Response::new(BodyStream::fixed(Default::default(), Rc::clone(exchange)));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    Some(response)
}

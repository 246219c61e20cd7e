//! The request phase: the route has been found and no server asked yet, so whoever answers
//! by itself does it here.
//!
//! The request's head may be changed, its body has not been touched. An answer from here ends
//! the exchange as one of a server would; what is left of the request's body stays unread.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::target;
use crate::{
    acme::{Challenge, HTTP_PATH},
    body::BodyStream,
    config::Protocol,
    error::{Error, Kind},
    exchange::Exchange,
    route::{Action, Matched},
};

/// What a route answers that asks no server.
pub(super) fn of_route(
    exchange: &Rc<Exchange>,
    route: &Matched,
    request: &Request<Incoming>,
) -> Result<Response<BodyStream>, Error> {
    let (status, headers, body) = match &route.action {
        Action::Redirect(redirect) => {
            let parts = target::parts(exchange, request);
            // Only HTTP/1.0 leaves it out.
            if parts.host.is_empty() && redirect.to.needs_host() {
                return Err(Error::new(Kind::BadRequest("no host to redirect to")));
            }
            let place = redirect.to.fill(&parts, route.rule.as_ref());
            let place = HeaderValue::try_from(place)
                .map_err(|error| Error::because(Kind::BadRequest("a bad target"), error))?;
            let mut headers = HeaderMap::with_capacity(4);
            headers.insert(header::LOCATION, place);
            (redirect.status, headers, Bytes::new())
        }
        Action::Respond(respond) => (respond.status, respond.headers.clone(), respond.body.clone()),
        Action::Upstream(_) | Action::Split(_) => return Err(Error::new(Kind::Internal)),
    };
    exchange.answer_ourselves(status);
    let length = body.len();
    let mut response = Response::new(BodyStream::fixed(body, Rc::clone(exchange)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // RFC 9110 section 8.6: not in these, which have no body.
    if !matches!(status.as_u16(), 204 | 304) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

/// What a CA looks for that is asked for a certificate (RFC 8555 section 8.3). Of those paths
/// none but what an order under way waits for is ours.
///
/// Implements: REQ-EDGE-011
pub(super) fn of_order(
    exchange: &Rc<Exchange>,
    request: &Request<Incoming>,
) -> Option<Response<BodyStream>> {
    let path = request.uri().path();
    if !path.starts_with(HTTP_PATH) {
        return None;
    }
    let (worker, listener) = (exchange.client().worker(), exchange.client().listener());
    let is_plain = listener.config.tls.is_none() && matches!(*listener.protocol(), Protocol::Http);
    if !is_plain || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let answers = &worker.process.answers;
    let body = answers.http(path)?;
    answers.count(Challenge::Http);
    exchange.answer_ourselves(StatusCode::OK);
    let length = body.len();
    let mut response = Response::new(BodyStream::fixed(body, Rc::clone(exchange)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    // As the RFC's example has it, and nothing that a browser would run.
    let binary = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, binary);
    Some(response)
}

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
    exchange.answer_ourselves(StatusCode::OK);
    let mut response = Response::new(BodyStream::fixed(Default::default(), Rc::clone(exchange)));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    Some(response)
}

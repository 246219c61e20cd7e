//! The response phase: the head of the answer is there, and nothing of it has gone out.
//!
//! Head and body may be changed here, the body only as a stream.

use std::rc::Rc;

use http::{Response, StatusCode, Version, header};

use crate::{
    body::BodyStream,
    exchange::Exchange,
    headers, middleware,
    upstream::{answer::AnswerBody, connection::Connection},
};

/// What route and middleware change in any answer: a server's, our own, errors, and the 101 of
/// a tunnel.
pub(super) fn leave(exchange: &Rc<Exchange>, response: &mut Response<BodyStream>) {
    if let Some(changes) = exchange.route().and_then(|route| route.changes.as_ref()) {
        changes.response.apply(response.headers_mut());
    }
    middleware::leave(exchange, response);
}

/// What a server answered, as the client gets it.
pub(super) fn of_server(
    exchange: &Rc<Exchange>,
    answer: Response<AnswerBody>,
    connection: Connection,
    version: Version,
) -> Response<BodyStream> {
    let (mut parts, body) = answer.into_parts();
    let received = parts.version;
    exchange.record_answer(parts.status, &parts.headers, true);
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.headers.append(header::VIA, headers::via(received));
    if version == Version::HTTP_2 {
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::TE);
    }
    // hyper lowers it for a client that speaks HTTP/1.0.
    parts.version = if version == Version::HTTP_2 { version } else { Version::HTTP_11 };
    exchange.answer(parts.status);
    if !parts.status.is_client_error() && !parts.status.is_server_error() {
        // A server that answers without 100 (Continue) may still read; the client decides
        // by this answer whether it sends (RFC 9110 section 10.1.1).
        exchange.may_send_body();
    }
    let ends_with_connection =
        version == Version::HTTP_10 && !parts.headers.contains_key(header::CONTENT_LENGTH);
    exchange.client().answering(ends_with_connection);
    if version == Version::HTTP_11 && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        exchange.answer_is_chunked();
    }
    let announced = (parts.status == StatusCode::NOT_MODIFIED && version != Version::HTTP_2)
        .then(|| parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok())
        .flatten();
    let body = BodyStream::response(body, announced, Rc::clone(exchange), connection);
    Response::from_parts(parts, body)
}

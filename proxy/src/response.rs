//! The only table from error to status, and the answers made from it.
//!
//! Peers get fixed text, callers of gRPC in its form; causes go to the log.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{body::BodyStream, error::Kind, exchange::Exchange, grpc};

/// The status that a client is sent for a fault.
pub fn status(kind: Kind) -> StatusCode {
    use Kind::*;
    match kind {
        // On connections without HTTP, BadClientHello, BadProxyHeader, Handshake: nobody is sent a
        // status.
        BadRequest(_) | BadClientHello(_) | BadProxyHeader(_) | Handshake => {
            StatusCode::BAD_REQUEST
        }
        HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        UriTooLong => StatusCode::URI_TOO_LONG,
        HeadTimeout | RequestBodyTimeout => StatusCode::REQUEST_TIMEOUT,
        RequestBodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
        MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        ExpectationFailed => StatusCode::EXPECTATION_FAILED,
        ProxyAuthRequired => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        Unauthorized => StatusCode::UNAUTHORIZED,
        RateLimited => StatusCode::TOO_MANY_REQUESTS,
        TooManyAtOnce => StatusCode::SERVICE_UNAVAILABLE,
        Forbidden(_) => StatusCode::FORBIDDEN,
        Misdirected => StatusCode::MISDIRECTED_REQUEST,
        NoRoute => StatusCode::NOT_FOUND,
        // Nobody is there to read it.
        ClientGone => StatusCode::BAD_REQUEST,
        Resolve | Connect | UpstreamTls | UpstreamClosed | BadResponse(_) | ResponseBodyBroken => {
            StatusCode::BAD_GATEWAY
        }
        ConnectTimeout | ResponseTimeout | DeadlineExceeded | ResponseBodyTimeout => {
            StatusCode::GATEWAY_TIMEOUT
        }
        NoServer | PoolExhausted | Overloaded(_) | Draining => StatusCode::SERVICE_UNAVAILABLE,
        Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether what follows on the connection cannot be trusted, or will not be read.
fn closes(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        BadRequest(_)
            | HeadTooLarge
            | UriTooLong
            | HeadTimeout
            | RequestBodyTimeout
            | RequestBodyTooLarge
            | NotImplemented(_)
            | VersionNotSupported
            | ClientGone
            | Draining
            | Internal
    )
}

/// What clients are told of a fault.
pub fn text(kind: Kind) -> String {
    let status = status(kind);
    let reason = status.canonical_reason().unwrap_or("Error");
    match (kind, kind.detail()) {
        // Which server or which rule of its answer: nothing for clients.
        (Kind::BadResponse(_), _) | (_, None) => format!("{} {reason}", status.as_u16()),
        (_, Some(detail)) => format!("{} {reason}: {detail}", status.as_u16()),
    }
}

/// The answer to an exchange that failed before its head was sent.
pub fn error(kind: Kind, exchange: Rc<Exchange>) -> Response<BodyStream> {
    exchange.fail(kind);
    if exchange.is_grpc() {
        exchange.answer(StatusCode::OK);
        let mut response = Response::new(BodyStream::fixed(Bytes::new(), exchange));
        *response.headers_mut() = grpc::head(kind);
        return response;
    }
    let status = status(kind);
    exchange.answer(status);
    let mut text = text(kind);
    text.push('\n');
    let length = text.len();
    let mut response = Response::new(BodyStream::fixed(Bytes::from(text), exchange));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if closes(kind) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    match kind {
        Kind::ProxyAuthRequired => {
            let challenge =
                HeaderValue::from_static("Basic realm=\"underpass\", charset=\"UTF-8\"");
            headers.insert(header::PROXY_AUTHENTICATE, challenge);
        }
        Kind::MethodNotAllowed => {
            // RFC 9110 section 15.5.6: what would be allowed is the target's to say; these
            // are what this proxy never refuses.
            let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            headers.insert(header::ALLOW, allow);
        }
        Kind::NoServer
        | Kind::PoolExhausted
        | Kind::Overloaded(_)
        | Kind::Draining
        | Kind::TooManyAtOnce => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

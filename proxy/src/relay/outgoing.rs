//! The request as the server gets it: its head changed where it is about this hop, its
//! body untouched.
//!
//! Implements: REQ-EDGE-004

use std::rc::Rc;

use http::{HeaderValue, Request, Uri, Version, header};
use hyper::body::Incoming;

use super::{switch::Offer, target};
use crate::{
    body::BodyStream,
    config::Protocol,
    error::{Error, Kind},
    exchange::Exchange,
    headers,
    wire::{fields, websocket},
};

/// Whether a request asks properly for another protocol (RFC 9110 section 7.8).
pub(super) fn asks_upgrade<B>(request: &Request<B>) -> bool {
    // RFC 9113 section 3.1: the h2c upgrade is gone; such a request is served as it is.
    request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && request
            .headers()
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| fields::list(value.as_bytes()))
            .any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// The request as the server gets it.
pub(super) fn outgoing(
    exchange: &Rc<Exchange>,
    mut request: Request<Incoming>,
    offer: Option<&Offer>,
) -> Result<(Request<BodyStream>, bool), Error> {
    target::rewrite(exchange, &mut request)?;
    let (mut parts, body) = request.into_parts();
    let from_http2 = parts.version == Version::HTTP_2;
    let body = BodyStream::request(body, exchange);
    let has_body = !http_body::Body::is_end_stream(&body);
    let expects_continue = has_body && parts.headers.contains_key(header::EXPECT);

    headers::strip_hop_by_hop(&mut parts.headers);
    if let Some(authority) = parts.uri.authority() {
        // RFC 9112 section 3.2.2 and RFC 9113 section 8.3.1: the target's authority is what
        // counts; over HTTP/1 the two have been compared.
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|error| Error::because(Kind::BadRequest("bad authority"), error))?;
        parts.headers.insert(header::HOST, host);
    }
    if from_http2 {
        headers::join_cookies(&mut parts.headers);
        if has_body && !parts.headers.contains_key(header::CONTENT_LENGTH) {
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if offer.is_none() {
            // Over HTTP/2 trailers need no announcement: whoever speaks it takes them.
            parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    let host = parts.headers.get(header::HOST).cloned();
    let forward = matches!(exchange.client().listener().config.protocol, Protocol::Forward(_));
    if !forward {
        exchange.client().forwarding.borrow_mut().apply(&mut parts.headers, host.as_ref());
    }
    parts.headers.append(header::VIA, headers::via(parts.version));
    match offer {
        Some(offer) => {
            parts.headers.insert(header::UPGRADE, offer.protocols().clone());
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            if offer.is_websocket() {
                // For a server that turns out to speak HTTP/2.
                parts.extensions.insert(websocket::protocol());
            }
        }
        None if parts.headers.contains_key(header::TE) => {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        None => {}
    }
    if let Some(changes) = exchange.route().and_then(|route| route.changes.as_ref()) {
        changes.request.apply(&mut parts.headers);
        if let Some(host) = &changes.rewrite.host {
            parts.headers.insert(header::HOST, host.clone());
        }
    }
    parts.uri = origin_form(&parts.uri, exchange.is_for_server());
    parts.version = Version::HTTP_11;
    Ok((Request::from_parts(parts, body), expects_continue))
}

/// Whether the route names the host that the server is to see.
pub(super) fn names_host(exchange: &Exchange) -> bool {
    let changes = exchange.route().and_then(|route| route.changes.as_ref());
    changes.is_some_and(|changes| changes.rewrite.host.is_some())
}

/// RFC 9112 section 3.2.1: path and query only. `for_server`: the target is the server
/// itself, written `*` (section 3.2.4).
fn origin_form(uri: &Uri, for_server: bool) -> Uri {
    match uri.path_and_query() {
        _ if for_server => Uri::from_static("*"),
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    }
}

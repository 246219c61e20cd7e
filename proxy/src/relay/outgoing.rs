//! The request as the server gets it: its head changed where it is about this hop, its
//! body untouched.
//!
//! Implements: REQ-EDGE-004

use std::rc::Rc;

use http::{HeaderValue, Request, Uri, Version, header, uri::PathAndQuery};
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

/// Fields that most requests get here: Host, TE, Connection, Via and those of forwarding.
const ADDED: usize = 8;

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
    request: Request<Incoming>,
    offer: Option<&Offer>,
) -> Result<(Request<BodyStream>, bool), Error> {
    let (parts, body) = request.into_parts();
    let body = BodyStream::request(body, exchange);
    let has_body = !http_body::Body::is_end_stream(&body);
    let expects_continue = has_body && parts.headers.contains_key(header::EXPECT);
    let mut request = Request::from_parts(parts, body);
    head(exchange, &mut request, has_body, offer)?;
    Ok((request, expects_continue))
}

/// The head of it.
pub(super) fn head<B>(
    exchange: &Exchange,
    request: &mut Request<B>,
    has_body: bool,
    offer: Option<&Offer>,
) -> Result<(), Error> {
    target::rewrite(exchange, request)?;
    let received = request.version();
    let from_http2 = received == Version::HTTP_2;
    let authority = request.uri().authority().cloned();
    if offer.is_some_and(Offer::is_websocket) {
        // For a server that turns out to speak HTTP/2.
        request.extensions_mut().insert(websocket::protocol());
    }
    let headers = request.headers_mut();
    headers::strip_hop_by_hop(headers);
    // Now: later there is more to be put in its place again.
    let _ = headers.try_reserve(ADDED);
    if let Some(authority) = authority {
        // RFC 9112 section 3.2.2 and RFC 9113 section 8.3.1: the target's authority is what
        // counts; over HTTP/1 the two have been compared.
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|error| Error::because(Kind::BadRequest("bad authority"), error))?;
        headers.insert(header::HOST, host);
    }
    if from_http2 {
        headers::join_cookies(headers);
        if has_body && !headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if offer.is_none() {
            // Over HTTP/2 trailers need no announcement: whoever speaks it takes them.
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    let host = headers.get(header::HOST).cloned();
    let forward = matches!(exchange.client().listener().config.protocol, Protocol::Forward(_));
    if !forward {
        exchange.client().forwarding.borrow_mut().apply(headers, host.as_ref());
    }
    headers.append(header::VIA, headers::via(received));
    match offer {
        Some(offer) => {
            headers.insert(header::UPGRADE, offer.protocols().clone());
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        None if headers.contains_key(header::TE) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        None => {}
    }
    if let Some(changes) = exchange.route().and_then(|route| route.changes.as_ref()) {
        changes.request.apply(headers);
        if let Some(host) = &changes.rewrite.host {
            headers.insert(header::HOST, host.clone());
        }
    }
    *request.uri_mut() = origin_form(request.uri(), exchange.is_for_server());
    *request.version_mut() = Version::HTTP_11;
    Ok(())
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
        // Of `http://host?query` (RFC 3986 section 3.3 allows an empty path there, RFC 9112 section
        // 3.2.1 and RFC 9113 section 8.3.1 do not). `Display` puts the `/` in its place.
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(path.to_string()).map_or_else(|_| uri.clone(), Uri::from)
        }
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_begins_with_a_slash() {
        for (uri, for_server, target) in [
            ("http://a.test?q=1", false, "/?q=1"),
            ("http://a.test", false, "/"),
            ("http://a.test/x?y", false, "/x?y"),
            ("/x?/y", false, "/x?/y"),
            ("http://a.test", true, "*"),
        ] {
            let target_of = origin_form(&uri.parse().unwrap(), for_server);
            // Not by `Display`, which would add a slash that is not there.
            assert_eq!(target_of.path_and_query().unwrap().as_str(), target, "{uri}");
        }
    }
}

//! What TLS has to do with a request: whom it may be for, and who the server is told it is from.
//!
//! Implements: REQ-EDGE-006

use http::{HeaderMap, Request};

use crate::{
    error::{Error, Kind},
    exchange::Exchange,
    request as head,
};

/// The client's subject, in the field that is for it. Whatever a client sends there itself goes,
/// on every listener, with TLS or without: the server cannot tell by which a request came. So does
/// what it could take for that field: CGI and its heirs read `_` and `-` as one (RFC 3875 section
/// 4.1.18). What the server then answers may be for this client, as with `Authorization`.
pub(super) fn identify(exchange: &Exchange, headers: &mut HeaderMap) {
    let client = exchange.client();
    let config = &client.listener().config;
    client.guard(headers);
    let name = config.tls.as_ref().and_then(|tls| tls.settings.client_subject_header.as_ref());
    let subject = client.tls().and_then(|tls| tls.subject.as_ref());
    if let (Some(name), Some(subject)) = (name, subject) {
        headers.insert(name, subject.clone());
        exchange.authorized();
    }
}

/// Refuses a request for a host that the connection is not for.
pub(super) fn check_host<B>(exchange: &Exchange, request: &Request<B>) -> Result<(), Error> {
    let Some(tls) = exchange.client().tls() else { return Ok(()) };
    match tls.permits(head::host(request.uri(), request.headers())) {
        true => Ok(()),
        false => Err(Error::new(Kind::Misdirected)),
    }
}

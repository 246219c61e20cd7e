//! Requests to and inside of intercepted connections.

use std::rc::Rc;

use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::{
    body::BodyStream,
    config::{ForwardPolicy, Server, intercept::plain},
    connection::{Inside, Intercepting, Next},
    error::{Error, Kind},
    exchange::Exchange,
    request::{self as head, Class},
    upstream::connection::Connection,
};

/// The port of https (RFC 9110 section 4.2.2).
const HTTPS: u16 = 443;

/// A request inside: for the host and port that CONNECT was for, and no other.
pub(super) fn classify<B>(request: &Request<B>, inside: &Inside) -> Result<Class, Kind> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Kind::MethodNotAllowed);
    }
    head::expectation(request)?;
    judge(request, &inside.server)?;
    Ok(Class::InspectAt(inside.server.clone()))
}

/// Whether a request is for this server.
fn judge<B>(request: &Request<B>, server: &Server) -> Result<(), Kind> {
    if request.uri().scheme_str().is_some_and(|scheme| scheme != "https") {
        return Err(Kind::Misdirected);
    }
    let authority = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => match request.headers().get(http::header::HOST) {
            Some(host) => Some(host.to_str().map_err(|_| Kind::BadRequest("a bad Host"))?),
            // HTTP/1.0 need not have one.
            None => None,
        },
    };
    let Some(authority) = authority else { return Ok(()) };
    let host = head::host(request.uri(), request.headers());
    let port = match authority.get(host.len()..) {
        Some("") => HTTPS,
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(0),
        None => 0,
    };
    match plain(host) == plain(&server.host) && port == server.port {
        true => Ok(()),
        false => Err(Kind::Misdirected),
    }
}

/// A request has been sent, or not: what is known by that of its server, so that the next client
/// gets what the server would choose. `may_choose`: the server had the choice.
pub(super) fn learn(
    exchange: &Exchange,
    inside: &Inside,
    sent: Result<&Connection, &Error>,
    may_choose: bool,
) {
    let origins = exchange.client().worker().origins();
    match sent {
        Ok(Connection::Http1(_)) if may_choose => origins.learn(&inside.server, false),
        Err(error) if error.kind == Kind::UpstreamTls => origins.forget(&inside.server),
        _ => {}
    }
}

/// Grants a CONNECT that is to be intercepted. `None`: it is not.
///
/// What can be known of the destination without a look-up is judged here, the rest when a request
/// inside is connected: by then the client has been told 200, and is told 403 inside.
pub(super) fn connect(
    exchange: &Rc<Exchange>,
    server: &Server,
    policy: &ForwardPolicy,
    request: &Request<Incoming>,
) -> Option<Result<Response<BodyStream>, Error>> {
    let client = exchange.client();
    let rules = client.listener().config.intercept.as_ref()?;
    if !rules.takes(server) {
        return None;
    }
    if request.version() == Version::HTTP_2 {
        let what = "CONNECT over HTTP/2 to a host that is intercepted";
        return Some(Err(Error::new(Kind::NotImplemented(what))));
    }
    let judged = match server.host.parse() {
        Ok(address) => policy.permits(address, server.port),
        Err(_) => policy.permits_port(server.port),
    };
    if let Err(rule) = judged {
        return Some(Err(Error::new(Kind::Forbidden(rule))));
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    exchange.request_ended();
    exchange.watched().clear();
    exchange.answer(StatusCode::OK);
    exchange.becomes_tunnel();
    client.then(Next::Intercept(Box::new(Intercepting {
        rules: rules.clone(),
        server: server.clone(),
        exchange: Rc::clone(exchange),
        head,
    })));
    Some(Ok(Response::new(BodyStream::empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(target: &str, host: Option<&str>) -> Result<(), Kind> {
        let mut request = Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        judge(&request.body(()).unwrap(), &Server { host: "a.example".into(), port: 443 })
    }

    #[test]
    fn only_the_host_of_connect_is_asked() {
        for (target, host, wanted) in [
            ("/", Some("a.example"), Ok(())),
            ("/", Some("A.Example."), Ok(())),
            ("/", Some("a.example:443"), Ok(())),
            ("/", None, Ok(())),
            ("https://a.example/x", Some("a.example"), Ok(())),
            ("/", Some("b.example"), Err(Kind::Misdirected)),
            ("/", Some("a.example:8443"), Err(Kind::Misdirected)),
            ("/", Some("a.example:"), Err(Kind::Misdirected)),
            ("/", Some("a.example.b.example"), Err(Kind::Misdirected)),
            ("https://b.example/x", Some("a.example"), Err(Kind::Misdirected)),
            ("http://a.example/x", Some("a.example"), Err(Kind::Misdirected)),
        ] {
            assert_eq!(asks(target, host), wanted, "{target} {host:?}");
        }
    }
}

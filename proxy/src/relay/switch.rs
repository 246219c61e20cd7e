//! Where HTTP ends: 101 to an Upgrade, 2xx to CONNECT. Both connections are handed over
//! only when the answer is on its way.
//!
//! A WebSocket over HTTP/2 (RFC 8441), on either side, is between the two: it is an Upgrade here,
//! whatever it was and whatever the server is sent (`wire/websocket.rs`), so that routes,
//! middleware and logs have one form of it.
//!
//! Implements: REQ-TUN-001, REQ-EDGE-005

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{ext::Protocol as Extension, upgrade::OnUpgrade};

use super::outgoing;
use crate::{
    body::BodyStream,
    config::{Protocol, Server},
    connection::{self, Handover, Next},
    error::{Error, Kind},
    exchange::Exchange,
    headers, tunnel,
    upstream::{answer::AnswerBody, balance::Upstream, connect::First, connection::Connection},
    wire::{fields, websocket},
};

/// Makes a CONNECT for a WebSocket over HTTP/2 a GET, and says what becomes of its stream.
///
/// # Errors
/// It is for something else.
pub(super) fn to_stream<B>(request: &mut Request<B>) -> Result<Option<OnUpgrade>, Kind> {
    let Some(protocol) = request.extensions_mut().remove::<Extension>() else { return Ok(None) };
    match websocket::into_get(request, &protocol) {
        true => Ok(Some(hyper::upgrade::on(request))),
        false => Err(Kind::NotImplemented("no protocol but websocket by CONNECT")),
    }
}

/// The protocols that a client would rather speak (RFC 9110 section 7.8).
#[derive(Debug)]
pub(super) struct Offer {
    protocols: HeaderValue,
    key: Option<HeaderValue>,
    /// The client's, over HTTP/2.
    stream: Option<OnUpgrade>,
}

impl Offer {
    /// Of a request that asks properly. `stream`: what becomes a tunnel if not the connection.
    pub(super) fn of<B>(request: &Request<B>, stream: Option<OnUpgrade>) -> Option<Self> {
        let may = request.version() == Version::HTTP_11 || stream.is_some();
        if !may || !outgoing::asks_upgrade(request) {
            return None;
        }
        let headers = request.headers();
        let offered: Vec<&[u8]> =
            headers.get_all(header::UPGRADE).iter().map(HeaderValue::as_bytes).collect();
        // Made of valid values and ", ": always valid.
        let protocols = HeaderValue::from_bytes(&offered.join(&b", "[..]));
        Some(Self {
            protocols: protocols.unwrap_or(HeaderValue::from_static("")),
            key: headers.get(header::SEC_WEBSOCKET_KEY).cloned(),
            stream,
        })
    }

    /// All of them, as a list.
    pub(super) fn protocols(&self) -> &HeaderValue {
        &self.protocols
    }

    /// Whether it is WebSocket and nothing else.
    pub(super) fn is_websocket(&self) -> bool {
        websocket::is_named(&self.protocols)
    }

    /// Whether the client asks on a stream of HTTP/2.
    pub(super) fn is_of_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether it can be put to a server over HTTP/2: what that does not check any more has to be
    /// checked here (RFC 6455 section 4.2.1).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn suits_http2<B: http_body::Body>(
        &self,
        request: &Request<B>,
    ) -> Result<(), Error> {
        if !self.is_websocket() {
            let other = "no upgrade but to websocket where servers speak HTTP/2";
            return Err(Error::new(Kind::NotImplemented(other)));
        }
        let bad = |rule| Err(Error::new(Kind::BadRequest(rule)));
        if request.method() != Method::GET {
            return bad("a WebSocket is asked for by GET");
        }
        if !request.body().is_end_stream() {
            return bad("a WebSocket is asked for without a body");
        }
        match request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter().nth(1) {
            None if self.accept().is_some() => Ok(()),
            _ => bad("bad Sec-WebSocket-Key"),
        }
    }

    /// What answers the key.
    fn accept(&self) -> Option<HeaderValue> {
        self.key.as_ref().and_then(websocket::accept)
    }

    /// Whether the server chose from it.
    fn has(&self, answer: &HeaderMap) -> bool {
        let mut chosen = answer
            .get_all(header::UPGRADE)
            .iter()
            .flat_map(|value| fields::list(value.as_bytes()))
            .peekable();
        chosen.peek().is_some()
            && chosen.all(|protocol| {
                fields::list(self.protocols.as_bytes())
                    .any(|offer| offer.eq_ignore_ascii_case(protocol))
            })
    }

    fn kind(&self) -> tunnel::registry::Kind {
        if self.protocols.as_bytes().eq_ignore_ascii_case(b"websocket") {
            tunnel::registry::Kind::WebSocket
        } else {
            tunnel::registry::Kind::Upgrade
        }
    }

    /// Judges a 101 of a server that speaks HTTP/1.1.
    fn check(&self, answer: &HeaderMap) -> Result<(), Error> {
        if !self.has(answer) {
            return Err(Error::new(Kind::BadResponse("101 to a protocol that was not offered")));
        }
        // A client that has made the key looks for itself.
        if self.is_of_stream() && answer.get(header::SEC_WEBSOCKET_ACCEPT) != self.accept().as_ref()
        {
            return Err(Error::new(Kind::BadResponse("bad Sec-WebSocket-Accept")));
        }
        Ok(())
    }

    /// The head that tells the client, made of the server's.
    fn tell(&self, parts: &mut http::response::Parts, over_http2: bool) {
        let chosen = parts.headers.get(header::UPGRADE).cloned();
        headers::strip_hop_by_hop(&mut parts.headers);
        for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        parts.headers.append(header::VIA, headers::via(parts.version));
        if self.is_of_stream() {
            parts.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            (parts.status, parts.version) = (StatusCode::OK, Version::HTTP_2);
            return;
        }
        let chosen = chosen.filter(|_| !over_http2).unwrap_or_else(|| self.protocols.clone());
        parts.headers.insert(header::UPGRADE, chosen);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(accept) = self.accept().filter(|_| over_http2) {
            parts.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        (parts.status, parts.version) = (StatusCode::SWITCHING_PROTOCOLS, Version::HTTP_11);
    }
}

/// Whether the answer ends HTTP.
///
/// # Errors
/// It says that of one side of the proxy and not of the other.
pub(super) fn is_switch(
    answer: &Response<AnswerBody>,
    connection: &Connection,
    offer: Option<&Offer>,
) -> Result<bool, Error> {
    let over_http2 = matches!(connection, Connection::Http2(_));
    match answer.status() {
        StatusCode::SWITCHING_PROTOCOLS => Ok(true),
        StatusCode::OK if over_http2 => Ok(offer.is_some()),
        // To a client of HTTP/2 it would be the tunnel, of a server it is one already.
        status
            if status.is_success()
                && offer.is_some_and(|offer| over_http2 || offer.is_of_stream()) =>
        {
            Err(Error::new(Kind::BadResponse("a success that opens no WebSocket")))
        }
        _ => Ok(false),
    }
}

/// 101, or 200 over HTTP/2: both sides agree to speak something else from here on.
pub(super) async fn switch(
    exchange: &Rc<Exchange>,
    mut answer: Response<AnswerBody>,
    connection: Connection,
    upstream: &Upstream,
    offer: Offer,
) -> Result<Response<BodyStream>, Error> {
    let closed = || Error::new(Kind::UpstreamClosed);
    let address = connection.address();
    let over_http2 = matches!(connection, Connection::Http2(_));
    let (lease, held, server, upstream_early) = match connection {
        Connection::Http1(connection) => {
            offer.check(answer.headers())?;
            let (stream, early, lease) = connection.into_tunnel().ok_or_else(closed)?;
            (lease, None, stream.into(), early)
        }
        Connection::Http2(stream) => {
            let upgraded = hyper::upgrade::on(&mut answer).await;
            let upgraded = upgraded.map_err(|error| Error::because(Kind::UpstreamClosed, error))?;
            let (held, sending) = stream.into_tunnel().ok_or_else(closed)?;
            let stream = tunnel::h2::Stream::to_server(upgraded, sending);
            (None, Some(held), tunnel::Upstream::H2(stream), Default::default())
        }
    };
    let (mut parts, _) = answer.into_parts();
    exchange.record_answer(parts.status, &parts.headers, true);
    offer.tell(&mut parts, over_http2);
    exchange.answer(parts.status);
    exchange.becomes_tunnel();
    let handover = Handover {
        kind: offer.kind(),
        upstream: server,
        upstream_early,
        exchange: Rc::clone(exchange),
        upstream_name: upstream.label(address),
        upstream_bypass: upstream.local_bypass,
        lease,
        held,
    };
    hand_over(exchange, offer.stream, handover);
    Ok(Response::from_parts(parts, BodyStream::empty()))
}

/// The client's side joins when the answer is out.
fn hand_over(exchange: &Exchange, stream: Option<OnUpgrade>, handover: Handover) {
    let client = Rc::clone(exchange.client());
    let Some(upgrade) = stream else { return client.then(Next::Tunnel(Box::new(handover))) };
    let sending = tunnel::h2::Sending::of_this_request();
    tokio::task::spawn_local(async move {
        // An error: the stream ended before the answer was out. Dropping the exchange reports
        // it.
        if let Ok(upgraded) = upgrade.await {
            let stream = tunnel::h2::Stream::of_client(upgraded, sending);
            let downstream = tunnel::Downstream::H2(stream);
            connection::run_tunnel(&client, handover, downstream, Default::default()).await;
        }
    });
}

/// CONNECT: a connection to the server, and 200.
pub(super) async fn connect(
    exchange: &Rc<Exchange>,
    server: &Server,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<BodyStream>, Error> {
    let client = exchange.client();
    let protocol = client.listener().protocol();
    let Protocol::Forward(policy) = &*protocol else {
        return Err(Error::new(Kind::MethodNotAllowed));
    };
    exchange.request_ended();
    exchange.watched().clear();
    let connecting = crate::upstream::connect::connect(server, Some(policy), First::Once);
    let timeout = client.limits().connect_timeout;
    let (stream, address) = tokio::time::timeout(timeout, connecting)
        .await
        .map_err(|_| Error::new(Kind::ConnectTimeout))??;
    exchange.reached(address);
    exchange.answer(StatusCode::OK);
    exchange.becomes_tunnel();
    let handover = Handover {
        kind: tunnel::registry::Kind::Connect,
        upstream: stream.into(),
        upstream_early: Default::default(),
        exchange: Rc::clone(exchange),
        upstream_name: server.to_string().into(),
        upstream_bypass: client.listener().config.local_bypass,
        lease: None,
        held: None,
    };
    hand_over(exchange, upgrade, handover);
    Ok(Response::new(BodyStream::empty()))
}

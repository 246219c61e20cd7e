//! Where HTTP ends: 101 to an Upgrade, 2xx to CONNECT. Both connections are handed over
//! only when the answer is on its way.
//!
//! Implements: REQ-TUN-001

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use hyper::body::Incoming;

use crate::{
    body::BodyStream,
    config::{Protocol, Server},
    connection::{self, Handover, Next},
    error::{Error, Kind},
    exchange::Exchange,
    headers, tunnel,
    upstream::{balance::Upstream, connection::Connection},
    wire::fields,
};

/// The protocols that a client would rather speak (RFC 9110 section 7.8).
#[derive(Debug)]
pub(super) struct Offer(HeaderValue);

impl Offer {
    /// Of a request that [`super::outgoing::asks_upgrade`].
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        let offered: Vec<&[u8]> =
            request.headers().get_all(header::UPGRADE).iter().map(HeaderValue::as_bytes).collect();
        // Made of valid values and ", ": always valid.
        Self(
            HeaderValue::from_bytes(&offered.join(&b", "[..]))
                .unwrap_or(HeaderValue::from_static("")),
        )
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
                fields::list(self.0.as_bytes()).any(|offer| offer.eq_ignore_ascii_case(protocol))
            })
    }

    fn kind(&self) -> tunnel::registry::Kind {
        if self.0.as_bytes().eq_ignore_ascii_case(b"websocket") {
            tunnel::registry::Kind::WebSocket
        } else {
            tunnel::registry::Kind::Upgrade
        }
    }
}

/// 101: both sides agree to speak something else from here on.
pub(super) async fn switch(
    exchange: &Rc<Exchange>,
    answer: Response<Incoming>,
    connection: Connection,
    upstream: &Upstream,
    offer: &Offer,
) -> Result<Response<BodyStream>, Error> {
    if !offer.has(answer.headers()) {
        return Err(Error::new(Kind::BadResponse("101 to a protocol that was not offered")));
    }
    let closed = Error::new(Kind::UpstreamClosed);
    // Over HTTP/2 there is no 101 (RFC 9113 section 8.6), and h2 lets none through.
    let Connection::Http1(mut connection) = connection else {
        return Err(Error::new(Kind::BadResponse("101 over HTTP/2")));
    };
    let address = connection.link().address;
    let lease = connection.lease();
    let (stream, early) = connection.link().tunnel().await.ok_or(closed)?;
    let (mut parts, _) = answer.into_parts();
    exchange.record_answer(parts.status, &parts.headers, true);
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    headers::strip_hop_by_hop(&mut parts.headers);
    if let Some(protocol) = protocol {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.append(header::VIA, headers::via(parts.version));
    parts.version = Version::HTTP_11;
    exchange.answer(parts.status);
    exchange.becomes_tunnel();
    exchange.client().then(Next::Tunnel(Handover {
        kind: offer.kind(),
        upstream: stream,
        upstream_early: early,
        exchange: Rc::clone(exchange),
        upstream_name: upstream.label(address),
        upstream_bypass: upstream.local_bypass,
        lease,
    }));
    Ok(Response::from_parts(parts, BodyStream::empty()))
}

/// CONNECT: a connection to the server, and 200.
pub(super) async fn connect(
    exchange: &Rc<Exchange>,
    server: &Server,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Result<Response<BodyStream>, Error> {
    let client = exchange.client();
    let protocol = client.listener().protocol();
    let Protocol::Forward(policy) = &*protocol else {
        return Err(Error::new(Kind::MethodNotAllowed));
    };
    exchange.request_ended();
    exchange.watched().clear();
    let connecting = crate::upstream::connect::connect(server, Some(policy));
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
    };
    match upgrade {
        None => client.then(Next::Tunnel(handover)),
        Some(upgrade) => {
            let client = Rc::clone(client);
            let cancel = tunnel::h2::Cancel::of_this_request();
            tokio::task::spawn_local(async move {
                // An error: the stream ended before the answer was out. Dropping the
                // exchange reports it.
                if let Ok(upgraded) = upgrade.await {
                    let downstream =
                        tunnel::Downstream::H2(tunnel::h2::Stream::new(upgraded, cancel));
                    let early = Default::default();
                    connection::run_tunnel(&client, handover, downstream, early).await;
                }
            });
        }
    }
    Ok(Response::new(BodyStream::empty()))
}

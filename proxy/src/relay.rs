//! One request on its way: classified, routed, sent, and its answer back.
//!
//! Everything on the path of an inspected byte is here or called from here. A request
//! is sent again only if that is safe: not a byte of it was written, or it is idempotent
//! and without a body and the kept connection it went out on gave no answer.
//!
//! Implements: REQ-CORE-001.F-003, REQ-EDGE-004

use std::{
    future::{Future, poll_fn},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use hyper::{body::Incoming, client::conn::TrySendError};

use crate::{
    authenticate,
    body::BodyStream,
    config::{HostPolicy, Protocol},
    connection::{self, Client, Handover},
    error::{Error, Kind},
    exchange::Exchange,
    headers,
    request::{self as head, Class},
    response, tunnel,
    upstream::{
        balance::Upstream,
        connection::{Connection, Link},
        pool::Making,
    },
    watchdog::{Wait, Watched},
    wire::http2 as http2_head,
};

/// How long a server may leave `Expect: 100-continue` unanswered before the body is sent
/// all the same (RFC 9110 section 10.1.1 leaves it to the client; curl takes a second).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request over HTTP/1.
pub async fn http1(client: Rc<Client>, request: Request<Incoming>) -> Response<BodyStream> {
    let number = client.next_head();
    let watched = Rc::clone(client.watched());
    let Some(wire) = client.wire().cloned() else {
        let exchange = Exchange::begin(&client, watched, &request);
        return response::error(Kind::Internal, exchange);
    };
    if let Some(kind) = wire.fault_of(number) {
        // What came is not a request; nothing of it is worth showing.
        let blank = Request::builder().method("-").uri("-").body(()).unwrap_or_default();
        let exchange = Exchange::begin(&client, watched, &blank);
        exchange.request_ended();
        return response::error(kind, exchange);
    }
    let exchange = Exchange::begin(&client, watched, &request);
    let may_tunnel = || wire.may_tunnel(number);
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = match relay(&exchange, request, may_tunnel).await {
        Ok(response) => response,
        Err(error) => failed(error, Rc::clone(&exchange)),
    };
    if !exchange.is_tunnel() {
        wire.resume_http(number);
    }
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if refused && !exchange.is_request_ended() && (chunked || wire.is_in_body()) {
        // The rest of the body will hardly be read, and then nothing behind it is: the client
        // has to know (RFC 9112 section 9.6).
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // Whatever the final answer is, what was queued before it is not to come behind it.
    poll_fn(|cx| wire.poll_injected(cx)).await;
    response
}

/// A request over HTTP/2.
pub async fn http2(
    client: Rc<Client>,
    watched: Rc<Watched>,
    request: Request<Incoming>,
) -> Response<BodyStream> {
    let exchange = Exchange::begin(&client, watched, &request);
    let bounds = connection::bounds(client.limits());
    let answer = match http2_head::request(&request, &bounds) {
        Ok(()) => relay(&exchange, request, || false).await,
        Err(kind) => Err(Error::new(kind)),
    };
    answer.unwrap_or_else(|error| failed(error, exchange))
}

fn failed(error: Error, exchange: Rc<Exchange>) -> Response<BodyStream> {
    tracing::debug!(peer = %exchange.client().peer(), %error, "request failed");
    response::error(error.kind, exchange)
}

async fn relay(
    exchange: &Rc<Exchange>,
    mut request: Request<Incoming>,
    may_tunnel: impl Fn() -> bool,
) -> Result<Response<BodyStream>, Error> {
    let client = exchange.client();
    let limits = client.limits();
    if http_body::Body::is_end_stream(request.body()) {
        exchange.request_ended();
    }
    if let (Some(max), Some(length)) =
        (limits.max_request_body_bytes, http_body::Body::size_hint(request.body()).exact())
        && length > max
    {
        return Err(Error::new(Kind::RequestBodyTooLarge));
    }
    let (class, policy) = match &client.listener().config.protocol {
        Protocol::Http => (head::classify_reverse(&request), None),
        Protocol::Forward(policy) => {
            let given = request.headers().get(header::PROXY_AUTHORIZATION);
            if !authenticate::admits(&policy.users, given) {
                return Err(Error::new(Kind::ProxyAuthRequired));
            }
            (head::classify_forward(&request), Some(policy))
        }
    };
    let upstream = match class.map_err(Error::new)? {
        Class::Inspect => client.worker().route(
            client.listener().index,
            head::host(request.uri(), request.headers()),
            request.uri().path(),
            request.method(),
        )?,
        Class::InspectAt(server) => {
            client.worker().forward_upstream(client.listener().index, &server)
        }
        Class::Connect(server) => {
            let upgrade =
                (request.version() == Version::HTTP_2).then(|| hyper::upgrade::on(&mut request));
            return connect(exchange, &server, upgrade).await;
        }
    };
    exchange.routed(&upstream);
    if let Some(answer) = max_forwards(exchange, &mut request) {
        return Ok(answer);
    }
    let wants_tunnel = request.version() == Version::HTTP_11 && asks_upgrade(&request);
    let version = request.version();
    let kind = tunnel_kind(&request);
    let (request, expects_continue) = outgoing(exchange, request, wants_tunnel)?;
    if expects_continue {
        exchange.expect_continue();
    }
    let making = Making {
        timeout: limits.connect_timeout,
        bounds: connection::bounds(limits),
        preserve_header_case: client.listener().config.preserve_header_case,
        policy,
    };
    let (answer, connection) = send(exchange, &upstream, making, request, expects_continue).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        if !(wants_tunnel && may_tunnel()) {
            return Err(Error::new(Kind::BadResponse("101 that nobody asked for")));
        }
        return switch(exchange, answer, connection, &upstream, kind).await;
    }
    Ok(answered(exchange, answer, connection, version))
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

fn asks_upgrade<B>(request: &Request<B>) -> bool {
    // RFC 9113 section 3.1: the h2c upgrade is gone; such a request is served as it is.
    request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|protocol| !protocol.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && request
            .headers()
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| crate::wire::fields::list(value.as_bytes()))
            .any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

fn tunnel_kind<B>(request: &Request<B>) -> tunnel::registry::Kind {
    match request.headers().get(header::UPGRADE) {
        Some(protocol) if protocol.as_bytes().eq_ignore_ascii_case(b"websocket") => {
            tunnel::registry::Kind::WebSocket
        }
        _ => tunnel::registry::Kind::Upgrade,
    }
}

/// The request as the server gets it.
fn outgoing(
    exchange: &Rc<Exchange>,
    request: Request<Incoming>,
    wants_tunnel: bool,
) -> Result<(Request<BodyStream>, bool), Error> {
    let (mut parts, body) = request.into_parts();
    let from_http2 = parts.version == Version::HTTP_2;
    let body = BodyStream::request(body, exchange);
    let has_body = !http_body::Body::is_end_stream(&body);
    let expects_continue = has_body && parts.headers.contains_key(header::EXPECT);

    let protocol = wants_tunnel.then(|| parts.headers.get(header::UPGRADE).cloned()).flatten();
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
        // Over HTTP/2 trailers need no announcement: whoever speaks it takes them.
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let host = parts.headers.get(header::HOST).cloned();
    let forward = matches!(exchange.client().listener().config.protocol, Protocol::Forward(_));
    if !forward {
        exchange.client().forwarding.borrow_mut().apply(&mut parts.headers, host.as_ref());
    }
    parts.headers.append(header::VIA, headers::via(parts.version));
    match protocol {
        Some(protocol) => {
            parts.headers.insert(header::UPGRADE, protocol);
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        None if parts.headers.contains_key(header::TE) => {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        None => {}
    }
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
    Ok((Request::from_parts(parts, body), expects_continue))
}

/// RFC 9112 section 3.2.1: path and query only.
fn origin_form(uri: &Uri) -> Uri {
    match uri.path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    }
}

/// Sends a request until it is answered or may not be sent again.
async fn send(
    exchange: &Rc<Exchange>,
    upstream: &Upstream,
    making: Making<'_>,
    mut request: Request<BodyStream>,
    expects_continue: bool,
) -> Result<(Response<Incoming>, Connection), Error> {
    let mut servers_left = upstream.len();
    let mut pool = Rc::clone(upstream.pick());
    let mut fresh = false;
    loop {
        // Finding a connection has a limit of its own.
        exchange.watched().done(Wait::Response);
        let kept = if fresh { None } else { pool.try_acquire() };
        let mut connection = match kept {
            Some(connection) => connection,
            None => match pool.acquire_slow(making).await {
                Ok(connection) => connection,
                Err(error) => {
                    servers_left -= 1;
                    if !error.retry_safe || servers_left == 0 {
                        return Err(error);
                    }
                    tracing::warn!(server = %pool.server(), %error, "trying another server");
                    pool = Rc::clone(upstream.pick());
                    continue;
                }
            },
        };
        exchange.reached(connection.link().address);
        if upstream.host == HostPolicy::Server {
            request.headers_mut().insert(header::HOST, pool.host().clone());
        }
        let replay = replay(&connection, &request);
        let limits = exchange.client().limits();
        exchange.watched().wait(Wait::Response, limits.response_timeout);
        let link = Rc::clone(connection.link());
        let sent = connection.send(request);
        match wait(exchange, &link, sent, expects_continue).await {
            Ok(response) => return Ok((response, connection)),
            Err(Failed::Other(error)) => return Err(error),
            Err(Failed::Sending(mut error)) => {
                if let Some(fault) = exchange.fault() {
                    return Err(Error::because(fault, error.into_error()));
                }
                if let Some(rule) = link.wire.fault() {
                    return Err(Error::because(Kind::BadResponse(rule), error.into_error()));
                }
                let again = error.take_message();
                let unanswered = !link.wire.answered();
                let again = again.or_else(|| replay.filter(|_| unanswered).map(rebuild));
                let Some(again) = again.filter(|_| connection.is_reused()) else {
                    let kind = if link.wire.answered() {
                        Kind::BadResponse("incomplete head")
                    } else {
                        Kind::UpstreamClosed
                    };
                    return Err(Error::because(kind, error.into_error()));
                };
                // A kept connection that the server had closed meanwhile: the next one is
                // new, so this cannot go on for ever.
                pool.metrics().stale_retry();
                request = again;
                fresh = true;
            }
        }
    }
}

/// What is needed to send the request a second time, if that may become necessary and is
/// allowed (RFC 9110 section 9.2.2).
fn replay(connection: &Connection, request: &Request<BodyStream>) -> Option<request::Parts> {
    if !connection.is_reused()
        || !head::is_idempotent(request.method())
        || !http_body::Body::is_end_stream(request.body())
    {
        return None;
    }
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy.into_parts().0)
}

fn rebuild(parts: request::Parts) -> Request<BodyStream> {
    Request::from_parts(parts, BodyStream::empty())
}

enum Failed {
    Sending(TrySendError<Request<BodyStream>>),
    Other(Error),
}

type Sent = Result<Response<Incoming>, TrySendError<Request<BodyStream>>>;

/// Waits for the head of the answer, and does meanwhile what cannot wait: interim
/// responses, deadlines, faults of the request's body.
async fn wait(
    exchange: &Exchange,
    link: &Link,
    sent: impl Future<Output = Sent>,
    expects_continue: bool,
) -> Result<Response<Incoming>, Failed> {
    let mut sent = std::pin::pin!(sent);
    let nudge = async {
        if expects_continue {
            tokio::time::sleep(CONTINUE_TIMEOUT).await;
            exchange.may_send_body();
        }
        std::future::pending::<()>().await;
    };
    let mut nudge = std::pin::pin!(nudge);
    poll_fn(|cx| {
        poll_interim(exchange, link, cx);
        if let Poll::Ready(response) = sent.as_mut().poll(cx) {
            // What came before the final head goes out before it.
            poll_interim(exchange, link, cx);
            return Poll::Ready(response.map_err(Failed::Sending));
        }
        if let Some(fault) = exchange.fault() {
            return Poll::Ready(Err(Failed::Other(Error::new(fault))));
        }
        exchange.watched().register(cx);
        if let Some(wait) = exchange.watched().expired() {
            exchange.watched().forgive();
            let kind = match wait {
                Wait::Request => Kind::RequestBodyTimeout,
                Wait::Response => Kind::ResponseTimeout,
                Wait::Head => return Poll::Pending,
            };
            return Poll::Ready(Err(Failed::Other(Error::new(kind))));
        }
        let _ = nudge.as_mut().poll(cx);
        Poll::Pending
    })
    .await
}

fn poll_interim(exchange: &Exchange, link: &Link, cx: &Context<'_>) {
    while let Poll::Ready(interim) = link.wire.poll_interim(cx) {
        if interim.status == 100 {
            // hyper tells the client by itself once its body is asked for.
            exchange.may_send_body();
        } else {
            exchange.client().pass_interim(&interim.head, exchange.version());
        }
    }
}

/// The answer as the client gets it.
fn answered(
    exchange: &Rc<Exchange>,
    answer: Response<Incoming>,
    mut connection: Connection,
    version: Version,
) -> Response<BodyStream> {
    let (mut parts, body) = answer.into_parts();
    let received = parts.version;
    if received == Version::HTTP_10 {
        connection.retire();
    }
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
    let announced = (parts.status == StatusCode::NOT_MODIFIED && version != Version::HTTP_2)
        .then(|| parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok())
        .flatten();
    let body = BodyStream::response(body, announced, Rc::clone(exchange), connection);
    Response::from_parts(parts, body)
}

/// 101: both sides agree to speak something else from here on.
async fn switch(
    exchange: &Rc<Exchange>,
    answer: Response<Incoming>,
    connection: Connection,
    upstream: &Upstream,
    kind: tunnel::registry::Kind,
) -> Result<Response<BodyStream>, Error> {
    let closed = Error::new(Kind::UpstreamClosed);
    let lease = connection.lease();
    let (stream, early) = connection.link().tunnel().await.ok_or(closed)?;
    let (mut parts, _) = answer.into_parts();
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
    exchange.client().hand_over(Handover {
        kind,
        upstream: stream,
        upstream_early: early,
        exchange: Rc::clone(exchange),
        upstream_name: upstream.name.to_string(),
        lease,
    });
    Ok(Response::from_parts(parts, BodyStream::empty()))
}

/// CONNECT: a connection to the server, and 200.
async fn connect(
    exchange: &Rc<Exchange>,
    server: &crate::config::Server,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Result<Response<BodyStream>, Error> {
    let client = exchange.client();
    let Protocol::Forward(policy) = &client.listener().config.protocol else {
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
        upstream: stream,
        upstream_early: Default::default(),
        exchange: Rc::clone(exchange),
        upstream_name: server.to_string(),
        lease: None,
    };
    match upgrade {
        None => client.hand_over(handover),
        Some(upgrade) => {
            let client = Rc::clone(client);
            tokio::task::spawn_local(async move {
                // An error: the stream ended before the answer was out. Dropping the
                // exchange reports it.
                if let Ok(upgraded) = upgrade.await {
                    let downstream = tunnel::Downstream::H2(upgraded.into());
                    let early = Default::default();
                    connection::run_tunnel(&client, handover, downstream, early).await;
                }
            });
        }
    }
    Ok(Response::new(BodyStream::empty()))
}

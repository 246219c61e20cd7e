//! One request on its way: classified, routed, sent, and its answer back.
//!
//! Everything on the path of an inspected byte is here or called from here, in this order:
//! the head is classified, its route found (which the exchange carries from there on), `own.rs`
//! may answer it, `outgoing.rs` makes of it what the server gets, `send.rs` sends it, and
//! `answer.rs` makes of the answer what the client gets, or `switch.rs` a tunnel. A request
//! is sent again only if that is safe: not a byte of it was written, or it is idempotent and without a body and the kept connection it went out on gave no answer.
//!
//! Implements: REQ-CORE-001.F-003, REQ-EDGE-004

use std::{future::poll_fn, rc::Rc};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use crate::{
    authenticate,
    body::BodyStream,
    config::Protocol,
    connection::{self, Client},
    error::{Error, Kind},
    exchange::Exchange,
    headers, middleware,
    request::{self as head, Class},
    response,
    route::Head,
    upstream::{pool::Making, retry},
    watchdog::Watched,
    wire::{http2 as http2_head, spelling::Spelling, websocket},
};

mod answer;
mod cached;
mod hedge;
mod intercept;
mod mirror;
mod outgoing;
mod own;
mod send;
mod switch;
mod target;
mod tls;

/// A request over HTTP/1.
pub async fn http1(client: Rc<Client>, mut request: Request<Incoming>) -> Response<BodyStream> {
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
    if wire.is_for_server(number) {
        exchange.for_server();
    }
    if let Some(spelling) = wire.spelling_of(number) {
        request.extensions_mut().insert(spelling);
    }
    let may_tunnel = || wire.may_tunnel(number);
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = match relay(&exchange, request, may_tunnel, None).await {
        Ok(response) => response,
        Err(error) => failed(error, Rc::clone(&exchange)),
    };
    answer::leave(&exchange, &mut response);
    record(&exchange, &response).await;
    if !exchange.is_tunnel() {
        wire.resume_http(number);
    }
    let is_last = !exchange.is_request_ended() && {
        let refused = response.status().is_client_error() || response.status().is_server_error();
        let unwanted = refused || exchange.is_own() || exchange.is_unasked();
        let is_whole = response.body().is_none();
        unwanted && chunked || (unwanted || is_whole) && wire.is_in_body()
    };
    if (is_last || client.is_leaving()) && !exchange.is_tunnel() {
        // Where the rest of the body will hardly be read, nothing behind it is: the client has to
        // know (RFC 9112 section 9.6, RFC 9110 section 10.1.1).
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // Whatever the final answer is, what was queued before it is not to come behind it.
    poll_fn(|cx| wire.poll_injected(cx)).await;
    if let Some(spelling) = response.extensions_mut().remove::<Spelling>()
        && client.listener().config.preserve_header_case
    {
        poll_fn(|cx| wire.poll_spell(&spelling, cx)).await;
    }
    response
}

/// A request over HTTP/2.
pub async fn http2(
    client: Rc<Client>,
    watched: Rc<Watched>,
    mut request: Request<Incoming>,
) -> Response<BodyStream> {
    let stream = switch::to_stream(&mut request);
    let exchange = Exchange::begin(&client, watched, &request);
    let bounds = connection::bounds(client.limits());
    let asks_tunnel = matches!(stream, Ok(Some(_)));
    let answer = match http2_head::request(&request, &bounds).and(stream) {
        Ok(stream) => {
            if stream.is_some() {
                websocket::ask_upgrade(request.headers_mut());
            }
            relay(&exchange, request, || false, stream).await
        }
        Err(kind) => Err(Error::new(kind)),
    };
    let mut response = answer.unwrap_or_else(|error| failed(error, Rc::clone(&exchange)));
    answer::leave(&exchange, &mut response);
    if asks_tunnel && response.status().is_success() && !exchange.is_tunnel() {
        // It would say that there is a tunnel (RFC 8441 section 4).
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
        exchange.answer_ourselves(StatusCode::NOT_IMPLEMENTED);
    }
    record(&exchange, &response).await;
    response
}

/// Tells the recorder of an answer of our own, and waits for the disk where nobody asks for a
/// body's end.
async fn record(exchange: &Exchange, response: &Response<BodyStream>) {
    if exchange.is_tunnel() {
        return exchange.record_answer(response.status(), response.headers(), false);
    }
    exchange.record_room().await;
    exchange.record_answer(response.status(), response.headers(), false);
    if response.body().is_none() {
        exchange.record_written().await;
    }
}

fn failed(error: Error, exchange: Rc<Exchange>) -> Response<BodyStream> {
    tracing::debug!(peer = %exchange.client().peer(), %error, "request failed");
    response::error(error.kind, exchange)
}

async fn relay(
    exchange: &Rc<Exchange>,
    mut request: Request<Incoming>,
    may_tunnel: impl Fn() -> bool,
    stream: Option<OnUpgrade>,
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
    // Before everything that could turn a CA away: steps, redirects, routes.
    if let Some(answer) = own::of_order(exchange, &request) {
        return Ok(answer);
    }
    if let Some(tracer) = &client.worker().process.tracer {
        exchange.traced(tracer.join(request.headers_mut()));
    }
    let listener = client.listener();
    headers::strip_named(request.headers_mut());
    tls::identify(exchange, request.headers_mut());
    if request.headers().contains_key(header::AUTHORIZATION) {
        // Before it may be taken out.
        exchange.authorized();
    }
    if let Some(chain) = client.worker().chain_of(listener)
        && let Err(answer) = Box::pin(middleware::enter(&chain, exchange, &mut request)).await
    {
        return Ok(answer);
    }
    let protocol = listener.protocol();
    let (class, policy) = match &*protocol {
        Protocol::Http => {
            tls::check_host(exchange, &request)?;
            (head::classify_reverse(&request), None)
        }
        // Whoever connected has been asked who it is.
        Protocol::Forward(policy) if client.inside().is_some() => {
            let class = client
                .inside()
                .map_or(Err(Kind::Internal), |inside| intercept::classify(&request, inside));
            (class, Some(policy))
        }
        Protocol::Forward(policy) => {
            let given = request.headers().get(header::PROXY_AUTHORIZATION);
            if !authenticate::admits(&policy.users, given) {
                return Err(Error::new(Kind::ProxyAuthRequired));
            }
            (head::classify_forward(&request), Some(policy))
        }
        // Its connections never come here.
        Protocol::Tcp => return Err(Error::new(Kind::Internal)),
    };
    let upstream = match class.map_err(Error::new)? {
        Class::Inspect => {
            if client.worker().normalises_paths(listener) {
                target::normalise(&mut request)?;
            }
            let found = client.worker().route(listener, &Head::of(&request))?;
            let route = exchange.routed(found);
            exchange.begin_record(&request).await;
            if let Some(chain) = &route.chain
                && let Err(answer) =
                    Box::pin(middleware::enter(chain, exchange, &mut request)).await
            {
                return Ok(answer);
            }
            match route.upstream(&request, exchange.asking().ip()) {
                Some(upstream) => Rc::clone(upstream),
                None => return own::of_route(exchange, route, &request),
            }
        }
        Class::InspectAt(server) => {
            exchange.begin_record(&request).await;
            let inside = client.inside().map(|inside| &inside.rules);
            // A WebSocket goes on over HTTP/1.1: of that every server knows.
            let is_shared = request.version() == Version::HTTP_2 && stream.is_none();
            let http2 = inside.is_some() && is_shared;
            client.worker().forward_upstream(client.listener(), &server, inside, http2)
        }
        Class::Connect(server) => {
            if let Some(policy) = policy
                && let Some(granted) = intercept::connect(exchange, &server, policy, &request)
            {
                return granted;
            }
            exchange.begin_record(&request).await;
            let upgrade =
                (request.version() == Version::HTTP_2).then(|| hyper::upgrade::on(&mut request));
            return Box::pin(switch::connect(exchange, &server, upgrade)).await;
        }
    };
    exchange.goes_to(&upstream);
    if let Some(answer) = own::answer(exchange, &mut request) {
        return Ok(answer);
    }
    let mut lead = None;
    if let Some(rules) = exchange.route().and_then(|route| route.cache.as_ref())
        && let Some(cache) = &client.worker().process.cache
    {
        // Boxed: a route that is not cached has none of its state.
        let enters = cached::enter(exchange, cache, rules, &upstream, &mut request);
        match Box::pin(enters).await? {
            cached::Turn::Answer(answer) => return Ok(answer),
            cached::Turn::Send(wants) => lead = wants,
        }
    }
    let version = request.version();
    let offer = switch::Offer::of(&request, stream);
    let wants_tunnel = offer.is_some();
    if let Some(offer) = offer.as_ref().filter(|_| upstream.speaks_http2()) {
        offer.suits_http2(&request)?;
    }
    let (mut request, expects_continue) = outgoing::outgoing(exchange, request, offer.as_ref())?;
    if let Some(lead) = &mut lead {
        lead.goes_out(&mut request);
    }
    if expects_continue {
        exchange.expect_continue();
    }
    if !wants_tunnel {
        mirror::begin(exchange, &request);
    }
    let kernel = client.worker().process.kernel.as_ref().filter(|_| upstream.local_bypass);
    let announcement = client.announcement(upstream.proxy_protocol);
    let making = Making {
        timeout: exchange.within(limits.connect_timeout),
        bounds: connection::bounds(limits),
        preserve_header_case: client.listener().config.preserve_header_case,
        policy,
        kernel: kernel.filter(|_| !wants_tunnel),
        wants_tunnel,
        announcement: announcement.as_deref(),
        repeatable: !wants_tunnel && send::is_repeatable(&request),
    };
    let fresh = wants_tunnel && kernel.is_some();
    let keep_host = outgoing::names_host(exchange);
    let how = send::How { expects_continue, fresh, wants_tunnel, keep_host };
    let sent = send::send(exchange, &upstream, making, request, how).await;
    if let Some(inside) = client.inside() {
        let may_choose = version == Version::HTTP_2 && !wants_tunnel;
        let sent = sent.as_ref().map(|(_, connection)| connection);
        intercept::learn(exchange, inside, sent, may_choose);
    }
    let (answer, connection) = match (sent, lead.take()) {
        (Ok(answered), wants) => {
            lead = wants;
            answered
        }
        (Err(error), Some(lead)) => return lead.failed(exchange, error),
        (Err(error), None) => return Err(error),
    };
    if switch::is_switch(&answer, &connection, offer.as_ref())? {
        let Some(offer) = offer.filter(|offer| offer.is_of_stream() || may_tunnel()) else {
            return Err(Error::new(Kind::BadResponse("101 that nobody asked for")));
        };
        let switching = switch::switch(exchange, answer, connection, &upstream, offer);
        return Box::pin(switching).await;
    }
    exchange.record_room().await;
    if let Some(lead) = lead {
        return Box::pin(lead.answered(exchange, answer, connection, version)).await;
    }
    Ok(answer::of_server(exchange, answer, connection, version))
}

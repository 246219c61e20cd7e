//! Sends a request and waits for the head of its answer; again, where that is safe.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Version, header, request};

use super::{
    hedge,
    retry::{self, Retries},
};
use crate::{
    body::BodyStream,
    config::HostPolicy,
    error::{Error, Kind},
    exchange::Exchange,
    metrics::Again,
    request as head,
    upstream::{
        answer::{AnswerBody, Sent, Unanswered},
        balance::{Tried, Upstream},
        carried::Carried,
        connection::Connection,
        http1::{Interim, Link},
        pool::{Making, ServerPool},
    },
    watchdog::Wait,
    wire::{head::Bounds, http2 as http2_head},
};

/// How long a server may leave `Expect: 100-continue` unanswered before the body is sent
/// all the same (RFC 9110 section 10.1.1 leaves it to the client; curl takes a second).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often one request is sent again that servers refuse to look at.
const MOST_REFUSALS: u32 = 3;

/// What is special about a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Its body waits for 100.
    pub(super) expects_continue: bool,
    /// It may not go out on a kept connection: that one may bypass TCP by now, and what
    /// becomes a tunnel has to be found as it is.
    pub(super) fresh: bool,
    /// It is to become a tunnel.
    pub(super) wants_tunnel: bool,
    /// Its route names the host that the server is to see.
    pub(super) keep_host: bool,
}

/// Sends a request until it is answered or may not be sent again.
pub(super) async fn send(
    exchange: &Rc<Exchange>,
    upstream: &Upstream,
    mut making: Making<'_>,
    mut request: Request<BodyStream>,
    how: How,
) -> Result<(Response<AnswerBody>, Connection), Error> {
    let permit = upstream.admit()?;
    let mut retries = Retries::new(upstream);
    let mut tried = Tried::default();
    let key = upstream.key(request.headers(), request.uri().path(), exchange.asking().ip());
    let mut picked = upstream.pick(key, &tried).ok_or(Error::new(Kind::NoServer))?;
    let mut fresh = how.fresh;
    let mut refusals = 0;
    loop {
        // Finding a connection has a limit of its own.
        exchange.watched().done(Wait::Response);
        let pool = &picked.pool;
        let kept = if fresh { None } else { pool.try_acquire(&making) };
        let mut connection = match kept {
            Some(connection) => connection,
            // Off the hot path, and off its state: boxed.
            None => match Box::pin(connect(upstream, pool, making)).await {
                Ok(connection) => connection,
                Err(error) => {
                    if let Ok(ip) = pool.server().host.parse() {
                        exchange.reached(SocketAddr::new(ip, pool.server().port));
                    }
                    if exchange.is_late() {
                        return Err(Error::new(Kind::DeadlineExceeded));
                    }
                    if !error.retry_safe {
                        return Err(error);
                    }
                    if !error.known {
                        picked.failed(error.kind);
                    }
                    tried.add(&picked.pool);
                    let Some(next) = upstream.pick(key, &tried) else { return Err(error) };
                    upstream.metrics().retried(Again::Connect);
                    tracing::warn!(server = %picked.pool.server(), %error, "trying another server");
                    picked = next;
                    continue;
                }
            },
        };
        exchange.reached(connection.address());
        if !how.keep_host {
            name_host(&mut request, upstream, pool);
        }
        let link = connection.link().cloned();
        if link.is_none() && !http2_head::has_authority(&request) {
            return Err(Error::new(Kind::BadRequest("a Host that HTTP/2 has no form for")));
        }
        if how.wants_tunnel {
            may_become_tunnel(&connection, making.timeout).await?;
        }
        if link.is_none() && how.expects_continue {
            // hyper does not tell of 100 over HTTP/2: the body goes when the client has it.
            request.headers_mut().remove(header::EXPECT);
            exchange.may_send_body();
        }
        let early = connection.opening().is_some();
        let may = connection.is_reused() || early || retries.are_left();
        let repeatable = may && is_repeatable(&request);
        // What a shared connection refuses unseen is sent again whatever it is.
        // One that has a connection of its own comes back with what it has failed of.
        let copied = link.is_none() || repeatable && (early || retries.are_left());
        let mut head = copied.then(|| head_of(&request));
        let patience = retries.patience().filter(|_| repeatable);
        let response_timeout = exchange.client().limits().response_timeout;
        let patience = patience.filter(|patience| *patience < response_timeout);
        let limit = patience.unwrap_or(response_timeout);
        let first = if early { limit.min(making.timeout) } else { limit };
        exchange.watched().wait(Wait::Response, first);
        let Some(sent) = connection.send(request) else {
            return Err(Error::new(Kind::Internal));
        };
        // Pinned here and passed by reference: by value it would be in the state twice.
        let mut sent = std::pin::pin!(sent);
        let hedged = retries.hedge_after().zip(head.as_ref());
        // Of what changes something the second would tell what it found changed.
        let may = |head: &request::Parts| repeatable && head.method.is_safe() && !how.wants_tunnel;
        let answer = match hedged.filter(|(_, head)| may(head)) {
            None => wait(exchange, link.as_deref(), sent.as_mut(), how.expects_continue).await,
            // Boxed: where nobody asks for it there is none of its state.
            Some((after, head)) => {
                let asked = hedge::Asked {
                    exchange,
                    upstream,
                    making,
                    key,
                    keep_host: how.keep_host,
                    head,
                    retries: &mut retries,
                    tried: &mut tried,
                };
                let first = hedge::First {
                    picked: &mut picked,
                    connection: &mut connection,
                    sent: sent.as_mut(),
                };
                Box::pin(hedge::race(after, asked, first)).await
            }
        };
        let sent = match (answer, connection.opening()) {
            (Err(failed), Some(opening)) if failed.is_timeout() => match opening.is_unanswered() {
                true => Err(Failed::Unopened),
                false if limit <= first => Err(failed),
                false => {
                    exchange.watched().wait(Wait::Response, limit - first);
                    wait(exchange, link.as_deref(), sent, how.expects_continue).await
                }
            },
            (sent, _) => sent,
        };
        let (why, error, again) = match judged(sent, &making.bounds) {
            Ok(mut response) => {
                picked.answered(response.status());
                connection.answered();
                let again = head.filter(|_| repeatable && retries.are_for(response.status()));
                let Some(again) = again.filter(|_| retries.take(Again::Status)) else {
                    connection.carry(Carried::of(picked.load, permit));
                    if let Some(cookie) = picked.set_cookie {
                        response.headers_mut().append(header::SET_COOKIE, cookie);
                    }
                    return Ok((response, connection));
                };
                retry::discard(response.into_body(), connection);
                (Again::Status, None, Some(rebuild(again)))
            }
            Err(Failed::Unopened) => {
                // As if it had never been: what is amiss is found by connecting.
                picked.pool.metrics().early_failed();
                let Some(again) = head else { return Err(Error::new(Kind::ConnectTimeout)) };
                exchange.sent_again();
                request = rebuild(again);
                fresh = true;
                making.repeatable = false;
                continue;
            }
            Err(Failed::Other(error)) => {
                picked.failed(error.kind);
                if error.kind == Kind::ResponseTimeout {
                    connection.unanswered();
                }
                let late = error.kind == Kind::ResponseTimeout && patience.is_some();
                let again = head.filter(|_| repeatable && late && retries.take(Again::Timeout));
                (Again::Timeout, Some(error), again.map(rebuild))
            }
            Err(Failed::Sending(mut error)) => {
                // Its body by the other way: what came back is of the stream that is given up.
                let unsent = match error.take_request() {
                    // As a CONNECT it lacks what it may be asked for elsewhere.
                    Some(_) if how.wants_tunnel && link.is_none() => head.take().map(rebuild),
                    unsent => {
                        let unsent = unsent.map(http1_form);
                        unsent.and_then(|unsent| connection.unlend(unsent))
                    }
                };
                let head = head.or_else(|| Some(error.take_written()?.into_parts().0));
                let kind = exchange.fault().unwrap_or_else(|| connection.why(error.why()));
                let unanswered = kind == Kind::UpstreamClosed;
                // Of those that are shared another kept one may be next, but once only.
                let again_kept = link.is_some() || !fresh;
                let stale = (connection.is_reused() && again_kept || early) && unanswered;
                let failed = stale || matches!(kind, Kind::UpstreamClosed | Kind::BadResponse(_));
                let body = match unsent {
                    Some(_) => None,
                    None => connection.take_refused(error.why()),
                };
                let unseen = link.is_none() && (unsent.is_some() || body.is_some());
                let again = match (unsent, body, head) {
                    (Some(unsent), ..) => Some(unsent),
                    (None, Some(body), Some(head)) => Some(Request::from_parts(head, body)),
                    (None, None, head) => head.filter(|_| repeatable && failed).map(rebuild),
                    (None, Some(_), None) => None,
                };
                if unseen && refusals < MOST_REFUSALS {
                    // Its server has not looked at it; the next connection, or server, may.
                    refusals += 1;
                    picked.pool.metrics().stale_retry();
                    let error = error.into_why();
                    (Again::Failure, Some(Error::because(kind, error).retry_safe()), again)
                } else if stale
                    && connection.may_be_stale(error.why())
                    && let Some(again) = again
                {
                    // A kept connection that the server had closed meanwhile, or one that has not
                    // come about: the next one is made before anything is sent on it, so this
                    // cannot go on for ever.
                    match early {
                        true => picked.pool.metrics().early_failed(),
                        false => picked.pool.metrics().stale_retry(),
                    }
                    exchange.sent_again();
                    request = again;
                    fresh = true;
                    making.repeatable = false;
                    continue;
                } else {
                    picked.failed(kind);
                    let again = again.filter(|_| retries.take(Again::Failure));
                    (Again::Failure, Some(Error::because(kind, error.into_why())), again)
                }
            }
        };
        tried.add(&picked.pool);
        // The same server only if there is no other.
        let next = || upstream.pick(key, &tried).or_else(|| upstream.pick(key, &Tried::default()));
        match again.and_then(|again| Some((again, next()?))) {
            Some((again, next)) => {
                let server = picked.pool.server();
                tracing::debug!(%server, reason = why.name(), "sending a request again");
                exchange.sent_again();
                (request, picked, fresh) = (again, next, how.fresh);
            }
            None => return Err(error.unwrap_or(Error::new(Kind::NoServer))),
        }
    }
}

/// A connection that is not there yet.
pub(super) async fn connect(
    upstream: &Upstream,
    pool: &Rc<ServerPool>,
    making: Making<'_>,
) -> Result<Connection, Error> {
    let _waits = upstream.wait()?;
    pool.acquire_slow(making).await
}

/// Waits until a server that speaks HTTP/2 has said whether it takes tunnels (RFC 8441 section 3).
async fn may_become_tunnel(connection: &Connection, timeout: Duration) -> Result<(), Error> {
    let Connection::Http2(stream) = connection else { return Ok(()) };
    match tokio::time::timeout(timeout, stream.extends()).await {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false)) => {
            Err(Error::new(Kind::NotImplemented("the server takes no WebSocket over HTTP/2")))
        }
        Ok(None) => Err(Error::new(Kind::UpstreamClosed)),
        Err(_) => Err(Error::new(Kind::ConnectTimeout)),
    }
}

/// HTTP/1.1 wants a `Host` even if the client, of HTTP/1.0, named none.
pub(super) fn name_host(request: &mut Request<BodyStream>, upstream: &Upstream, pool: &ServerPool) {
    let given = request.headers().contains_key(header::HOST);
    if upstream.host == HostPolicy::Preserve && given {
        return;
    }
    request.headers_mut().insert(header::HOST, pool.host().clone());
}

/// Whether a request may be sent a second time (RFC 9110 section 9.2.2).
pub(super) fn is_repeatable(request: &Request<BodyStream>) -> bool {
    head::is_idempotent(request.method()) && http_body::Body::is_end_stream(request.body())
}

/// What is needed for that.
fn head_of(request: &Request<BodyStream>) -> request::Parts {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy.into_parts().0
}

/// The head of an answer over HTTP/2 as strictly as the wire takes one of HTTP/1.
pub(super) fn judged(
    sent: Result<Response<AnswerBody>, Failed>,
    bounds: &Bounds,
) -> Result<Response<AnswerBody>, Failed> {
    let response = sent?;
    match http2_head::answer(&response, bounds) {
        Err(rule) if response.version() == Version::HTTP_2 => {
            Err(Failed::Other(Error::new(Kind::BadResponse(rule))))
        }
        _ => Ok(response),
    }
}

/// One that comes back unsent, as it was given away.
fn http1_form(mut request: Request<BodyStream>) -> Request<BodyStream> {
    http2_head::to_http1(&mut request);
    request
}

pub(super) fn rebuild(parts: request::Parts) -> Request<BodyStream> {
    Request::from_parts(parts, BodyStream::empty())
}

/// What a sending has failed of.
pub(super) enum Failed {
    Sending(Box<Unanswered>),
    /// The connection that the request opens has not come about in time.
    Unopened,
    Other(Error),
}

impl Failed {
    pub(super) fn of(kind: Kind) -> Self {
        Self::Other(Error::new(kind))
    }

    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Other(error) if error.kind == Kind::ResponseTimeout)
    }
}

/// Waits for the head of the answer, and does meanwhile what cannot wait: interim
/// responses, deadlines, faults of the request's body.
pub(super) async fn wait(
    exchange: &Exchange,
    link: Option<&Link>,
    mut sent: Pin<&mut impl Future<Output = Sent>>,
    expects_continue: bool,
) -> Result<Response<AnswerBody>, Failed> {
    let nudge = async {
        if expects_continue {
            tokio::time::sleep(CONTINUE_TIMEOUT).await;
            exchange.may_send_body();
        }
        std::future::pending::<()>().await;
    };
    let mut nudge = std::pin::pin!(nudge);
    poll_fn(|cx| {
        let sent = sent.as_mut().poll(cx);
        // What came before the final head goes out before it.
        pass_interim(exchange, link);
        if let Poll::Ready(response) = sent {
            return Poll::Ready(response.map_err(Failed::Sending));
        }
        if let Poll::Ready(failed) = poll_overdue(exchange, cx) {
            return Poll::Ready(Err(failed));
        }
        let _ = nudge.as_mut().poll(cx);
        Poll::Pending
    })
    .await
}

/// Resolves when waiting is over although there is no answer.
pub(super) fn poll_overdue(exchange: &Exchange, cx: &Context<'_>) -> Poll<Failed> {
    if let Some(fault) = exchange.fault() {
        return Poll::Ready(Failed::of(fault));
    }
    exchange.watched().register(cx);
    let Some(wait) = exchange.watched().expired() else { return Poll::Pending };
    exchange.watched().forgive();
    Poll::Ready(Failed::of(match wait {
        Wait::Request => Kind::RequestBodyTimeout,
        Wait::Response => Kind::ResponseTimeout,
        Wait::Deadline => Kind::DeadlineExceeded,
        Wait::Head => return Poll::Pending,
    }))
}

/// Passes on what came before the final head.
pub(super) fn pass_interim(exchange: &Exchange, link: Option<&Link>) {
    take_interim(exchange, link, |interim| pass(exchange, &interim));
}

/// Takes what came before the final head, except for what the client is told by hyper.
pub(super) fn take_interim(
    exchange: &Exchange,
    link: Option<&Link>,
    mut take: impl FnMut(Interim),
) {
    while let Some(interim) = link.and_then(Link::next_interim) {
        if interim.status == 100 {
            // hyper tells the client by itself once its body is asked for.
            exchange.may_send_body();
        } else {
            take(interim);
        }
    }
}

/// Passes on one of these.
pub(super) fn pass(exchange: &Exchange, interim: &Interim) {
    exchange.client().pass_interim(&interim.head, exchange.version());
}

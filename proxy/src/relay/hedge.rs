//! A request that has no answer after a while is sent to a second server as well, and the first
//! answer is the client's: what `hedge_after` of `[upstream.retry]` asks for.
//!
//! Only what may be sent again comes here (`send.rs` sees to that), and a second sending is one
//! of the request's retries. Invariant: whatever comes of the race, what is handed on is of one
//! sending, and the other has ended with its connection or stream by then. What only asks for
//! another try (a failure, a status of `on_status`) wins while nothing else can.
//!
//! Implements: REQ-EDGE-003

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::{Response, request};
use tokio::time::{Instant, timeout};

use super::{
    retry::{self, Retries},
    send::{self, Failed},
};
use crate::{
    error::Kind,
    exchange::Exchange,
    metrics::Again,
    upstream::{
        affinity::Key,
        answer::{AnswerBody, Sent},
        balance::{Picked, Tried, Upstream},
        connection::Connection,
        pool::{Making, ServerPool},
    },
    watchdog::Wait,
    wire::http2 as http2_head,
};

type Answer = Result<Response<AnswerBody>, Failed>;

/// What is asked, and what may be done for an answer.
pub(super) struct Asked<'a, 'b> {
    pub(super) exchange: &'a Exchange,
    pub(super) upstream: &'a Upstream,
    pub(super) making: Making<'a>,
    pub(super) key: Key,
    /// As [`send::How::keep_host`].
    pub(super) keep_host: bool,
    pub(super) head: &'a request::Parts,
    pub(super) retries: &'a mut Retries<'b>,
    pub(super) tried: &'a mut Tried,
}

/// The sending that is under way.
pub(super) struct First<'a, F> {
    pub(super) picked: &'a mut Picked,
    pub(super) connection: &'a mut Connection,
    pub(super) sent: Pin<&'a mut F>,
}

/// Who comes to an end first.
enum End {
    First(Response<AnswerBody>),
    Second(Response<AnswerBody>),
    /// Neither has an answer that is not to be asked for again.
    Neither,
    /// Not in time.
    Late(Failed),
}

/// Waits for the head of the answer, `after` that time of two servers.
///
/// If the second one has answered, it and its connection are in the place of the first.
///
/// # Errors
/// What has become of the first sending, where nothing has come of either.
pub(super) async fn race<F: Future<Output = Sent>>(
    after: Duration,
    asked: Asked<'_, '_>,
    mut first: First<'_, F>,
) -> Answer {
    let Asked { exchange, upstream, making, key, retries, tried, .. } = asked;
    let link = first.connection.link().cloned();
    let alone = send::wait(exchange, link.as_deref(), first.sent.as_mut(), false);
    if let Ok(answer) = timeout(after, alone).await {
        return answer;
    }
    tried.add(&first.picked.pool);
    let another = upstream.pick_beside(key, tried);
    let whole = exchange.client().limits().response_timeout;
    let patience = retries.patience().unwrap_or(whole).min(whole);
    let first_ends = exchange.watched().deadline(Wait::Response);
    let Some(mut second) = another.filter(|_| retries.take(Again::Hedge)) else {
        return send::wait(exchange, link.as_deref(), first.sent, false).await;
    };
    tried.add(&second.pool);
    exchange.sent_again();
    tracing::debug!(first = %first.picked.pool.server(), second = %second.pool.server(), "hedging");
    // Both have the time of a try from now on, and the first does not open any more: it waits.
    first.connection.answered();
    exchange.watched().wait(Wait::Response, patience);

    let sending = Sending {
        upstream,
        pool: &second.pool,
        making: Making { repeatable: false, ..making },
        head: asked.head,
        keep_host: asked.keep_host,
    };
    let mut connection = None;
    let mut of_first = None;
    let mut of_second = None;
    // What comes before the first one's answer is for the client only if that is.
    let mut held = Vec::new();
    let end = {
        let mut answer = pin!(sending.answer(&mut connection));
        let wins = |response: &Response<AnswerBody>| !retries.want_another(response.status());
        poll_fn(|cx| {
            let sent = match of_first {
                None => first.sent.as_mut().poll(cx),
                Some(_) => Poll::Pending,
            };
            send::take_interim(exchange, link.as_deref(), |interim| held.push(interim));
            if let Poll::Ready(sent) = sent {
                match send::judged(sent.map_err(Failed::Sending), &making.bounds) {
                    Ok(response) if wins(&response) => return Poll::Ready(End::First(response)),
                    lost => of_first = Some(lost),
                }
            }
            if of_second.is_none()
                && let Poll::Ready(answer) = answer.as_mut().poll(cx)
            {
                match answer {
                    Ok(response) if wins(&response) => return Poll::Ready(End::Second(response)),
                    lost => of_second = Some(lost),
                }
                if let Some(at) = first_ends {
                    // The first has its own time again.
                    let left = at.saturating_duration_since(Instant::now());
                    exchange.watched().wait(Wait::Response, left);
                }
            }
            if matches!(of_second, Some(Err(_))) {
                held.drain(..).for_each(|interim| send::pass(exchange, &interim));
            }
            if of_first.is_some() && of_second.is_some() {
                return Poll::Ready(End::Neither);
            }
            send::poll_overdue(exchange, cx).map(End::Late)
        })
        .await
    };
    let late = matches!(&end, End::Late(failed) if failed.is_timeout());
    let end = match (end, &of_first, of_second.take()) {
        // What is not wanted of the second is better than nothing of the first.
        (End::Neither | End::Late(_), None | Some(Err(_)), Some(Ok(response))) => {
            if late {
                first.picked.failed(Kind::ResponseTimeout);
            }
            End::Second(response)
        }
        (end, _, second) => {
            of_second = second;
            end
        }
    };
    if let End::Second(response) = end {
        // The first one's place is the second's, and its own end is told here.
        upstream.metrics().hedge_won();
        if let Some(connection) = connection {
            exchange.reached(connection.address());
            let before = std::mem::replace(first.connection, connection);
            let picked = std::mem::replace(first.picked, second);
            settle(picked, of_first, Some(before));
        }
        return Ok(response);
    }
    if late
        && of_second.is_none()
        && let Some(connection) = &connection
    {
        second.failed(Kind::ResponseTimeout);
        connection.unanswered();
    }
    settle(second, of_second, connection);
    held.iter().for_each(|interim| send::pass(exchange, interim));
    match end {
        End::First(response) | End::Second(response) => Ok(response),
        End::Late(failed) => of_first.unwrap_or(Err(failed)),
        End::Neither => of_first.unwrap_or(Err(Failed::of(Kind::Internal))),
    }
}

/// Takes note of what has come of the one that has lost, and lets go of it.
fn settle(mut picked: Picked, answer: Option<Answer>, connection: Option<Connection>) {
    match (answer, connection) {
        (Some(Ok(response)), Some(connection)) => {
            picked.answered(response.status());
            retry::discard(response.into_body(), connection);
        }
        (Some(Err(Failed::Sending(error))), Some(connection)) => {
            let kind = connection.why(error.why());
            // A kept connection may have been closed before the request came.
            if !connection.is_reused() || kind != Kind::UpstreamClosed {
                picked.failed(kind);
            }
        }
        (Some(Err(Failed::Other(error))), _) if !error.known => picked.failed(error.kind),
        // Still under way. It has not failed: it ends with its connection or stream.
        _ => {}
    }
}

/// The second sending.
struct Sending<'a> {
    upstream: &'a Upstream,
    pool: &'a Rc<ServerPool>,
    making: Making<'a>,
    head: &'a request::Parts,
    keep_host: bool,
}

impl Sending<'_> {
    /// Sends, and waits for the head of the answer; the connection is left in `on`.
    async fn answer(self, on: &mut Option<Connection>) -> Answer {
        let mut fresh = false;
        loop {
            let kept = if fresh { None } else { self.pool.try_acquire(&self.making) };
            let connection = match kept {
                Some(connection) => connection,
                None => send::connect(self.upstream, self.pool, self.making)
                    .await
                    .map_err(Failed::Other)?,
            };
            let connection = on.insert(connection);
            let mut request = send::rebuild(self.head.clone());
            if !self.keep_host {
                send::name_host(&mut request, self.upstream, self.pool);
            }
            let over_http2 = connection.link().is_none();
            if over_http2 && !http2_head::has_authority(&request) {
                return Err(Failed::of(Kind::Internal));
            }
            let Some(sent) = connection.send(request) else {
                return Err(Failed::of(Kind::Internal));
            };
            let answer = send::judged(sent.await.map_err(Failed::Sending), &self.making.bounds);
            match &answer {
                Ok(_) => connection.answered(),
                Err(Failed::Sending(error)) if !fresh && connection.is_reused() => {
                    let unanswered = connection.why(error.why()) == Kind::UpstreamClosed;
                    if unanswered && connection.may_be_stale(error.why()) {
                        // The server had closed it meanwhile.
                        self.pool.metrics().stale_retry();
                        fresh = true;
                        continue;
                    }
                }
                Err(_) => {}
            }
            return answer;
        }
    }
}

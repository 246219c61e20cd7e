//! The request that asks for others: what its server answers goes to its client, into the cache,
//! and to everybody who waits.

use std::{rc::Rc, sync::Arc};

use http::{Request, Response, StatusCode, Version, header, request};

use super::{
    question::{Question, Settled},
    serve,
    unsafe_methods::Forgets,
};
use crate::{
    body::BodyStream,
    cache::meta::{Answer, Meta},
    cache::{
        Cache,
        flight::{Resolution, Seat},
        origin::{Mend, Origin},
        outcome::{Forwarded, Outcome, Told},
        policy::conditional,
        range,
        store::{ObjectId, Stored},
    },
    config::RouteCache,
    connection,
    error::{Error, Kind, Side},
    exchange::Exchange,
    relay::{answer, outgoing, retry},
    upstream::{answer::AnswerBody, balance::Upstream, connection::Connection},
};

/// A request whose answer the cache wants to see.
#[derive(Debug)]
pub(in crate::relay) enum Lead {
    /// It is stored, if it may be.
    Asks(Box<Asks>),
    /// It may make worthless what is stored.
    Forgets(Box<Forgets>, Arc<Cache>, Arc<RouteCache>),
    /// It passes by, which clients are told.
    Passes(Told, Arc<Cache>, Arc<RouteCache>),
}

/// One that may be stored.
#[derive(Debug)]
pub(in crate::relay) struct Asks {
    pub(super) question: Question,
    pub(super) upstream: Rc<Upstream>,
    pub(super) forwarded: Forwarded,
    /// The request as the server got it, but for conditions.
    pub(super) head: Option<request::Parts>,
    /// The request went on as the client had put it: what comes may be a part.
    pub(super) as_asked: bool,
}

impl Lead {
    /// The request as it goes to the server.
    pub(in crate::relay) fn goes_out(&mut self, request: &mut Request<BodyStream>) {
        let Self::Asks(asks) = self else { return };
        if !asks.as_asked {
            asks.question.ask(request.headers_mut());
        } else if range::asked(request.headers()).is_none() {
            // What comes is taken for the answer to a plain GET: the server is not to read ranges
            // where we read none.
            request.headers_mut().remove(header::RANGE);
            request.headers_mut().remove(header::IF_RANGE);
        }
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        conditional::forget(head.headers_mut());
        asks.head = Some(head.into_parts().0);
    }

    /// No server has answered. What is stored may serve instead.
    pub(in crate::relay) fn failed(
        self,
        exchange: &Rc<Exchange>,
        error: Error,
    ) -> Result<Response<BodyStream>, Error> {
        let Self::Asks(asks) = self else { return Err(error) };
        if error.kind.side() == Side::Upstream || error.kind == Kind::NoServer {
            if let Some(stale) = asks.question.stale()
                && let Some(answer) = asks.serve_stale(exchange, &stale, None)
            {
                tracing::debug!(%error, "served stale");
                return Ok(answer);
            }
            asks.question.resolve(Resolution::Failed(error.kind));
        }
        Err(error)
    }

    /// A server has answered.
    pub(in crate::relay) async fn answered(
        self,
        exchange: &Rc<Exchange>,
        mut answer: Response<AnswerBody>,
        connection: Connection,
        version: Version,
    ) -> Result<Response<BodyStream>, Error> {
        match self {
            Self::Asks(asks) => asks.answered(exchange, answer, connection, version).await,
            Self::Forgets(forgets, cache, rules) => {
                forgets.answered(exchange, answer.status(), answer.headers());
                let told = Told { forwarded: Some(Forwarded::Method), ..Told::of(Outcome::Bypass) };
                tell(exchange, &cache, &rules, told, &mut answer);
                Ok(answer::of_server(exchange, answer, connection, version))
            }
            Self::Passes(told, cache, rules) => {
                tell(exchange, &cache, &rules, told, &mut answer);
                Ok(answer::of_server(exchange, answer, connection, version))
            }
        }
    }
}

impl Asks {
    async fn answered(
        mut self,
        exchange: &Rc<Exchange>,
        mut answer: Response<AnswerBody>,
        mut connection: Connection,
        version: Version,
    ) -> Result<Response<BodyStream>, Error> {
        let patience = exchange.client().limits().body_idle_timeout;
        let mut again = false;
        loop {
            let status = answer.status();
            if is_trouble(status)
                && let Some(stale) = self.question.stale()
                && let Some(response) = self.serve_stale(exchange, &stale, Some(status))
            {
                retry::discard(answer.into_body(), connection);
                return Ok(response);
            }
            let finishes = self.question.asked.rules.finish_fills || self.has_it(&answer);
            if !again {
                exchange.record_answer(answer.status(), answer.headers(), true);
            }
            let fields = (answer.headers().get(header::SET_COOKIE).is_some())
                .then(|| answer.headers().clone());
            match self.question.settle(answer, connection, finishes, patience) {
                Settled::Confirmed(stored) => {
                    self.question.resolve(Resolution::Stored);
                    let told = self.told(Outcome::Revalidated, status);
                    let mend = self.mend(exchange, &stored);
                    let asked = &self.question.asked;
                    let response = serve::stored(exchange, asked, &stored, (mend, None), told);
                    return response.ok_or(Error::new(Kind::Internal));
                }
                Settled::Unconfirmed(spent) => {
                    // A 304 has no body.
                    spent.give_back();
                    if again {
                        return Err(Error::new(Kind::BadResponse("304 that nobody asked for")));
                    }
                    let Some(origin) = self.origin(exchange) else {
                        return Err(Error::new(Kind::Internal));
                    };
                    again = true;
                    self.question.looked.stored = None;
                    (answer, connection) = origin.ask(|_| {}).await?;
                }
                Settled::Filling(offer, pull) => {
                    let told = Told { stored: true, ..self.told(Outcome::Miss, status) };
                    let seat = Seat::take(&pull.flight, 0).ok_or(Error::new(Kind::Internal))?;
                    if pull.connection.link().is_none() && version == Version::HTTP_2 {
                        exchange.may_send_body();
                    }
                    let mend = self.mend_of(exchange, offer.object, &offer.answer, offer.length);
                    let asked = &self.question.asked;
                    let mut response =
                        serve::under_way(exchange, asked, &offer, (seat, mend), told, true);
                    if let Some(fields) = fields {
                        // Who asked gets what is not for others.
                        response.headers_mut().remove(header::SET_COOKIE);
                        for cookie in fields.get_all(header::SET_COOKIE) {
                            response.headers_mut().append(header::SET_COOKIE, cookie.clone());
                        }
                    }
                    pull.start(offer.length);
                    return Ok(response);
                }
                Settled::Solo(refusal, mut answer, connection) => {
                    let asked = &self.question.asked;
                    let key = self.question.looked.key.text();
                    if !self.as_asked || answer.status() == StatusCode::OK {
                        asked.cache.uncacheable.add(key);
                    }
                    self.question.resolve(Resolution::Solo);
                    let detail = Some(refusal.name());
                    let told = Told { detail, ..self.told(Outcome::Uncacheable, status) };
                    tell(exchange, &asked.cache, &asked.rules, told, &mut answer);
                    return Ok(answer::of_server(exchange, answer, connection, version));
                }
            }
        }
    }

    /// Whether the client has what came, so that its body is for others only.
    fn has_it(&self, answer: &Response<AnswerBody>) -> bool {
        let fields = &self.question.asked.fields;
        conditional::is_not_modified(fields, answer.status(), answer.headers())
    }

    fn told(&self, outcome: Outcome, status: StatusCode) -> Told {
        let (forwarded, status) = (Some(self.forwarded), Some(status.as_u16()));
        Told { forwarded, status, ..Told::of(outcome) }
    }

    fn serve_stale(
        &self,
        exchange: &Rc<Exchange>,
        stale: &Stored<Meta>,
        status: Option<StatusCode>,
    ) -> Option<Response<BodyStream>> {
        self.question.resolve(Resolution::Stale(stale.clone()));
        let told = Told {
            forwarded: Some(Forwarded::Stale),
            status: status.map(|status| status.as_u16()),
            detail: Some("stale-if-error"),
            ..Told::of(Outcome::Stale)
        };
        serve::stored(exchange, &self.question.asked, stale, (None, None), told)
    }

    fn mend(&self, exchange: &Exchange, stored: &Stored<Meta>) -> Option<Rc<Mend>> {
        if stored.body.is_some() {
            return None;
        }
        let answer = Answer::of(stored)?;
        self.mend_of(exchange, stored.object(), &answer, stored.length)
    }

    fn mend_of(
        &self,
        exchange: &Exchange,
        object: ObjectId,
        answer: &Answer,
        total: Option<u64>,
    ) -> Option<Rc<Mend>> {
        let cache = &self.question.asked.cache;
        // What is one block is with its head, or in the window.
        if total.is_some_and(|total| total <= cache.store.block_bytes() as u64) {
            return None;
        }
        let mend = Mend {
            cache: Arc::clone(cache),
            origin: Rc::new(self.origin(exchange)?),
            object,
            text: self.question.looked.key.text().to_owned(),
            validators: answer.validators(),
            total,
        };
        mend.is_possible().then(|| Rc::new(mend))
    }

    fn origin(&self, exchange: &Exchange) -> Option<Origin> {
        Some(origin(exchange, &self.upstream, self.head.clone()?))
    }
}

/// What this request's server is asked with besides.
pub(super) fn origin(exchange: &Exchange, upstream: &Rc<Upstream>, head: request::Parts) -> Origin {
    let client = exchange.client();
    let limits = client.limits();
    Origin {
        upstream: Rc::clone(upstream),
        head,
        keep_host: outgoing::names_host(exchange),
        peer: exchange.asking().ip(),
        announcement: client.announcement(upstream.proxy_protocol),
        connect_timeout: limits.connect_timeout,
        response_timeout: limits.response_timeout,
        body_timeout: limits.body_idle_timeout,
        bounds: connection::bounds(limits),
        preserve_header_case: client.listener().config.preserve_header_case,
    }
}

fn tell(
    exchange: &Exchange,
    cache: &Cache,
    rules: &RouteCache,
    told: Told,
    answer: &mut Response<AnswerBody>,
) {
    let status = Some(answer.status().as_u16());
    exchange.cached(told.outcome);
    cache.counters.request(told.outcome);
    if rules.status_headers {
        Told { status, ..told }.write(answer.headers_mut());
    }
}

/// RFC 5861 section 4.
pub(super) fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

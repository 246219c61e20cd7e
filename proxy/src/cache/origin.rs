//! Servers asked by the cache itself: to validate in the background, and for parts that are
//! missing.
//!
//! What a client's request goes through has a client to tell; this has none. It is sent again where
//! its upstream allows that, within the same budget.
//!
//! Implements: REQ-CACHE-003

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header, request};
use tokio::time::timeout;

use super::{
    Cache,
    flight::{Ends, Finishes, Flight, Resolution, Seat, held},
    flights::{Of, PartTurn},
    policy::Validators,
    pull::{Pull, Sink},
    range::{Span, content_range},
    store::{Fill, Key, ObjectId},
};
use crate::{
    body::BodyStream,
    config::HostPolicy,
    error::{Error, Kind},
    metrics::Again,
    upstream::{
        answer::AnswerBody,
        balance::{Tried, Upstream},
        carried::Carried,
        connection::Connection,
        pool::Making,
        retry::{self, Retries},
    },
    wire::{head::Bounds, http2 as http2_head},
};

/// Blocks that one request for a part asks for at most.
const MOST_BLOCKS: u32 = 1024;

/// What a server is asked with.
#[derive(Debug)]
pub struct Origin {
    /// Whose servers.
    pub upstream: Rc<Upstream>,
    /// The head of the request as they get it, without conditions and ranges.
    pub head: request::Parts,
    /// Whether the route names the host.
    pub keep_host: bool,
    /// Who asked, for the choice of the server.
    pub peer: IpAddr,
    /// What announces the client, where that is to be.
    pub announcement: Option<Vec<u8>>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take.
    pub response_timeout: Duration,
    /// How long the next chunk may take.
    pub body_timeout: Duration,
    /// What heads may be.
    pub bounds: Bounds,
    /// Whether the case of names is kept.
    pub preserve_header_case: bool,
}

impl Origin {
    /// Asks, with the fields changed so.
    ///
    /// # Errors
    /// If no server has answered.
    pub async fn ask(
        &self,
        change: impl Fn(&mut HeaderMap),
    ) -> Result<(Response<AnswerBody>, Connection), Error> {
        let upstream = &self.upstream;
        let permit = upstream.admit()?;
        let making = Making {
            timeout: self.connect_timeout,
            bounds: self.bounds,
            preserve_header_case: self.preserve_header_case,
            policy: None,
            kernel: None,
            wants_tunnel: false,
            announcement: self.announcement.as_deref(),
            // The first segment is not watched here.
            repeatable: false,
        };
        let key = upstream.key(&self.head.headers, self.head.uri.path(), self.peer);
        let mut retries = Retries::new(upstream);
        let mut tried = Tried::default();
        let mut picked = upstream.pick(key, &tried).ok_or(Error::new(Kind::NoServer))?;
        // The same server only if there is no other.
        let next = |tried: &Tried| {
            upstream.pick(key, tried).or_else(|| upstream.pick(key, &Tried::default()))
        };
        let mut fresh = false;
        loop {
            let pool = Rc::clone(&picked.pool);
            let kept = if fresh { None } else { pool.try_acquire(&making) };
            let mut connection = match kept {
                Some(connection) => connection,
                None => match pool.acquire_slow(making).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        picked.failed(error.kind);
                        tried.add(&pool);
                        let Some(next) = upstream.pick(key, &tried) else { return Err(error) };
                        upstream.metrics().retried(Again::Connect);
                        picked = next;
                        continue;
                    }
                },
            };
            let mut request = Request::from_parts(self.head.clone(), BodyStream::empty());
            change(request.headers_mut());
            let given = request.headers().contains_key(header::HOST);
            let keeps = self.keep_host || (upstream.host == HostPolicy::Preserve && given);
            if !keeps {
                request.headers_mut().insert(header::HOST, pool.host().clone());
            }
            let reused = connection.is_reused();
            let patience = retries.patience().filter(|each| *each < self.response_timeout);
            let sent = connection.send(request).ok_or(Error::new(Kind::Internal))?;
            let limit = patience.unwrap_or(self.response_timeout);
            let (why, error) = match timeout(limit, sent).await {
                Err(_) => {
                    picked.failed(Kind::ResponseTimeout);
                    connection.unanswered();
                    let error = Error::new(Kind::ResponseTimeout);
                    if patience.is_none() {
                        return Err(error);
                    }
                    (Again::Timeout, error)
                }
                Ok(Ok(answer)) => {
                    if answer.version() == Version::HTTP_2
                        && let Err(rule) = http2_head::answer(&answer, &self.bounds)
                    {
                        return Err(Error::new(Kind::BadResponse(rule)));
                    }
                    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(Error::new(Kind::BadResponse("101 that nobody asked for")));
                    }
                    picked.answered(answer.status());
                    connection.answered();
                    if !retries.are_for(answer.status()) || !retries.take(Again::Status) {
                        connection.carry(Carried::of(picked.load, permit));
                        return Ok((answer, connection));
                    }
                    retry::discard(answer.into_body(), connection);
                    tried.add(&pool);
                    fresh = false;
                    picked = next(&tried).ok_or(Error::new(Kind::NoServer))?;
                    continue;
                }
                Ok(Err(error)) => {
                    let kind = connection.why(error.why());
                    // A kept one that had been closed meanwhile says nothing of the server.
                    if reused && !fresh && kind == Kind::UpstreamClosed {
                        fresh = true;
                        continue;
                    }
                    picked.failed(kind);
                    (Again::Failure, Error::because(kind, error.into_why()))
                }
            };
            tried.add(&pool);
            fresh = false;
            if !retries.take(why) {
                return Err(error);
            }
            let Some(again) = next(&tried) else { return Err(error) };
            picked = again;
        }
    }
}

/// How what was missing is to be had.
#[derive(Debug)]
pub enum Begun {
    /// From a fetch, whose head is to be waited for.
    Fetch(Seat, Arc<Flight>),
    /// From the store, where it has come meanwhile.
    Stored,
    /// Not at all.
    Lost,
}

/// What it takes to get parts of an object that are missing.
#[derive(Debug)]
pub struct Mend {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Whom to ask.
    pub origin: Rc<Origin>,
    /// What is missing parts.
    pub object: ObjectId,
    /// Its key.
    pub text: String,
    /// What only the same version agrees with.
    pub validators: Validators,
    /// Bytes of the whole.
    pub total: Option<u64>,
}

impl Mend {
    /// Whether there is a way at all.
    pub fn is_possible(&self) -> bool {
        self.validators.strong().is_some()
    }

    /// A place to read from `at` on, up to `until` at most: in a fetch that is under way, or in a
    /// new one. `believes`: what the store says that it has need not be fetched.
    pub fn begin(self: &Rc<Self>, at: u64, until: Option<u64>, believes: bool) -> Begun {
        let flights = &self.cache.flights;
        let of = Of::Object(self.object);
        let joined = |flight: Arc<Flight>| Some(Begun::Fetch(Seat::take(&flight, at)?, flight));
        if let Some(begun) = flights.part(of, at).and_then(joined) {
            return begun;
        }
        let is_missing = self.validators.strong().zip(self.missing(at, until));
        let Some((validator, (span, number))) = is_missing else { return Begun::Lost };
        let (validator, block_bytes) = (validator.clone(), self.cache.store.block_bytes() as u64);
        let charge = self.cache.store.hold(held(block_bytes as usize, Some(span.len())));
        let flight = Flight::new();
        flight.begins_at(span.start, Finishes::Block(block_bytes), charge);
        let Some(seat) = Seat::take(&flight, at) else { return Begun::Lost };
        let has = || believes && self.cache.store.may_have_block(self.object, number);
        let part = match flights.join_or_add_part((of, at), (span, &flight), has) {
            PartTurn::Lead(part) => part,
            // It may have ended just now: whoever looks again finds what it has left, or leads.
            PartTurn::Join(flight) => return joined(flight).unwrap_or(Begun::Stored),
            PartTurn::There => return Begun::Stored,
        };
        self.cache.counters.parts.inc();
        // Before it is asked for: what is purged from now on is not stored by it.
        let fill = self.cache.store.refill(self.object);
        let (this, under_way) = (Rc::clone(self), Arc::clone(&flight));
        tokio::task::spawn_local(async move {
            this.bring(&under_way, span, &validator, (fill, number)).await;
            drop(part);
        });
        Begun::Fetch(seat, flight)
    }

    /// Goes on with an answer that has come already, to a request for these blocks: the place of
    /// who asked for it.
    pub fn goes_on(
        self: &Rc<Self>,
        (answer, connection): (Response<AnswerBody>, Connection),
        span: Span,
        at: u64,
    ) -> Option<Seat> {
        let block_bytes = self.cache.store.block_bytes() as u64;
        let number = u32::try_from(span.start / block_bytes).ok()?;
        let charge = self.cache.store.hold(held(block_bytes as usize, Some(span.len())))?;
        let flight = Flight::new();
        flight.begins_at(span.start, Finishes::Block(block_bytes), Some(charge));
        let seat = Seat::take(&flight, at)?;
        let of = Of::Object(self.object);
        let turn = self.cache.flights.join_or_add_part((of, at), (span, &flight), || false);
        flight.resolve(Resolution::Stored);
        let fill = self.cache.store.refill(self.object);
        let pull = Pull {
            cache: Arc::clone(&self.cache),
            flight: Arc::clone(&flight),
            ticket: None,
            body: answer.into_body(),
            connection,
            patience: self.origin.body_timeout,
            sink: Some(Sink::part(&self.cache, fill, number, span.end)),
        };
        tokio::task::spawn_local(async move {
            pull.run().await;
            drop(turn);
        });
        Some(seat)
    }

    /// The blocks from `at` on that are missing, one behind the other, and the number of the first.
    fn missing(&self, at: u64, until: Option<u64>) -> Option<(Span, u32)> {
        let block_bytes = self.cache.store.block_bytes() as u64;
        let first = u32::try_from(at / block_bytes).ok()?;
        let last = until.map_or(u64::from(first), |until| (until - 1) / block_bytes);
        let mut end = first + 1;
        while u64::from(end) <= last
            && end - first < MOST_BLOCKS
            && !self.cache.store.may_have_block(self.object, end)
        {
            end += 1;
        }
        let end = (u64::from(end) * block_bytes).min(self.total.unwrap_or(u64::MAX));
        let start = u64::from(first) * block_bytes;
        (start < end).then_some((Span { start, end }, first))
    }

    async fn bring(
        &self,
        flight: &Arc<Flight>,
        span: Span,
        validator: &HeaderValue,
        (fill, number): (Fill<super::meta::Meta>, u32),
    ) {
        let _ends = Ends(Arc::clone(flight));
        let fails = |kind| {
            flight.resolve(Resolution::Failed(kind));
            flight.finish(Err(kind));
        };
        let range = format!("bytes={}-{}", span.start, span.end - 1);
        let Ok(range) = HeaderValue::try_from(range) else { return fails(Kind::Internal) };
        let asked = self.origin.ask(|headers| {
            headers.insert(header::RANGE, range.clone());
            headers.insert(header::IF_RANGE, validator.clone());
        });
        let (answer, connection) = match asked.await {
            Ok(answered) => answered,
            Err(error) => return fails(error.kind),
        };
        if !self.is_of_it(&answer, span) {
            if answer.status().is_success() {
                // Another version is there, or none in parts: it begins anew.
                self.cache.store.remove(Key::of(&self.text));
            }
            return fails(Kind::BadResponse("not the part of an answer that was asked for"));
        }
        flight.resolve(Resolution::Stored);
        let pull = Pull {
            cache: Arc::clone(&self.cache),
            flight: Arc::clone(flight),
            ticket: None,
            body: answer.into_body(),
            connection,
            patience: self.origin.body_timeout,
            sink: Some(Sink::part(&self.cache, fill, number, span.end)),
        };
        pull.run().await;
    }

    /// Whether it is the very part that was asked for, of the same version.
    fn is_of_it(&self, answer: &Response<AnswerBody>, span: Span) -> bool {
        use http_body::Body as _;
        let total = |total| self.total.is_none_or(|known| known == total);
        // Its length is known before a byte of it counts.
        answer.status() == StatusCode::PARTIAL_CONTENT
            && self.validators.agree_strongly(answer.headers())
            && content_range(answer.headers()).is_some_and(|(of, all)| of == span && total(all))
            && answer.body().size_hint().exact() == Some(span.len())
    }
}

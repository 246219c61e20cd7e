//! What a request does at the cache: it uses what is stored, joins a fetch, or leads one.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll};

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::{
    Asked, Looked,
    enter::Turn,
    lead::{Asks, Lead, is_trouble, origin},
    plan::plan,
    question::{Question, Settled},
    serve, terms_of,
};
use crate::{
    body::BodyStream,
    cache::{
        Tier,
        flight::{Flight, Resolution, Seat, Waiting},
        flights,
        meta::{Answer, Meta},
        origin::{Begun, Mend, Origin},
        outcome::{Forwarded, Outcome, Told},
        policy::{Moment, Validators, conditional, reuse::Reuse},
        reader::Part,
        store::{Form, Found, Stored},
    },
    error::{Error, Kind},
    exchange::Exchange,
    relay::{outgoing, retry},
    upstream::balance::Upstream,
    watchdog::Wait,
};

/// What is to be done with something stored.
#[allow(clippy::large_enum_variant, reason = "taken apart where it is made")]
pub(super) enum Use {
    Answer(Response<BodyStream>),
    Validate,
    Not,
}

/// What came of joining.
#[allow(clippy::large_enum_variant, reason = "taken apart where it is made")]
pub(super) enum Joined {
    Answer(Response<BodyStream>),
    Again,
    Lead(flights::Ticket),
    Alone,
}

/// The way of a request.
pub(super) struct Way<'a> {
    pub(super) exchange: &'a Rc<Exchange>,
    pub(super) upstream: &'a Rc<Upstream>,
    pub(super) request: &'a Request<Incoming>,
}

impl Way<'_> {
    pub(super) async fn use_stored(
        &self,
        asked: &Asked,
        looked: &Looked,
        stored: &Stored<Meta>,
    ) -> Result<Use, Error> {
        let Some(terms) = terms_of(stored) else { return Ok(Use::Not) };
        let now = Moment::now();
        let outcome = match terms.reuse(now, &asked.wishes) {
            Reuse::Fresh if terms.age(now) < terms.lifetime() => Outcome::Hit,
            Reuse::Fresh => Outcome::Stale,
            Reuse::WhileRevalidate => {
                self.validate_in_background(asked, looked);
                Outcome::Stale
            }
            Reuse::Validate => {
                let Some(validators) = Answer::of(stored).map(|answer| answer.validators()) else {
                    return Ok(Use::Not);
                };
                // It would be cut where a block is missing, each time that it is validated. With
                // no validators it may serve yet where no server answers.
                let validates = can_serve(asked, stored, &validators)
                    && (!validators.is_empty() || terms.serves_errors(now));
                return Ok(if validates { Use::Validate } else { Use::Not });
            }
        };
        let told = Told {
            detail: match outcome {
                Outcome::Stale => Some("stale-while-revalidate"),
                _ => (asked.tier.get() == Tier::Fleet).then_some("fleet"),
            },
            ..Told::of(outcome)
        };
        self.serve(asked, looked, stored, told).await
    }

    /// Answers with what is stored, if all that is needed of it is there or can be had.
    async fn serve(
        &self,
        asked: &Asked,
        looked: &Looked,
        stored: &Stored<Meta>,
        told: Told,
    ) -> Result<Use, Error> {
        let answered = |mend, first, told| {
            let response = serve::stored(self.exchange, asked, stored, (mend, first), told);
            Ok(response.map_or(Use::Not, Use::Answer))
        };
        if stored.body.is_some() {
            return answered(None, None, told);
        }
        let Some((answer, length)) = Answer::of(stored).zip(stored.length) else {
            return Ok(Use::Not);
        };
        let validators = answer.validators();
        let plan = plan(&asked.method, &asked.fields, answer, Some(length));
        let block_bytes = asked.cache.store.block_bytes() as u64;
        let mend = Mend {
            cache: Arc::clone(&asked.cache),
            origin: Rc::new(self.origin()?),
            object: stored.object(),
            text: looked.key.text().to_owned(),
            validators,
            total: Some(length),
        };
        let mend = Rc::new(mend);
        let (store, object) = (&asked.cache.store, stored.object());
        let numbers = || {
            let spans = plan.parts.iter().filter_map(|part| match part {
                Part::Span(span) => Some(*span),
                _ => None,
            });
            spans
                .flat_map(|span| span.start / block_bytes..span.end.div_ceil(block_bytes))
                .filter_map(|number| u32::try_from(number).ok())
        };
        let is_mended = mend.is_possible() && asked.rules.slices;
        let first = numbers().next();
        // What comes first has to be here before anything is said: the fleet may have lost it.
        if let Some(first) = first.filter(|number| is_mended && !store.has_block(object, *number))
            && let Found::Fleet(reading) = store.seek_block(object, first, first, Form::Memory)
        {
            let _ = reading.await;
        }
        // The rest may be gone when it is its turn: only where there is another way.
        let has = |number| match is_mended && Some(number) != first {
            true => store.may_have_block(object, number),
            false => store.has_block(object, number),
        };
        let missing = numbers().find(|number| !has(*number));
        let Some(missing) = missing else {
            let mend = mend.is_possible().then_some(mend);
            return answered(mend, None, told);
        };
        if !mend.is_possible() || !asked.rules.slices {
            return Ok(Use::Not);
        }
        let told = Told { outcome: Outcome::Partial, forwarded: Some(Forwarded::Partial), ..told };
        let first = plan.parts.iter().find_map(|part| match part {
            Part::Span(span) => Some(*span),
            _ => None,
        });
        let Some(first) = first.filter(|first| first.start / block_bytes == u64::from(missing))
        else {
            // What comes first is there; the rest is fetched when it is its turn.
            return answered(Some(mend), None, told);
        };
        // Before anything is said to the client: if the version is another one, or there is
        // nobody to ask, it can still be told so.
        let (seat, flight) = match mend.begin(first.start, Some(first.end), true) {
            Begun::Fetch(seat, flight) => (seat, flight),
            Begun::Stored => return answered(Some(mend), None, told),
            Begun::Lost => return Ok(Use::Not),
        };
        match self.wait(&flight).await? {
            Resolution::Stored => answered(Some(mend), Some(seat), told),
            _ => Ok(Use::Not),
        }
    }

    pub(super) async fn join_or_lead(
        &self,
        asked: &Asked,
        looked: &Looked,
        forwarded: Forwarded,
    ) -> Result<Joined, Error> {
        let text = looked.key.text();
        if asked.cache.uncacheable.has(text) || !asked.wishes.allows_joining() {
            return Ok(Joined::Alone);
        }
        let flight = match asked.cache.flights.join_or_lead(text) {
            flights::Turn::Lead(ticket) => return Ok(Joined::Lead(ticket)),
            flights::Turn::Alone => return Ok(Joined::Alone),
            flights::Turn::Join(flight) => flight,
        };
        match self.wait(&flight).await? {
            Resolution::Filling(offer) => {
                if !offer.chosen.is_for(&asked.fields) {
                    return Ok(Joined::Again);
                }
                let Some(seat) = Seat::take(&flight, 0) else { return Ok(Joined::Again) };
                let mend = Mend {
                    cache: Arc::clone(&asked.cache),
                    origin: Rc::new(self.origin()?),
                    object: offer.object,
                    text: text.to_owned(),
                    validators: offer.answer.validators(),
                    total: offer.length,
                };
                let mend = mend.is_possible().then(|| Rc::new(mend));
                // What is in the window no more, nor in the store, could not be had.
                if mend.is_none() && !asked.has_up_to(offer.object, flight.base()) {
                    return Ok(Joined::Alone);
                }
                asked.cache.counters.joined.inc();
                let told = Told { forwarded: Some(forwarded), ..Told::of(Outcome::Joined) };
                let (seat, exchange) = ((seat, mend), self.exchange);
                let answer = serve::under_way(exchange, asked, &offer, seat, told, false);
                Ok(Joined::Answer(answer))
            }
            Resolution::Stale(stored) if !asked.has_all(&stored) => Ok(Joined::Alone),
            Resolution::Stale(stored) => {
                let told = Told {
                    forwarded: Some(forwarded),
                    detail: Some("stale-if-error"),
                    ..Told::of(Outcome::Stale)
                };
                let answer = serve::stored(self.exchange, asked, &stored, (None, None), told);
                Ok(answer.map_or(Joined::Again, Joined::Answer))
            }
            Resolution::Stored | Resolution::Abandoned => Ok(Joined::Again),
            Resolution::Solo => Ok(Joined::Alone),
            Resolution::Failed(kind) => Err(Error::new(kind)),
        }
    }

    /// Waits until it is known what became of a fetch, for as long as for a server's answer.
    pub(super) async fn wait(&self, flight: &Arc<Flight>) -> Result<Resolution, Error> {
        let waiting = Waiting::new(flight);
        let watched = self.exchange.watched();
        let limit = self.exchange.client().limits().response_timeout;
        watched.wait(Wait::Response, limit);
        let resolution = poll_fn(|cx| {
            if let Poll::Ready(resolution) = waiting.poll(cx) {
                return Poll::Ready(Ok(resolution));
            }
            watched.register(cx);
            match watched.expired() {
                Some(Wait::Response) => Poll::Ready(Err(Error::new(Kind::ResponseTimeout))),
                Some(Wait::Deadline) => Poll::Ready(Err(Error::new(Kind::DeadlineExceeded))),
                _ => Poll::Pending,
            }
        })
        .await;
        if resolution.is_err() {
            watched.forgive();
        }
        watched.done(Wait::Response);
        resolution
    }

    pub(super) fn leads(
        &self,
        asked: Asked,
        looked: Looked,
        ticket: Option<flights::Ticket>,
        forwarded: Forwarded,
        as_asked: bool,
    ) -> Turn {
        let asks = Asks {
            question: Question::new(asked, looked, ticket),
            upstream: Rc::clone(self.upstream),
            forwarded,
            head: None,
            as_asked,
        };
        Turn::Send(Some(Lead::Asks(Box::new(asks))))
    }

    /// Has somebody look whether it still holds, unless somebody does.
    fn validate_in_background(&self, asked: &Asked, looked: &Looked) {
        let Some(ticket) = asked.cache.flights.lead(looked.key.text()) else { return };
        let Ok(origin) = self.origin() else { return };
        let looked = Looked {
            key: looked.key.clone(),
            varies: looked.varies.clone(),
            stored: looked.stored.clone(),
            anchor: looked.anchor.clone(),
        };
        let asked = Asked { method: Method::GET, ..asked.clone() };
        asked.cache.counters.background.inc();
        let question = Question::new(asked, looked, Some(ticket));
        tokio::task::spawn_local(validate(question, origin));
    }

    /// What the server is asked with, if something is missing.
    pub(super) fn origin(&self) -> Result<Origin, Error> {
        let mut head = Request::new(());
        *head.uri_mut() = self.request.uri().clone();
        *head.version_mut() = self.request.version();
        *head.headers_mut() = self.request.headers().clone();
        conditional::forget(head.headers_mut());
        outgoing::head(self.exchange, &mut head, false, None)?;
        Ok(origin(self.exchange, self.upstream, head.into_parts().0))
    }
}

/// Whether all of it can be had once it has been validated.
fn can_serve(asked: &Asked, stored: &Stored<Meta>, validators: &Validators) -> bool {
    stored.length.is_some() && (validators.strong().is_some() || asked.has_all(stored))
}

/// Looks whether it still holds, with nobody who waits.
async fn validate(mut question: Question, origin: Origin) {
    let patience = origin.body_timeout;
    let asked = origin.ask(|fields| question.ask(fields)).await;
    let (answer, connection) = match asked {
        Ok(answered) => answered,
        Err(error) => {
            tracing::debug!(%error, "a validation in the background");
            let failed = Resolution::Failed(error.kind);
            return question.resolve(question.stale().map_or(failed, Resolution::Stale));
        }
    };
    if answer.status().is_server_error() {
        // What is stored goes on to serve for as long as it may; after that who waits asks.
        if is_trouble(answer.status())
            && let Some(stale) = question.stale()
        {
            question.resolve(Resolution::Stale(stale));
        }
        return retry::discard(answer.into_body(), connection);
    }
    match question.settle(answer, connection, true, patience) {
        Settled::Confirmed(_) => question.resolve(Resolution::Stored),
        Settled::Filling(_, pull) => pull.run().await,
        Settled::Solo(_, answer, connection) => {
            question.asked.cache.uncacheable.add(question.looked.key.text());
            question.resolve(Resolution::Solo);
            retry::discard(answer.into_body(), connection);
        }
        Settled::Unconfirmed(connection) => connection.give_back(),
    }
}

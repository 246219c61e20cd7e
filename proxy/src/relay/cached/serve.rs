//! An answer to a client out of the cache.

use std::{collections::VecDeque, rc::Rc, time::Instant};

use http::{HeaderMap, Response, StatusCode, Version, header};

use super::{
    Asked,
    plan::{number, plan},
};
use crate::{
    body::BodyStream,
    cache::{
        Tier,
        flight::{Offer, Seat},
        meta::{Answer, Meta},
        origin::Mend,
        outcome::Told,
        policy::{Moment, Terms},
        reader::{Part, Reader, Waits},
        store::{Form, Stored},
    },
    exchange::Exchange,
};

/// Answers with what is stored. `first`: a place in the fetch of its first part, if that is
/// missing. `None`: that has gone, or this client cannot have it as it is.
pub(super) fn stored(
    exchange: &Rc<Exchange>,
    asked: &Asked,
    stored: &Stored<Meta>,
    (mend, first): (Option<Rc<Mend>>, Option<Seat>),
    told: Told,
) -> Option<Response<BodyStream>> {
    let answer = Answer::of(stored)?;
    let anchor = match &stored.body {
        Some(body) if body.is_in_file() && asked.form == Form::Memory => return None,
        Some(body) if body.is_in_file() => Some(body.anchor()?),
        _ => None,
    };
    let (terms, length) = (answer.terms, stored.length?);
    let plan = plan(&asked.method, &asked.fields, answer, Some(length));
    let tier = if told.forwarded.is_some() { Tier::Server } else { asked.tier.get() };
    let waits = waits_since(exchange, tier);
    let reader = |parts: VecDeque<Part>| {
        let reader = Reader::stored(&asked.cache, stored, parts, mend).timed(waits);
        let reader = reader.in_form(asked.form, anchor);
        match first {
            Some(seat) => reader.with_part(seat),
            None => reader,
        }
    };
    let reader = (!plan.parts.is_empty()).then(|| reader(plan.parts));
    let told = with_ttl(told, &terms);
    if reader.is_none() {
        asked.cache.counters.answered(tier, exchange.age());
    }
    Some(respond(exchange, asked, (plan.status, plan.headers), reader, told, &terms))
}

/// Answers with what is on its way. `first`: for who asked first, whose fetch it is.
pub(super) fn under_way(
    exchange: &Rc<Exchange>,
    asked: &Asked,
    offer: &Offer,
    (seat, mend): (Seat, Option<Rc<Mend>>),
    told: Told,
    first: bool,
) -> Response<BodyStream> {
    let plan = plan(&asked.method, &asked.fields, offer.answer.clone(), offer.length);
    let reader = (!plan.parts.is_empty()).then(|| {
        let reader = Reader::under_way(&asked.cache, offer.object, seat, plan.parts, mend, !first);
        let reader = reader.in_form(asked.form, None);
        // What it asked a server for itself is a miss, and nothing of the cache's.
        match first {
            true => reader,
            false => reader.timed(waits_since(exchange, Tier::Shared)),
        }
    });
    let terms = &offer.answer.terms;
    let told = with_ttl(told, terms);
    // Who asked first sees its age as the server told it.
    respond(exchange, asked, (plan.status, plan.headers), reader, told, terms)
}

fn waits_since(exchange: &Exchange, tier: Tier) -> Waits {
    Waits { since: Instant::now() - exchange.age(), tier }
}

fn with_ttl(told: Told, terms: &Terms) -> Told {
    let now = Moment::now();
    let seconds = |time: std::time::Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let ttl = seconds(terms.lifetime()) - seconds(terms.age(now));
    Told { ttl: Some(ttl), ..told }
}

fn respond(
    exchange: &Rc<Exchange>,
    asked: &Asked,
    (status, mut headers): (StatusCode, HeaderMap),
    reader: Option<Reader>,
    told: Told,
    terms: &Terms,
) -> Response<BodyStream> {
    let age = terms.age(Moment::now()).as_secs();
    headers.insert(header::AGE, number(age));
    exchange.cached(told.outcome);
    asked.cache.counters.request(told.outcome);
    if asked.rules.status_headers {
        told.write(&mut headers);
    }
    exchange.answer(status);
    exchange.may_send_body();
    let version = exchange.version();
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    let body = match reader {
        Some(reader) => BodyStream::cached(reader, Rc::clone(exchange)),
        None => BodyStream::fixed(Default::default(), Rc::clone(exchange)),
    };
    let ends_with_connection = version == Version::HTTP_10 && !has_length && !body.is_none();
    exchange.client().answering(ends_with_connection);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    *response.version_mut() = if version == Version::HTTP_2 { version } else { Version::HTTP_11 };
    response
}

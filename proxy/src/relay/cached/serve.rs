//! An answer to a client out of the cache.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};

use super::{Asked, answer_of, plan::plan};
use crate::{
    body::BodyStream,
    cache::{
        flight::{Offer, Seat},
        meta::{Answer, Meta},
        origin::Mend,
        outcome::Told,
        policy::Moment,
        reader::{Part, Reader},
        store::Stored,
    },
    exchange::Exchange,
};

/// Answers with what is stored. `first`: a place in the fetch of its first part, if that is
/// missing.
pub(super) fn stored(
    exchange: &Rc<Exchange>,
    asked: &Asked,
    stored: &Arc<Stored<Meta>>,
    (mend, first): (Option<Rc<Mend>>, Option<Seat>),
    told: Told,
) -> Option<Response<BodyStream>> {
    let answer = answer_of(stored)?;
    let plan = plan(&asked.method, &asked.fields, answer, Some(stored.length?));
    let reader = |parts: VecDeque<Part>| {
        let reader = Reader::stored(&asked.cache, stored, parts, mend);
        match first {
            Some(seat) => reader.with_part(seat),
            None => reader,
        }
    };
    let reader = (!plan.parts.is_empty()).then(|| reader(plan.parts));
    let told = with_ttl(told, answer);
    asked.cache.counters.answered(exchange.age());
    Some(respond(exchange, asked, (plan.status, plan.headers), reader, told, Some(answer)))
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
    let plan = plan(&asked.method, &asked.fields, &offer.answer, offer.length);
    let reader = (!plan.parts.is_empty())
        .then(|| Reader::under_way(&asked.cache, offer.object, seat, plan.parts, mend, !first));
    let told = with_ttl(told, &offer.answer);
    // Who asked first sees its age as the server told it.
    let aged = Some(&offer.answer);
    respond(exchange, asked, (plan.status, plan.headers), reader, told, aged)
}

fn with_ttl(told: Told, answer: &Answer) -> Told {
    let now = Moment::now();
    let seconds = |time: std::time::Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let ttl = seconds(answer.terms.lifetime()) - seconds(answer.terms.age(now));
    Told { ttl: Some(ttl), ..told }
}

fn respond(
    exchange: &Rc<Exchange>,
    asked: &Asked,
    (status, mut headers): (StatusCode, HeaderMap),
    reader: Option<Reader>,
    told: Told,
    aged: Option<&Answer>,
) -> Response<BodyStream> {
    if let Some(answer) = aged {
        let age = answer.terms.age(Moment::now()).as_secs();
        headers.insert(header::AGE, HeaderValue::from(age));
    }
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

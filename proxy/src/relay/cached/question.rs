//! A question to a server, and what its answer changes in the cache.
//!
//! Used by the request that leads, and by validations in the background. What an answer is found by
//! where there are several is in `variants.rs`.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Version, header};

use super::{Asked, Looked, terms_of};
use crate::{
    cache::{
        flight::{Finishes, Flight, Offer, Resolution, held},
        flights::Ticket,
        key::Key,
        meta::{Answer, Meta},
        policy::{Moment, Refusal, Terms, Validators, freshen, terms, vary::Chosen},
        pull::{Pull, Sink},
        range::{Span, content_range},
        store::{self, Fill, Head, Stored},
    },
    headers,
    upstream::{answer::AnswerBody, connection::Connection},
};

/// For how long beyond its use an answer with a validator is kept to be validated.
const KEPT_FOR_VALIDATION: Duration = Duration::from_secs(3600);

/// Tags that one answer may have, and the length of one.
const MOST_TAGS: (usize, usize) = (64, 256);

/// A question.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) asked: Asked,
    pub(super) looked: Looked,
    /// Those who wait for it; `None`: nobody can.
    pub(super) ticket: Option<Ticket>,
    /// When it was put.
    pub(super) at: Moment,
    /// Made when it is put: what is purged from then on is not stored by it.
    pub(super) fills: Fills,
}

#[derive(Debug)]
pub(super) struct Fills {
    body: Option<Fill<Meta>>,
    same_body: Option<Fill<Meta>>,
    pub(super) varies: Option<Fill<Meta>>,
}

/// What an answer comes to.
#[derive(Debug)]
pub(super) enum Settled {
    /// What is stored still holds.
    Confirmed(Stored<Meta>),
    /// It is stored while it comes.
    Filling(Arc<Offer>, Box<Pull>),
    /// It is for who asked.
    Solo(Refusal, Response<AnswerBody>, Connection),
    /// A 304 that speaks of another version than ours.
    Unconfirmed(Connection),
}

impl Question {
    /// Puts it.
    pub(super) fn new(asked: Asked, looked: Looked, ticket: Option<Ticket>) -> Self {
        let store = &asked.cache.store;
        let same_body = looked.stored.as_ref().map(|stored| store.refill(stored.object()));
        let fills = Fills { body: Some(store.fill()), same_body, varies: Some(store.fill()) };
        Self { at: Moment::now(), fills, asked, looked, ticket }
    }

    /// Tells those who wait.
    pub(super) fn resolve(&self, resolution: Resolution) {
        if let Some(ticket) = &self.ticket {
            ticket.flight().resolve(resolution);
        }
    }

    /// What is stored, if it may be used where no server answers.
    pub(super) fn stale(&self) -> Option<Stored<Meta>> {
        let stored = self.looked.stored.as_ref()?;
        // What is gone of it could not be had.
        let serves = terms_of(stored)?.serves_errors(Moment::now()) && self.asked.has_all(stored);
        serves.then(|| stored.clone())
    }

    /// Conditions for the server, in the place of the client's; none: all of it is asked for.
    pub(super) fn ask(&self, fields: &mut HeaderMap) {
        let answer = self.looked.stored.as_ref().and_then(Answer::of);
        crate::cache::policy::conditional::forget(fields);
        if let Some(answer) = answer {
            answer.validators().ask(fields);
        }
    }

    /// Takes an answer in.
    pub(super) fn settle(
        &mut self,
        answer: Response<AnswerBody>,
        connection: Connection,
        finishes: bool,
        patience: Duration,
    ) -> Settled {
        let finishes = if finishes { Finishes::Yes } else { Finishes::No };
        let received = Moment::now();
        if answer.status() == StatusCode::NOT_MODIFIED && self.looked.stored.is_some() {
            return match self.confirm(answer.headers(), received) {
                Some(stored) => {
                    connection.give_back();
                    Settled::Confirmed(stored)
                }
                None => Settled::Unconfirmed(connection),
            };
        }
        // Neither of them is the answer to a plain GET.
        if self.asked.method != Method::GET || answer.status() == StatusCode::PARTIAL_CONTENT {
            return Settled::Solo(Refusal::Status, answer, connection);
        }
        let received_as = answer.version();
        let mut fields = answer.headers().clone();
        headers::strip_hop_by_hop(&mut fields);
        use http_body::Body as _;
        let length = answer.body().size_hint().exact();
        let (terms, chosen) = match self.storable(&answer, &fields, received, length) {
            Ok(head) => head,
            Err(refusal) => return Settled::Solo(refusal, answer, connection),
        };
        let Some(key) = self.key(&chosen) else {
            return Settled::Solo(Refusal::VaryAny, answer, connection);
        };
        let store = &self.asked.cache.store;
        let Some(charge) = store.hold(held(store.block_bytes(), length)) else {
            return Settled::Solo(Refusal::TooLarge, answer, connection);
        };
        let Some(fill) = self.fills.body.take() else {
            return Settled::Solo(Refusal::TooLarge, answer, connection);
        };
        self.kept(&mut fields, received, received_as);
        let tags = tags(answer.headers());
        let kept = Answer { status: answer.status(), headers: fields, terms };
        let head = head_of(&key, tags, None, &kept);
        let offer = Arc::new(Offer { answer: kept, length, object: fill.object(), chosen });
        let most = self.asked.rules.max_object_bytes;
        let cache = &self.asked.cache;
        let sink = Sink::whole(cache, fill, (key.text().to_owned(), head), most);
        let mut ticket = self.ticket.take();
        let flight = match &mut ticket {
            Some(ticket) => {
                let flight = Arc::clone(ticket.flight());
                ticket.moves_to(key.text());
                flight
            }
            None => Flight::new(),
        };
        flight.begins_at(0, finishes, Some(charge));
        cache.uncacheable.remove(self.looked.key.text());
        cache.uncacheable.remove(key.text());
        self.looked.key = key;
        flight.resolve(match terms.is_fresh(received) {
            true => Resolution::Filling(Arc::clone(&offer)),
            // Each use of it is to be validated: nobody else can have it.
            false => Resolution::Solo,
        });
        let pull = Pull {
            cache: Arc::clone(cache),
            flight,
            ticket,
            body: answer.into_body(),
            connection,
            patience,
            sink: Some(sink),
        };
        Settled::Filling(offer, Box::new(pull))
    }

    /// Takes the part of something in that was asked for with `span`, whose last byte may lie
    /// behind the end of the whole: its head is stored at once, unless it is `there` by now. `None`: that cannot be.
    pub(super) fn settle_part(
        &mut self,
        answer: &Response<AnswerBody>,
        asked: Span,
        there: Looked,
    ) -> Option<(Key, Span, Stored<Meta>)> {
        use http_body::Body as _;
        let received = Moment::now();
        let (span, total) = content_range(answer.headers())?;
        let wanted = Span { start: asked.start, end: asked.end.min(total) };
        if span != wanted || answer.body().size_hint().exact() != Some(span.len()) {
            return None;
        }
        let mut fields = answer.headers().clone();
        headers::strip_hop_by_hop(&mut fields);
        fields.remove(header::CONTENT_RANGE);
        Validators::of(&fields).strong()?;
        // Other blocks of it may have come meanwhile.
        if let Some(stored) = there.stored
            && stored.length == Some(total)
            && Answer::of(&stored)?.validators().agree_strongly(&fields)
        {
            return Some((there.key, span, stored));
        }
        let (terms, chosen) = self.storable(answer, &fields, received, Some(total)).ok()?;
        let key = self.key(&chosen)?;
        let fill = self.fills.body.take()?;
        self.kept(&mut fields, received, answer.version());
        let kept = Answer { status: StatusCode::OK, headers: fields, terms };
        let head = head_of(&key, tags(answer.headers()), Some(total), &kept);
        let stored = fill.commit(store::Key::of(key.text()), head)?;
        Some((key, span, stored))
    }

    /// What of its fields is kept.
    fn kept(&self, fields: &mut HeaderMap, received: Moment, version: Version) {
        freshen::storable(fields, self.asked.rules.policy.set_cookie);
        fields.entry(header::DATE).or_insert_with(|| received.field());
        fields.remove(header::CONTENT_LENGTH);
        fields.append(header::VIA, headers::via(version));
    }

    /// Whether it may be stored, and for whom it is. `length`: of the whole. A part counts as
    /// what it is a part of.
    fn storable(
        &self,
        answer: &Response<AnswerBody>,
        fields: &HeaderMap,
        received: Moment,
        length: Option<u64>,
    ) -> Result<(Terms, Chosen), Refusal> {
        let rules = &self.asked.rules;
        if self.asked.wishes.no_store() {
            return Err(Refusal::NoStore);
        }
        let part = answer.status() == StatusCode::PARTIAL_CONTENT
            && !fields.contains_key(header::CONTENT_RANGE);
        let said = terms::Answer {
            status: if part { StatusCode::OK } else { answer.status() },
            headers: fields,
            asked: self.at,
            received,
            authorized: self.asked.authorized,
        };
        let terms = Terms::of(&said, &rules.policy)?;
        let chosen = Chosen::of(fields, &self.asked.fields, &rules.policy.ignored_vary);
        if chosen.names().any(is_ours) {
            // The server saw another value of it than the client sent.
            return Err(Refusal::VaryAny);
        }
        if length.is_some_and(|length| length > rules.max_object_bytes) {
            return Err(Refusal::TooLarge);
        }
        let chunked = answer.headers().contains_key(header::TRANSFER_ENCODING);
        if length.is_none() && !chunked && answer.version() != Version::HTTP_2 {
            return Err(Refusal::NoLength);
        }
        // Trailers that are announced are not stored, so the answer would not be whole.
        if answer.headers().contains_key(header::TRAILER) {
            return Err(Refusal::NoLength);
        }
        Ok((terms, chosen))
    }

    /// Writes what a 304 says over what is stored. `None`: it speaks of something else.
    pub(super) fn confirm(&mut self, said: &HeaderMap, received: Moment) -> Option<Stored<Meta>> {
        let stored = self.looked.stored.clone()?;
        let answer = Answer::of(&stored)?;
        let mut said = said.clone();
        headers::strip_hop_by_hop(&mut said);
        if !answer.validators().are_confirmed(&said) {
            return None;
        }
        let rules = &self.asked.rules.policy;
        let mut fields = answer.headers.clone();
        freshen::freshen(&mut fields, said.clone(), rules.set_cookie);
        // Its age is told by the 304, not by what was stored.
        let mut judged = fields.clone();
        if let Some(age) = said.get(header::AGE) {
            judged.insert(header::AGE, age.clone());
        }
        if !said.contains_key(header::DATE) {
            fields.insert(header::DATE, received.field());
            judged.insert(header::DATE, received.field());
        }
        let judged = terms::Answer {
            status: answer.status,
            headers: &judged,
            asked: self.at,
            received,
            authorized: self.asked.authorized,
        };
        let mut fill = self.fills.same_body.take()?;
        let terms = match Terms::of(&judged, rules) {
            Ok(terms) => terms,
            Err(_) => {
                // It may not be kept any more; this once it is right all the same.
                let key = store::Key::of(self.looked.key.text());
                self.asked.cache.store.remove(key);
                return Some(stored);
            }
        };
        // It may have been given others, by which it is purged from now on.
        let tags = tags(&fields);
        let kept = Answer { status: answer.status, headers: fields, terms };
        let (meta, more) = kept.to_store();
        let head = Head {
            text: stored.text().into(),
            tags,
            length: stored.length,
            keep_until: keep_until(&kept),
            meta,
            more,
            body: stored.body.clone(),
        };
        match terms.is_fresh(received) {
            true => self.share_again(),
            // Whoever uses it has to ask as well.
            false => fill.for_us_alone(),
        }
        let key = store::Key::of(self.looked.key.text());
        // If it has been purged meanwhile, it has been validated for this request at least.
        Some(fill.commit(key, head).unwrap_or(stored))
    }
}

/// Fields that the server gets from us, whatever the client sent.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "via")
}

/// A head, without a body.
fn head_of(key: &Key, tags: Box<[Box<str>]>, length: Option<u64>, kept: &Answer) -> Head<Meta> {
    let (text, keep_until) = (key.text().into(), keep_until(kept));
    let (meta, more) = kept.to_store();
    Head { text, tags, length, keep_until, meta, more, body: None }
}

fn keep_until(answer: &Answer) -> u64 {
    let until = answer.terms.useless_after();
    let validates = !answer.validators().is_empty();
    let until = match validates {
        true => until.max(answer.terms.received.plus(KEPT_FOR_VALIDATION)),
        false => until,
    };
    until.0 / 1000 + 1
}

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// `Surrogate-Key` (by spaces) and `Cache-Tag` (by commas).
fn tags(headers: &HeaderMap) -> Box<[Box<str>]> {
    let mut tags: Vec<Box<str>> = Vec::new();
    for (name, separators) in [(SURROGATE_KEY, &[' ', '\t'][..]), (CACHE_TAG, &[','][..])] {
        for value in headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
            for tag in value.split(separators).map(str::trim).filter(|tag| !tag.is_empty()) {
                let fits = tags.len() < MOST_TAGS.0 && tag.len() <= MOST_TAGS.1;
                if fits && !tags.iter().any(|known| **known == *tag) {
                    tags.push(tag.into());
                }
            }
        }
    }
    tags.into()
}

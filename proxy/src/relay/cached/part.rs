//! A range of something that is not stored: the blocks that it lies in are fetched and stored, and
//! the client gets its part of them while they come.
//!
//! Which blocks: whole ones, from the one with the first byte to the one with the last, or to the
//! end where the client asks for all from a byte on. A suffix, or several ranges, cannot be asked
//! for so while the length is not known; such a request passes by.

use std::{rc::Rc, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    Asked, Looked,
    plan::plan,
    question::{Question, Settled},
    serve,
    way::{Joined, Way},
};
use crate::{
    cache::{
        flight::{Finishes, Flight, Resolution, Seat},
        flights::{self, Of, PartTurn},
        meta::Answer,
        origin::Mend,
        outcome::{Forwarded, Outcome, Told},
        range::{self, Asked as Range, Span},
        reader::Part,
        store,
    },
    error::{Error, Side},
    relay::retry,
    upstream::{answer::AnswerBody, connection::Connection},
};

/// What a request asks for, if it is asked for in blocks.
pub(super) fn blocks(asked: &Asked) -> Option<Span> {
    let ranges = range::asked(&asked.fields)?;
    let [one] = ranges.as_slice() else { return None };
    let block_bytes = asked.cache.store.block_bytes() as u64;
    let most = asked.rules.max_object_bytes;
    let floor = |at: u64| at / block_bytes * block_bytes;
    match *one {
        Range::Between(first, last) if first < most => {
            let end = floor(last.min(most)).saturating_add(block_bytes);
            Some(Span { start: floor(first), end })
        }
        Range::From(first) if first < most => Some(Span { start: floor(first), end: u64::MAX }),
        Range::Between(..) | Range::From(_) | Range::Last(_) => None,
    }
}

impl Way<'_> {
    /// Fetches these blocks, or waits for somebody who does.
    pub(super) async fn part(
        &self,
        asked: &Asked,
        looked: Looked,
        span: Span,
        forwarded: Forwarded,
    ) -> Result<Joined, Error> {
        let text = looked.key.text();
        if asked.cache.uncacheable.has(text) || !asked.wishes.allows_joining() {
            return Ok(Joined::Alone);
        }
        // Of each block one at a time: who waits finds out of what it is then, and shares it.
        let flights = &asked.cache.flights;
        let of = Of::Target(store::Key::of(text));
        if let Some(flight) = flights.part(of, span.start) {
            return self.shares(&flight).await;
        }
        let ticket = match flights.join_or_lead(&format!("{text}\np{}", span.start)) {
            flights::Turn::Lead(ticket) => ticket,
            flights::Turn::Alone => return Ok(Joined::Alone),
            flights::Turn::Join(flight) => return self.shares(&flight).await,
        };
        ticket.flight().begins_at(span.start, Finishes::No, None);
        let part = (span, ticket.flight());
        let _found = match flights.join_or_add_part((of, span.start), part, || false) {
            PartTurn::Join(flight) => {
                drop(ticket);
                return self.shares(&flight).await;
            }
            turn => turn,
        };
        let origin = Rc::new(self.origin()?);
        let mut question = Question::new(asked.clone(), looked, Some(ticket));
        let last = if span.end == u64::MAX { String::new() } else { (span.end - 1).to_string() };
        let range = HeaderValue::try_from(format!("bytes={}-{last}", span.start));
        let Ok(range) = range else { return Ok(Joined::Alone) };
        asked.cache.counters.parts.inc();
        let answered = origin.ask(|fields| _ = fields.insert(header::RANGE, range.clone())).await;
        let (answer, connection) = match answered {
            Ok(answered) => answered,
            Err(error) if error.kind.side() == Side::Upstream => {
                question.resolve(Resolution::Failed(error.kind));
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        self.exchange.reached(connection.address());
        let status = answer.status();
        let told = Told {
            forwarded: Some(forwarded),
            status: Some(status.as_u16()),
            stored: true,
            ..Told::of(Outcome::Miss)
        };
        if status == StatusCode::OK {
            return Ok(self.whole(question, (answer, connection), told));
        }
        // For as long as it may be answered with.
        let mut _anchor = None;
        let settled = match status {
            StatusCode::PARTIAL_CONTENT => {
                let there = asked.look().await;
                _anchor = there.anchor.clone();
                question.settle_part(&answer, span, there)
            }
            _ => None,
        };
        let Some((key, span, stored)) = settled else {
            // What it is cannot be told by blocks: the server is asked as the client did, and
            // for a while so is everybody's request for it.
            if status == StatusCode::PARTIAL_CONTENT {
                asked.cache.uncacheable.add(question.looked.key.text());
            }
            question.resolve(Resolution::Solo);
            retry::discard(answer.into_body(), connection);
            return Ok(Joined::Alone);
        };
        let (Some(head), total) = (Answer::of(&stored), stored.length) else {
            return Ok(Joined::Alone);
        };
        let validators = head.validators();
        let plan = plan(&asked.method, &asked.fields, head, total);
        let at = plan.parts.iter().find_map(|part| match part {
            Part::Span(wanted) => Some(wanted.start),
            _ => None,
        });
        let mend = Rc::new(Mend {
            cache: Arc::clone(&asked.cache),
            origin,
            object: stored.object(),
            text: key.text().to_owned(),
            validators,
            total,
        });
        // A condition of the client's may have it want the whole: the rest comes by other ranges.
        let at = at.unwrap_or(span.start).clamp(span.start, span.end);
        let seat = mend.goes_on((answer, connection), span, at);
        question.resolve(Resolution::Stored);
        let response = serve::stored(self.exchange, asked, &stored, (Some(mend), seat), told);
        Ok(response.map_or(Joined::Alone, Joined::Answer))
    }

    /// Waits until it is known what these blocks are of.
    async fn shares(&self, flight: &Arc<Flight>) -> Result<Joined, Error> {
        Ok(match self.wait(flight).await? {
            Resolution::Failed(kind) => return Err(Error::new(kind)),
            Resolution::Solo => Joined::Alone,
            _ => Joined::Again,
        })
    }

    /// The server has sent all of it: it is stored as a whole, and the client gets its part.
    fn whole(
        &self,
        mut question: Question,
        (answer, connection): (Response<AnswerBody>, Connection),
        told: Told,
    ) -> Joined {
        let patience = self.exchange.client().limits().body_idle_timeout;
        let asked = question.asked.clone();
        // To its end: who wanted a part has not left, and the next one would begin anew.
        match question.settle(answer, connection, true, patience) {
            Settled::Filling(offer, pull) => {
                let Some(seat) = Seat::take(&pull.flight, 0) else { return Joined::Alone };
                let response =
                    serve::under_way(self.exchange, &asked, &offer, (seat, None), told, true);
                tokio::task::spawn_local(pull.run());
                Joined::Answer(response)
            }
            Settled::Solo(_, answer, connection) => {
                asked.cache.uncacheable.add(question.looked.key.text());
                question.resolve(Resolution::Solo);
                retry::discard(answer.into_body(), connection);
                Joined::Alone
            }
            Settled::Confirmed(_) | Settled::Unconfirmed(_) => Joined::Alone,
        }
    }
}

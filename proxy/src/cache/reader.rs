//! A body out of the cache: blocks that are stored, chunks that are on their way, and what has to
//! be fetched because it is gone.
//!
//! Invariant: it ends as long as its head said, or with an error. Where a block is missing it is
//! fetched by a range request that only the same version answers (`origin.rs`); where there is no
//! way to say so, the answer is cut. But what is merely slow to come from the disk is waited for
//! there, for as long as a body may be silent: who sends it says when that is over.
//!
//! Implements: REQ-CACHE-003, REQ-CACHE-005

use std::{
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::{Sleep, sleep};

use super::{
    Cache, Tier,
    flight::{Next, Seat},
    meta::Meta,
    origin::{Begun, Mend},
    range::Span,
    store::{Anchor, Block, Form, Found, ObjectId, Reading, Stored},
};
use crate::error::Kind;

/// A piece of an answer's body.
#[derive(Debug)]
pub enum Part {
    /// Of ours: what stands around the parts of a `multipart/byteranges`.
    Text(Bytes),
    /// Of what is stored.
    Span(Span),
    /// All of what is on its way, however long that is.
    ToTheEnd,
}

/// A body out of the cache.
#[derive(Debug)]
pub struct Reader {
    cache: Arc<Cache>,
    object: ObjectId,
    parts: VecDeque<Part>,
    /// Place in the current span.
    at: u64,
    /// What is left of a block.
    rest: Bytes,
    /// Where the block begins that is being sent, in parts that lie together.
    block: Option<(u64, Block)>,
    /// It is the whole body, which is with its head.
    is_whole: bool,
    /// In which form blocks are wanted.
    form: Form,
    /// The file that the block is in.
    anchor: Option<Anchor>,
    reading: Option<Reading<Block>>,
    /// Until the disk is asked again for what nobody else has.
    again: Option<Pin<Box<Sleep>>>,
    /// Of the fetch that brings all of it.
    seat: Option<Seat>,
    /// Of one that brings a part which was missing.
    part: Option<Seat>,
    mend: Option<Rc<Mend>>,
    missed: Option<Missed>,
    left: Option<u64>,
    counted: bool,
    /// Until the first byte is there: since when it is waited for.
    waits: Option<Waits>,
}

/// A block that was not there, so that nothing is tried for ever.
#[derive(Debug, Clone, Copy, Default)]
struct Missed {
    at: u64,
    /// How often it has been fetched, or somebody else's fetch joined: what that brings may be
    /// gone before a slow reader has it.
    fetches: u32,
    /// The store has said that it has it.
    believed: bool,
}

/// What is fetched so often in vain is not had at all.
const MOST_FETCHES: u32 = 3;

/// How long a disk that had too much to do is left alone.
const AGAIN: Duration = Duration::from_millis(50);

/// A wait for the first byte.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// When it was asked for.
    pub since: Instant,
    /// What that has waited for so far.
    pub tier: Tier,
}

impl Reader {
    /// Of what is stored.
    pub fn stored(
        cache: &Arc<Cache>,
        stored: &Stored<Meta>,
        parts: VecDeque<Part>,
        mend: Option<Rc<Mend>>,
    ) -> Self {
        let whole = stored.body.clone();
        Self {
            is_whole: whole.is_some(),
            block: whole.map(|whole| (0, whole)),
            ..Self::new(cache, stored.object(), parts, mend)
        }
    }

    /// Of what is on its way; `counted`: for somebody who did not ask for it first.
    pub fn under_way(
        cache: &Arc<Cache>,
        object: ObjectId,
        seat: Seat,
        parts: VecDeque<Part>,
        mend: Option<Rc<Mend>>,
        counted: bool,
    ) -> Self {
        Self { seat: Some(seat), counted, ..Self::new(cache, object, parts, mend) }
    }

    fn new(
        cache: &Arc<Cache>,
        object: ObjectId,
        parts: VecDeque<Part>,
        mend: Option<Rc<Mend>>,
    ) -> Self {
        let length = |part: &Part| match part {
            Part::Text(text) => Some(text.len() as u64),
            Part::Span(span) => Some(span.len()),
            Part::ToTheEnd => None,
        };
        let left = parts.iter().map(length).sum();
        let mut this = Self {
            cache: Arc::clone(cache),
            object,
            parts,
            at: 0,
            rest: Bytes::new(),
            block: None,
            is_whole: false,
            form: Form::Memory,
            anchor: None,
            reading: None,
            again: None,
            seat: None,
            part: None,
            mend,
            missed: None,
            left,
            counted: true,
            waits: None,
        };
        this.begin_part();
        this
    }

    /// In which form the client takes it, and the file that the whole body is in, if it is in one.
    pub fn in_form(self, form: Form, anchor: Option<Anchor>) -> Self {
        Self { form, anchor, ..self }
    }

    /// Has it told how long the first byte was waited for.
    pub fn timed(self, waits: Waits) -> Self {
        Self { waits: Some(waits), ..self }
    }

    /// Begins with a part that is being fetched already.
    pub fn with_part(self, seat: Seat) -> Self {
        Self { part: Some(seat), ..self }
    }

    /// How much is to come; `None`: that is not known.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    fn begin_part(&mut self) {
        self.at = match self.parts.front() {
            Some(Part::Span(span)) => span.start,
            _ => 0,
        };
        self.rest = Bytes::new();
    }

    fn end(&self) -> Option<u64> {
        match self.parts.front() {
            Some(Part::Span(span)) => Some(span.end),
            _ => None,
        }
    }

    /// The next chunk.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Kind>>> {
        let next = ready!(self.poll_chunk(cx));
        if let Some(Ok(chunk)) = &next {
            let bytes = chunk.len() as u64;
            self.left = self.left.map(|left| left.saturating_sub(bytes));
            if self.counted {
                self.cache.counters.served.inc_by(bytes);
            }
            if let Some(waits) = self.waits.take() {
                self.cache.counters.answered(waits.tier, waits.since.elapsed());
            }
        }
        Poll::Ready(next)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Kind>>> {
        loop {
            match self.parts.front_mut() {
                None => return Poll::Ready(None),
                Some(Part::Text(text)) => {
                    let text = std::mem::take(text);
                    self.next_part();
                    return Poll::Ready(Some(Ok(text)));
                }
                Some(Part::Span(span)) if self.at >= span.end => self.next_part(),
                Some(Part::Span(_) | Part::ToTheEnd) => match ready!(self.poll_span(cx)) {
                    // An end that nobody has announced.
                    Some(Ok(chunk)) if chunk.is_empty() => self.next_part(),
                    Some(next) => return Poll::Ready(Some(next)),
                    None => {}
                },
            }
        }
    }

    fn waits_for(&mut self, tier: Tier) {
        if let Some(waits) = &mut self.waits {
            waits.tier = waits.tier.max(tier);
        }
    }

    fn next_part(&mut self) {
        self.parts.pop_front();
        self.begin_part();
    }

    /// More of the current span; an empty chunk at the end of one whose length is not known,
    /// `None` to be asked again.
    fn poll_span(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Kind>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.give_rest())));
        }
        if let Some((start, block)) = &self.block {
            let within = self.at.checked_sub(*start).filter(|at| *at < block.len() as u64);
            match within {
                Some(within) => {
                    self.rest = block.bytes(within as usize);
                    // The file that it is in has gone, in spite of the anchor.
                    return if self.rest.is_empty() { self.cut() } else { Poll::Ready(None) };
                }
                None if self.is_whole => return self.cut(),
                None => self.block = None,
            }
        }
        if let Some(reading) = &mut self.reading {
            let block = ready!(Pin::new(reading).poll(cx));
            self.reading = None;
            return match block {
                Some(block) => self.begin_block(block),
                None => self.miss(),
            };
        }
        if let Some(again) = &mut self.again {
            ready!(again.as_mut().poll(cx));
            self.again = None;
        }
        if let Some(part) = &self.part {
            match ready!(part.poll(self.at, cx)) {
                Next::Chunk(chunk) => {
                    let chunk = self.give(chunk);
                    self.seat.as_ref().inspect(|seat| seat.has(self.at));
                    return Poll::Ready(Some(Ok(chunk)));
                }
                // It has brought its part, or that is in the store.
                Next::End(Ok(())) | Next::Behind => self.part = None,
                Next::End(Err(kind)) => {
                    self.part = None;
                    return self.fails(kind);
                }
            }
        }
        if let Some(seat) = &self.seat {
            match ready!(seat.poll(self.at, cx)) {
                Next::Chunk(chunk) => return Poll::Ready(Some(Ok(self.give(chunk)))),
                Next::End(Ok(())) if self.end().is_none() => {
                    self.seat = None;
                    return Poll::Ready(Some(Ok(Bytes::new())));
                }
                Next::End(Ok(())) => self.seat = None,
                // The task that brought it is gone, not the server: the rest can be had.
                Next::End(Err(Kind::Internal)) if self.mend.is_some() && self.end().is_some() => {
                    self.seat = None;
                }
                Next::End(Err(kind)) => return self.fails(kind),
                Next::Behind => {}
            }
        }
        let Some(number) = self.number() else { return self.cut() };
        let found = match self.mend {
            Some(_) => {
                let last = self.last(number);
                self.cache.store.seek_block(self.object, number, last, self.form)
            }
            None => self.cache.store.block_awaited(self.object, number, self.form),
        };
        match found {
            Found::Memory(block) => self.begin_block(block),
            Found::Read(block) => {
                self.waits_for(Tier::Disk);
                self.begin_block(block)
            }
            Found::Disk(reading) => {
                self.waits_for(Tier::Disk);
                self.reading = Some(reading);
                Poll::Ready(None)
            }
            Found::Fleet(reading) => {
                self.waits_for(Tier::Fleet);
                self.reading = Some(reading);
                Poll::Ready(None)
            }
            Found::Absent => self.miss(),
        }
    }

    /// Of the block at the current place.
    fn number(&self) -> Option<u32> {
        u32::try_from(self.at / self.cache.store.block_bytes() as u64).ok()
    }

    /// The last block of the current span, or this one.
    fn last(&self, number: u32) -> u32 {
        let last = |end: u64| end.saturating_sub(1) / self.cache.store.block_bytes() as u64;
        self.end().map_or(number, |end| u32::try_from(last(end)).unwrap_or(number))
    }

    /// A block is not to be had, for now or at all.
    fn miss(&mut self) -> Poll<Option<Result<Bytes, Kind>>> {
        let keeps = |number| self.cache.store.keeps_block(self.object, number);
        if self.mend.is_none() && self.number().is_some_and(keeps) {
            self.again = Some(Box::pin(sleep(AGAIN)));
            return Poll::Ready(None);
        }
        self.mend()
    }

    fn begin_block(&mut self, block: Block) -> Poll<Option<Result<Bytes, Kind>>> {
        let offset = (self.at % self.cache.store.block_bytes() as u64) as usize;
        if offset >= block.len() {
            return self.cut();
        }
        self.anchor = block.anchor();
        self.rest = block.bytes(offset);
        if self.rest.is_empty() || block.is_in_file() && self.anchor.is_none() {
            // The file that it is in has gone.
            return self.miss();
        }
        self.missed = None;
        // Not longer than it is needed: what is in use is not evicted.
        let is_more = offset + self.rest.len() < block.len();
        self.block = is_more.then(|| (self.at - offset as u64, block));
        Poll::Ready(None)
    }

    /// A block is gone, or has never been there: it is fetched.
    fn mend(&mut self) -> Poll<Option<Result<Bytes, Kind>>> {
        let Some(mend) = self.mend.clone() else { return self.cut() };
        let before = self.missed.filter(|missed| missed.at == self.at);
        let mut missed = before.unwrap_or(Missed { at: self.at, ..Missed::default() });
        if missed.fetches == MOST_FETCHES {
            return self.cut();
        }
        // What the store says that it has and does not give cannot be read: once is enough.
        match mend.begin(self.at, self.end(), !missed.believed) {
            Begun::Fetch(seat, _) => {
                self.waits_for(Tier::Server);
                missed.fetches += 1;
                self.part = Some(seat);
            }
            Begun::Stored => missed.believed = true,
            Begun::Lost => return self.cut(),
        }
        self.missed = Some(missed);
        Poll::Ready(None)
    }

    fn cut(&mut self) -> Poll<Option<Result<Bytes, Kind>>> {
        self.cache.counters.cut.inc();
        self.fails(Kind::ResponseBodyBroken)
    }

    fn fails(&mut self, kind: Kind) -> Poll<Option<Result<Bytes, Kind>>> {
        self.parts.clear();
        (self.seat, self.part, self.reading, self.block) = (None, None, None, None);
        (self.again, self.anchor) = (None, None);
        self.rest = Bytes::new();
        // Whoever is still here has not left.
        let kind = if kind == Kind::ClientGone { Kind::ResponseBodyBroken } else { kind };
        Poll::Ready(Some(Err(kind)))
    }

    fn give_rest(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.rest);
        let chunk = self.give(rest);
        if let Some(seat) = &self.seat {
            seat.has(self.at);
        }
        chunk
    }

    /// What of a chunk at the current place belongs to the span.
    fn give(&mut self, mut chunk: Bytes) -> Bytes {
        if let Some(end) = self.end() {
            chunk.truncate((end - self.at).min(chunk.len() as u64) as usize);
        }
        self.at += chunk.len() as u64;
        chunk
    }
}

#[cfg(test)]
mod tests;

//! The record of one exchange while it goes on, seen from its worker.
//!
//! Holds what decides whether the exchange is recorded, and what of its bodies is missing. An
//! exchange that is not to be recorded has none of this.
//!
//! Invariant: every byte of a body is in a chunk event, or in the gap that comes before the next
//! one or with the end.
//!
//! Implements: REQ-REC-001, REQ-REC-004, REQ-REC-005

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    event::{Buffer, COPY_AT_MOST, END_BYTES, EVENT_BYTES, Gap, Side, What, Why},
    lane::{Lane, chunk_cost},
    note::{put, put_fields, put_number, put_option},
};
use crate::config::record::RecordMode;

/// The head of a request, as the client sent it.
#[derive(Debug)]
pub struct Begin<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// Who asked.
    pub client: std::net::SocketAddr,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// `HTTP/1.1` and the like.
    pub version: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Method.
    pub method: &'a str,
    /// Target, as it came.
    pub target: &'a str,
    /// `Host` or `:authority`.
    pub host: &'a str,
    /// Fields.
    pub fields: &'a HeaderMap,
}

/// How an exchange ended.
#[derive(Debug)]
pub struct End<'a> {
    /// `complete`, `client_gone`, `error` or `tunnel`.
    pub how: &'a str,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// The server that was asked.
    pub server: Option<std::net::SocketAddr>,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// Whether something went wrong, or the answer says that it did.
    pub failed: bool,
}

/// Heads and trailers that found no room, one bit each.
const ANSWER: u8 = 1;
const TRAILERS: [u8; 2] = [2, 4];

/// One exchange that is recorded, or may be.
#[derive(Debug)]
pub struct Recording {
    lane: Rc<Lane>,
    number: u64,
    started: Instant,
    /// What is not known to be recorded yet: events, and what they cost.
    undecided: RefCell<Option<(Buffer, usize)>>,
    ended: Cell<bool>,
    answered: Cell<bool>,
    gaps: [Cell<Gap>; 2],
    /// Body bytes so far, recorded or not.
    seen: [Cell<u64>; 2],
    /// Heads that found no room.
    lost: Cell<u8>,
    /// Of this record's last event, when it is written.
    last: Cell<u64>,
    /// The last frame of an answer, until everything is written.
    kept: RefCell<Option<Option<Frame<Bytes>>>>,
    patience: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Recording {
    /// Begins a record, unless the exchange is none of those that are sampled or there is no
    /// memory for it.
    pub fn begin(lane: &Rc<Lane>, started: Instant, begin: &Begin<'_>) -> Option<Box<Self>> {
        let sampling = lane.shared.config.sampling;
        let chosen = sampling.ratio >= 1.0 || fastrand::f64() < sampling.ratio;
        if !chosen && !sampling.errors && sampling.slower_than.is_none() {
            return None;
        }
        let recording = Box::new(Self {
            lane: Rc::clone(lane),
            number: lane.next(),
            started,
            undecided: RefCell::new((!chosen).then(Default::default)),
            ended: Cell::new(false),
            answered: Cell::new(false),
            gaps: Default::default(),
            seen: Default::default(),
            lost: Cell::new(0),
            last: Cell::new(0),
            kept: RefCell::default(),
            patience: RefCell::default(),
        });
        if !lane.charge_head(END_BYTES) {
            recording.ended.set(true);
            recording.does_not_begin();
            return None;
        }
        let wall = SystemTime::now().checked_sub(started.elapsed()).unwrap_or(UNIX_EPOCH);
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let heads = &lane.shared.heads;
        let bound = 64 + begin.target.len() + field_bytes(begin.fields);
        let begun = recording.event(bound, What::Begin, |out| {
            put_number(out, wall.as_micros() as u64);
            put(out, begin.listener.as_bytes());
            put(out, begin.client.to_string().as_bytes());
            put_option(out, begin.route.map(str::as_bytes));
            put(out, begin.version.as_bytes());
            put(out, begin.scheme.as_bytes());
            put(out, begin.method.as_bytes());
            put(out, begin.host.rsplit('@').next().unwrap_or_default().as_bytes());
            put_target(out, |out| heads.target(out, begin.target.as_bytes()));
            put_fields(out, begin.fields, |out, name, value| heads.value(out, name, value));
        });
        if !begun {
            recording.ended.set(true);
            lane.refund(END_BYTES);
            recording.does_not_begin();
            return None;
        }
        if chosen {
            lane.shared.counters.exchanges.inc();
        }
        Some(recording)
    }

    fn does_not_begin(&self) {
        // An exchange that would most likely be forgotten is not missed.
        if self.undecided.borrow().is_none() {
            self.lane.shared.counters.unrecorded.inc();
            self.lane.queue.unrecorded.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Pushes one event of about `bytes` bytes; false: there is no room.
    fn event(
        &self,
        bytes: usize,
        what: impl FnOnce(super::event::Span) -> What,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if !self.lane.charge_head(EVENT_BYTES + bytes) {
            return false;
        }
        let mut wrote = 0;
        self.push(|buffer, at| {
            wrote = buffer.push(at, what, write);
            1
        });
        // What was charged before is more than enough or a little too little.
        self.settle(bytes, wrote);
        true
    }

    /// Puts a charge right once it is known what was needed.
    fn settle(&self, charged: usize, needed: usize) {
        let held = &self.lane.queue.held;
        match needed.checked_sub(charged) {
            Some(more) => held.fetch_add(more, std::sync::atomic::Ordering::Relaxed),
            None => held.fetch_sub(charged - needed, std::sync::atomic::Ordering::Relaxed),
        };
        if let Some((_, cost)) = &mut *self.undecided.borrow_mut() {
            *cost += EVENT_BYTES + needed;
        }
    }

    fn push(&self, write: impl FnOnce(&mut Buffer, (u64, u64)) -> usize) {
        let at = (self.number, self.micros());
        if let Some((buffer, _)) = &mut *self.undecided.borrow_mut() {
            write(buffer, at);
            return;
        }
        self.last.set(self.lane.push(|buffer| write(buffer, at)));
    }

    /// The head of the answer. `of_server`: as a server sent it, not made here.
    pub fn answer(&self, status: StatusCode, fields: &HeaderMap, of_server: bool) {
        if self.answered.replace(true) {
            return;
        }
        let heads = &self.lane.shared.heads;
        let written = self.event(16 + field_bytes(fields), What::Answer, |out| {
            put_number(out, u64::from(status.as_u16()));
            put_number(out, u64::from(of_server));
            put_fields(out, fields, |out, name, value| heads.value(out, name, value));
        });
        if !written {
            self.lost.set(self.lost.get() | ANSWER);
        }
        if status.is_server_error() && self.lane.shared.config.sampling.errors {
            self.is_kept();
        }
    }

    /// A chunk of a body has come.
    pub fn chunk(&self, side: Side, chunk: &Bytes) {
        if chunk.is_empty() {
            return;
        }
        let seen = self.seen[side as usize].get();
        self.seen[side as usize].set(seen + chunk.len() as u64);
        self.look_at_the_clock();
        let left = self.lane.shared.config.max_body_bytes.map(|most| most.saturating_sub(seen));
        match left {
            Some(left) if left < chunk.len() as u64 => {
                let left = left as usize;
                if left > 0 {
                    self.whole_chunk(side, &chunk.slice(..left));
                }
                self.missing(side, chunk.len() - left, Why::Limit);
            }
            _ => self.whole_chunk(side, chunk),
        }
    }

    fn whole_chunk(&self, side: Side, chunk: &Bytes) {
        let gap = self.gaps[side as usize].get();
        let fills = if gap.bytes > 0 { EVENT_BYTES } else { 0 };
        let cost = chunk_cost(chunk.len()) + fills;
        if let Some((_, undecided)) = &*self.undecided.borrow()
            && undecided + cost > self.lane.shared.config.sampling.max_undecided_bytes
        {
            return self.missing(side, chunk.len(), Why::Undecided);
        }
        let charged = match self.lane.shared.config.mode {
            RecordMode::ZeroLatency => self.lane.charge(cost),
            RecordMode::Standard => self.lane.overcharge(cost),
        };
        if !charged {
            return self.missing(side, chunk.len(), self.lane.why());
        }
        self.push(|buffer, at| {
            if gap.bytes > 0 {
                buffer.note(at, What::Gap(side, gap));
            }
            if chunk.len() <= COPY_AT_MOST {
                buffer.push(at, |span| What::Chunk(side, span), |out| out.extend_from_slice(chunk));
            } else {
                buffer.hold(at, side, chunk);
            }
            1 + usize::from(gap.bytes > 0)
        });
        self.gaps[side as usize].set(Gap::default());
        if let Some((_, undecided)) = &mut *self.undecided.borrow_mut() {
            *undecided += cost;
        }
    }

    fn missing(&self, side: Side, bytes: usize, why: Why) {
        let gap = self.gaps[side as usize].get();
        // One gap has one reason, that of its beginning.
        let why = if gap.bytes > 0 { gap.why } else { why };
        let gap =
            Gap { bytes: gap.bytes + bytes as u64, chunks: gap.chunks.saturating_add(1), why };
        self.gaps[side as usize].set(gap);
        if self.undecided.borrow().is_none() {
            self.lane.shared.counters.missing(why, bytes as u64);
        }
    }

    /// The trailers of a body.
    pub fn trailers(&self, side: Side, fields: &HeaderMap) {
        let heads = &self.lane.shared.heads;
        let what = |span| What::Trailers(side, span);
        let written = self.event(field_bytes(fields), what, |out| {
            put_fields(out, fields, |out, name, value| heads.value(out, name, value));
        });
        if !written {
            self.lost.set(self.lost.get() | TRAILERS[side as usize]);
        }
    }

    /// The exchange is over. What has not been decided by now is forgotten.
    pub fn end(&self, end: &End<'_>) {
        if self.ended.replace(true) {
            return;
        }
        let sampling = self.lane.shared.config.sampling;
        self.look_at_the_clock();
        if end.failed && sampling.errors {
            self.is_kept();
        }
        if let Some((_, cost)) = self.undecided.borrow_mut().take() {
            return self.lane.refund(cost + END_BYTES);
        }
        self.push(|buffer, at| {
            let what = |span| What::End(span);
            buffer.push(at, what, |out| {
                put(out, end.how.as_bytes());
                put_option(out, end.error.map(str::as_bytes));
                put_option(out, end.upstream.map(str::as_bytes));
                let server = end.server.map(|server| server.to_string());
                put_option(out, server.as_ref().map(String::as_bytes));
                put_number(out, end.request_bytes);
                put_number(out, end.response_bytes);
                put_number(out, u64::from(self.lost.get()));
                for gap in &self.gaps {
                    put_number(out, gap.get().bytes);
                    put_number(out, u64::from(gap.get().chunks));
                    put_number(out, gap.get().why as u64);
                }
            });
            1
        });
    }

    fn look_at_the_clock(&self) {
        let slow = |limit: Duration| self.started.elapsed() >= limit;
        if self.lane.shared.config.sampling.slower_than.is_some_and(slow) {
            self.is_kept();
        }
    }

    /// It is known that this one is recorded.
    fn is_kept(&self) {
        let Some((mut held, _)) = self.undecided.borrow_mut().take() else { return };
        self.lane.shared.counters.exchanges.inc();
        for gap in &self.gaps {
            self.lane.shared.counters.missing(gap.get().why, gap.get().bytes);
        }
        self.last.set(self.lane.push(|buffer| {
            let count = held.events.len();
            buffer.append(&mut held);
            count
        }));
    }

    // -- the mode `standard` ----------------------------------------------------------

    /// Resolves when a chunk may come; at once in the mode `zero_latency`.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lane.shared.config.mode == RecordMode::ZeroLatency {
            return Poll::Ready(());
        }
        self.patiently(cx, |cx| self.lane.poll_below(cx))
    }

    /// Keeps the last frame of an answer, or its end, until everything is written. Gives it back
    /// where there is nothing to wait for.
    pub fn keep(&self, frame: Option<Frame<Bytes>>) -> Option<Option<Frame<Bytes>>> {
        let waits = self.lane.shared.config.mode == RecordMode::Standard
            && self.undecided.borrow().is_none();
        if !waits {
            return Some(frame);
        }
        *self.kept.borrow_mut() = Some(frame);
        None
    }

    /// Whether a last frame is kept.
    pub fn keeps(&self) -> bool {
        self.kept.borrow().is_some()
    }

    /// The frame that is kept, once everything is written; at once `None` where none is.
    pub fn poll_kept(&self, cx: &mut Context<'_>) -> Poll<Option<Option<Frame<Bytes>>>> {
        if !self.keeps() {
            return Poll::Ready(None);
        }
        let last = self.last.get();
        self.patiently(cx, |cx| self.lane.poll_written(last, cx))
            .map(|()| self.kept.borrow_mut().take())
    }

    /// Waits, but not for ever.
    fn patiently(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        let mut patience = self.patience.borrow_mut();
        if poll(cx).is_ready() {
            *patience = None;
            return Poll::Ready(());
        }
        let limit = self.lane.shared.config.max_wait;
        let timer = patience.get_or_insert_with(|| Box::pin(sleep(limit)));
        let over = timer.as_mut().poll(cx);
        if over.is_ready() {
            *patience = None;
        }
        over
    }
}

/// What fields take, lengths included.
fn field_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 8).sum()
}

fn put_target(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

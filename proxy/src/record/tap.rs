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
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use tokio::time::Instant;

use super::{
    about::{Begin, Chosen, End},
    event::{Buffer, END_BYTES, EVENT_BYTES, Gap, Side, What, Why},
    frames::unmask,
    lane::{Lane, chunk_cost},
    note::{put_address, put_numbers, put_texts},
    wait::Patience,
};

/// Heads and trailers that found no room, one bit each.
const ANSWER: u8 = 1;
const TRAILERS: [u8; 2] = [2, 4];

/// Whether an exchange is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Recorded,
    /// Not known: its events are held.
    Undecided,
    /// Not known, and there was no room for its beginning: if it turns out that it was to be
    /// recorded, that is counted.
    Unseen,
    /// It has been counted.
    Missed,
}

/// One exchange that is recorded, or may be.
#[derive(Debug)]
pub struct Recording {
    pub(super) lane: Rc<Lane>,
    number: u64,
    started: Instant,
    fate: Cell<Fate>,
    /// While it is undecided, its events so far, and what they cost.
    held: RefCell<Buffer>,
    held_cost: Cell<usize>,
    ended: Cell<bool>,
    answered: Cell<bool>,
    gaps: [Cell<Gap>; 2],
    /// Body bytes so far, recorded or not.
    seen: [Cell<u64>; 2],
    /// Heads that found no room.
    lost: Cell<u8>,
    /// Heads of frames that found no room, of each direction, since the last that did.
    pub(super) missed_frames: [Cell<u64>; 2],
    /// Of this record's last event, when it is written.
    pub(super) last: Cell<u64>,
    /// The last frame of an answer, until everything is written.
    pub(super) kept: RefCell<Option<Option<Frame<Bytes>>>>,
    /// Of each direction: they belong to different tasks.
    pub(super) patience: [Patience; 2],
    /// It has waited in vain, and waits no more.
    pub(super) gave_up: Cell<bool>,
}

impl Recording {
    /// Begins a record, unless the exchange is none of those that are chosen or there is no
    /// memory for it.
    pub fn begin(
        lane: &Rc<Lane>,
        chosen: Chosen,
        started: Instant,
        begin: &Begin<'_>,
    ) -> Option<Box<Self>> {
        let chosen = match chosen {
            Chosen::No => return None,
            Chosen::Perhaps => false,
            Chosen::Yes => true,
        };
        let recording = Box::new(Self {
            lane: Rc::clone(lane),
            number: lane.next(),
            started,
            fate: Cell::new(if chosen { Fate::Recorded } else { Fate::Undecided }),
            held: RefCell::default(),
            held_cost: Cell::new(0),
            ended: Cell::new(false),
            answered: Cell::new(false),
            gaps: Default::default(),
            seen: Default::default(),
            lost: Cell::new(0),
            missed_frames: Default::default(),
            last: Cell::new(0),
            kept: RefCell::default(),
            patience: Default::default(),
            gave_up: Cell::new(false),
        });
        if !lane.reserve(END_BYTES, !chosen) {
            return recording.does_not_begin();
        }
        let wall = lane.wall(started);
        let heads = &lane.shared.heads;
        let begun = recording.event_at(0, What::Begin, |out| {
            put_numbers(out, [wall]);
            put_address(out, Some(begin.client));
            let texts = [
                begin.listener,
                begin.route.unwrap_or_default(),
                begin.version,
                begin.scheme,
                begin.method,
                begin.host.rsplit('@').next().unwrap_or_default(),
            ];
            put_texts(out, texts.map(str::as_bytes));
            put_target(out, |out| heads.target(out, begin.target.as_bytes()));
            heads.fields(out, begin.fields);
        });
        if !begun {
            lane.free(END_BYTES, !chosen);
            return recording.does_not_begin();
        }
        if chosen {
            lane.shared.counters.exchanges.inc();
        }
        Some(recording)
    }

    /// There is no room for its beginning.
    fn does_not_begin(self: Box<Self>) -> Option<Box<Self>> {
        if self.is_decided() {
            self.ended.set(true);
            self.lane.misses_one();
            return None;
        }
        self.fate.set(Fate::Unseen);
        Some(self)
    }

    /// Whether it is known to be recorded.
    pub(super) fn is_decided(&self) -> bool {
        self.fate.get() == Fate::Recorded
    }

    fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Pushes one event; false: there is no room for it.
    pub(super) fn event(
        &self,
        what: impl FnOnce(super::event::Span) -> What,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        self.event_at(self.micros(), what, write)
    }

    /// The same at a time that is known. Written first and charged then: what it takes need not be
    /// added up before, and what finds no room goes again. It is a head at most that the buffer has
    /// held too much by then.
    fn event_at(
        &self,
        micros: u64,
        what: impl FnOnce(super::event::Span) -> What,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if matches!(self.fate.get(), Fate::Unseen | Fate::Missed) {
            return false;
        }
        let mut fits = false;
        self.push_at(micros, |buffer, at| {
            let wrote = buffer.push(at, what, write);
            // Before the writer has it, and may free it.
            fits = self.charge(EVENT_BYTES + wrote);
            if !fits {
                buffer.take_back(wrote);
            }
            usize::from(fits)
        });
        fits
    }

    /// Charges what is pushed, if there is room for it.
    fn charge(&self, bytes: usize) -> bool {
        match self.fate.get() {
            Fate::Undecided => {
                let fits = self.lane.reserve(bytes, true);
                self.held_cost.set(self.held_cost.get() + if fits { bytes } else { 0 });
                fits
            }
            Fate::Unseen | Fate::Missed => false,
            Fate::Recorded if self.waits() => self.lane.overcharge(bytes),
            Fate::Recorded => self.lane.charge(bytes),
        }
    }

    fn push(&self, write: impl FnOnce(&mut Buffer, (u64, u64)) -> usize) {
        self.push_at(self.micros(), write);
    }

    fn push_at(&self, micros: u64, write: impl FnOnce(&mut Buffer, (u64, u64)) -> usize) {
        let at = (self.number, micros);
        if self.fate.get() == Fate::Undecided {
            write(&mut self.held.borrow_mut(), at);
            return;
        }
        let mut count = 0;
        let last = self.lane.push(|buffer| {
            count = write(buffer, at);
            count
        });
        if count > 0 {
            self.last.set(last);
        }
    }

    /// The head of the answer. `of_server`: as a server sent it, not made here.
    pub fn answer(&self, status: StatusCode, fields: &HeaderMap, of_server: bool) {
        if self.answered.replace(true) {
            return;
        }
        let heads = &self.lane.shared.heads;
        let written = self.event(What::Answer, |out| {
            put_numbers(out, [u64::from(status.as_u16()), u64::from(of_server)]);
            heads.fields(out, fields);
        });
        if !written {
            self.lost.set(self.lost.get() | ANSWER);
        }
        if status.is_server_error() && self.lane.shared.config.sampling.errors {
            self.is_kept();
        }
    }

    /// A chunk of a body has come.
    pub fn chunk(&self, side: Side, chunk: &[u8]) {
        self.comes(side, chunk, [0; 4]);
    }

    /// Bytes of a body have come, masked so.
    pub(super) fn comes(&self, side: Side, chunk: &[u8], mask: [u8; 4]) {
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
                    self.all_of(side, &chunk[..left], mask);
                }
                self.missing(side, chunk.len() - left, Why::Limit);
            }
            _ => self.all_of(side, chunk, mask),
        }
    }

    fn all_of(&self, side: Side, chunk: &[u8], mask: [u8; 4]) {
        let gap = self.gaps[side as usize].get();
        let fills = if gap.bytes > 0 { EVENT_BYTES } else { 0 };
        let cost = chunk_cost(chunk.len()) + fills;
        let most = self.lane.shared.config.sampling.max_undecided_bytes;
        if self.fate.get() == Fate::Undecided && self.held_cost.get() + cost > most {
            return self.missing(side, chunk.len(), Why::Undecided);
        }
        if !self.charge(cost) {
            let why = if self.is_decided() { self.lane.why() } else { Why::Undecided };
            return self.missing(side, chunk.len(), why);
        }
        self.push(|buffer, at| {
            if gap.bytes > 0 {
                buffer.note(at, What::Gap(side, gap));
            }
            buffer.push(at, |span| What::Chunk(side, span), |out| unmask(out, chunk, mask));
            1 + usize::from(gap.bytes > 0)
        });
        self.gaps[side as usize].set(Gap::default());
    }

    fn missing(&self, side: Side, bytes: usize, why: Why) {
        let gap = self.gaps[side as usize].get();
        // One gap has one reason, that of its beginning.
        let why = if gap.bytes > 0 { gap.why } else { why };
        let gap =
            Gap { bytes: gap.bytes + bytes as u64, chunks: gap.chunks.saturating_add(1), why };
        self.gaps[side as usize].set(gap);
        if self.is_decided() {
            self.lane.shared.counters.missing(why, bytes as u64);
        }
    }

    /// The trailers of a body.
    pub fn trailers(&self, side: Side, fields: &HeaderMap) {
        let heads = &self.lane.shared.heads;
        let what = |span| What::Trailers(side, span);
        let written = self.event(what, |out| heads.fields(out, fields));
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
        match self.fate.get() {
            Fate::Undecided => return self.lane.free(self.held_cost.get() + END_BYTES, true),
            Fate::Unseen | Fate::Missed => return,
            Fate::Recorded => {}
        }
        self.lane.pushes(END_BYTES, false);
        self.push(|buffer, at| {
            let what = |span| What::End(span);
            buffer.push(at, what, |out| {
                let texts = [Some(end.how), end.error, end.upstream];
                put_texts(out, texts.map(|text| text.unwrap_or_default().as_bytes()));
                put_address(out, end.server);
                let lost = u64::from(self.lost.get());
                put_numbers(out, [end.request_bytes, end.response_bytes, lost]);
                for gap in self.gaps.each_ref().map(Cell::get) {
                    put_numbers(out, [gap.bytes, u64::from(gap.chunks), gap.why as u64]);
                }
                put_numbers(out, self.missed_frames.each_ref().map(Cell::get));
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
        match self.fate.get() {
            Fate::Undecided => {}
            Fate::Unseen => {
                self.fate.set(Fate::Missed);
                return self.lane.misses_one();
            }
            Fate::Recorded | Fate::Missed => return,
        }
        self.fate.set(Fate::Recorded);
        let mut held = self.held.take();
        let counters = &self.lane.shared.counters;
        counters.exchanges.inc();
        for event in &held.events {
            if let What::Gap(_, gap) = event.what {
                counters.missing(gap.why, gap.bytes);
            }
        }
        for gap in &self.gaps {
            counters.missing(gap.get().why, gap.get().bytes);
        }
        self.lane.pushes(self.held_cost.get(), true);
        // The end's is still reserved, but no more of their share.
        self.lane.decides(END_BYTES);
        self.last.set(self.lane.push(|buffer| {
            let count = held.events.len();
            buffer.append(&mut held);
            count
        }));
    }
}

fn put_target(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

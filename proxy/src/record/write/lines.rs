//! From events to lines: the format of `docs/recording-format.md`, version 1.
//!
//! A line is what a batch has of one record, so a short exchange is one line and a long stream is
//! many. Here is also where bodies are blanked: what is searched for is known from the
//! configuration, what has been seen of it from the bytes before.

use std::{
    io::Write as _,
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use super::{
    entry::{self, Run},
    json::{digits, string},
    open::{Direction, Open, Table},
    order::Order,
    said::{Clock, Host},
};
use crate::{
    access_log::timestamp::Rfc3339,
    record::{
        event::{Buffer, Event, Gap, Side, What, Why},
        frames,
        lane::{Queue, Shared},
        note::Reader,
        redact::{Framing, Piece, blanked},
    },
};

/// What is known of the records that have begun and not ended.
pub(super) struct Lines {
    shared: Arc<Shared>,
    open: Table,
    run: Run,
    body: Vec<u8>,
    order: Order,
    clock: Clock,
    /// Clients and servers.
    hosts: [Host; 2],
}

/// A line for exchanges that could not be recorded at all, if there were any.
pub(super) fn unrecorded(lane: &Queue, out: &mut Vec<u8>) {
    let exchanges = lane.unrecorded.swap(0, Relaxed);
    if exchanges > 0 {
        let time = Rfc3339(SystemTime::now());
        let _ = writeln!(
            out,
            "{{\"v\":1,\"unrecorded\":{{\"time\":\"{time}\",\"exchanges\":{exchanges}}}}}"
        );
    }
}

impl Lines {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            open: Table::default(),
            run: Run::default(),
            body: Vec::new(),
            order: Order::default(),
            clock: Clock::default(),
            hosts: Default::default(),
        }
    }

    /// Appends the lines of these events, one for each record that they are of.
    pub(super) fn encode(
        &mut self,
        worker: usize,
        batch: &Buffer,
        events: Range<usize>,
        out: &mut Vec<u8>,
    ) {
        let mut order = std::mem::take(&mut self.order);
        let mut known = std::mem::take(&mut self.open);
        for one in order.of(&batch.events[events]) {
            let Some(&Event { record, what: first, .. }) = one.first() else { continue };
            // One that begins and ends in a batch is never looked for.
            let begins = matches!(first, What::Begin(_));
            let mut new = None;
            let open = match begins {
                true => None,
                false => known.get(worker, record),
            };
            let open = match open {
                Some(open) => open,
                None => new.insert(Open::default()),
            };
            out.extend_from_slice(b"{\"v\":1,\"id\":\"");
            out.extend_from_slice(self.shared.run.as_bytes());
            for part in [worker as u64, record] {
                out.push(b'-');
                digits(out, part);
            }
            out.extend_from_slice(b"\",");
            entry::number(out, "\"part\":", open.lines);
            open.lines += 1;
            let mut ended = false;
            for event in one {
                self.event(open, batch, event, out);
                ended |= matches!(event.what, What::End(_));
            }
            self.close_line(open, out);
            match (ended, new) {
                (false, Some(new)) => known.insert(worker, record, new),
                (true, None) => known.remove(worker, record),
                _ => {}
            }
        }
        (self.order, self.open) = (order, known);
    }

    fn event(&mut self, open: &mut Open, batch: &Buffer, event: &Event, out: &mut Vec<u8>) {
        match event.what {
            What::Begin(span) => self.begin(open, Reader(batch.text(span)), out),
            What::Answer(span) => self.answer(open, event.micros, Reader(batch.text(span)), out),
            What::Chunk(side, span) => self.chunk(open, side, event.micros, batch.text(span)),
            What::Frame(side, span) => {
                self.frame(open, side, event.micros, Reader(batch.text(span)));
            }
            What::Trailers(side, span) => {
                self.breaks(open, side);
                let _ =
                    write!(self.body, "{{\"side\":\"{}\",\"at\":[{}],", side.name(), event.micros);
                entry::fields(
                    &mut self.body,
                    "\"trailers\":",
                    &mut Reader(batch.text(span)),
                    |_, _| {},
                );
                entry::close(&mut self.body, "},");
            }
            What::Gap(side, gap) => self.gap(open, side, event.micros, gap),
            What::End(span) => self.end(open, event.micros, Reader(batch.text(span)), out),
        }
    }

    fn begin(&mut self, open: &mut Open, mut head: Reader<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"begin\":{\"time\":\"");
        self.clock.say(out, head.number());
        let client = head.address();
        let [listener, route, rest @ ..] = head.texts::<6>();
        out.extend_from_slice(b"\",\"listener\":");
        string(out, listener);
        out.extend_from_slice(b",\"client\":\"");
        if let Some(client) = client {
            self.hosts[0].say(out, client);
        }
        out.extend_from_slice(b"\",");
        entry::option(out, "\"route\":", route);
        let names = ["\"version\":", "\"scheme\":", "\"method\":", "\"host\":"];
        names.into_iter().zip(rest).for_each(|(name, value)| entry::text(out, name, value));
        entry::text(out, "\"target\":", head.text());
        self.fields(&mut open.sides[0], &mut head, out);
        entry::close(out, "},");
    }

    fn answer(&self, open: &mut Open, micros: u64, mut head: Reader<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"answer\":{");
        entry::number(out, "\"at\":", micros);
        entry::number(out, "\"status\":", head.number());
        out.extend_from_slice(match head.number() {
            1 => b"\"by\":\"server\",",
            _ => b"\"by\":\"proxy\",".as_slice(),
        });
        self.fields(&mut open.sides[1], &mut head, out);
        entry::close(out, "},");
    }

    fn fields(&self, direction: &mut Direction, head: &mut Reader<'_>, out: &mut Vec<u8>) {
        direction.is_plain = true;
        entry::fields(out, "\"headers\":", head, |name, value| {
            if name == b"content-encoding" && !value.eq_ignore_ascii_case(b"identity") {
                direction.is_plain = false;
            }
            if name == b"content-type" {
                direction.framing = Framing::of(value);
            }
        });
    }

    /// Whether bodies are searched for what is to be blanked.
    fn searches(&self) -> bool {
        let redact = &self.shared.config.redact;
        !redact.json_fields.is_empty() || !redact.patterns.is_empty()
    }

    fn chunk(&mut self, open: &mut Open, side: Side, micros: u64, chunk: &[u8]) {
        if !self.searches() {
            self.run.turn(side, &mut self.body);
            self.run.bytes.extend_from_slice(chunk);
            let piece = Piece { micros, bytes: chunk.len(), goes_on: false };
            return self.run.pieces.push(piece);
        }
        let missing = |why, bytes: usize| self.shared.counters.missing(why, bytes as u64);
        let direction = &mut open.sides[side as usize];
        if !direction.is_plain {
            missing(Why::Encoded, chunk.len());
            return direction.leaves_out(Why::Encoded, chunk.len());
        }
        let mut chunk = chunk;
        if direction.is_lost {
            let found = direction.framing.next(chunk);
            let skipped = found.unwrap_or(chunk.len());
            if skipped > 0 {
                missing(Why::Unsearched, skipped);
                direction.leaves_out(Why::Unsearched, skipped);
            }
            if found.is_none() {
                return;
            }
            direction.is_lost = false;
            chunk = &chunk[skipped..];
            self.left_out(open, side, micros);
        }
        if !chunk.is_empty() {
            open.sides[side as usize].body.push(&self.shared.config.redact, micros, chunk);
            self.take(open, side, false);
        }
    }

    /// The head of a frame. Payload is searched message by message; of one that is compressed
    /// nothing can be found.
    fn frame(&mut self, open: &mut Open, side: Side, micros: u64, mut reader: Reader<'_>) {
        let (head, missed, payload) = frames::read(&mut reader);
        let opcode = head.first & 0xf;
        if opcode != 0 && !head.is_control() && self.searches() {
            self.breaks(open, side);
            let direction = &mut open.sides[side as usize];
            direction.is_plain = head.first & 0x70 == 0;
            (direction.framing, direction.is_lost) = (Framing::default(), false);
        }
        self.run.flush(&mut self.body);
        entry::missed_frames(&mut self.body, side, micros, missed);
        let redact = self.searches().then_some(&self.shared.config.redact);
        let blanked = redact.map(|redact| blanked(redact, payload));
        entry::frame(&mut self.body, side, micros, &head, blanked.as_deref().unwrap_or(payload));
    }

    /// Takes over what may be stored of a body.
    fn take(&mut self, open: &mut Open, side: Side, all: bool) {
        self.run.turn(side, &mut self.body);
        let body = &mut open.sides[side as usize].body;
        let Run { bytes, pieces, .. } = &mut self.run;
        body.take(&self.shared.config.redact, all, bytes, pieces);
    }

    /// What is held back of a body is all there is before what comes next.
    fn breaks(&mut self, open: &mut Open, side: Side) {
        if self.searches() {
            self.take(open, side, true);
            open.sides[side as usize].body.breaks();
        }
        self.left_out(open, side, 0);
    }

    /// Tells what was left out of a body because it cannot be searched.
    fn left_out(&mut self, open: &mut Open, side: Side, micros: u64) {
        self.run.flush(&mut self.body);
        let gap = std::mem::take(&mut open.sides[side as usize].left_out);
        if gap.bytes > 0 {
            entry::gap(&mut self.body, side, micros, gap);
        }
    }

    fn gap(&mut self, open: &mut Open, side: Side, micros: u64, gap: Gap) {
        self.breaks(open, side);
        if gap.bytes > 0 {
            let direction = &mut open.sides[side as usize];
            if !self.shared.config.redact.json_fields.is_empty() {
                direction.is_lost = true;
                direction.framing.breaks();
            }
            entry::gap(&mut self.body, side, micros, gap);
        }
    }

    fn end(&mut self, open: &mut Open, micros: u64, mut end: Reader<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"end\":{");
        entry::number(out, "\"at\":", micros);
        let [how, error, upstream] = end.texts();
        entry::text(out, "\"how\":", how);
        entry::option(out, "\"error\":", error);
        entry::option(out, "\"upstream\":", upstream);
        if let Some(server) = end.address() {
            out.extend_from_slice(b"\"server\":\"");
            self.hosts[1].say(out, server);
            out.extend_from_slice(b"\",");
        }
        entry::number(out, "\"request_bytes\":", end.number());
        entry::number(out, "\"response_bytes\":", end.number());
        let lost = end.number();
        if lost != 0 {
            let names = ["answer", "request trailers", "response trailers"];
            let lost = (0..).zip(names).filter(|(bit, _)| lost & (1 << bit) != 0);
            let lost: Vec<&str> = lost.map(|(_, name)| name).collect();
            let _ = write!(out, "\"missing\":{lost:?}");
        }
        entry::close(out, "},");
        for side in Side::ALL {
            let gap = entry::read_gap(&mut end);
            self.gap(open, side, micros, gap);
        }
        for side in Side::ALL {
            entry::missed_frames(&mut self.body, side, micros, end.number());
        }
    }

    fn close_line(&mut self, open: &mut Open, out: &mut Vec<u8>) {
        for side in Side::ALL {
            self.left_out(open, side, 0);
        }
        if !self.body.is_empty() {
            out.extend_from_slice(b"\"body\":[");
            entry::close(&mut self.body, "],");
            out.append(&mut self.body);
            self.body.shrink_to(1 << 20);
        }
        entry::close(out, "}\n");
    }
}

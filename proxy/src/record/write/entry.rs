//! Pieces of JSON that lines are made of: fields of heads, runs of chunks, gaps.

use std::io::Write as _;

use base64::{display::Base64Display, engine::general_purpose::STANDARD};

use super::json::{digits, escaped, string};
use crate::record::{
    event::{Gap, Side, Why},
    frames::Head,
    note::Reader,
    redact::Piece,
};

// Writing to a `Vec` cannot fail.

/// The name of a member: `"name":`.
pub(super) fn name(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A member: `"name":` and a string.
pub(super) fn text(out: &mut Vec<u8>, member: &str, value: &[u8]) {
    name(out, member);
    string(out, value);
    out.push(b',');
}

/// The same, if there is one.
pub(super) fn option(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        text(out, name, value);
    }
}

/// A member: `"name":` and a number.
pub(super) fn number(out: &mut Vec<u8>, member: &str, value: u64) {
    name(out, member);
    digits(out, value);
    out.push(b',');
}

/// `"headers":[["name","value"],…]`, and each to `look`.
pub(super) fn fields(
    out: &mut Vec<u8>,
    member: &str,
    reader: &mut Reader<'_>,
    mut look: impl FnMut(&[u8], &[u8]),
) {
    name(out, member);
    out.push(b'[');
    let mut first = true;
    reader.fields(|name, value| {
        look(name, value);
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.push(b'[');
        string(out, name);
        out.push(b',');
        string(out, value);
        out.push(b']');
    });
    out.extend_from_slice(b"],");
}

/// Takes the comma behind the last member away, and closes.
pub(super) fn close(out: &mut Vec<u8>, with: &str) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(with.as_bytes());
}

/// Chunks of one direction that came one after the other.
#[derive(Debug, Default)]
pub(super) struct Run {
    side: Option<Side>,
    pub(super) bytes: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
}

impl Run {
    /// Goes on with this direction; what came of the other one is written to `out`.
    pub(super) fn turn(&mut self, side: Side, out: &mut Vec<u8>) {
        if self.side != Some(side) {
            self.flush(out);
            self.side = Some(side);
        }
    }

    /// Writes what has come, as an entry.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        let Some(side) = self.side.take().filter(|_| !self.pieces.is_empty()) else { return };
        let _ = write!(out, "{{\"side\":\"{}\",", side.name());
        if self.pieces.first().is_some_and(|piece| piece.goes_on) {
            out.extend_from_slice(b"\"goes_on\":true,");
        }
        list(out, "at", self.pieces.iter().map(|piece| piece.micros));
        list(out, "len", self.pieces.iter().map(|piece| piece.bytes as u64));
        text_or_base64(out, &self.bytes);
        close(out, "},");
        self.bytes.clear();
        self.pieces.clear();
        self.bytes.shrink_to(1 << 20);
    }
}

/// `text` where bytes are some, else `base64`.
fn text_or_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            name(out, "text");
            escaped(out, text);
            out.push(b',');
        }
        Err(_) => _ = write!(out, "\"base64\":\"{}\"", Base64Display::new(bytes, &STANDARD)),
    }
}

fn list(out: &mut Vec<u8>, name: &str, numbers: impl Iterator<Item = u64>) {
    self::name(out, name);
    out.push(b'[');
    numbers.for_each(|number| {
        digits(out, number);
        out.push(b',');
    });
    close(out, "],");
}

/// An entry that says what is missing.
pub(super) fn gap(out: &mut Vec<u8>, side: Side, micros: u64, gap: Gap) {
    let Gap { bytes, chunks, why } = gap;
    let (side, why) = (side.name(), why.name());
    let _ = write!(
        out,
        "{{\"side\":\"{side}\",\"at\":[{micros}],\
         \"missing\":{{\"bytes\":{bytes},\"chunks\":{chunks},\"why\":\"{why}\"}}}},"
    );
}

/// The head of a frame; with its payload, where it is a control frame.
pub(super) fn frame(out: &mut Vec<u8>, side: Side, micros: u64, head: &Head, payload: &[u8]) {
    let Head { first, masked, len, offset } = head;
    let (side, fin, rsv, opcode) = (side.name(), first & 0x80 != 0, first >> 4 & 7, first & 0xf);
    let _ = write!(
        out,
        "{{\"side\":\"{side}\",\"at\":[{micros}],\"frame\":{{\"fin\":{fin},\"rsv\":{rsv},\
         \"opcode\":{opcode},\"masked\":{masked},\"len\":{len},\"offset\":{offset}}},"
    );
    if head.is_control() {
        text_or_base64(out, payload);
    }
    close(out, "},");
}

/// An entry that says how many heads of frames are missing before it, if any are.
pub(super) fn missed_frames(out: &mut Vec<u8>, side: Side, micros: u64, missed: u64) {
    if missed > 0 {
        let side = side.name();
        let _ =
            write!(out, "{{\"side\":\"{side}\",\"at\":[{micros}],\"missed_frames\":{missed}}},");
    }
}

/// A gap as it was put with the end.
pub(super) fn read_gap(reader: &mut Reader<'_>) -> Gap {
    let bytes = reader.number();
    let chunks = reader.number() as u32;
    let why = reader.number() as usize;
    Gap { bytes, chunks, why: Why::ALL.get(why).copied().unwrap_or_default() }
}

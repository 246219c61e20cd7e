//! Pieces of JSON that lines are made of: fields of heads, runs of chunks, gaps.

use std::io::Write as _;

use super::json::{base64, digits, escaped, string};
use crate::record::{
    event::{Gap, Side, Why},
    frames::Head,
    note::Reader,
    redact::Piece,
};

// Writing to a `Vec` cannot fail.

/// A member, by its name as it is written (`"name":`), and a string.
pub(super) fn text(out: &mut Vec<u8>, name: &'static str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    string(out, value);
    out.push(b',');
}

/// The same, if there is one: an empty one is none.
pub(super) fn option(out: &mut Vec<u8>, name: &'static str, value: &[u8]) {
    if !value.is_empty() {
        text(out, name, value);
    }
}

/// The same with a number.
pub(super) fn number(out: &mut Vec<u8>, name: &'static str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    digits(out, value);
    out.push(b',');
}

/// `"headers":[["name","value"],…]`, by the name of the member as it is written, and each to `look`.
pub(super) fn fields(
    out: &mut Vec<u8>,
    member: &'static str,
    reader: &mut Reader<'_>,
    mut look: impl FnMut(&[u8], &[u8]),
) {
    out.extend_from_slice(member.as_bytes());
    out.push(b'[');
    reader.fields(|name, value| {
        look(name, value);
        out.push(b'[');
        string(out, name);
        out.push(b',');
        string(out, value);
        out.extend_from_slice(b"],");
    });
    close(out, "],");
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
        out.extend_from_slice(match side {
            Side::Request => &b"{\"side\":\"request\","[..],
            Side::Response => b"{\"side\":\"response\",",
        });
        if self.pieces.first().is_some_and(|piece| piece.goes_on) {
            out.extend_from_slice(b"\"goes_on\":true,");
        }
        list(out, "\"at\":[", self.pieces.iter().map(|piece| piece.micros));
        list(out, "\"len\":[", self.pieces.iter().map(|piece| piece.bytes as u64));
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
            out.extend_from_slice(b"\"text\":");
            escaped(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"\"base64\":\"");
            base64(out, bytes);
            out.push(b'"');
        }
    }
}

fn list(out: &mut Vec<u8>, begin: &'static str, numbers: impl Iterator<Item = u64>) {
    out.extend_from_slice(begin.as_bytes());
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// Chunks end where they like: only whether all of a run is text is of weight.
    #[test]
    fn characters_that_are_cut_between_chunks_are_whole_in_a_run() {
        let text = "a\u{2028}é\"✓\\🦀\u{1f}\u{7f}z";
        let bytes = text.as_bytes();
        for begin in 0..bytes.len() {
            for cut in begin..=bytes.len() {
                let (mut run, mut out) = (Run::default(), Vec::new());
                for chunk in [&bytes[begin..cut], &bytes[cut..]] {
                    run.turn(Side::Response, &mut out);
                    run.bytes.extend_from_slice(chunk);
                    run.pieces.push(Piece { micros: 7, bytes: chunk.len(), goes_on: false });
                }
                assert!(out.is_empty());
                run.flush(&mut out);
                close(&mut out, "");
                let entry: serde_json::Value = serde_json::from_slice(&out).unwrap();
                assert_eq!(entry["side"], "response");
                assert_eq!(entry["at"], serde_json::json!([7, 7]));
                assert_eq!(entry["len"], serde_json::json!([cut - begin, bytes.len() - cut]));
                match text.get(begin..) {
                    Some(text) => assert_eq!(entry["text"], text),
                    None => {
                        let read = entry["base64"].as_str().unwrap();
                        assert_eq!(STANDARD.decode(read).unwrap(), &bytes[begin..]);
                    }
                }
            }
        }
    }
}

//! What was said over a WebSocket: messages of its frames (RFC 6455 section 5.4), without
//! compression where that can be taken off (permessage-deflate, RFC 7692). Pure.

use flate2::{Decompress, FlushDecompress, Status};
use serde::Serialize;

use super::{field, fields};
use crate::record::{
    Side,
    read::{Body, Frame, Record},
};

/// The bit that says that a message is compressed (RFC 7692 section 6).
const COMPRESSED: u8 = 0x40;
/// What a compressed message is sent without (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A message, or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub side: Side,
    /// When its first frame came: microseconds from the head of the request.
    pub at: u64,
    /// Of its first frame.
    pub opcode: u8,
    /// Its frames.
    pub frames: usize,
    /// What it says, without compression where that could be taken off.
    pub data: Vec<u8>,
    /// Whether it was compressed.
    pub compressed: bool,
    /// Why `data` is not all of it, or is compressed still.
    pub stopped: Option<String>,
}

impl Message {
    /// What its opcode means.
    pub fn kind(&self) -> &'static str {
        match self.opcode {
            0 => "continuation",
            1 => "text",
            2 => "binary",
            8 => "close",
            9 => "ping",
            10 => "pong",
            _ => "unknown",
        }
    }

    /// Whether it is one of the user's, not of the protocol.
    pub fn is_data(&self) -> bool {
        self.opcode < 8
    }
}

/// What is told of one in JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    side: &'static str,
    at: u64,
    opcode: u8,
    kind: &'static str,
    frames: usize,
    compressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'a str>,
}

impl Message {
    /// For programs.
    fn told(&self) -> Told<'_> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = std::str::from_utf8(&self.data).ok();
        Told {
            side: self.side.name(),
            at: self.at,
            opcode: self.opcode,
            kind: self.kind(),
            frames: self.frames,
            compressed: self.compressed,
            text,
            base64: text.is_none().then(|| STANDARD.encode(&self.data)),
            stopped: self.stopped.as_deref(),
        }
    }
}

/// All of them for programs; nothing where there are none.
pub fn as_messages(messages: &[Message]) -> Option<Vec<serde_json::Value>> {
    let told = messages.iter().map(|message| serde_json::json!(message.told()));
    (!messages.is_empty()).then(|| told.collect())
}

/// The messages of both sides by their time; of each side at most `most` bytes without
/// compression.
pub fn messages(record: &Record, most: usize) -> Vec<Message> {
    let [_, answer] = fields(record);
    let extensions = field(answer, "sec-websocket-extensions").unwrap_or_default();
    let mut all = Vec::new();
    for side in Side::ALL {
        of_side(record.body(side), side, extensions, most, &mut all);
    }
    all.sort_by_key(|message| message.at);
    all
}

fn of_side(body: &Body, side: Side, extensions: &str, most: usize, all: &mut Vec<Message>) {
    let mut inflater = Inflater::new(extensions, side, most);
    let mut payload = Payload::new(body);
    let mut open: Option<Message> = None;
    for frame in &body.frames {
        let (data, missing) = match &frame.control {
            Some(control) => (control.clone(), 0),
            None => payload.of(frame),
        };
        let stopped = (missing > 0).then(|| format!("{missing} bytes are missing"));
        if frame.opcode() & 8 != 0 {
            let (at, opcode) = (frame.at, frame.opcode());
            all.push(Message { side, at, opcode, frames: 1, data, compressed: false, stopped });
            continue;
        }
        let new = frame.opcode() != 0 || open.is_none();
        if new && let Some(mut cut) = open.take() {
            cut.stopped = Some("its last frame is missing".to_owned());
            all.push(inflater.done(cut));
        }
        let message = open.get_or_insert_with(|| Message {
            side,
            at: frame.at,
            opcode: frame.opcode(),
            frames: 0,
            data: Vec::new(),
            compressed: frame.first & COMPRESSED != 0,
            stopped: (frame.opcode() == 0).then(|| "its first frame is missing".to_owned()),
        });
        message.frames += 1;
        message.data.extend(data);
        message.stopped = message.stopped.take().or(stopped);
        if frame.first & 0x80 != 0
            && let Some(whole) = open.take()
        {
            all.push(inflater.done(whole));
        }
    }
    if let Some(mut cut) = open {
        cut.stopped = Some(cut.stopped.unwrap_or_else(|| "it was cut off".to_owned()));
        all.push(inflater.done(cut));
    }
}

/// The payload of frames, one after the other, from what there is of it.
struct Payload<'a> {
    body: &'a Body,
    /// What there is: where it is in the stream, where among the bytes, and how much.
    parts: Vec<(u64, u64, u64)>,
    /// No frame from here on begins before this part.
    first: usize,
}

impl<'a> Payload<'a> {
    fn new(body: &'a Body) -> Self {
        let (mut parts, mut stream, mut had) = (Vec::new(), 0, 0);
        for gap in &body.gaps {
            parts.push((stream, had, gap.offset - had));
            stream += gap.offset - had + gap.missing.bytes;
            had = gap.offset;
        }
        parts.push((stream, had, body.length.saturating_sub(had)));
        Self { body, parts, first: 0 }
    }

    /// The bytes of a frame, and how many are missing.
    fn of(&mut self, frame: &Frame) -> (Vec<u8>, u64) {
        let (start, end) = (frame.offset, frame.offset.saturating_add(frame.len));
        while self.parts.get(self.first).is_some_and(|(at, _, len)| at + len < start) {
            self.first += 1;
        }
        let mut data = Vec::new();
        for &(at, had, len) in &self.parts[self.first.min(self.parts.len())..] {
            if at >= end {
                break;
            }
            let (from, to) = (start.max(at), end.min(at + len));
            if from < to {
                let from = (had + from - at) as usize;
                let to = (had + to - at) as usize;
                data.extend(self.body.bytes.get(from..to).unwrap_or_default());
            }
        }
        let missing = frame.len - data.len() as u64;
        (data, missing)
    }
}

/// Takes the compression of one direction off, message by message.
struct Inflater {
    /// `None`: nothing is compressed, or it cannot be gone on with.
    state: Option<Decompress>,
    /// Whether each message stands by itself.
    alone: bool,
    left: usize,
}

impl Inflater {
    fn new(extensions: &str, side: Side, most: usize) -> Self {
        let agreed = extensions.contains("permessage-deflate");
        let alone = match side {
            Side::Request => "client_no_context_takeover",
            Side::Response => "server_no_context_takeover",
        };
        Self {
            state: agreed.then(|| Decompress::new(false)),
            alone: extensions.contains(alone),
            left: most,
        }
    }

    fn done(&mut self, mut message: Message) -> Message {
        if !message.compressed {
            return message;
        }
        let Some(mut state) = self.state.take() else {
            message.stopped.get_or_insert_with(|| {
                "compressed, and what it goes on with is not there".to_owned()
            });
            return message;
        };
        if message.stopped.is_some() {
            // Behind a gap only what stands by itself can be understood.
            self.state = self.alone.then(|| Decompress::new(false));
            return message;
        }
        match inflate(&mut state, &message.data, self.left) {
            Ok(data) => {
                self.left -= data.len();
                message.data = data;
                if self.alone {
                    state.reset(false);
                }
                self.state = Some(state);
            }
            Err(why) => {
                message.stopped = Some(why);
                self.state = self.alone.then(|| Decompress::new(false));
            }
        }
        message
    }
}

fn inflate(state: &mut Decompress, data: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for mut rest in [data, &TAIL] {
        loop {
            if out.len() == out.capacity() {
                out.reserve(4096.max(out.len()));
            }
            let (had, len) = (state.total_in(), out.len());
            let status = state
                .decompress_vec(rest, &mut out, FlushDecompress::Sync)
                .map_err(|error| format!("compressed: {error}"))?;
            let took = (state.total_in() - had) as usize;
            rest = &rest[took..];
            if out.len() > most {
                return Err(format!("compressed: more than {most} bytes"));
            }
            let moved = took > 0 || out.len() > len;
            if rest.is_empty() && out.len() < out.capacity() || status == Status::StreamEnd {
                break;
            }
            if !moved && out.len() < out.capacity() {
                return Err("compressed: it is not whole".to_owned());
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;
    use crate::record::read::{Answer, Gap, Missing, Text};

    fn compressed(state: &mut Compress, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 1024);
        state.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn record(extensions: &str, frames: &[(u8, &[u8])]) -> Record {
        let mut record = Record::default();
        let headers =
            vec![(Text::Text("sec-websocket-extensions".into()), Text::Text(extensions.into()))];
        record.answer = Some(Answer { at: 1, status: 101, by: "server".into(), headers });
        let body = &mut record.bodies[1];
        for (at, (first, payload)) in frames.iter().enumerate() {
            let (offset, len) = (body.length, payload.len() as u64);
            let control = (first & 8 != 0).then(|| payload.to_vec());
            if control.is_none() {
                body.bytes.extend(*payload);
                body.length += len;
            }
            let (at, first) = (at as u64, *first);
            body.frames.push(Frame { at, first, masked: false, len, offset, control });
        }
        record
    }

    fn said(record: &Record) -> Vec<(String, Option<String>)> {
        let text = |m: Message| (String::from_utf8_lossy(&m.data).into_owned(), m.stopped);
        messages(record, 1 << 20).into_iter().map(text).collect()
    }

    #[mantra_macros::req_test("REQ-REC-003")]
    #[test]
    fn fragments_are_one_message_and_control_frames_may_stand_between() {
        let record = record("", &[(1, b"frag"), (0x89, b"ping"), (0x80, b"ment"), (0x81, b"next")]);
        let all: Vec<_> = messages(&record, 100)
            .into_iter()
            .map(|m| (m.at, m.kind(), m.frames, String::from_utf8(m.data).unwrap()))
            .collect();
        let wanted = [(0, "text", 2, "fragment"), (1, "ping", 1, "ping"), (3, "text", 1, "next")];
        assert_eq!(all, wanted.map(|(a, b, c, d)| (a, b, c, d.to_owned())));
    }

    #[mantra_macros::req_test("REQ-REC-003")]
    #[test]
    fn compression_is_taken_off_with_its_context_and_without() {
        for (extensions, alone) in [
            ("permessage-deflate", false),
            ("permessage-deflate; server_no_context_takeover", true),
        ] {
            let mut state = Compress::new(Compression::best(), false);
            let mut next = |text: &[u8]| {
                if alone {
                    state.reset();
                }
                compressed(&mut state, text)
            };
            let text = "the same text again ".repeat(20);
            let (first, second) = (next(text.as_bytes()), next(text.as_bytes()));
            let half = second.len() / 2;
            let frames = [(0xc1, &first[..]), (0x41, &second[..half]), (0x80, &second[half..])];
            let plain = record(extensions, &frames);
            assert_eq!(said(&plain), [(text.clone(), None), (text.clone(), None)], "{extensions}");
            // Of the first a byte is missing: the second goes on with it, or stands by itself.
            let mut gap = plain.clone();
            let body = &mut gap.bodies[1];
            body.bytes.remove(2);
            body.length -= 1;
            let missing = Missing { bytes: 1, chunks: 1, why: "budget".into() };
            body.gaps.push(Gap { offset: 2, missing });
            let said = said(&gap);
            assert_eq!(said[0].1.as_deref(), Some("1 bytes are missing"));
            assert_eq!(said[1].1.is_none(), alone, "{said:?}");
        }
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn a_bomb_is_unpacked_to_the_bound_and_no_further() {
        let mut state = Compress::new(Compression::best(), false);
        let mut out = Vec::with_capacity(1 << 20);
        state.compress_vec(&vec![0; 64 << 20], &mut out, FlushCompress::Sync).unwrap();
        let all = messages(&record("permessage-deflate", &[(0xc2, &out)]), 1 << 16);
        assert!(all[0].stopped.as_ref().unwrap().contains("more than"), "{:?}", all[0].stopped);
    }

    #[test]
    fn a_length_that_nobody_can_mean_is_a_message_that_is_cut() {
        let mut record = record("", &[(0x82, b"abc")]);
        record.bodies[1].frames[0].len = u64::MAX;
        let all = messages(&record, 100);
        assert_eq!(all[0].data, b"abc");
        assert!(all[0].stopped.as_ref().unwrap().ends_with("bytes are missing"));
    }
}

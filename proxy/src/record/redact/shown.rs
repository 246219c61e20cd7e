//! What is blanked when records are shown, and stays as it is where they are stored.
//!
//! The same rules and the same search as before they are stored. There is more time now, so a body
//! with a content coding, or a message of a WebSocket that is compressed, is searched without it,
//! and shown so. What cannot be searched is left out, as it is there.

use http::HeaderName;

use super::{Body as Search, Framing, Heads, Piece, blanked};
use crate::{
    config::record::Redact,
    record::{
        Side,
        event::Why,
        read::{Body, Chunk, Fields, Frame, Gap, Missing, Record, Text},
        show::{codings, content_type, decode, fields, socket},
    },
};

/// Blanks what these rules name in a record; of each body at most `most` bytes are looked into
/// without their coding.
pub fn redact(record: &mut Record, rules: &Redact, most: usize) {
    let heads = Heads::new(rules);
    if !rules.json_fields.is_empty() || !rules.patterns.is_empty() {
        let is_socket = record.bodies.iter().any(|body| !body.frames.is_empty());
        match is_socket {
            true => messages(record, rules, most),
            false => Side::ALL.into_iter().for_each(|side| body(record, side, rules, most)),
        }
    }
    if let Some(begin) = &mut record.begin {
        let mut target = Vec::new();
        heads.target(&mut target, begin.target.as_bytes());
        begin.target = String::from_utf8_lossy(&target).into_owned();
        blank_fields(&heads, &mut begin.headers);
    }
    if let Some(answer) = &mut record.answer {
        blank_fields(&heads, &mut answer.headers);
    }
    record.bodies.iter_mut().for_each(|body| blank_fields(&heads, &mut body.trailers));
}

fn blank_fields(heads: &Heads, fields: &mut Fields) {
    for (name, value) in fields {
        let Text::Text(name) = &*name else { continue };
        let Ok(name) = name.parse::<HeaderName>() else { continue };
        let mut out = Vec::new();
        let changes = {
            let bytes = value.bytes();
            heads.value(&mut out, &name, &bytes);
            *out != *bytes
        };
        // What is no UTF-8 and stays as it is keeps its bytes.
        if changes {
            *value = Text::Text(String::from_utf8_lossy(&out).into_owned());
        }
    }
}

/// One direction of HTTP.
fn body(record: &mut Record, side: Side, rules: &Redact, most: usize) {
    let own = fields(record)[side as usize];
    let coded = !codings(own).is_empty();
    let framing = Framing::of(content_type(own).as_bytes());
    if coded {
        let decoded = decode(record.body(side), own, most);
        let whole = decoded.stopped.is_none();
        let body = &mut record.bodies[side as usize];
        if !whole {
            return leave_out(body);
        }
        body.length = decoded.bytes.len() as u64;
        (body.bytes, body.chunks) = (decoded.bytes, decoded.chunks);
        let fields = match side {
            Side::Request => record.begin.as_mut().map(|begin| &mut begin.headers),
            Side::Response => record.answer.as_mut().map(|answer| &mut answer.headers),
        };
        if let Some(fields) = fields {
            fields.retain(|(name, _)| !name.lossy().eq_ignore_ascii_case("content-encoding"));
        }
    }
    search(&mut record.bodies[side as usize], rules, framing);
}

/// All of it cannot be searched.
fn leave_out(body: &mut Body) {
    let bytes = body.length + body.gaps.iter().map(|gap| gap.missing.bytes).sum::<u64>();
    let chunks = body.chunks.len() as u64;
    let missing = Missing { bytes, chunks, why: Why::Encoded.name().to_owned() };
    let trailers = std::mem::take(&mut body.trailers);
    *body = Body { gaps: vec![Gap { offset: 0, missing }], trailers, ..Body::default() };
}

/// Searches what there is, as it came. Behind a gap nobody knows what is inside a value, up to
/// where the framing says that a text begins.
fn search(body: &mut Body, rules: &Redact, mut framing: Framing) {
    let old = std::mem::take(&mut body.bytes);
    let (chunks, gaps) = (std::mem::take(&mut body.chunks), std::mem::take(&mut body.gaps));
    let (mut out, mut pieces, mut left) = (Vec::new(), Vec::new(), Vec::<Gap>::new());
    let mut search = Search::default();
    let mut gaps = gaps.into_iter().peekable();
    let (mut at, mut is_lost) = (0, false);
    let breaks = |search: &mut Search, out: &mut Vec<u8>, pieces: &mut Vec<Piece>| {
        search.take(rules, true, out, pieces);
        search.breaks();
    };
    for chunk in chunks {
        let end = (at + chunk.len as usize).min(old.len());
        while at < end || chunk.len == 0 && at == end {
            while let Some(gap) = gaps.next_if(|gap| gap.offset as usize <= at) {
                breaks(&mut search, &mut out, &mut pieces);
                left.push(Gap { offset: out.len() as u64, ..gap });
                is_lost = !rules.json_fields.is_empty();
                framing.breaks();
            }
            let to = gaps.peek().map_or(end, |gap| end.min(gap.offset as usize));
            let mut piece = &old[at..to];
            at = to;
            if is_lost {
                let found = framing.next(piece);
                let skipped = found.unwrap_or(piece.len());
                if skipped > 0 {
                    let why = Why::Unsearched.name().to_owned();
                    let missing = Missing { bytes: skipped as u64, chunks: 1, why };
                    left.push(Gap { offset: out.len() as u64, missing });
                }
                is_lost = found.is_none();
                piece = &piece[skipped..];
            }
            if !piece.is_empty() {
                search.push(rules, chunk.at, piece);
                search.take(rules, false, &mut out, &mut pieces);
            }
            if chunk.len == 0 {
                break;
            }
        }
    }
    breaks(&mut search, &mut out, &mut pieces);
    for gap in gaps {
        left.push(Gap { offset: out.len() as u64, ..gap });
    }
    body.length = out.len() as u64;
    for Piece { micros, bytes, goes_on } in pieces {
        match body.chunks.last_mut().filter(|_| goes_on) {
            Some(last) => last.len += bytes as u64,
            None => body.chunks.push(Chunk { at: micros, len: bytes as u64 }),
        }
    }
    (body.bytes, body.gaps) = (out, left);
}

/// A WebSocket: each message in a frame of its own, without compression.
fn messages(record: &mut Record, rules: &Redact, most: usize) {
    let all = socket::messages(record, most);
    for side in Side::ALL {
        let old = std::mem::take(&mut record.bodies[side as usize]);
        let mut body =
            Body { trailers: old.trailers, missed_frames: old.missed_frames, ..Body::default() };
        for message in all.iter().filter(|message| message.side == side) {
            let masked = side == Side::Request;
            let (at, first, offset) = (message.at, 0x80 | message.opcode, stream(&body));
            // What is compressed still, or torn out of its middle, cannot be searched.
            let is_torn =
                message.stopped.is_some() && (message.compressed || !rules.json_fields.is_empty());
            let data = if is_torn { Vec::new() } else { blanked(rules, &message.data) };
            let len = message.data.len() as u64;
            let mut frame = Frame { at, first, masked, len, offset, control: None };
            if !message.is_data() {
                frame.control = Some(data);
            } else if is_torn && len > 0 {
                let why = Why::Unsearched.name().to_owned();
                let missing = Missing { bytes: len, chunks: 1, why };
                body.gaps.push(Gap { offset: body.length, missing });
            } else if len > 0 {
                body.chunks.push(Chunk { at, len });
                body.length += len;
                body.bytes.extend(data);
            }
            body.frames.push(frame);
        }
        record.bodies[side as usize] = body;
    }
}

fn stream(body: &Body) -> u64 {
    body.length + body.gaps.iter().map(|gap| gap.missing.bytes).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, record::read::Answer};

    fn rules(text: &str) -> Redact {
        let text = format!(
            "[record]\ndirectory = \"/d\"\n[record.redact]\n{text}\n[[listener]]\nname = \"a\"\n\
             address = \"127.0.0.1:1\"\n[[route]]\nupstream = \"a\"\n[[upstream]]\nname = \"a\"\n\
             servers = [\"a:1\"]\n"
        );
        config::parse(&text, "t.toml").unwrap().record.unwrap().redact
    }

    fn record(fields: &[(&str, &str)], bytes: &[u8], each: usize) -> Record {
        let mut record = Record::default();
        let text = |text: &str| Text::Text(text.to_owned());
        let headers = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        record.answer = Some(Answer { at: 1, status: 200, by: "server".into(), headers });
        let chunks = bytes.chunks(each).enumerate();
        record.bodies[1] = Body {
            bytes: bytes.to_vec(),
            length: bytes.len() as u64,
            chunks: chunks.map(|(at, c)| Chunk { at: at as u64, len: c.len() as u64 }).collect(),
            ..Body::default()
        };
        record
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn values_that_are_no_text_are_blanked_as_others_are() {
        let mut record = record(&[("x-own", "a"), ("x-other", "b")], b"", 1);
        let odd = || Text::Bytes { base64: "czNjcmV0/w==".to_owned() };
        let headers = &mut record.answer.as_mut().unwrap().headers;
        headers.iter_mut().for_each(|(_, value)| *value = odd());
        redact(&mut record, &rules("headers = [\"x-own\"]"), 1 << 20);
        let headers = &record.answer.as_ref().unwrap().headers;
        assert_eq!(headers[0].1, Text::Text("***".to_owned()));
        assert_eq!(headers[1].1, odd());
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn bodies_are_searched_without_their_coding() {
        let rules = rules("json_fields = [\"pin\"]\npatterns = ['sk-[a-z]+']");
        let text = br#"{"pin":"1234","a":"sk-secret"}"#;
        let wanted = r#"{"pin":"****","a":"*********"}"#;
        let packed = zstd::bulk::compress(text, 3).unwrap();
        for (coding, bytes) in [("identity", &text[..]), ("zstd", &packed)] {
            for each in [1, 7, 1000] {
                let mut record = record(&[("content-encoding", coding)], bytes, each);
                redact(&mut record, &rules, 1 << 20);
                let body = &record.bodies[1];
                assert_eq!(String::from_utf8_lossy(&body.bytes), wanted, "{coding} by {each}");
                let all: u64 = body.chunks.iter().map(|chunk| chunk.len).sum();
                assert_eq!((body.length, all), (wanted.len() as u64, wanted.len() as u64));
                assert!(body.gaps.is_empty());
            }
        }
        // One that cannot be taken off is left out.
        let mut record = record(&[("content-encoding", "rot13")], text, 5);
        redact(&mut record, &rules, 1 << 20);
        let body = &record.bodies[1];
        assert!(body.bytes.is_empty() && body.gaps[0].missing.bytes == text.len() as u64);
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn behind_a_gap_nothing_is_shown_that_may_be_in_a_value() {
        let rules = rules("json_fields = [\"pin\"]");
        let text = b"data: {\"pin\":\"12\"}\n\ndata: {\"pin\":\"34\"}\n\ndata: {\"a\":1}\n\n";
        for (kind, wanted) in [
            ("text/event-stream", "data: {\"pin\":\"**\"}\n\ndata: {\"pin\":\"data: {\"a\":1}\n\n"),
            ("application/json", "data: {\"pin\":\"**\"}\n\ndata: {\"pin\":\""),
        ] {
            let mut record = record(&[("content-type", kind)], text, 9);
            let missing = Missing { bytes: 5, chunks: 1, why: "budget".into() };
            record.bodies[1].gaps.push(Gap { offset: 34, missing });
            redact(&mut record, &rules, 1 << 20);
            let body = &record.bodies[1];
            assert_eq!(String::from_utf8_lossy(&body.bytes), wanted, "{kind}");
            let missing: u64 = body.gaps.iter().map(|gap| gap.missing.bytes).sum();
            assert_eq!(body.length + missing, text.len() as u64 + 5, "all is accounted for");
        }
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn heads_and_urls_are_blanked() {
        let rules = rules("headers = [\"x-tenant\"]\nquery = [\"who\"]");
        let mut record = record(&[("x-tenant", "acme"), ("location", "/a?who=me&b=1")], b"", 1);
        redact(&mut record, &rules, 1 << 20);
        let headers = &record.answer.as_ref().unwrap().headers;
        let values: Vec<_> = headers.iter().map(|(_, value)| value.lossy()).collect();
        assert_eq!(values, ["***", "/a?who=***&b=1"]);
    }
}

//! One direction of one exchange, on its way to the disk with its secrets blanked.
//!
//! Patterns look at a window: what could still become a part of a match is held back, at most
//! [`WINDOW`] bytes, until more comes or the body ends. So a match of at most so many bytes is
//! blanked wherever chunks begin and end. Every byte that is blanked becomes one `*`: lengths and
//! chunk boundaries stay.
//!
//! Patterns and members of JSON are both looked for in what came, and what either finds is
//! blanked: a quote that a pattern has blanked would turn strings inside out.

use super::json::Scan;
use crate::config::record::Redact;

/// The longest match that is sure to be blanked; what a body holds back at most.
pub(in crate::record) const WINDOW: usize = 1024;

/// A piece of a chunk: when the chunk came, how many bytes, and whether it goes on with the chunk
/// of the piece before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::record) struct Piece {
    pub(in crate::record) micros: u64,
    pub(in crate::record) bytes: usize,
    pub(in crate::record) goes_on: bool,
}

/// What is held back of a body, and how far its scans are.
#[derive(Debug, Default)]
pub(in crate::record) struct Body {
    scan: Scan,
    /// As it came, but for matches of patterns.
    text: Vec<u8>,
    /// The same, but for members of JSON; empty unless both are looked for.
    json: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Body {
    /// Adds a chunk.
    pub(in crate::record) fn push(&mut self, redact: &Redact, micros: u64, chunk: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(chunk);
        if redact.patterns.is_empty() {
            self.scan.blank(&redact.json_fields, &mut self.text[start..]);
        } else if !redact.json_fields.is_empty() {
            self.json.extend_from_slice(chunk);
            self.scan.blank(&redact.json_fields, &mut self.json[start..]);
        }
        self.pieces.push(Piece { micros, bytes: chunk.len(), goes_on: false });
    }

    /// Appends to `out` what may go, and its pieces to `pieces`. `all`: nothing more comes.
    pub(in crate::record) fn take(
        &mut self,
        redact: &Redact,
        all: bool,
        out: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) {
        let mut keep = if all || redact.patterns.is_empty() { 0 } else { WINDOW };
        keep = keep.min(self.text.len());
        let mut goes = self.text.len() - keep;
        if !redact.patterns.is_empty() {
            let found = redact.patterns.iter().flat_map(|pattern| {
                pattern.regex().find_iter(&self.text).map(|found| found.range())
            });
            let found: Vec<_> = found.collect();
            // One that has begun before and may go on: all of it waits for its end, unless it is
            // long by now.
            for range in &found {
                let grows = range.end == self.text.len() && !all;
                if grows && range.start < goes && self.text.len() - range.start <= 2 * WINDOW {
                    goes = range.start;
                }
            }
            // The others may become longer or none when more comes; they are looked for again.
            for range in found.into_iter().filter(|range| range.start < goes) {
                self.text[range].fill(b'*');
            }
        }
        let start = out.len();
        out.extend(self.text.drain(..goes));
        let json = self.json.drain(..goes.min(self.json.len()));
        for (byte, json) in out[start..].iter_mut().zip(json) {
            if *byte != b'*' {
                *byte = json;
            }
        }
        // A stream that rests keeps what it holds back, not what its largest chunk took.
        self.text.shrink_to(2 * self.text.len());
        self.json.shrink_to(2 * self.json.len());
        self.take_pieces(goes, pieces);
        self.pieces.shrink_to(2 * self.pieces.len());
    }

    fn take_pieces(&mut self, mut goes: usize, pieces: &mut Vec<Piece>) {
        let mut whole = 0;
        for piece in &mut self.pieces {
            if piece.bytes <= goes {
                goes -= piece.bytes;
                whole += 1;
                join(pieces, *piece);
                continue;
            }
            if goes > 0 {
                join(pieces, Piece { bytes: goes, ..*piece });
                piece.bytes -= goes;
                piece.goes_on = true;
            }
            break;
        }
        self.pieces.drain(..whole);
    }

    /// Bytes are missing here: what comes next does not go on with what was.
    pub(in crate::record) fn breaks(&mut self) {
        self.scan = Scan::default();
    }

    /// Memory that it keeps, in bytes.
    #[cfg(test)]
    pub(in crate::record) fn capacity(&self) -> usize {
        let pieces = self.pieces.capacity() * size_of::<Piece>();
        self.text.capacity() + self.json.capacity() + pieces
    }
}

/// Adds a piece; the rest of a chunk to what is there of it.
fn join(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut().filter(|_| piece.goes_on) {
        Some(last) => last.bytes += piece.bytes,
        None => pieces.push(piece),
    }
}

/// A text that stands by itself, blanked.
pub(in crate::record) fn blanked(redact: &Redact, text: &[u8]) -> Vec<u8> {
    let (mut body, mut out, mut pieces) = (Body::default(), Vec::new(), Vec::new());
    body.push(redact, 0, text);
    body.take(redact, true, &mut out, &mut pieces);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn redact(patterns: &str) -> Redact {
        let text = format!(
            "[record]\ndirectory = \"/d\"\n[record.redact]\npatterns = [{patterns}]\n\
             json_fields = [\"pin\"]\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n\
             [[route]]\nupstream = \"a\"\n[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n"
        );
        config::parse(&text, "t.toml").unwrap().record.unwrap().redact
    }

    /// The body after it has come in chunks of `cut` bytes, taken after each; and its pieces
    /// joined to chunks again.
    fn through(redact: &Redact, text: &str, cut: usize) -> (String, Vec<usize>) {
        let (mut body, mut out, mut pieces) = (Body::default(), Vec::new(), Vec::new());
        for (index, chunk) in text.as_bytes().chunks(cut).enumerate() {
            body.push(redact, index as u64, chunk);
            body.take(redact, false, &mut out, &mut pieces);
        }
        body.take(redact, true, &mut out, &mut pieces);
        let mut chunks: Vec<usize> = Vec::new();
        for piece in pieces {
            match chunks.last_mut().filter(|_| piece.goes_on) {
                Some(last) => *last += piece.bytes,
                None => chunks.push(piece.bytes),
            }
        }
        (String::from_utf8(out).unwrap(), chunks)
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn matches_are_blanked_wherever_chunks_end() {
        let redact = redact("'sk-[a-z0-9]+', '[0-9]{4} [0-9]{4}'");
        let filler = "lorem ipsum ".repeat(200);
        let text =
            format!("a sk-abc123 b{filler}{{\"pin\":\"77\"}} sk-{} 1234 5678", "q".repeat(900));
        let wanted =
            format!("a ********* b{filler}{{\"pin\":\"**\"}} {} *********", "*".repeat(903));
        for cut in [1, 2, 3, 7, 64, 1000, 5000] {
            let (out, chunks) = through(&redact, &text, cut);
            assert_eq!(out, wanted, "cut by {cut}");
            let whole: Vec<usize> = text.as_bytes().chunks(cut).map(<[u8]>::len).collect();
            assert_eq!(chunks, whole, "chunks keep their boundaries");
        }
    }

    #[test]
    fn nothing_is_held_back_without_patterns() {
        let redact = redact("");
        let (mut body, mut out, mut pieces) = (Body::default(), Vec::new(), Vec::new());
        body.push(&redact, 3, b"{\"pin\":\"1");
        body.take(&redact, false, &mut out, &mut pieces);
        assert_eq!(out, b"{\"pin\":\"*");
        assert_eq!(pieces, [Piece { micros: 3, bytes: 9, goes_on: false }]);
    }

    /// What a pattern blanks, a quote among it, hides no member of JSON; neither does a match
    /// that reaches into the name.
    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn patterns_do_not_hide_members_of_json() {
        for (patterns, text, wanted) in [
            ("'to.en\":\"'", r#"{"token":"t","pin":"77"}"#, r#"{"********t","pin":"**"}"#),
            ("'\"pin'", r#"{"pin":"77","a":"b"}"#, r#"{****":"**","a":"b"}"#),
            ("'sk-[^ ]+'", r#"{"k":"sk-1","pin":"7 7"}"#, r#"{"k":"****************"}"#),
        ] {
            let redact = redact(patterns);
            for cut in [1, 2, 5, 100] {
                let (out, _) = through(&redact, text, cut);
                assert!(!out.contains('7'), "{patterns}, cut by {cut}: {out}");
                if cut == 100 {
                    assert_eq!(out, wanted, "{patterns}");
                }
            }
        }
    }

    /// A chunk that is one for the reader, though it goes in pieces.
    #[test]
    fn pieces_of_a_chunk_are_one_where_nothing_is_between_them() {
        let redact = redact("'sk-[a-z0-9]+'");
        let (mut body, mut out, mut pieces) = (Body::default(), Vec::new(), Vec::new());
        for micros in [1, 2] {
            body.push(&redact, micros, &[b'x'; 3000]);
            body.take(&redact, false, &mut out, &mut pieces);
        }
        body.take(&redact, true, &mut out, &mut pieces);
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.bytes).collect();
        assert_eq!(lengths, [3000, 3000]);
    }

    /// Not what its largest chunk took.
    #[mantra_macros::req_test("REQ-REC-001")]
    #[test]
    fn a_stream_that_rests_keeps_little_memory() {
        for patterns in ["", "'sk-[a-z0-9]+'"] {
            let redact = redact(patterns);
            let (mut body, mut out, mut pieces) = (Body::default(), Vec::new(), Vec::new());
            body.push(&redact, 1, &vec![b'x'; 1 << 17]);
            body.take(&redact, false, &mut out, &mut pieces);
            assert!(body.capacity() <= 8 * WINDOW, "{} bytes", body.capacity());
        }
    }
}

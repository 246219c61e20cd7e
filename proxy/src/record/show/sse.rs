//! Server-sent events (WHATWG HTML, section 9.2.6), each with the time when it was whole. Pure.

use serde::Serialize;

use crate::record::read::Chunk;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When its last byte came: microseconds from the head of the request.
    pub at: u64,
    /// Its type; `message` unless it says otherwise.
    pub event: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
    /// Its id, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The events of a stream. One that is not whole at its end is none.
pub fn events(bytes: &[u8], chunks: &[Chunk]) -> Vec<Event> {
    let mut all = Vec::new();
    let mut next = Next::default();
    let bytes_from = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut clock = Clock { chunks, index: 0, end: 0 };
    let mut start = bytes_from;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let Some(length) = memchr::memchr2(b'\n', b'\r', rest) else { break };
        let two = rest[length] == b'\r' && rest.get(length + 1) == Some(&b'\n');
        let end = start + length + if two { 2 } else { 1 };
        match length {
            0 => all.extend(next.take(clock.at(end as u64))),
            _ => next.line(&String::from_utf8_lossy(&rest[..length])),
        }
        start = end;
    }
    all
}

#[derive(Default)]
struct Next {
    event: String,
    data: Option<String>,
    id: Option<String>,
}

impl Next {
    fn line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = value.to_owned(),
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment, or `retry`.
            _ => {}
        }
    }

    fn take(&mut self, at: u64) -> Option<Event> {
        let Self { event, data, id } = std::mem::take(self);
        let event = if event.is_empty() { "message".to_owned() } else { event };
        data.map(|data| Event { at, event, data, id })
    }
}

/// When the byte before an offset came.
struct Clock<'a> {
    chunks: &'a [Chunk],
    index: usize,
    /// Where the chunk with this index ends.
    end: u64,
}

impl Clock<'_> {
    /// Offsets only grow.
    fn at(&mut self, offset: u64) -> u64 {
        while let Some(chunk) = self.chunks.get(self.index) {
            if self.end + chunk.len >= offset {
                return chunk.at;
            }
            self.end += chunk.len;
            self.index += 1;
        }
        self.chunks.last().map_or(0, |chunk| chunk.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[mantra_macros::req_test("REQ-REC-003")]
    #[test]
    fn events_are_found_with_their_times_wherever_chunks_end() {
        let text = "\u{feff}: hello\n\nevent: a\ndata: 1\ndata: 2\nid: x\n\ndata:3\r\n\r\ndata: é\r\rdata: cut\n";
        for each in [1_usize, 2, 5, 100] {
            let chunks: Vec<Chunk> = text
                .as_bytes()
                .chunks(each)
                .enumerate()
                .map(|(index, chunk)| Chunk { at: index as u64, len: chunk.len() as u64 })
                .collect();
            let found = events(text.as_bytes(), &chunks);
            let shown: Vec<(&str, &str)> =
                found.iter().map(|event| (event.event.as_str(), event.data.as_str())).collect();
            assert_eq!(shown, [("a", "1\n2"), ("message", "3"), ("message", "é")]);
            assert_eq!(found[0].id.as_deref(), Some("x"));
            let end = |needle: &str| text.find(needle).unwrap() + needle.len();
            for (event, needle) in found.iter().zip(["id: x\n\n", "3\r\n\r\n", "é\r\r"]) {
                assert_eq!(event.at, ((end(needle) - 1) / each) as u64, "{needle:?} by {each}");
            }
        }
    }
}

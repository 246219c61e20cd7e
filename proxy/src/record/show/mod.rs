//! What is in a record, understood when somebody looks: codings taken off, events told apart, JSON
//! parsed, messages of language models put together.

use serde_json::Value;

use super::{
    Side,
    read::{Fields, Record, Text},
};

mod decode;
pub mod llm;
pub mod socket;
mod sse;
mod text;

pub(in crate::record) use decode::codings;
pub use decode::{Decoded, decode};
pub use llm::Message;
pub use sse::{Event, events};
pub use text::{Detail, plain, record as as_text};

/// What both bodies of a record are.
#[derive(Debug, Default)]
pub struct Shown {
    /// Without their codings, by side.
    pub decoded: [Decoded; 2],
    /// As JSON, where they are.
    pub json: [Option<Value>; 2],
    /// Events of the answer, where it is a stream of them.
    pub events: Vec<Event>,
    /// The message of a language model, where the answer is one.
    pub message: Option<Message>,
    /// What was said over a WebSocket.
    pub socket: Vec<socket::Message>,
}

/// Looks into a record; of each body at most `most` bytes.
pub fn look(record: &Record, most: usize) -> Shown {
    let fields = fields(record);
    let decoded = Side::ALL.map(|side| decode(record.body(side), fields[side as usize], most));
    let json = Side::ALL.map(|side| {
        let bytes = &decoded[side as usize].bytes;
        let text = content_type(fields[side as usize]);
        let may = text.is_empty() || text.contains("json");
        may.then(|| serde_json::from_slice(bytes).ok()).flatten()
    });
    let [_, answer] = &decoded;
    let is_stream = content_type(fields[1]).starts_with("text/event-stream");
    let events = if is_stream { events(&answer.bytes, &answer.chunks) } else { Vec::new() };
    let at = answer.chunks.last().map_or(0, |chunk| chunk.at);
    let message = match is_stream {
        true => llm::of_events(&events),
        false => json[1].as_ref().and_then(|json| llm::of_json(json, at)),
    };
    let socket = socket::messages(record, most);
    Shown { decoded, json, events, message, socket }
}

/// The model that a request asks for.
pub fn model(record: &Record, most: usize) -> Option<String> {
    let request = decode(record.body(Side::Request), fields(record)[0], most);
    let json: Value = serde_json::from_slice(&request.bytes).ok()?;
    Some(json.get("model")?.as_str()?.to_owned())
}

/// The fields of both heads.
pub(in crate::record) fn fields(record: &Record) -> [&Fields; 2] {
    static NONE: Fields = Vec::new();
    [
        record.begin.as_ref().map_or(&NONE, |begin| &begin.headers),
        record.answer.as_ref().map_or(&NONE, |answer| &answer.headers),
    ]
}

/// First value of a field.
pub(in crate::record) fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find_map(|field| match field {
        (Text::Text(found), Text::Text(value)) if found.eq_ignore_ascii_case(name) => {
            Some(value.as_str())
        }
        _ => None,
    })
}

/// The media type, in lower case; empty if there is none.
pub(in crate::record) fn content_type(fields: &Fields) -> String {
    field(fields, "content-type").unwrap_or_default().trim().to_ascii_lowercase()
}

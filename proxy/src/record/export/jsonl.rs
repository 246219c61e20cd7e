//! A record in one line, bodies whole, for programs that do not want to put lines together.

use serde_json::{Value, json};

use super::text_or_base64;
use crate::record::{
    read::{Body, Record},
    show::socket::{as_messages, messages},
};

pub(super) fn object(record: &Record, most: usize) -> Value {
    let [request, response] = record.bodies.each_ref().map(body);
    let websocket = as_messages(&messages(record, most));
    json!({
        "id": record.id,
        "begin": record.begin,
        "answer": record.answer,
        "end": record.end,
        "request": request,
        "response": response,
        "whole": record.is_whole(),
        "websocket": websocket,
    })
}

fn body(body: &Body) -> Value {
    let chunks: Vec<[u64; 2]> = body.chunks.iter().map(|chunk| [chunk.at, chunk.len]).collect();
    let gaps: Vec<Value> = body
        .gaps
        .iter()
        .map(|gap| json!({ "offset": gap.offset, "missing": gap.missing }))
        .collect();
    json!({
        "body": text_or_base64(&body.bytes),
        "chunks": chunks,
        "missing": gaps,
        "trailers": body.trailers,
    })
}

//! HTTP Archive 1.2 (<http://www.softwareishard.com/blog/har-12-spec/>).
//!
//! What the format has no place for begins with an underscore, as it wants: the id, the times of
//! chunks, and what is missing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::record::{
    Side,
    read::{Begin, Fields, Record, Text},
    show::{
        Decoded, decode, field, fields,
        socket::{Message, messages},
    },
};

pub(super) fn archive(records: &[Record], most: usize) -> Value {
    let entries: Vec<Value> = records.iter().filter_map(|record| entry(record, most)).collect();
    json!({ "log": {
        "version": "1.2",
        "creator": { "name": "underpass", "version": env!("CARGO_PKG_VERSION") },
        "entries": entries,
    }})
}

/// `None` without a beginning, which an entry cannot do without.
fn entry(record: &Record, most: usize) -> Option<Value> {
    let begin = record.begin.as_ref()?;
    let [sent, got] =
        Side::ALL.map(|side| decode(record.body(side), fields(record)[side as usize], most));
    let ms = |micros: u64| micros as f64 / 1e3;
    let last = |side: Side| record.body(side).chunks.last().map_or(0, |chunk| chunk.at);
    let answered = record.answer.as_ref().map_or(0, |answer| answer.at);
    let ended = record.end.as_ref().map_or(last(Side::Response).max(answered), |end| end.at);
    // A body may still be sent when the answer begins.
    let send = last(Side::Request).min(answered);
    let mut entry = json!({
        "startedDateTime": begin.time,
        "time": ms(ended),
        "request": request(record, &sent),
        "response": response(record, &got),
        "cache": {},
        "timings": {
            "send": ms(send),
            "wait": ms(answered - send),
            "receive": ms(ended.saturating_sub(answered)),
        },
        "_id": record.id,
        "_chunks": record.body(Side::Response).chunks.iter().map(|c| [c.at, c.len]).collect::<Vec<_>>(),
    });
    let said: Vec<Value> = messages(record, most)
        .iter()
        .filter(|message| message.is_data())
        .map(|message| socket(begin, message))
        .collect();
    if !said.is_empty() {
        entry["_resourceType"] = "websocket".into();
        entry["_webSocketMessages"] = said.into();
        // They are what the connection carried behind the answer, which had no body.
        entry["response"]["content"] = json!({ "size": 0, "mimeType": "x-unknown" });
        if let Some(request) = entry["request"].as_object_mut() {
            request.remove("postData");
        }
    }
    let server = record.end.as_ref().and_then(|end| end.server.as_ref());
    if let Some(server) = server.and_then(|s| s.parse::<std::net::SocketAddr>().ok()) {
        entry["serverIPAddress"] = server.ip().to_string().into();
    }
    if !record.is_whole() {
        let missing = record.missing_bytes();
        entry["comment"] = format!("not whole: {missing} bytes of bodies are missing").into();
    }
    Some(entry)
}

/// A message as Chromium exports it: seconds since 1970, and bytes that are no text to the base of
/// 64.
fn socket(begin: &Begin, message: &Message) -> Value {
    let data = match std::str::from_utf8(&message.data) {
        Ok(text) if message.opcode == 1 => text.to_owned(),
        _ => STANDARD.encode(&message.data),
    };
    let mut value = json!({
        "type": if message.side == Side::Request { "send" } else { "receive" },
        "time": begin.seconds() + message.at as f64 / 1e6,
        "opcode": message.opcode,
        "data": data,
    });
    if let Some(stopped) = &message.stopped {
        value["_comment"] = format!("not all of it: {stopped}").into();
    }
    value
}

fn request(record: &Record, body: &Decoded) -> Value {
    let Some(begin) = &record.begin else { return Value::Null };
    let url = begin.url();
    let query = url.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let query: Vec<Value> = query
        .split(['&', '#'])
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            json!({ "name": name, "value": value })
        })
        .collect();
    let mut request = json!({
        "method": begin.method,
        "url": url,
        "httpVersion": begin.version,
        "cookies": [],
        "headers": named(&begin.headers),
        "queryString": query,
        "headersSize": -1,
        "bodySize": record.body(Side::Request).length,
    });
    if !body.bytes.is_empty() {
        let mut data = json!({
            "mimeType": field(&begin.headers, "content-type").unwrap_or_default(),
            "params": [],
            "text": String::from_utf8_lossy(&body.bytes),
        });
        if std::str::from_utf8(&body.bytes).is_err() {
            data["comment"] = "no text; its bytes are in _base64".into();
            data["_base64"] = STANDARD.encode(&body.bytes).into();
        }
        request["postData"] = data;
    }
    request
}

fn response(record: &Record, body: &Decoded) -> Value {
    let none = Fields::new();
    let answer = record.answer.as_ref();
    let headers = answer.map_or(&none, |answer| &answer.headers);
    let status = answer.map_or(0, |answer| answer.status);
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let length = record.body(Side::Response).length;
    let mut content = json!({
        "size": body.bytes.len(),
        "compression": body.bytes.len() as i64 - length as i64,
        "mimeType": field(headers, "content-type").unwrap_or_default(),
    });
    match std::str::from_utf8(&body.bytes) {
        Ok(text) => content["text"] = text.into(),
        Err(_) => {
            content["text"] = STANDARD.encode(&body.bytes).into();
            content["encoding"] = "base64".into();
        }
    }
    if let Some(stopped) = &body.stopped {
        content["comment"] = format!("not all of it: {stopped}").into();
    }
    json!({
        "status": status,
        "statusText": reason.unwrap_or_default(),
        "httpVersion": record.begin.as_ref().map_or("HTTP/1.1", |begin| begin.version.as_str()),
        "cookies": [],
        "headers": named(headers),
        "content": content,
        "redirectURL": field(headers, "location").unwrap_or_default(),
        "headersSize": -1,
        "bodySize": length,
    })
}

fn named(fields: &Fields) -> Vec<Value> {
    let pair =
        |(name, value): &(Text, Text)| json!({ "name": name.lossy(), "value": value.lossy() });
    fields.iter().map(pair).collect()
}

//! A report in one page, for a browser without network.
//!
//! The records are in it as JSON that no parser of HTML looks into: every `<`, `>` and `&` is
//! escaped. The script builds the page from text nodes alone, and a policy (CSP) lets nothing run,
//! load or connect but this script and this style, by a nonce that nobody knows before.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::text_or_base64;
use crate::record::{
    Side,
    read::Record,
    show::{Shown, fields, look, socket::as_messages},
};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

pub(super) fn page(records: &[Record], most: usize, out: &mut impl Write) -> io::Result<()> {
    let nonce = format!("{:032x}", fastrand::u128(..));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; \
         form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Underpass records</title>\n<style nonce=\"{nonce}\">\n{STYLE}</style>\n</head>\n\
         <body>\n<main id=\"report\"></main>\n\
         <script type=\"application/json\" id=\"records\">"
    )?;
    out.write_all(b"[")?;
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            out.write_all(b",\n")?;
        }
        let text = entry(record, &look(record, most)).to_string();
        out.write_all(escaped(&text).as_bytes())?;
    }
    write!(out, "]</script>\n<script nonce=\"{nonce}\">\n{SCRIPT}</script>\n</body>\n</html>\n")
}

/// JSON in which HTML sees nothing. These characters stand in strings only, where an escape means
/// the same.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}

fn entry(record: &Record, shown: &Shown) -> Value {
    let begin = record.begin.as_ref();
    let sides = Side::ALL.map(|side| {
        let (body, decoded) = (record.body(side), &shown.decoded[side as usize]);
        let headers: Vec<[String; 2]> = fields(record)[side as usize]
            .iter()
            .map(|(name, value)| [name.lossy().into_owned(), value.lossy().into_owned()])
            .collect();
        let gaps: Vec<Value> = body
            .gaps
            .iter()
            .map(|gap| json!({ "offset": gap.offset, "missing": gap.missing }))
            .collect();
        json!({
            "headers": headers,
            "body": text_or_base64(&decoded.bytes),
            "length": body.length,
            "stopped": decoded.stopped,
            "chunks": body.chunks.iter().map(|chunk| [chunk.at, chunk.len]).collect::<Vec<_>>(),
            "missing": gaps,
        })
    });
    let [request, response] = sides;
    json!({
        "id": record.id,
        "time": begin.map(|begin| &begin.time),
        "method": begin.map(|begin| &begin.method),
        "url": begin.map(|begin| begin.url()),
        "status": record.answer.as_ref().map(|answer| answer.status),
        "answered": record.answer.as_ref().map(|answer| answer.at),
        "ended": record.end.as_ref().map(|end| end.at),
        "how": record.end.as_ref().map(|end| &end.how),
        "error": record.end.as_ref().and_then(|end| end.error.as_ref()),
        "whole": record.is_whole(),
        "request": request,
        "response": response,
        "events": shown.events,
        "message": shown.message,
        "websocket": as_messages(&shown.socket),
    })
}

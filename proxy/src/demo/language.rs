//! What a language model's answer looks like on the wire: server-sent events, a token each.
//!
//! Event names and JSON follow the two streaming APIs that are common in public, so that
//! their client libraries work against the demo. The text is always the same. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use super::body::unix_millis;

const MODEL: &str = "underpass-demo";

const TEXT: &str = "What needs no more looking at takes the underpass: the head of a request \
    is read, a route is found, and from then on bytes go from socket to socket without a \
    detour. Tokens like these leave the origin one by one, and they should reach you one by \
    one, as they are made, not in a heap at the end. If this text arrives word after word, \
    nothing on the way has held it back. ";

/// Most tokens of one answer.
pub(super) const MAX_TOKENS: u64 = 100_000;

/// Tokens of an answer that does not say how many it wants.
pub(super) fn default_tokens() -> u64 {
    TEXT.split_inclusive(' ').count() as u64
}

fn token(index: u64) -> &'static str {
    let index = (index % default_tokens()) as usize;
    TEXT.split_inclusive(' ').nth(index).unwrap_or_default()
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// `GET /sse`: the tokens with their number and the time they were sent, then `done`.
pub(super) fn plain(index: u64, count: u64) -> Bytes {
    let unix_ms = unix_millis();
    let mut out = format!("id: {index}\n");
    let data = json!({ "n": index, "token": token(index), "unix_ms": unix_ms });
    out.push_str(&event("token", &data));
    if index + 1 == count {
        out.push_str(&event("done", &json!({ "tokens": count })));
    }
    out.into()
}

/// `POST /v1/messages`: typed events around deltas of one content block. Chunk 0 opens
/// the message, the last one closes it.
pub(super) fn messages(index: u64, count: u64) -> Bytes {
    let tokens = count - 2;
    let typed = |data: Value| event(data["type"].as_str().unwrap_or_default(), &data);
    let events = if index == 0 {
        vec![
            json!({ "type": "message_start", "message": {
                "id": "msg_demo", "type": "message", "role": "assistant", "model": MODEL,
                "content": [], "stop_reason": null, "stop_sequence": null,
                "usage": { "input_tokens": 1, "output_tokens": 1 },
            }}),
            json!({ "type": "content_block_start", "index": 0,
                "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "ping" }),
        ]
    } else if index <= tokens {
        vec![json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": token(index - 1) } })]
    } else {
        vec![
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta",
                "delta": { "stop_reason": "end_turn", "stop_sequence": null },
                "usage": { "output_tokens": tokens } }),
            json!({ "type": "message_stop" }),
        ]
    };
    events.into_iter().map(typed).collect::<String>().into()
}

/// `POST /v1/chat/completions`: chunks of one choice, then `[DONE]`.
pub(super) fn chat(index: u64, count: u64) -> Bytes {
    let tokens = count - 2;
    let (delta, finish_reason) = if index == 0 {
        (json!({ "role": "assistant", "content": "" }), Value::Null)
    } else if index <= tokens {
        (json!({ "content": token(index - 1) }), Value::Null)
    } else {
        (json!({}), json!("stop"))
    };
    let chunk = json!({
        "id": "chatcmpl-demo", "object": "chat.completion.chunk", "model": MODEL,
        "created": unix_millis() / 1000,
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    });
    let mut out = format!("data: {chunk}\n\n");
    if index + 1 == count {
        out.push_str("data: [DONE]\n\n");
    }
    out.into()
}

/// `POST /v1/messages` with `"stream": false`.
pub(super) fn whole_message(tokens: u64) -> Value {
    json!({
        "id": "msg_demo", "type": "message", "role": "assistant", "model": MODEL,
        "content": [{ "type": "text", "text": text(tokens) }],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 1, "output_tokens": tokens },
    })
}

/// `POST /v1/chat/completions` with `"stream": false`.
pub(super) fn whole_chat(tokens: u64) -> Value {
    json!({
        "id": "chatcmpl-demo", "object": "chat.completion", "model": MODEL,
        "created": unix_millis() / 1000,
        "choices": [{ "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": text(tokens) } }],
        "usage": { "prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1 },
    })
}

fn text(tokens: u64) -> String {
    TEXT.split_inclusive(' ').cycle().take(tokens as usize).collect()
}

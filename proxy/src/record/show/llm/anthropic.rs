//! Anthropic's Messages: blocks that are begun, added to and ended.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Message, Part, string};

pub(super) fn of_events(events: &[(u64, Value)]) -> Message {
    let mut message = Message::of("anthropic");
    let mut blocks: BTreeMap<u64, Part> = BTreeMap::new();
    for (at, event) in events {
        let index = event.get("index").and_then(Value::as_u64).unwrap_or_default();
        match event.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => {
                let start = &event["message"];
                message.model = start.get("model").and_then(Value::as_str).map(str::to_owned);
                message.usage.take(&start["usage"]);
            }
            "content_block_start" => {
                if let Some(part) = block(&event["content_block"]) {
                    blocks.insert(index, begun(part));
                }
            }
            "content_block_delta" => {
                message.token(*at);
                let delta = &event["delta"];
                let (name, part) = match delta["type"].as_str().unwrap_or_default() {
                    "text_delta" => ("text", Part::Text(String::new())),
                    "thinking_delta" => ("thinking", Part::Thinking(String::new())),
                    "input_json_delta" => (
                        "partial_json",
                        Part::ToolCall {
                            id: String::new(),
                            name: String::new(),
                            arguments: String::new(),
                        },
                    ),
                    _ => continue,
                };
                match blocks.entry(index).or_insert(part) {
                    Part::Text(all) | Part::Thinking(all) | Part::Refusal(all) => {
                        all.push_str(&string(delta, name));
                    }
                    Part::ToolCall { arguments, .. } => arguments.push_str(&string(delta, name)),
                }
            }
            "message_delta" => {
                let stop = event["delta"].get("stop_reason").and_then(Value::as_str);
                message.stop = stop.map(str::to_owned).or(message.stop);
                message.usage.take(&event["usage"]);
            }
            "error" => message.error = Some(string(&event["error"], "message")),
            _ => {}
        }
    }
    message.parts = blocks.into_values().collect();
    message
}

/// The input of a tool comes piece by piece: what stands there at first is `{}`.
fn begun(part: Part) -> Part {
    match part {
        Part::ToolCall { id, name, .. } => Part::ToolCall { id, name, arguments: String::new() },
        other => other,
    }
}

fn block(block: &Value) -> Option<Part> {
    Some(match block.get("type")?.as_str()? {
        "text" => Part::Text(string(block, "text")),
        "thinking" => Part::Thinking(string(block, "thinking")),
        "tool_use" | "server_tool_use" => Part::ToolCall {
            id: string(block, "id"),
            name: string(block, "name"),
            arguments: block.get("input").map(Value::to_string).unwrap_or_default(),
        },
        _ => return None,
    })
}

pub(super) fn of_json(value: &Value) -> Message {
    let mut message = Message::of("anthropic");
    message.model = value.get("model").and_then(Value::as_str).map(str::to_owned);
    message.stop = value.get("stop_reason").and_then(Value::as_str).map(str::to_owned);
    message.usage.take(&value["usage"]);
    message.parts = value["content"]
        .as_array()
        .map(|all| all.iter().filter_map(block).collect())
        .unwrap_or_default();
    message
}

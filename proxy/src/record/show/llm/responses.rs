//! OpenAI's Responses: deltas while it goes on, and the whole at the end.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Message, Part, string};

pub(super) fn of_events(events: &[(u64, Value)]) -> Message {
    let mut message = Message::of("openai-responses");
    // By item and, inside it, by content.
    let mut parts: BTreeMap<(u64, u64), Part> = BTreeMap::new();
    let mut whole = None;
    for (at, event) in events {
        let number = |name: &str| event.get(name).and_then(Value::as_u64).unwrap_or_default();
        let place = (number("output_index"), number("content_index"));
        let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "response.output_item.added" => {
                if let Some(Part::ToolCall { id, name, .. }) = call(&event["item"]) {
                    parts.insert(place, Part::ToolCall { id, name, arguments: String::new() });
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                whole = Some(of_json(&event["response"]));
            }
            "error" => message.error = Some(string(event, "message")),
            "response.created" => {
                let model = event["response"].get("model").and_then(Value::as_str);
                message.model = model.map(str::to_owned);
            }
            _ => {}
        }
        let Some(kind) = kind.strip_suffix(".delta") else { continue };
        let text = string(event, "delta");
        let part = match kind {
            "response.output_text" => Part::Text(String::new()),
            "response.refusal" => Part::Refusal(String::new()),
            "response.reasoning_text" | "response.reasoning_summary_text" => {
                Part::Thinking(String::new())
            }
            "response.function_call_arguments" => {
                Part::ToolCall { id: String::new(), name: String::new(), arguments: String::new() }
            }
            _ => continue,
        };
        message.token(*at);
        match parts.entry(place).or_insert(part) {
            Part::Text(all) | Part::Thinking(all) | Part::Refusal(all) => all.push_str(&text),
            Part::ToolCall { arguments, .. } => arguments.push_str(&text),
        }
    }
    message.parts = parts.into_values().collect();
    // What was said is what came; the rest is told at the end.
    if let Some(whole) = whole {
        message.model = whole.model.or(message.model);
        (message.stop, message.usage) = (whole.stop, whole.usage);
        message.error = whole.error.or(message.error);
        if message.parts.is_empty() {
            message.parts = whole.parts;
        }
    }
    message
}

pub(super) fn of_json(value: &Value) -> Message {
    let mut message = Message::of("openai-responses");
    message.model = value.get("model").and_then(Value::as_str).map(str::to_owned);
    message.stop = value.get("status").and_then(Value::as_str).map(str::to_owned);
    message.usage.take(&value["usage"]);
    if let Some(error) = value.get("error").filter(|error| error.is_object()) {
        message.error = Some(string(error, "message"));
    }
    for item in value["output"].as_array().into_iter().flatten() {
        message.parts.extend(call(item));
        for content in item["content"].as_array().into_iter().flatten() {
            match content["type"].as_str().unwrap_or_default() {
                "output_text" => message.parts.push(Part::Text(string(content, "text"))),
                "refusal" => message.parts.push(Part::Refusal(string(content, "refusal"))),
                "reasoning_text" => message.parts.push(Part::Thinking(string(content, "text"))),
                _ => {}
            }
        }
    }
    message
}

fn call(item: &Value) -> Option<Part> {
    (item["type"] == "function_call").then(|| Part::ToolCall {
        id: string(item, "call_id"),
        name: string(item, "name"),
        arguments: string(item, "arguments"),
    })
}

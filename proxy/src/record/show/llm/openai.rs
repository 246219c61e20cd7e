//! OpenAI's Chat Completions: choices that are added to. Of several choices the first is shown.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Message, Part, say, string};

/// Makes a part of a text.
type MakePart = fn(String) -> Part;

/// A call as it comes: its id, its name, its arguments.
type Call = (String, String, String);

pub(super) fn of_events(events: &[(u64, Value)]) -> Message {
    let mut message = Message::of("openai");
    let mut calls: BTreeMap<u64, Call> = BTreeMap::new();
    for (at, event) in events {
        head(&mut message, event);
        let Some(choice) = first_choice(event) else { continue };
        let delta = &choice["delta"];
        let said = add(&mut message, &mut calls, delta);
        if said {
            message.token(*at);
        }
        let stop = choice.get("finish_reason").and_then(Value::as_str);
        message.stop = stop.map(str::to_owned).or(message.stop);
    }
    with_calls(message, calls)
}

pub(super) fn of_json(value: &Value) -> Message {
    let mut message = Message::of("openai");
    let mut calls = BTreeMap::new();
    head(&mut message, value);
    if let Some(choice) = first_choice(value) {
        add(&mut message, &mut calls, &choice["message"]);
        message.stop = choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned);
    }
    with_calls(message, calls)
}

fn head(message: &mut Message, value: &Value) {
    let model = value.get("model").and_then(Value::as_str).filter(|model| !model.is_empty());
    message.model = model.map(str::to_owned).or(message.model.take());
    message.usage.take(&value["usage"]);
    if let Some(error) = value.get("error").filter(|error| error.is_object()) {
        message.error = Some(string(error, "message"));
    }
}

fn first_choice(value: &Value) -> Option<&Value> {
    let choices = value.get("choices")?.as_array()?;
    choices.iter().find(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0)
}

/// Whether anything was said.
fn add(message: &mut Message, calls: &mut BTreeMap<u64, Call>, delta: &Value) -> bool {
    let mut said = false;
    let kinds: [(&str, MakePart); 4] = [
        ("reasoning_content", Part::Thinking),
        ("reasoning", Part::Thinking),
        ("content", Part::Text),
        ("refusal", Part::Refusal),
    ];
    for (name, part) in kinds {
        if let Some(text) = delta.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
        {
            say(&mut message.parts, part(text.to_owned()));
            said = true;
        }
    }
    for (number, call) in delta["tool_calls"].as_array().into_iter().flatten().enumerate() {
        let index = call.get("index").and_then(Value::as_u64).unwrap_or(number as u64);
        let (id, name, arguments) = calls.entry(index).or_default();
        id.push_str(&string(call, "id"));
        name.push_str(&string(&call["function"], "name"));
        arguments.push_str(&string(&call["function"], "arguments"));
        said = true;
    }
    said
}

fn with_calls(mut message: Message, calls: BTreeMap<u64, Call>) -> Message {
    let calls = calls.into_values();
    let call = |(id, name, arguments)| Part::ToolCall { id, name, arguments };
    message.parts.extend(calls.map(call));
    message
}

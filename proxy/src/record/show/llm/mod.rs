//! What a language model said: the message that a stream of events, or an answer in one piece,
//! amounts to. For the APIs of Anthropic (Messages) and OpenAI (Chat Completions, Responses), and
//! whoever speaks like them.

use serde::Serialize;
use serde_json::Value;

use super::sse::Event;

mod anthropic;
mod openai;
mod responses;
#[cfg(test)]
mod tests;

/// A message, put together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Message {
    /// Whose format it is in: `anthropic`, `openai` or `openai-responses`.
    pub format: &'static str,
    /// The model that answered.
    pub model: Option<String>,
    /// What it said, in order.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub stop: Option<String>,
    /// Tokens that were counted.
    pub usage: Usage,
    /// What went wrong, in the server's words.
    pub error: Option<String>,
    /// When the first token came: microseconds from the head of the request.
    pub ttft_us: Option<u64>,
    /// When the last one came.
    pub last_token_us: Option<u64>,
    /// Output tokens in a second, from the first to the last.
    pub tokens_per_second: Option<f64>,
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text(String),
    /// What it thought.
    Thinking(String),
    /// What it would not do.
    Refusal(String),
    /// A tool that it calls.
    ToolCall {
        /// Of the call.
        id: String,
        /// Of the tool.
        name: String,
        /// As it was written: JSON, if it is whole.
        arguments: String,
    },
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Of the request.
    pub input: Option<u64>,
    /// Of the request, from a cache.
    pub cached: Option<u64>,
    /// Of the answer.
    pub output: Option<u64>,
}

impl Usage {
    fn take(&mut self, usage: &Value) {
        let number = |names: &[&str]| names.iter().find_map(|name| usage.get(name)?.as_u64());
        let details = ["input_tokens_details", "prompt_tokens_details"];
        let cached =
            details.iter().find_map(|name| usage.get(name)?.get("cached_tokens")?.as_u64());
        self.input = number(&["input_tokens", "prompt_tokens"]).or(self.input);
        self.cached = number(&["cache_read_input_tokens"]).or(cached).or(self.cached);
        self.output = number(&["output_tokens", "completion_tokens"]).or(self.output);
    }
}

impl Message {
    fn of(format: &'static str) -> Self {
        Self { format, ..Self::default() }
    }

    /// A token has come.
    fn token(&mut self, at: u64) {
        self.ttft_us.get_or_insert(at);
        self.last_token_us = Some(at);
    }

    fn finish(mut self) -> Self {
        if let (Some(first), Some(last), Some(output)) =
            (self.ttft_us, self.last_token_us, self.usage.output)
            && last > first
            && output > 1
        {
            // The first token is there when the time begins.
            self.tokens_per_second = Some((output - 1) as f64 * 1e6 / (last - first) as f64);
        }
        self.parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        self
    }
}

/// The message of a stream. `None`: it is in no format that is known.
pub fn of_events(events: &[Event]) -> Option<Message> {
    let parsed: Vec<(u64, Value)> = events
        .iter()
        .filter_map(|event| Some((event.at, serde_json::from_str(&event.data).ok()?)))
        .collect();
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(str::to_owned);
    let found = parsed.iter().find_map(|(_, value)| {
        let kind = kind(value).unwrap_or_default();
        if kind == "message_start" {
            Some(anthropic::of_events as fn(&[(u64, Value)]) -> Message)
        } else if kind.starts_with("response.") {
            Some(responses::of_events)
        } else if value.get("choices").is_some_and(Value::is_array) {
            Some(openai::of_events)
        } else {
            None
        }
    });
    found.map(|put_together| put_together(&parsed).finish())
}

/// The message of an answer in one piece.
pub fn of_json(value: &Value, at: u64) -> Option<Message> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let mut message = if text("type") == Some("message") && value.get("content").is_some() {
        anthropic::of_json(value)
    } else if text("object") == Some("response") {
        responses::of_json(value)
    } else if value.get("choices").is_some_and(Value::is_array) {
        openai::of_json(value)
    } else {
        return None;
    };
    message.token(at);
    Some(message.finish())
}

/// A string of a value.
fn string(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Appends to the last part, or begins one.
fn say(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (Some(Part::Text(all)), Part::Text(more))
        | (Some(Part::Thinking(all)), Part::Thinking(more))
        | (Some(Part::Refusal(all)), Part::Refusal(more)) => all.push_str(&more),
        (_, part) => parts.push(part),
    }
}

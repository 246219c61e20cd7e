//! The official Python clients of two APIs, and what a server of theirs streams.

use std::process::Command;

/// A client, and what it is to be answered.
#[derive(Debug)]
pub struct Client {
    /// The package that it is in.
    pub package: &'static str,
    /// Asks the server with the base URL that it is given, and prints what that says.
    pub script: &'static str,
    /// Data of the events of the answer.
    pub events: &'static [&'static str],
}

/// Messages of Anthropic.
pub const ANTHROPIC: Client =
    Client { package: "anthropic", script: ASK_ANTHROPIC, events: ANTHROPIC_EVENTS };

/// Chat completions of OpenAI.
pub const OPENAI: Client = Client { package: "openai", script: ASK_OPENAI, events: OPENAI_EVENTS };

const ANTHROPIC_EVENTS: &[&str] = &[
    r#"{"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","model":"claude-test","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello "}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"wörld"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#,
    r#"{"type":"message_stop"}"#,
];

const OPENAI_EVENTS: &[&str] = &[
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello "},"finish_reason":null}]}"#,
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[{"index":0,"delta":{"content":"wörld"},"finish_reason":null}]}"#,
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}"#,
    "[DONE]",
];

const ASK_ANTHROPIC: &str = r#"
import sys, anthropic
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="s3cret-key", max_retries=0)
with client.messages.stream(model="claude-test", max_tokens=64, messages=[{"role": "user", "content": "Say hello"}]) as stream:
    print("".join(stream.text_stream), end="")
"#;

const ASK_OPENAI: &str = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="s3cret-key", max_retries=0)
stream = client.chat.completions.create(model="gpt-test", stream=True, stream_options={"include_usage": True}, messages=[{"role": "user", "content": "Say hello"}])
print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices), end="")
"#;

/// The Python that has the packages, if any has.
pub fn python() -> String {
    std::env::var("UNDERPASS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

impl Client {
    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        let script = format!("import {}", self.package);
        let tried = Command::new(python()).args(["-c", &script]).output();
        tried.is_ok_and(|output| output.status.success())
    }
}

/// The events as they are sent, each by itself.
pub fn pieces(events: &[&str]) -> Vec<String> {
    let piece = |event: &&str| {
        let kind = event.split('"').nth(3).filter(|_| event.starts_with("{\"type\""));
        let name = kind.map_or(String::new(), |kind| format!("event: {kind}\n"));
        format!("{name}data: {event}\n\n")
    };
    events.iter().map(piece).collect()
}

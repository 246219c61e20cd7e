//! The official Python clients of two APIs through the proxy, by their base URL, against a
//! scripted server: they get what they would without it, and the record has what was said.
//!
//! `UNDERPASS_TEST_PYTHON` names a Python that has the packages `anthropic` and `openai`; without
//! it `python3` is tried, and one that lacks them skips these tests.

use std::process::Command;

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{Origin, Proxy, Records, Reply, proxy::run, skip};

const ANTHROPIC: &[&str] = &[
    r#"{"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","model":"claude-test","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello "}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"wörld"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#,
    r#"{"type":"message_stop"}"#,
];

const OPENAI: &[&str] = &[
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello "},"finish_reason":null}]}"#,
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[{"index":0,"delta":{"content":"wörld"},"finish_reason":null}]}"#,
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-test","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}"#,
    "[DONE]",
];

/// Each event a chunk, as servers send them.
fn stream(events: &[&str]) -> Reply {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for event in events {
        let kind = event.split('"').nth(3).filter(|_| event.starts_with("{\"type\""));
        let name = kind.map_or(String::new(), |kind| format!("event: {kind}\n"));
        let text = format!("{name}data: {event}\n\n");
        bytes.extend(format!("{:x}\r\n{text}\r\n", text.len()).bytes());
    }
    bytes.extend(b"0\r\n\r\n");
    Reply::from(bytes)
}

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

fn python() -> String {
    std::env::var("UNDERPASS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn has(package: &str) -> bool {
    let tried = Command::new(python()).args(["-c", &format!("import {package}")]).output();
    tried.is_ok_and(|output| output.status.success())
}

async fn says(package: &str, script: &'static str, events: &'static [&'static str]) {
    if !has(package) {
        skip::say(&format!("the client `{package}`: {} has no such package", python()));
        return;
    }
    let origin = Origin::bind().await.serve(move |_| stream(events));
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let base = format!("http://{}", proxy.addr());
    let asked = tokio::task::spawn_blocking(move || {
        Command::new(python()).args(["-c", script, &base]).env("NO_PROXY", "*").output()
    });
    let output = asked.await.expect("a thread").expect("python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello wörld", "{said}");
    let record = records.only().await;
    assert!(record.is_whole(), "{record:?}");
    let secret = b"s3cret-key";
    assert!(!records.bytes().windows(secret.len()).any(|window| window == secret));
    let folder = records.path().to_str().expect("UTF-8");
    let shown = run(&["record", "show", "last", "--json", "--dir", folder]);
    let json: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let message = &json["message"];
    assert_eq!(message["parts"], serde_json::json!([{ "text": "Hello wörld" }]));
    assert_eq!((&message["usage"]["input"], &message["usage"]["output"]), (&11.into(), &5.into()));
    assert!(message["ttft_us"].is_u64(), "{message}");
    assert_eq!(json["events"].as_array().map(Vec::len), Some(events.len()));
    let model = json["request"]["json"]["model"].as_str().expect("a model");
    assert_eq!(message["model"], model);
    let listed = run(&["record", "ls", "--model", model, "--dir", folder]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 1);
}

#[req_test("REQ-REC-001", "REQ-REC-003")]
#[tokio::test]
async fn the_client_of_anthropic_is_recorded() {
    says("anthropic", ASK_ANTHROPIC, ANTHROPIC).await;
}

#[req_test("REQ-REC-001", "REQ-REC-003")]
#[tokio::test]
async fn the_client_of_openai_is_recorded() {
    says("openai", ASK_OPENAI, OPENAI).await;
}

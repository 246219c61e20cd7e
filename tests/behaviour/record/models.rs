//! The official Python clients of two APIs through the proxy, by their base URL, against a
//! scripted server: they get what they would without it, and the record has what was said.
//!
//! `UNDERPASS_TEST_PYTHON` names a Python that has the packages `anthropic` and `openai`; without
//! it `python3` is tried, and one that lacks them skips these tests.

use std::process::Command;

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{
    Origin, Proxy, Records, Reply,
    models::{self, Client},
    proxy::run,
    skip,
};

/// Each event a chunk, as servers send them.
fn stream(events: &[&str]) -> Reply {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for text in models::pieces(events) {
        bytes.extend(format!("{:x}\r\n{text}\r\n", text.len()).bytes());
    }
    bytes.extend(b"0\r\n\r\n");
    Reply::from(bytes)
}

async fn says(client: &Client) {
    let Client { package, script, events } = *client;
    if !client.is_there() {
        let python = models::python();
        return skip::say(&format!("the client `{package}`: {python} has no such package"));
    }
    let origin = Origin::bind().await.serve(move |_| stream(events));
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let base = format!("http://{}", proxy.addr());
    let asked = tokio::task::spawn_blocking(move || {
        Command::new(models::python()).args(["-c", script, &base]).env("NO_PROXY", "*").output()
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
    says(&models::ANTHROPIC).await;
}

#[req_test("REQ-REC-001", "REQ-REC-003")]
#[tokio::test]
async fn the_client_of_openai_is_recorded() {
    says(&models::OPENAI).await;
}

//! Exports of a record whose peers were hostile.

use std::process::Command;

use mantra_macros::req_test;
use serde_json::Value;

use super::*;
use crate::record::read::{Answer, Begin, Body, Chunk, End, Text};

const HOSTILE: &str =
    "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\u{2028}&'\"`$(id)\\";

fn text(text: &str) -> Text {
    Text::Text(text.to_owned())
}

fn body(bytes: &[u8]) -> Body {
    let half = bytes.len() as u64 / 2;
    Body {
        bytes: bytes.to_vec(),
        length: bytes.len() as u64,
        chunks: vec![
            Chunk { at: 10, len: half },
            Chunk { at: 2500, len: bytes.len() as u64 - half },
        ],
        ..Body::default()
    }
}

fn record(sent: &[u8], got: &[u8]) -> Record {
    Record {
        id: "r-0-1".into(),
        begin: Some(Begin {
            time: "2026-02-03T04:05:06.000001Z".into(),
            listener: "web".into(),
            client: "127.0.0.1:5".into(),
            route: None,
            version: "HTTP/1.1".into(),
            scheme: "http".into(),
            method: "POST".into(),
            host: "h".into(),
            target: format!("/a?q={HOSTILE}&key=***"),
            headers: vec![
                (text("authorization"), text("***")),
                (text("content-type"), text("application/json")),
                (text("x-hostile"), text(HOSTILE)),
            ],
        }),
        answer: Some(Answer {
            at: 2000,
            status: 200,
            by: "server".into(),
            headers: vec![(text("content-type"), text("text/html")), (text("x-h"), text(HOSTILE))],
        }),
        end: Some(End {
            at: 3000,
            how: "complete".into(),
            error: None,
            upstream: Some("o".into()),
            server: Some("127.0.0.1:9".into()),
            request_bytes: sent.len() as u64,
            response_bytes: got.len() as u64,
            missing: Vec::new(),
        }),
        bodies: [body(sent), body(got)],
        ..Record::default()
    }
}

fn exported(record: Record, format: Format) -> String {
    let mut out = Vec::new();
    export(&[record], format, 1 << 20, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A page has one script that runs, and what peers sent is nowhere in it but as JSON without a
/// character that HTML knows. (A parser test; `tests/behaviour/record/report.rs` opens the page in
/// a browser where there is one.)
#[req_test("REQ-REC-006")]
#[test]
fn nothing_that_a_peer_sent_is_markup_in_the_page() {
    let page = exported(record(HOSTILE.as_bytes(), HOSTILE.as_bytes()), Format::Html);
    assert!(!page.contains("alert(1)</script>") && !page.contains("<img"));
    let (_, behind) = page.split_once("id=\"records\">").unwrap();
    let (json, _) = behind.split_once("</script>").unwrap();
    assert!(!json.contains(['<', '>', '&', '\u{2028}']));
    let parsed: Value = serde_json::from_str(json).unwrap();
    assert_eq!(parsed[0]["response"]["body"], HOSTILE, "it is all there");
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("Content-Security-Policy").count(), 1);
    assert!(page.contains("default-src 'none'"));
    let script = include_str!("report.js");
    for parses in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "http:",
        "https:",
    ] {
        assert!(!script.contains(parses), "the script has {parses}");
    }
}

#[req_test("REQ-REC-006")]
#[test]
fn an_archive_has_all_that_the_format_asks_for() {
    let json: Value =
        serde_json::from_str(&exported(record(b"{\"a\":1}", b"\xff\x00"), Format::Har)).unwrap();
    let log = &json["log"];
    assert_eq!(log["version"], "1.2");
    assert!(log["creator"]["name"].is_string() && log["creator"]["version"].is_string());
    let entry = &log["entries"][0];
    for (object, names) in [
        (entry, &["startedDateTime", "time", "request", "response", "cache", "timings"][..]),
        (
            &entry["request"],
            &[
                "method",
                "url",
                "httpVersion",
                "cookies",
                "headers",
                "queryString",
                "headersSize",
                "bodySize",
            ],
        ),
        (&entry["request"]["postData"], &["mimeType", "text"]),
        (
            &entry["response"],
            &[
                "status",
                "statusText",
                "httpVersion",
                "cookies",
                "headers",
                "content",
                "redirectURL",
                "headersSize",
                "bodySize",
            ],
        ),
        (&entry["response"]["content"], &["size", "mimeType", "text", "encoding"]),
        (&entry["timings"], &["send", "wait", "receive"]),
    ] {
        for name in names {
            assert!(!object[name].is_null(), "{name} in {object}");
        }
    }
    let sum: f64 =
        ["send", "wait", "receive"].iter().map(|n| entry["timings"][n].as_f64().unwrap()).sum();
    assert_eq!(entry["time"].as_f64(), Some(sum), "the parts are the whole");
    assert_eq!(entry["response"]["content"]["text"], "/wA=");
    assert_eq!(entry["serverIPAddress"], "127.0.0.1");
}

#[req_test("REQ-REC-006")]
#[test]
fn lines_are_whole_records() {
    let line = exported(record(b"ask", b"\xff"), Format::Jsonl);
    assert_eq!(line.matches('\n').count(), 1);
    let json: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["request"]["body"], "ask");
    assert_eq!(json["response"]["body"]["base64"], "/w==");
    assert_eq!(json["response"]["chunks"], serde_json::json!([[10, 0], [2500, 1]]));
}

/// A shell that reads the command gives curl exactly what was sent, and runs nothing else.
#[req_test("REQ-REC-006")]
#[test]
fn a_command_means_what_was_sent_and_nothing_else() {
    let binary = [HOSTILE.as_bytes(), b"\0\xff@"].concat();
    for sent in [HOSTILE.as_bytes(), b"@/etc/passwd", &binary] {
        let command = exported(record(sent, b""), Format::Curl);
        assert!(command.contains("# blanked, to be filled in: authorization"));
        // A function in the place of curl, which tells its arguments.
        let script = format!(
            "curl() {{ printf '%s\\0' \"$@\"; case \"$*\" in *@-) cat;; esac; }}\n{command}"
        );
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let parts: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
        assert_eq!(parts[..4], [&b"--globoff"[..], b"--path-as-is", b"-X", b"POST"]);
        assert_eq!(parts[4], format!("http://h/a?q={HOSTILE}&key=***").as_bytes());
        assert!(parts.contains(&format!("x-hostile: {HOSTILE}").as_bytes()));
        if sent == binary {
            assert!(output.stdout.ends_with(&[b"--data-binary\0@-\0", sent].concat()));
        } else {
            assert!(output.stdout.ends_with(&[b"--data-raw\0", sent, b"\0"].concat()));
        }
    }
}

//! `underpass record`: what the commands show, and pages and archives that hostile peers cannot
//! do anything with.

use std::{fs, path::Path, process::Output};

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{
    Proxy, Records, Reply, Served, chromium, eventually,
    proxy::{run, scratch},
    skip,
};

/// What the command writes.
fn record(records: &Records, args: &[&str]) -> String {
    let output = command(records, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn command(records: &Records, args: &[&str]) -> Output {
    let folder = records.path().to_str().expect("UTF-8");
    run(&[&["record"], args, &["--dir", folder]].concat())
}

/// A page that shows this, if there is a browser.
fn document(page: &Path) -> Option<String> {
    let profile = scratch("profile");
    let document = chromium::document(page, &profile);
    let _ = fs::remove_dir_all(profile);
    document
}

/// Marks the document if anything of it is taken for markup.
const HOSTILE: &str = "</script></pre><script>document.title='owned'</script>\
    <img src=x onerror=\"document.title='owned'\"><!--<svg onload=document.title='owned'>";

async fn hostile() -> (Records, Proxy, Served) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Hostile: {HOSTILE}\r\n\
         Content-Length: {}\r\n\r\n{HOSTILE}",
        HOSTILE.len()
    );
    let served = Served::always(answer).await;
    let records = Records::default();
    let proxy = Proxy::reverse(served.addr()).args(records.args()).start();
    let ask = format!(
        "POST /a HTTP/1.1\r\nHost: t\r\nX-Hostile: {HOSTILE}\r\nContent-Length: {}\r\n\r\n{HOSTILE}",
        HOSTILE.len()
    );
    proxy.open(ask).await.expect_status(200).await;
    records.ended(1).await;
    (records, proxy, served)
}

#[req_test("REQ-REC-006")]
#[tokio::test]
async fn a_browser_runs_nothing_that_a_peer_sent() {
    let (records, _proxy, _served) = hostile().await;
    let page = scratch("html");
    let path = page.to_str().expect("UTF-8");
    record(&records, &["export", "--format", "html", "--output", path]);
    let Some(shown) = document(&page) else {
        return skip::say("a page in a browser: there is none (chromium, google-chrome)");
    };
    let _ = fs::remove_file(&page);
    assert!(shown.contains("<title>Underpass: 1 records</title>"), "{shown}");
    assert!(!shown.contains("<title>owned"), "{shown}");
    // The body is on the page, as text.
    let (_, article) = shown.split_once("<article").expect("an article");
    assert!(article.contains("&lt;img src=x onerror="), "{article}");
    assert!(!article.contains("<img") && !article.contains("<svg"), "{article}");
    // The browser would have run it from anywhere else: the same in a page without care.
    let careless = scratch("html");
    fs::write(&careless, format!("<title>x</title><pre>{HOSTILE}</pre>")).expect("write");
    let owned = document(&careless).expect("a browser");
    let _ = fs::remove_file(&careless);
    assert!(owned.contains("<title>owned"), "{owned}");
}

#[req_test("REQ-REC-006")]
#[tokio::test]
async fn exchanges_are_listed_by_what_they_are() {
    let served = Served::always(Reply::ok("ok")).await;
    let records = Records::default();
    let proxy = Proxy::reverse(served.addr()).args(records.args()).start();
    for (host, path, model) in [("a.example", "/v1/x", "m-1"), ("b.example", "/v2/y", "m-2")] {
        let body = format!("{{\"model\":\"{model}\"}}");
        let ask = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        proxy.open(ask).await.expect_status(200).await;
    }
    records.ended(2).await;
    for (args, wanted) in [
        (&["ls"][..], 2),
        (&["ls", "--host", "a.example"], 1),
        (&["ls", "--host", "*.example"], 2),
        (&["ls", "--path", "/v2"], 1),
        (&["ls", "--status", "2xx"], 2),
        (&["ls", "--status", "404"], 0),
        (&["ls", "--method", "get"], 0),
        (&["ls", "--model", "m-2"], 1),
        (&["ls", "--since", "1h"], 2),
        (&["ls", "--until", "1h"], 0),
        (&["ls", "--since", "2020-01-01"], 2),
        (&["ls", "--failed"], 0),
        (&["ls", "-n", "1"], 1),
        (&["tail", "--all", "-n", "2"], 2),
        (&["export", "--format", "jsonl", "--model", "m-1"], 1),
        (&["export", "--format", "jsonl"], 2),
    ] {
        let lines = record(&records, args);
        assert_eq!(lines.lines().count(), wanted, "{args:?}: {lines}");
    }
    let listed = record(&records, &["ls", "--json", "--path", "/v1"]);
    let json: Value = serde_json::from_str(listed.trim()).expect("JSON");
    assert_eq!(json["url"], "http://a.example/v1/x");
    assert_eq!((&json["whole"], &json["response_bytes"]), (&true.into(), &2.into()));
    let id = json["id"].as_str().expect("an id");
    assert_eq!(record(&records, &["show", id, "--raw", "request"]), "{\"model\":\"m-1\"}");
    let shown = record(&records, &["show", "last"]);
    assert!(shown.contains("POST http://b.example/v2/y HTTP/1.1"), "{shown}");
    assert!(shown.contains("\"model\": \"m-2\"") && shown.contains("200 by the server"), "{shown}");
    let har: Value =
        serde_json::from_str(&record(&records, &["export", "--format", "har", id])).unwrap();
    assert_eq!(har["log"]["entries"][0]["request"]["postData"]["text"], "{\"model\":\"m-1\"}");
    let none = command(&records, &["show", "nothing-0-1"]);
    assert_eq!(none.status.code(), Some(1));
}

/// What is torn is skipped and said; what a hostile peer sent does not command the terminal.
#[req_test("REQ-REC-005", "REQ-REC-006")]
#[tokio::test]
async fn what_is_torn_is_said_and_control_characters_are_escaped() {
    let body = "\u{1b}]0;owned\u{7}";
    let served = Served::always(Reply::ok(body)).await;
    let records = Records::default();
    let mut proxy = Proxy::reverse(served.addr()).args(records.args()).start();
    proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await.expect_status(200).await;
    records.ended(1).await;
    proxy.term();
    proxy.exited().await;
    let segment = fs::read_dir(records.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes.extend(b"{\"v\":1,\"id\":\"torn");
    fs::write(&segment, bytes).unwrap();
    let output = command(&records, &["ls"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 segments end in a torn line"));
    for args in [&["show", "last"][..], &["show", "last", "--chunks"]] {
        let shown = record(&records, args);
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
        assert!(shown.contains("\\u{1b}]0;owned\\u{7}"), "{shown:?}");
    }
    assert_eq!(record(&records, &["show", "last", "--raw", "response"]), body, "as it was");
}

/// Whoever follows sees what ends, while it is written.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn tail_follows() {
    let served = Served::ok().await;
    let records = Records::default();
    let proxy = Proxy::reverse(served.addr()).args(records.args()).start();
    let folder = records.path().to_str().expect("UTF-8").to_owned();
    proxy.open("GET /before HTTP/1.1\r\nHost: t\r\n\r\n").await.expect_status(200).await;
    records.ended(1).await;
    let tail = std::thread::spawn(move || run(&["record", "tail", "--dir", &folder, "-n", "1"]));
    let asked = std::cell::Cell::new(0);
    eventually("a line of the tail", async || {
        let ask = format!("GET /after/{} HTTP/1.1\r\nHost: t\r\n\r\n", asked.get());
        proxy.open(ask).await.expect_status(200).await;
        asked.set(asked.get() + 1);
        tail.is_finished()
    })
    .await;
    let output = tail.join().expect("tail");
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(line.contains("http://t/after/") && line.lines().count() == 1, "{line}");
}

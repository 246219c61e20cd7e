//! The access log: one line per exchange, as text and as JSON, and nothing of peers' bytes
//! that could be taken for a line.

use serde_json::Value;
use underpass_tests::{
    HttpClient, Origin, Proxy, Refusing, Reply, Served, Version, eventually, proxy::scratch,
};

const POST: &str = "POST /a?b=c HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for the JSON line of the exchange with this target.
async fn json_line(proxy: &Proxy, target: &str) -> Value {
    let find = || json_lines(&proxy.stderr()).into_iter().find(|line| line["target"] == target);
    eventually(&format!("the line of {target}"), async || find().is_some()).await;
    find().expect("found before")
}

#[tokio::test]
async fn a_text_line_names_its_fields() {
    let origin = Served::always(Reply::ok("answer!")).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(POST).await;
    client.expect_status(200).await;
    let line = proxy.log_line(&["/a?b=c"]).await;
    let client = client.local_addr();
    let server = origin.addr();
    let parts = [
        format!("client={client}"),
        "method=POST".to_owned(),
        "host=test".to_owned(),
        "version=HTTP/1.1".to_owned(),
        "status=200".to_owned(),
        format!("server={server}"),
        "request_bytes=5".to_owned(),
        "response_bytes=7".to_owned(),
        "ttfb_seconds=0.".to_owned(),
        "duration_seconds=0.".to_owned(),
        "end=complete".to_owned(),
    ];
    for part in parts {
        assert!(line.contains(&part), "{part} in {line}");
    }
}

#[tokio::test]
async fn a_json_line_has_the_same_fields() {
    let origin = Served::always(Reply::ok("answer!")).await;
    let proxy = Proxy::reverse(origin.addr()).args(["--log-format", "json"]).start();
    let mut client = proxy.open(POST).await;
    client.expect_status(200).await;
    let line = json_line(&proxy, "/a?b=c").await;
    assert_eq!(line["client"], client.local_addr().to_string());
    assert_eq!(line["method"], "POST");
    assert_eq!(line["host"], "test");
    assert_eq!(line["version"], "HTTP/1.1");
    assert_eq!(line["status"], 200);
    assert_eq!(line["server"], origin.addr().to_string());
    assert_eq!(line["request_bytes"], 5);
    assert_eq!(line["response_bytes"], 7);
    assert_eq!(line["end"], "complete");
    let (ttfb, duration) = (&line["ttfb_seconds"], &line["duration_seconds"]);
    assert!(ttfb.as_f64().is_some() && ttfb.as_f64() <= duration.as_f64(), "{line}");
}

/// The target is what was asked of the origin, whatever the version.
#[tokio::test]
async fn h2_requests_are_logged_like_others() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).args(["--log-format", "json"]).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    assert_eq!(client.get("/h2?x").await.status(), 200);
    let line = json_line(&proxy, "/h2?x").await;
    assert_eq!((&line["version"], &line["status"]), (&"HTTP/2".into(), &200.into()));
    assert_eq!(line["host"], proxy.addr().to_string());
}

/// Every kind of end has its name.
#[tokio::test]
async fn the_end_of_an_exchange_is_named() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).args(["--log-format", "json"]).start();

    let client = proxy.open("GET /gone HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    drop(client);
    server.expect_end().await;
    assert_eq!(json_line(&proxy, "/gone").await["end"], "client_gone");

    let mut client = proxy.open("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    drop(server);
    client.read_to_end().await;
    let line = json_line(&proxy, "/cut").await;
    assert_eq!((&line["end"], &line["error"]), (&"error".into(), &"response_body_broken".into()));
    assert_eq!((&line["status"], &line["response_bytes"]), (&200.into(), &4.into()));

    let refusing = Refusing::bind();
    let proxy = Proxy::reverse(refusing.addr()).args(["--log-format", "json"]).start();
    proxy.open("GET /refused HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(502).await;
    let line = json_line(&proxy, "/refused").await;
    assert_eq!((&line["status"], &line["error"]), (&502.into(), &"connect".into()));
}

/// A refused request is logged with the rule that it broke, though it never was one.
#[tokio::test]
async fn a_refused_request_is_logged_with_the_rule() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).args(["--log-format", "json"]).start();
    let request = "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    proxy.open(request).await.expect_status(400).await;
    let find = || json_lines(&proxy.stderr()).into_iter().find(|line| line["status"] == 400);
    eventually("the line of the refusal", async || find().is_some()).await;
    let line = find().expect("found before");
    assert_eq!(line["error"], "bad_request");
    assert!(line["error_detail"].as_str().is_some_and(|rule| rule.contains("Host")), "{line}");
}

/// What a peer sends cannot end a line or colour a terminal.
#[tokio::test]
async fn peers_cannot_forge_lines() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET /\"%0aGET\\n+status=999 HTTP/1.1\r\nHost: test\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let line = proxy.log_line(&["status=200", "%0aGET"]).await;
    assert!(line.contains("\\\""), "the quote is not escaped: {line}");
    assert!(line.is_ascii() && !line.contains('\x1b'), "{line}");
}

#[tokio::test]
async fn the_log_goes_to_a_file_or_nowhere() {
    let origin = Served::ok().await;
    let path = scratch("log");
    let name = path.to_string_lossy().into_owned();
    let proxy = Proxy::reverse(origin.addr()).args(["--access-log", &name]).start();
    proxy.open("GET /filed HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    eventually("the line in the file", async || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.contains("/filed"))
    })
    .await;
    assert!(!proxy.stderr().contains("/filed"));
    std::fs::remove_file(&path).unwrap();

    let mut proxy = Proxy::reverse(origin.addr()).args(["--access-log", "off"]).start();
    proxy.open("GET /unlogged HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    proxy.term();
    proxy.exited().await;
    assert!(!proxy.stderr().contains("/unlogged"), "{}", proxy.stderr());
}

/// Credentials of the query or of fields are not in it by accident.
#[tokio::test]
async fn fields_with_credentials_are_not_logged() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET /secret HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer sesame\r\n\
                   Cookie: id=sesame\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    proxy.log_line(&["/secret"]).await;
    assert!(!proxy.stderr().contains("sesame"));
}

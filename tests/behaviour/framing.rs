//! How the end of a body is found stays as the sender chose it.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Reply, Served, Version, collect, over_versions, pattern,
};

over_versions!(a_large_body_goes_through_unchanged, bodiless_answers_stay_bodiless);

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn content_length_stays_content_length() {
    let origin = Served::always("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanswer!").await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client =
        proxy.open("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").await;
    let answer = client.expect_status(200).await;
    assert_eq!(answer.text(), "answer!");
    assert_eq!(answer.head.all("content-length"), ["7"]);
    assert!(!answer.head.has("transfer-encoding"));
    let seen = origin.only();
    assert_eq!(seen.text(), "hello");
    assert_eq!(seen.head.all("content-length"), ["5"]);
    assert!(!seen.head.has("transfer-encoding"));
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn chunked_stays_chunked() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nanswer!\r\n0\r\n\r\n";
    let origin = Served::always(chunked).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n";
    let mut client = proxy.open(request).await;
    let answer = client.expect_status(200).await;
    assert_eq!(answer.text(), "answer!");
    assert_eq!(answer.head.all("transfer-encoding"), ["chunked"]);
    assert!(!answer.head.has("content-length"));
    let seen = origin.only();
    assert_eq!(seen.text(), "hello");
    assert_eq!(seen.head.all("transfer-encoding"), ["chunked"]);
    assert!(!seen.head.has("content-length"));
}

/// A request of unknown length over HTTP/2 has no other form than chunked in HTTP/1.1.
#[tokio::test]
async fn unknown_length_over_h2_goes_out_chunked() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::PUT, "/").body(out).unwrap());
    body.send("of some length").await;
    drop(body);
    assert_eq!(answer.await.unwrap().status(), 200);
    let seen = origin.only();
    assert_eq!(seen.text(), "of some length");
    assert_eq!(seen.head.all("transfer-encoding"), ["chunked"]);
}

#[tokio::test]
async fn a_known_length_over_h2_stays_known() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let out = OutBody::Full("exactly".into());
    let request = client.request(Method::PUT, "/").header("content-length", 7).body(out).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    assert_eq!(origin.only().head.all("content-length"), ["7"]);
}

/// An answer that ends with the connection reaches the client whole and properly ended.
#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_whole() {
    let origin =
        Served::always(Reply::from("HTTP/1.1 200 OK\r\n\r\nto the end").then_close()).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let answer = client.expect_status(200).await;
    assert_eq!((answer.text().as_str(), answer.cut), ("to the end", None));
}

#[tokio::test]
async fn a_request_without_a_body_gets_none() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    for method in ["GET", "DELETE", "OPTIONS", "PURGE"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.expect_status(200).await;
    }
    for seen in origin.seen() {
        let head = seen.message.head;
        assert!(!head.has("content-length") && !head.has("transfer-encoding"), "{}", head.start);
    }
}

#[tokio::test]
async fn an_empty_body_stays_an_empty_body() {
    let origin = Served::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.head.all("content-length"), ["0"]);
    assert_eq!(origin.only().head.all("content-length"), ["0"]);
}

/// HEAD, 204 and 304 have no body, whatever length they name, and the connection goes on.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.method() {
        "HEAD" => Reply::from("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        _ => Reply::ok("next"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let answer = client.read_response_to("HEAD").await;
    assert_eq!(answer.head.all("content-length"), ["1000"]);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "next");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn head_of_a_chunked_answer_has_no_body() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.method() {
        "HEAD" => Reply::from("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        _ => Reply::ok("next"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.read_response_to("HEAD").await.status(), 200);
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "next");
}

#[tokio::test]
async fn not_modified_keeps_the_length_it_names() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.target() {
        "/old" => {
            Reply::from("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 1000\r\n\r\n")
        }
        _ => Reply::ok("next"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET /old HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let answer = client.expect_status(304).await;
    assert_eq!(answer.head.all("content-length"), ["1000"]);
    assert_eq!(answer.head.get("etag"), Some("\"a\""));
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "next");
}

async fn bodiless_answers_stay_bodiless(version: Version) {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.target() {
        "/204" => Reply::from("HTTP/1.1 204 No Content\r\n\r\n"),
        "/304" => Reply::from("HTTP/1.1 304 Not Modified\r\n\r\n"),
        _ => Reply::ok("next"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    for (path, status, body) in [("/204", 204, ""), ("/304", 304, ""), ("/", 200, "next")] {
        let answer = client.get(path).await;
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("transfer-encoding"), "{path}");
        assert_eq!(collect(answer.into_body()).await.unwrap().0, body.as_bytes());
    }
    assert_eq!(origin.connections(), 1);
}

async fn a_large_body_goes_through_unchanged(version: Version) {
    let content = pattern::bytes(5 << 20);
    let echo = |seen: &underpass_tests::Seen| Reply::ok(&seen.message.body);
    let origin = Origin::bind().await.serve(echo);
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let out = OutBody::Full(content.clone().into());
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap()).await.unwrap();
    assert!(collect(answer.into_body()).await.unwrap().0 == content);
    assert_eq!(origin.only().head.get("content-length"), Some("5242880"));
}

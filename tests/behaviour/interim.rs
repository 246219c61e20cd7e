//! Interim answers and `Expect: 100-continue` go from end to end (RFC 9110 10.1.1, 15.2).

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{HttpClient, Origin, OutBody, Proxy, Served, Version, collect};

const EXPECTING: &str = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\
                         Expect: 100-continue\r\n\r\n";

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn the_origins_100_lets_the_client_send() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(EXPECTING).await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    assert_eq!(head.get("expect"), Some("100-continue"));
    server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.read_head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(head.request_body().finish(&mut server).await, b"hello");
    server.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    client.expect_status(201).await;
}

/// The origin decides by the head alone: the client never hears 100 and never sends. Behind a body
/// that it does not send nothing can come, and it is told so.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_final_answer_instead_of_100() {
    for (line, status) in [("403 Forbidden", 403), ("200 OK", 200)] {
        let origin = Origin::bind().await;
        let proxy = Proxy::reverse(origin.addr()).start();
        let mut client = proxy.open(EXPECTING).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nno")).await;
        // expect_status fails on an interim answer before the final one.
        let answer = client.expect_status(status).await;
        assert_eq!((answer.text().as_str(), answer.head.get("connection")), ("no", Some("close")));
        drop(client);
        server.expect_end().await;
    }
}

/// Whoever still sends when it has its whole answer is told that nothing is read behind that;
/// whoever has sent everything goes on.
#[tokio::test]
async fn a_whole_answer_before_the_end_of_the_request() {
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n")).await;
    let mut server = origin.accept().await;
    assert_eq!(server.read_request().await.text(), "hello");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.expect_status(204).await.head.get("connection"), None);
    client.send(format!("{CHUNKED}5\r\nhello\r\n")).await;
    let head = server.read_head().await;
    head.request_body().expect(&mut server, "hello").await;
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.expect_status(204).await.head.get("connection"), Some("close"));
    drop(client);
    server.expect_end().await;
}

/// A client need not wait (RFC 9110 10.1.1): the body follows the head at once.
#[tokio::test]
async fn a_client_that_does_not_wait_is_served() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(format!("{EXPECTING}hello")).await;
    let mut status = client.read_head().await.status();
    if status == 100 {
        status = client.expect_status(200).await.status();
    }
    assert_eq!(status, 200);
    assert_eq!(origin.only().text(), "hello");
}

#[tokio::test]
async fn an_unknown_expectation_is_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\nExpect: miracles\r\n\r\n").await;
    client.expect_status(417).await;
    assert_eq!(origin.targets(), [""; 0]);
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn early_hints_come_before_the_final_answer() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    for link in ["</a.css>; rel=preload", "</b.css>; rel=preload"] {
        server.send(format!("HTTP/1.1 103 Early Hints\r\nLink: {link}\r\n\r\n")).await;
        let hints = client.read_head().await;
        assert_eq!((hints.status(), hints.get("link")), (103, Some(link)));
    }
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.expect_status(200).await.text(), "ok");

    // And the connection goes on.
    client.send("GET /2 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(server.read_head().await.target(), "/2");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n22").await;
    assert_eq!(client.expect_status(200).await.text(), "22");
}

/// Whether or not they are passed on over HTTP/2, the final answer is.
#[tokio::test]
async fn interim_answers_do_not_harm_h2_clients() {
    let reply = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    for _ in 0..2 {
        let out = OutBody::Full("hello".into());
        let request = client.request(Method::POST, "/").header("expect", "100-continue");
        let answer = client.send(request.body(out).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    }
    assert_eq!(origin.connections(), 1);
}

/// An origin that never stops hinting is broken.
#[tokio::test]
async fn endless_interim_answers_become_502() {
    let origin = Served::always("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut status = 103;
    while status == 103 {
        status = client.read_head().await.status();
    }
    assert_eq!(status, 502);
}

/// HTTP/1.0 knows no interim answers (RFC 9110 15.2).
#[tokio::test]
async fn interim_answers_are_kept_from_http10_clients() {
    let reply = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "ok");
}

//! HTTP/1.0 on either side.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Reply, Served};

/// Chunked coding must not be sent to a client that may not know it (RFC 9112 6.1).
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_chunked_answer_reaches_an_http10_client_unchunked() {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    let answer = client.expect_status(200).await;
    assert!(!answer.head.has("transfer-encoding"));
    assert!(!answer.head.has("content-length"));
    assert_eq!((answer.text().as_str(), answer.cut), ("abcde", None));
}

#[tokio::test]
async fn the_connection_of_an_http10_client_is_closed() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "ok");
    client.expect_fin().await;
    // Ours to the origin is HTTP/1.1 and stays open.
    assert_eq!(origin.only().head.start, "GET / HTTP/1.1");
    proxy.open("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_http10_client_need_not_name_a_host() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open("GET / HTTP/1.0\r\n\r\n").await.expect_status(200).await;
    // To an HTTP/1.1 server there must be one (RFC 9112 3.2).
    assert_eq!(origin.only().head.all("host").len(), 1);
}

#[tokio::test]
async fn answers_of_http10_origins_pass_as_http11() {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.target() {
        "/length" => Reply::from("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nknown").then_close(),
        _ => Reply::from("HTTP/1.0 200 OK\r\n\r\nto the end").then_close(),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    for (path, content) in [("/length", "known"), ("/", "to the end")] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let answer = client.expect_status(200).await;
        assert!(answer.head.start.starts_with("HTTP/1.1 "), "{}", answer.head.start);
        assert_eq!((answer.text().as_str(), answer.cut), (content, None));
    }
}

/// Without `Connection: keep-alive` an HTTP/1.0 origin's connection ends with its answer.
#[tokio::test]
async fn connections_to_http10_origins_are_not_pooled() {
    let origin = Served::always("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        client.expect_status(200).await;
    }
    assert_eq!(origin.connections(), 2);
}

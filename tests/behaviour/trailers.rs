//! Trailers pass both ways without anything being held back for them.

use http::{HeaderMap, Method};
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Served, Version, bytes_from, collect, over_versions,
};

over_versions!(
    trailers_of_the_request_reach_the_origin,
    trailers_of_the_answer_reach_the_client,
    unannounced_trailers_of_the_answer_pass,
    what_is_about_a_connection_is_left_out,
);

#[req_test("REQ-CORE-001.F-003")]
async fn trailers_of_the_request_reach_the_origin(version: Version) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::pieces();
    let request = client.request(Method::POST, "/").header("trailer", "x-checksum, x-other");
    let answer = client.send(request.body(out).unwrap());
    body.send("content").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().unwrap());
    trailers.insert("x-other", "1".parse().unwrap());
    body.trailers(trailers).await;
    assert_eq!(answer.await.unwrap().status(), 200);
    let seen = origin.only();
    assert_eq!(seen.text(), "content");
    let mut trailers: Vec<_> =
        seen.trailers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.as_str())).collect();
    trailers.sort();
    assert_eq!(trailers, [("x-checksum".to_owned(), "abc"), ("x-other".to_owned(), "1")]);
}

#[req_test("REQ-CORE-001.F-003")]
async fn trailers_of_the_answer_reach_the_client(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let request = client.request(Method::GET, "/").header("te", "trailers");
    let answer = client.send(request.body(OutBody::Empty).unwrap());
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    assert_eq!(head.get("te"), Some("trailers"), "the origin must know that trailers are wanted");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n";
    server.send(head).await;
    server.send("5\r\nhello\r\n").await;
    // The content does not wait for the trailers.
    let mut body = answer.await.unwrap().into_body();
    bytes_from(&mut body, "hello").await;
    server.send("0\r\ngrpc-status: 0\r\n\r\n").await;
    let (_, trailers) = collect(body).await.unwrap();
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
}

/// `Trailer` is a courtesy (RFC 9110 6.6.2): trailers that it does not announce pass as well.
#[req_test("REQ-CORE-001.F-003")]
async fn unannounced_trailers_of_the_answer_pass(version: Version) {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\ngrpc-status: 0\r\ngrpc-message: fine\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let request = client.request(Method::GET, "/").header("te", "trailers");
    let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
    let (content, trailers) = collect(answer.into_body()).await.unwrap();
    assert_eq!(content, b"hello");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "fine");
}

/// What is about a connection of HTTP/1 would have an HTTP/2 client get no end (RFC 9113 section
/// 8.2.2).
#[req_test("REQ-CORE-001.F-003", "REQ-EDGE-005")]
async fn what_is_about_a_connection_is_left_out(version: Version) {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
                 keep-alive: timeout=5\r\nproxy-connection: close\r\nx-sum: 5\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (content, trailers) = collect(client.get("/").await.into_body()).await.unwrap();
    assert_eq!(content, b"hello");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers["x-sum"], "5");
    if version == Version::H2 {
        assert_eq!(trailers.len(), 1, "{trailers:?}");
    }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn unannounced_trailers_of_the_request_pass() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let seen = origin.only();
    let [(name, value)] = &seen.trailers[..] else { panic!("{:?}", seen.trailers) };
    assert!(name.eq_ignore_ascii_case("x-sum") && value == "abc");
}

/// A client that did not say `TE: trailers` need not get them, but gets the body properly.
#[tokio::test]
async fn trailers_nobody_asked_for_do_no_harm() {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\nx-late: 1\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let answer = client.expect_status(200).await;
        assert_eq!((answer.text().as_str(), answer.cut), ("hello", None));
    }
    assert_eq!(origin.connections(), 1);
}

//! Nothing waits for anything: heads and chunks pass on the moment they come.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Version, bytes_from, collect, curl, over_versions,
};

over_versions!(test_bidirectional_stream, the_answer_may_begin_before_the_request_has_ended);

/// The slow sender: each chunk has been seen at the other side before the next is sent.
#[req_test("REQ-CORE-001.F-002", "REQ-CORE-001.F-003")]
async fn test_bidirectional_stream(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/stream").body(out).unwrap());

    // The head goes out before there is a body.
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    assert_eq!(head.start, "POST /stream HTTP/1.1");
    let mut upload = head.request_body();
    for n in 0..20 {
        let piece = format!("up {n};");
        body.send(piece.clone()).await;
        upload.expect(&mut server, &piece).await;
    }

    // So does the head of the answer.
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut download = answer.into_body();
    for n in 20..40 {
        let (up, down) = (format!("up {n};"), format!("down {n};"));
        body.send(up.clone()).await;
        upload.expect(&mut server, &up).await;
        server.send(format!("{:x}\r\n{down}\r\n", down.len())).await;
        bytes_from(&mut download, &down).await;
    }

    drop(body);
    assert_eq!(upload.finish(&mut server).await, b"");
    server.send("0\r\n\r\n").await;
    assert_eq!(collect(download).await.unwrap().0, b"");
}

#[req_test("REQ-CORE-001.F-003")]
async fn the_answer_may_begin_before_the_request_has_ended(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::sized(8);
    let answer = client.send(client.request(Method::POST, "/early").body(out).unwrap());
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let mut upload = head.request_body();
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfirs").await;
    let mut download = answer.await.unwrap().into_body();
    bytes_from(&mut download, "firs").await;
    body.send("12345678").await;
    drop(body);
    assert_eq!(upload.finish(&mut server).await, b"12345678");
    server.send("t ok").await;
    assert_eq!(collect(download).await.unwrap().0, b"t ok");
}

/// A line of curl's output is there before the next event is sent.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    if !curl::peer("curl") {
        return;
    }
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = curl::start(&["-N", &format!("http://{}/events", proxy.addr())]);
    let mut server = origin.accept().await;
    server.read_head().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    server.send(head).await;
    for token in ["The", "quick", "brown", "fox"] {
        let event = format!("data: {token}\n\n");
        server.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        assert_eq!(client.line().await, Some(format!("data: {token}")));
        assert_eq!(client.line().await, Some(String::new()));
    }
    server.send("0\r\n\r\n").await;
    assert_eq!(client.line().await, None);
    assert_eq!(client.code().await, 0);
}

/// A chunk that the origin sends in two halves passes half by half: chunks are no units.
#[tokio::test]
async fn half_a_chunk_is_passed_on() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf").await;
    let head = client.read_head().await;
    let mut body = head.response_body("GET");
    body.expect(&mut client, "half").await;
    server.send("rest\r\n0\r\n\r\n").await;
    assert_eq!(body.finish(&mut client).await, b"rest");
}

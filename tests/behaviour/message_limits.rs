//! Bounds of a message and what is answered beyond them: 431, 414, 413.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Reply, Served, Version, collect, over_versions, pattern,
};

over_versions!(
    a_known_length_beyond_the_limit_is_refused,
    a_body_that_grows_beyond_is_refused,
    a_body_that_grows_beyond_ends_an_answer_that_has_begun,
);

/// A GET whose head is exactly `size` bytes.
fn head_of(size: usize) -> String {
    let (begin, end) = ("GET / HTTP/1.1\r\nHost: test\r\nX-Fill: ", "\r\n\r\n");
    format!("{begin}{}{end}", "x".repeat(size - begin.len() - end.len()))
}

#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_head_may_be_as_large_as_the_limit() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_head_bytes", "4096").start();
    let mut client = proxy.open(head_of(4096)).await;
    client.expect_status(200).await;
    assert_eq!(origin.seen().len(), 1);

    let mut client = proxy.open(head_of(4097)).await;
    client.expect_status(431).await;
    client.expect_end().await;
    assert_eq!(origin.seen().len(), 1);
}

/// Without a limit of its own a listener takes the heads that are common in the wild.
#[tokio::test]
async fn large_heads_pass_by_default() {
    let fields: String = (0..90).map(|n| format!("X-{n}: {}\r\n", "y".repeat(500))).collect();
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).await;
    let answer = client.expect_status(200).await;
    for n in 0..90 {
        let name = format!("x-{n}");
        assert_eq!(answer.head.get(&name).map(str::len), Some(500));
        assert_eq!(origin.only().head.get(&name).map(str::len), Some(500));
    }
}

/// A head without an end is refused when it reaches the limit, not when it ends.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_head_without_end_is_refused_early() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\nX: ").await;
    let piece = [b'x'; 8 * 1024];
    for _ in 0..64 {
        if client.try_send(piece).await.is_err() {
            break;
        }
    }
    assert_eq!(client.read_head().await.status(), 431);
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn too_many_fields_are_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_headers", "10").start();
    let request = |fields: usize| {
        format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: y\r\n".repeat(fields - 1))
    };
    proxy.open(request(10)).await.expect_status(200).await;
    let mut client = proxy.open(request(11)).await;
    client.expect_status(431).await;
    client.expect_end().await;
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_long_target_is_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_uri_bytes", "100").start();
    let request =
        |size: usize| format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(size - 1));
    proxy.open(request(100)).await.expect_status(200).await;
    let mut client = proxy.open(request(101)).await;
    client.expect_status(414).await;
    client.expect_end().await;
    assert_eq!(origin.seen().len(), 1);
}

async fn a_known_length_beyond_the_limit_is_refused(version: Version) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_request_body_bytes", "1000").start();
    for (length, status) in [(1000, 200), (1001, 413)] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let out = OutBody::Full(pattern::bytes(length).into());
        let request = client.request(Method::POST, "/").header("content-length", length);
        let answer = client.send(request.body(out).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{length} bytes");
    }
    // By its head alone: the origin was not even asked.
    assert_eq!(origin.seen().len(), 1);
}

async fn a_body_that_grows_beyond_is_refused(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_request_body_bytes", "1000").start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let mut upload = head.request_body();
    body.send(vec![b'x'; 600]).await;
    upload.expect(&mut server, &"x".repeat(600)).await;
    body.send(vec![b'x'; 600]).await;
    let (rest, _, cut) = upload.rest(&mut server).await;
    assert!(cut.is_some(), "the origin took a refused body as whole");
    assert!(rest.len() <= 400, "{} bytes beyond the limit passed", 600 + rest.len() - 1000);
    assert_eq!(answer.await.unwrap().status(), 413);
}

/// HTTP/2 compresses heads; what counts is what they say.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn heads_of_h2_are_bounded_alike() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr())
        .limit("max_head_bytes", "4096")
        .limit("max_uri_bytes", "1000")
        .start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    assert_eq!(client.get(&format!("/{}", "x".repeat(900))).await.status(), 200);
    assert_eq!(client.get(&format!("/{}", "x".repeat(1100))).await.status(), 414);
    let request = client.request(Method::GET, "/").header("x-fill", "x".repeat(5000));
    let answer = client.send(request.body(OutBody::Empty).unwrap()).await;
    // h2 may also refuse the stream before there is a request to answer.
    assert!(answer.map_or(true, |answer| answer.status() == 431));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_chunked_body_beyond_the_limit_is_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_request_body_bytes", "8").start();
    let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = proxy.open(format!("{head}4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n")).await;
    client.expect_status(200).await;
    let mut client = proxy.open(format!("{head}4\r\nabcd\r\n5\r\nefghi\r\n0\r\n\r\n")).await;
    client.expect_status(413).await;
    client.expect_end().await;
    drop(proxy);
    origin.deserted().await;
    let whole = origin.seen().iter().filter(|seen| seen.message.cut.is_none()).count();
    assert_eq!(whole, 1);
}

/// A client that waits with its body is told at once that it need not send it.
#[tokio::test]
async fn an_expected_body_beyond_the_limit_is_never_sent() {
    let origin = Origin::bind().await.serve(|_| Reply::ok("ok"));
    let proxy = Proxy::reverse(origin.addr()).limit("max_request_body_bytes", "8").start();
    let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    let mut client = proxy.open(head).await;
    client.expect_status(413).await;
    assert_eq!(origin.seen().len(), 0);
}

/// Behind the head of its answer, too, and though the server is silent just then.
async fn a_body_that_grows_beyond_ends_an_answer_that_has_begun(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_request_body_bytes", "1000").start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst").await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    body.send(vec![b'x'; 1001]).await;
    let cut = collect(answer.into_body()).await;
    assert!(cut.is_err(), "half an answer was passed on as a whole one");
    server.read_to_end().await;
    proxy.log_line(&["status=200", "error=request_body_too_large"]).await;
}

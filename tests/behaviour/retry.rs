//! A pooled connection may be dead without our knowing: what is sent again, and what not.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Reply, Wire, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST /pay HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\npay";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A proxy with one idle connection to the origin in its pool.
async fn with_pooled_connection() -> (Origin, Proxy, Wire, Wire) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    client.expect_status(200).await;
    (origin, proxy, client, server)
}

/// The origin reads the request and closes: it timed the connection out as the request came.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_get_on_a_dying_connection_is_sent_again() {
    let (origin, _proxy, mut client, mut server) = with_pooled_connection().await;
    client.send("GET /again HTTP/1.1\r\nHost: test\r\n\r\n").await;
    server.read_head().await;
    drop(server);
    let mut server = origin.accept().await;
    assert_eq!(server.read_head().await.target(), "/again");
    server.send(OK).await;
    client.expect_status(200).await;
}

#[tokio::test]
async fn a_get_on_a_reset_connection_is_sent_again() {
    let (origin, _proxy, mut client, mut server) = with_pooled_connection().await;
    client.send("GET /again HTTP/1.1\r\nHost: test\r\n\r\n").await;
    server.read_head().await;
    server.reset();
    let mut server = origin.accept().await;
    assert_eq!(server.read_head().await.target(), "/again");
    server.send(OK).await;
    client.expect_status(200).await;
}

/// The origin may have acted on it: the client has to decide.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let (origin, proxy, mut client, mut server) = with_pooled_connection().await;
    client.send(POST).await;
    assert_eq!(server.read_request().await.text(), "pay");
    drop(server);
    client.expect_status(502).await;

    // The next request that the origin sees is the next request that was sent.
    let mut client = proxy.open("GET /marker HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    assert_eq!(server.read_head().await.target(), "/marker");
    server.send(OK).await;
    client.expect_status(200).await;
}

/// A connection that the origin closed while it was idle costs nobody anything.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_post_takes_a_new_connection_if_the_idle_one_is_closed() {
    let (origin, proxy, mut client, server) = with_pooled_connection().await;
    let with_upstream = proxy.descriptors();
    drop(server);
    eventually("the proxy to notice the close", async || proxy.descriptors() < with_upstream).await;
    client.send(POST).await;
    let mut server = origin.accept().await;
    assert_eq!(server.read_request().await.text(), "pay");
    server.send(OK).await;
    client.expect_status(200).await;
}

/// Part of an answer has come: sending the request again could do it twice.
#[tokio::test]
async fn a_get_whose_answer_has_begun_is_not_sent_again() {
    let (origin, proxy, mut client, mut server) = with_pooled_connection().await;
    client.send(GET).await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nConte").await;
    drop(server);
    client.expect_status(502).await;
    let _client = proxy.open("GET /marker HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(origin.accept().await.read_head().await.target(), "/marker");
}

/// An origin that never answers is not asked for ever.
#[tokio::test]
async fn retries_come_to_an_end() {
    let origin = Origin::bind().await.serve(|_| Reply::from("").then_close());
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open(GET).await.expect_status(502).await;
    assert!(origin.connections() <= 3, "{} attempts", origin.connections());
}

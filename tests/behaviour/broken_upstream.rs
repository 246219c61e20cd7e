//! An answer that breaks off reaches the client broken off, never as if it were whole.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, Proxy, Version, bytes_from, collect, eventually, over_versions,
};

over_versions!(
    a_cut_answer_is_seen_as_cut,
    a_cut_answer_does_not_end_other_streams_or_requests,
    a_body_that_breaks_the_chunked_coding_is_cut,
);

/// How an origin can break off behind the five bytes that it sends first.
const CUTS: [(&str, &str); 6] = [
    ("short of its length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst"),
    ("in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nfirst"),
    ("behind a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"),
    ("in a size line", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n1"),
    ("in the end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n"),
    (
        "in the trailers",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\nx: y",
    ),
];

#[req_test("REQ-CORE-001.F-003")]
async fn a_cut_answer_is_seen_as_cut(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for reset in [false, true] {
        for (how, bytes) in CUTS {
            let mut client = HttpClient::connect(proxy.addr(), version).await;
            let asking = client.get("/");
            let answering = async {
                let mut server = origin.accept().await;
                server.read_head().await;
                server.send(bytes).await;
                server
            };
            let (answer, server) = tokio::join!(asking, answering);
            let mut body = answer.into_body();
            bytes_from(&mut body, "first").await;
            if reset {
                server.reset();
            } else {
                drop(server);
            }
            let end = collect(body).await;
            assert!(end.is_err(), "{version:?}: cut {how} (reset: {reset}) was taken as whole");
        }
    }
}

/// Without a length the end of the connection is the end of the answer, but a reset is not.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_reset_is_no_end_of_an_answer_without_length() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    let head = client.read_head().await;
    let mut body = head.response_body("GET");
    body.expect(&mut client, "first").await;
    server.reset();
    let (_, _, cut) = body.rest(&mut client).await;
    assert!(cut.is_some(), "a reset was passed on as a proper end");
}

async fn a_cut_answer_does_not_end_other_streams_or_requests(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (cut, mut server) = tokio::join!(client.get("/cut"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst").await;
        server
    });
    // Over HTTP/1 the broken answer takes its connection with it: the next is a new one.
    let mut other = match version {
        Version::H1 => HttpClient::connect(proxy.addr(), version).await,
        Version::H2 => client,
    };
    let (whole, mut server_of_whole) = tokio::join!(other.get("/whole"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwhole ").await;
        server
    });
    server.finish().await;
    assert!(collect(cut.into_body()).await.is_err());
    server_of_whole.send("yes").await;
    assert_eq!(collect(whole.into_body()).await.unwrap().0, b"whole yes");
}

/// Two parsers could read on at different places: the proxy stops where the fault is.
async fn a_body_that_breaks_the_chunked_coding_is_cut(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let faults = [
        "zz\r\n",
        "\r\n",
        "0x5\r\nhello\r\n",
        "-1\r\n",
        "+5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\nhello\n",
        "5\r\nhello",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n0\n\n",
        "FFFFFFFFFFFFFFFFF\r\nx",
        "5;\nx\r\nhello\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "0\r\n: empty\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
    ];
    for fault in faults {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let (answer, mut server) = tokio::join!(client.get("/"), async {
            let mut server = origin.accept().await;
            server.read_head().await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            server.send(head).await;
            server
        });
        let mut body = answer.into_body();
        bytes_from(&mut body, "first").await;
        server.send(fault).await;
        if fault == "5\r\nhello" {
            // Not wrong yet; wrong once the chunk is longer than it says.
            server.send("!!").await;
        }
        let end = collect(body).await;
        assert!(end.is_err(), "{version:?}: {fault:?} was taken as {end:?}");
        // Nobody can tell where the next answer would begin.
        server.expect_end().await;
    }
}

/// The connection that broke is not used again, and the log says what happened.
#[tokio::test]
async fn a_cut_answer_is_logged_and_its_connection_dropped() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst").await;
    server.finish().await;
    assert!(client.expect_status(200).await.cut.is_some());
    server.expect_end().await;
    proxy.log_line(&["/cut", "response_body_broken"]).await;
    eventually("the error to be counted", async || {
        let metrics = proxy.metrics().await;
        metrics.sum("underpass_errors_total", &[("kind", "response_body_broken")]) == 1.0
    })
    .await;
}

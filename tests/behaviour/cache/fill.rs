//! While an answer is stored its client has each chunk at once, and nothing that is not whole is
//! ever given again.

use mantra_macros::req_test;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use underpass_tests::{Origin, Reply, clock::BOUND, eventually, process::Growth, within};

use super::{answer, did, get, proxy, with_cache};

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";

#[req_test("REQ-CACHE-001")]
#[tokio::test]
async fn each_chunk_is_with_the_client_before_the_next_one_comes() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    let mut client = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(CHUNKED).await;
    let head = client.read_head().await;
    assert_eq!(head.get("x-cache"), Some("MISS"));
    let mut body = head.response_body("GET");
    for text in ["one", "two", "three"] {
        server.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        // The origin says nothing more until the client has it.
        body.expect(&mut client, text).await;
    }
    server.send("0\r\n\r\n").await;
    body.finish(&mut client).await;
    let again = get(&proxy, "/x", "").await;
    assert_eq!((did(&again), again.text().as_str()), ("HIT", "onetwothree"));
}

/// What has come from the server in one piece goes to the client so: a write is most of what a small
/// answer takes.
#[req_test("REQ-CACHE-001")]
#[tokio::test]
async fn a_small_answer_goes_to_its_client_in_one_piece() {
    for (fields, body) in [
        ("Content-Length: 4\r\n\r\n", "body".to_owned()),
        ("Content-Length: 9000\r\n\r\n", "x".repeat(8996) + "body"),
        ("Transfer-Encoding: chunked\r\n\r\n", "4\r\nbody\r\n0\r\n\r\n".to_owned()),
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}{body}");
        let origin = Origin::bind().await.serve(move |_| Reply::from(reply.as_str()));
        let proxy = proxy(origin.addr(), "").start();
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        // Two pieces might come together by chance.
        for number in 0..20 {
            let request = format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = vec![0; 64 << 10];
            let length = within(BOUND, "an answer", client.read(&mut bytes)).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..length]);
            assert!(text.contains("x-cache: MISS") && text.contains("body"), "{text}");
        }
    }
}

#[req_test("REQ-CACHE-001")]
#[tokio::test]
async fn what_breaks_off_is_not_kept() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "").start();
    for sent in [
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nshort"
            .to_owned(),
        format!("{CHUNKED}5\r\nshort\r\n"),
        format!("{CHUNKED}5\r\nshort\r\n0\r\n"),
    ] {
        let mut client = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.read_request().await;
        server.send(&sent).await;
        let head = client.read_head().await;
        assert_eq!(head.get("x-cache"), Some("MISS"), "nothing is left of the one before");
        let mut body = head.response_body("GET");
        body.expect(&mut client, "short").await;
        drop(server);
        let (_, _, end) = body.rest(&mut client).await;
        assert!(end.is_some(), "a cut is not told as an end");
    }
    assert_eq!(
        proxy.metrics().await.sum("underpass_cache_fills_total", &[("how", "dropped")]),
        3.0
    );
}

#[req_test("REQ-CACHE-001")]
#[tokio::test]
async fn a_client_that_leaves_ends_the_fetch_unless_it_is_to_be_finished() {
    for finishes in [false, true] {
        let origin = Origin::bind().await;
        let proxy = proxy(origin.addr(), &format!("finish_fills = {finishes}")).start();
        let mut client = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.read_request().await;
        server.send(format!("{CHUNKED}3\r\none\r\n")).await;
        client.read_until("one").await;
        drop(client);
        if finishes {
            server.send("3\r\ntwo\r\n0\r\n\r\n").await;
            eventually("the rest is stored", async || {
                let got = get(&proxy, "/x", "").await;
                assert_eq!(got.text(), "onetwo");
                did(&got) == "HIT"
            })
            .await;
        } else {
            server.expect_end().await;
        }
    }
}

#[req_test("REQ-CACHE-001")]
#[tokio::test]
async fn what_is_too_large_goes_to_its_client_and_is_not_kept() {
    let origin = Origin::bind().await.serve(|seen| {
        let body = "x".repeat(100_000);
        match seen.message.head.target() {
            "/told" => answer("Cache-Control: max-age=60", &body),
            _ => format!("{CHUNKED}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        }
    });
    let rules = "max_object_bytes = \"64KiB\"";
    let proxy = with_cache(origin.addr(), "block_bytes = \"16KiB\"", rules).start();
    for target in ["/told", "/found", "/told", "/found"] {
        let got = get(&proxy, target, "").await;
        assert_eq!(got.body.len(), 100_000);
        assert_ne!(did(&got), "HIT", "{target}");
    }
    assert_eq!(origin.seen().len(), 4);
}

#[req_test("REQ-CACHE-001")]
#[tokio::test]
async fn memory_is_bounded_while_something_large_passes() {
    const LENGTH: u64 = 200 << 20;
    let origin = Origin::bind().await;
    let rules = "max_object_bytes = \"1GiB\"";
    let proxy = with_cache(origin.addr(), "memory_bytes = \"8MiB\"", rules).start();
    let mut memory = Growth::of(proxy.pid());
    let mut client = proxy.open("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server
        .send(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))
        .await;
    client.read_head().await;
    let both = async {
        tokio::join!(server.send_rest(0, LENGTH), client.check_pattern(0, LENGTH));
    };
    within(BOUND * 4, "the body", memory.during(both)).await;
    // Budget, what is on its way, buffers; far below what has passed.
    memory.assert_below(48 << 20);
}

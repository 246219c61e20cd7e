//! An answer that two parsers could read differently becomes 502; the client sees nothing
//! of it, and its connection is not used again.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Reply, Served};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Answers to a plain GET that must not pass.
fn bad_answers() -> Vec<(&'static str, String)> {
    let field = |lines: &str| format!("HTTP/1.1 200 OK\r\nX-Evil: 1\r\n{lines}\r\n\r\nhello");
    let line = |line: &str| format!("{line}\r\nX-Evil: 1\r\nContent-Length: 5\r\n\r\nhello");
    vec![
        ("different lengths", field("Content-Length: 5\r\nContent-Length: 6")),
        ("the same length twice", field("Content-Length: 5\r\nContent-Length: 5")),
        ("a list of lengths", field("Content-Length: 5, 5")),
        ("plus sign", field("Content-Length: +5")),
        ("minus sign", field("Content-Length: -5")),
        ("empty length", field("Content-Length:")),
        ("length overflows", field("Content-Length: 18446744073709551616")),
        ("coding and length", field("Transfer-Encoding: chunked\r\nContent-Length: 5")),
        ("length and coding", field("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        ("unknown coding", field("Transfer-Encoding: x")),
        ("chunked not last", field("Transfer-Encoding: chunked, gzip")),
        ("chunked twice", field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked")),
        ("near miss", field("Transfer-Encoding: xchunked")),
        ("vertical tab", field("Transfer-Encoding: \x0bchunked")),
        (
            "coding in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nX-Evil: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("bare LF", "HTTP/1.1 200 OK\nX-Evil: 1\nContent-Length: 5\n\nhello".to_owned()),
        ("bare LF behind a field", field("A: b\nContent-Length: 5")),
        ("bare CR in a value", field("A: b\rX-Injected: 1\r\nContent-Length: 5")),
        ("folded", field("Content-Length: 5\r\nA: b\r\n c")),
        ("space before the colon", field("Content-Length : 5")),
        ("space in a name", field("Content Length: 5\r\nContent-Length: 5")),
        ("NUL in a value", field("Content-Length: 5\r\nA: b\0c")),
        ("NUL in a name", field("Content-Length: 5\r\nA\0: b")),
        ("empty name", field("Content-Length: 5\r\n: b")),
        ("no colon", field("Content-Length: 5\r\nnonsense")),
        (
            "white space before the first field",
            "HTTP/1.1 200 OK\r\n X-Evil: 1\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        ),
        ("another protocol", line("ICY 200 OK")),
        ("lower case version", line("http/1.1 200 OK")),
        ("HTTP/2 in HTTP/1", line("HTTP/2 200 OK")),
        ("HTTP/2.0 in HTTP/1", line("HTTP/2.0 200 OK")),
        ("two digits", line("HTTP/1.1 20 OK")),
        ("four digits", line("HTTP/1.1 2000 OK")),
        ("letters for a status", line("HTTP/1.1 abc OK")),
        ("status below 100", line("HTTP/1.1 099 OK")),
        ("no status", line("HTTP/1.1")),
        ("two spaces", line("HTTP/1.1  200 OK")),
        ("NUL in the reason", line("HTTP/1.1 200 O\0K")),
        ("bare CR in the reason", line("HTTP/1.1 200 O\rK")),
        ("no HTTP at all", "220 mail.example ESMTP ready\r\n\r\n".to_owned()),
        ("switching protocols unasked", line("HTTP/1.1 101 Switching Protocols")),
    ]
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn doubtful_answers_become_502() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut wrong = Vec::new();
    for (why, answer) in bad_answers() {
        let mut client = proxy.open(GET).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(&answer).await;
        let head = client.read_head().await;
        if head.status() != 502 || head.has("x-evil") || head.has("x-injected") {
            wrong.push(format!("{why}: {:?}", String::from_utf8_lossy(&head.raw)));
        }
        // Whatever else it sends is not an answer to anybody.
        server.expect_end().await;
        // The client did nothing wrong: its connection goes on.
        if let Some("close") = head.get("connection") {
            continue;
        }
        head.response_body("GET").finish(&mut client).await;
        client.send(GET).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        assert_eq!(client.expect_status(200).await.text(), "ok", "behind {why}");
    }
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
}

/// Bytes behind an answer belong to no request: they must not become the next answer.
#[req_test("REQ-CORE-001.F-003", "REQ-CTRL-001")]
#[tokio::test]
async fn an_answer_nobody_asked_for_is_not_given_to_anybody() {
    let double = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst\
                  HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = Origin::bind().await.serve(move |seen| match seen.message.head.target() {
        "/double" => Reply::from(double),
        _ => Reply::ok("good"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET /double HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "first");
    for _ in 0..3 {
        client.send(GET).await;
        assert_eq!(client.expect_status(200).await.text(), "good");
    }
    assert_eq!(origin.connections(), 2);
}

/// A body where none can be is such an answer too.
#[req_test("REQ-CORE-001.F-003", "REQ-CTRL-001")]
#[tokio::test]
async fn a_body_where_there_can_be_none_is_not_taken_for_an_answer() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let length = smuggled.len();
    let origin = Origin::bind().await.serve(move |seen| match seen.message.head.target() {
        "/204" => Reply::from(format!("HTTP/1.1 204 No Content\r\n\r\n{smuggled}")),
        "/304" => Reply::from(format!(
            "HTTP/1.1 304 Not Modified\r\nContent-Length: {length}\r\n\r\n{smuggled}"
        )),
        "/head" => {
            Reply::from(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{smuggled}"))
        }
        _ => Reply::ok("good"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    for (method, path) in [("GET", "/204"), ("GET", "/304"), ("HEAD", "/head")] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let answer = client.read_response_to(method).await;
        assert!(answer.status() < 400 || answer.status() == 502, "{}", answer.head.start);
        client.send(GET).await;
        assert_eq!(client.expect_status(200).await.text(), "good", "behind {path}");
    }
}

/// The same while the connection waits in the pool.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn a_pooled_connection_that_speaks_up_is_dropped() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.expect_status(200).await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
    server.expect_end().await;
    client.send(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
    assert_eq!(client.expect_status(200).await.text(), "good");
}

#[tokio::test]
async fn odd_but_clear_answers_pass() {
    let rows = [
        ("no reason", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
        ("no space either", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        ("long reason", "HTTP/1.1 200 All is well, thanks\t!\r\nContent-Length: 2\r\n\r\nok"),
        ("reason beyond ASCII", "HTTP/1.1 200 Gr\u{fc}n\r\nContent-Length: 2\r\n\r\nok"),
        ("unknown status", "HTTP/1.1 299 Fine\r\nContent-Length: 2\r\n\r\nok"),
        ("no white space", "HTTP/1.1 200 OK\r\nContent-Length:2\r\nA:b\r\n\r\nok"),
        ("empty value", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA:\r\n\r\nok"),
        (
            "chunk extension",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n00\r\n\r\n",
        ),
        (
            "in two pieces of chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        ),
    ];
    let mut wrong = Vec::new();
    for (why, bytes) in rows {
        let origin = Served::always(bytes).await;
        let proxy = Proxy::reverse(origin.addr()).start();
        let answer = proxy.open(GET).await.read_response().await;
        if !(200..300).contains(&answer.status()) || answer.text() != "ok" {
            wrong.push(format!("{why}: {}", answer.head.start));
        }
    }
    assert!(wrong.is_empty(), "refused:\n{}", wrong.join("\n"));
}

/// An answer's head has bounds like a request's.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn an_answer_with_a_huge_head_becomes_502() {
    let origin = Origin::bind().await.serve(|seen| {
        let fields = match seen.message.head.target() {
            "/long" => format!("X-Long: {}\r\n", "x".repeat(2 << 20)),
            _ => "X-Many: x\r\n".repeat(10_000),
        };
        Reply::from(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).then_close()
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    for path in ["/long", "/many"] {
        let mut client = proxy.open(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.expect_status(502).await;
    }
}

//! A chunked request body is followed by the letter (RFC 9112 7.1): where it breaks the
//! rules it ends, for the origin as a broken request, for the client with 400.
//!
//! The head has passed by then, as streaming wants it; what matters is that the origin
//! never takes the rest for a whole request, nor sees the bytes that are wrong.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Reply, Served};

const HEAD: &str = "POST /bad HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Behind the head, or behind a first good chunk.
const FAULTS: [(&str, &str); 30] = [
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("not hexadecimal", "g\r\nhello\r\n0\r\n\r\n"),
    ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("plus sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("minus sign", "-5\r\nhello\r\n0\r\n\r\n"),
    ("space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("space behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("tab behind the size", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("underscore in the size", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("17 digits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("64 bits and more", "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("NUL in the size", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("size ends in bare LF", "5\nhello\r\n0\r\n\r\n"),
    ("size ends in bare CR", "5\rhello\r\n0\r\n\r\n"),
    ("bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
    ("data longer than its size", "3\r\nhello\r\n0\r\n\r\n"),
    ("no CRLF behind the data", "5\r\nhello0\r\n\r\n"),
    ("bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
    ("bare CR behind the data", "5\r\nhello\r0\r\n\r\n"),
    ("other bytes for CRLF", "5\r\nhelloXX0\r\n\r\n"),
    ("last chunk ends in bare LF", "0\n\r\n"),
    ("trailer without a colon", "0\r\nnonsense\r\n\r\n"),
    ("trailer without a name", "0\r\n: x\r\n\r\n"),
    ("trailer with space before the colon", "0\r\nx : y\r\n\r\n"),
    ("folded trailer", "0\r\nx: y\r\n z\r\n\r\n"),
    ("NUL in a trailer", "0\r\nx: y\0\r\n\r\n"),
    ("trailer ends in bare LF", "0\r\nx: y\n\r\n"),
    ("length as a trailer", "0\r\nContent-Length: 5\r\n\r\n"),
];

async fn all_broken(rows: impl IntoIterator<Item = (String, String)>) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut wrong = Vec::new();
    for (why, bytes) in rows {
        let mut client = proxy.open(&bytes).await;
        match client.next_head().await {
            Ok(answer) if answer.status() == 400 => {
                answer.response_body("POST").rest(&mut client).await;
                client.expect_end().await;
            }
            Ok(answer) => wrong.push(format!("{why}: {}", answer.start)),
            Err(end) => wrong.push(format!("{why}: no answer, {end:?}")),
        }
    }
    // All connections end with the proxy, so that every request that came is on record.
    drop(proxy);
    origin.deserted().await;
    for seen in origin.seen() {
        assert!(seen.message.cut.is_some(), "whole at the origin: {seen:?}");
    }
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_broken_first_chunk_is_refused() {
    all_broken(FAULTS.map(|(why, bytes)| (why.to_owned(), format!("{HEAD}{bytes}")))).await;
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_broken_chunk_behind_good_ones_is_refused() {
    let good = "5\r\nhello\r\n5;a=b\r\nworld\r\n";
    all_broken(FAULTS.map(|(why, bytes)| (why.to_owned(), format!("{HEAD}{good}{bytes}")))).await;
}

#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn extensions_and_trailers_are_bounded() {
    let extension = format!("{HEAD}5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(100_000));
    let many = "1;abcdefgh\r\nx\r\n".repeat(10) + &format!("1;{}", "b".repeat(100_000));
    let trailers = "x: 0123456789\r\n".repeat(10_000);
    let rows = [
        ("a huge extension", extension),
        ("a huge extension behind small ones", format!("{HEAD}{many}\r\nx\r\n0\r\n\r\n")),
        ("huge trailers", format!("{HEAD}0\r\n{trailers}\r\n")),
    ];
    all_broken(rows.map(|(why, bytes)| (why.to_owned(), bytes))).await;
}

#[tokio::test]
async fn odd_but_clear_bodies_pass() {
    let origin = Origin::bind().await.serve(|seen| Reply::ok(&seen.message.body));
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    let bodies = [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("0005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("5;name=value\r\nhello\r\n0;last\r\n\r\n", "hello"),
        ("5;q=\"a b\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        ("5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n", "hello"),
        ("0\r\n\r\n", ""),
    ];
    for (bytes, content) in bodies {
        client.send(format!("{HEAD}{bytes}")).await;
        assert_eq!(client.expect_status(200).await.text(), content, "{bytes:?}");
    }
}

/// Chunk framing may be cut anywhere by TCP.
#[tokio::test]
async fn chunks_may_come_byte_by_byte() {
    let origin = Origin::bind().await.serve(|seen| Reply::ok(&seen.message.body));
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(HEAD).await;
    for byte in b"5;a=b\r\nhello\r\n06\r\n world\r\n0\r\nX: y\r\n\r\n" {
        client.send([*byte]).await;
    }
    assert_eq!(client.expect_status(200).await.text(), "hello world");
}

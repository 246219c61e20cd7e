//! What is easily left out: chunks that are refused, answers that are encoded on their way.

use mantra_macros::req_test;
use underpass::record::Side;
use underpass_tests::{Origin, Proxy, Records};

/// The chunk that is too much has come, and is in the record.
#[req_test("REQ-REC-005")]
#[tokio::test]
async fn a_chunk_that_is_refused_is_recorded() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr())
        .limit("max_request_body_bytes", "8")
        .args(records.args())
        .start();
    let head = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = proxy.open(format!("{head}4\r\nfour\r\n")).await;
    let mut server = origin.accept().await;
    server.read_until("4\r\nfour\r\n").await;
    client.send("6\r\nand 6!\r\n").await;
    client.expect_status(413).await;
    let record = records.only().await;
    let body = record.body(Side::Request);
    assert_eq!(String::from_utf8_lossy(&body.bytes), "fourand 6!");
    assert_eq!(record.end.as_ref().unwrap().request_bytes, 10);
    assert!(record.is_whole(), "{record:?}");
}

/// An answer of our own is recorded as it was before its coding, like a server's.
#[req_test("REQ-REC-005")]
#[tokio::test]
async fn an_answer_of_our_own_is_recorded_behind_compression() {
    let records = Records::default();
    let text = "a line that shrinks ".repeat(100);
    let proxy = Proxy::config(format!(
        "workers = 1\n{}[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nrespond = {{ status = 200, body = \"{text}\" }}\nmiddleware = [\"m\"]\n\
         [[middleware]]\nname = \"m\"\ncompression = {{}}\n",
        records.section("")
    ))
    .start();
    let ask = "GET / HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let answer = proxy.open(ask).await.expect_status(200).await;
    assert_eq!(answer.head.get("content-encoding"), Some("gzip"), "or this shows nothing");
    let record = records.only().await;
    assert_eq!(String::from_utf8_lossy(&record.body(Side::Response).bytes), text);
    assert!(record.is_whole(), "{record:?}");
}

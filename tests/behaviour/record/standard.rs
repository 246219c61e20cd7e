//! The mode `standard`: the exchange waits for the disk, and nobody else does.

use std::time::Duration;

use mantra_macros::req_test;
use underpass::record::{Side, read::Record};
use underpass_tests::{
    HttpClient, Origin, Proxy, Records, Reply, Served, Stopped, Version, Wire, clock::STALL,
    collect, skip,
};

fn config(records: &Records, origin: std::net::SocketAddr, more: &str) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"o\"\n[[route]]\npath = \"/free\"\nrecord = false\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{origin}\"]\n",
        records.section(&format!("mode = \"standard\"\n{more}"))
    )
}

async fn stays_silent(wire: &mut Wire) {
    let read = tokio::time::timeout(STALL, wire.read_some()).await;
    assert!(read.is_err(), "{read:?} came before the disk had it");
}

#[req_test("REQ-REC-004")]
#[tokio::test]
async fn the_end_of_an_answer_waits_for_the_disk_and_only_that() {
    let served = Served::ok().await;
    let records = Records::default();
    let proxy = Proxy::config(config(&records, served.addr(), "")).start();
    let Some(stopped) = Stopped::thread(proxy.pid(), "recorder") else {
        return skip::say("the mode standard: threads cannot be traced here");
    };
    let mut client = proxy.open("GET /kept HTTP/1.1\r\nHost: t\r\n\r\n").await;
    client.read_head().await;
    stays_silent(&mut client).await;
    // The worker is free for others meanwhile.
    let mut other = proxy.open("GET /free HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(other.expect_status(200).await.text(), "ok");
    drop(stopped);
    client.expect("ok").await;
    let record = records.only().await;
    assert_eq!(record.body(Side::Response).bytes, b"ok");
}

/// Everything arrives, in both versions, whatever ends the body.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn answers_arrive_whole_over_both_versions() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                   3\r\nabc\r\n3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef";
    let empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (answer, content) in [(chunked, "abcdef"), (sized, "abcdef"), (empty, "")] {
        let served = Served::always(answer).await;
        let records = Records::default();
        let proxy = Proxy::config(config(&records, served.addr(), "")).start();
        for version in [Version::H1, Version::H2] {
            let mut client = HttpClient::connect(proxy.listener("web"), version).await;
            for _ in 0..3 {
                let (got, _) = collect(client.get("/").await.into_body()).await.expect("whole");
                assert_eq!(String::from_utf8_lossy(&got), content, "{version:?}");
            }
        }
        let found = records.ended(6).await;
        let whole = |record: &Record| {
            record.is_whole() && record.body(Side::Response).bytes == content.as_bytes()
        };
        assert!(found.iter().all(whole), "{found:?}");
        assert!(found.iter().all(|record| record.end.as_ref().unwrap().how == "complete"));
    }
}

/// A body that finds no room waits, and its sender with it.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn a_body_waits_for_room() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let more = "memory_bytes = \"128KiB\"\nmax_wait = \"1m\"";
    let proxy = Proxy::config(config(&records, origin.addr(), more)).start();
    let Some(stopped) = Stopped::thread(proxy.pid(), "recorder") else {
        return skip::say("the mode standard: threads cannot be traced here");
    };
    const LENGTH: u64 = 24 << 20;
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    client.read_head().await;
    let sent = server.send_until_stalled(0, LENGTH).await;
    assert!(sent < LENGTH, "nobody waited");
    drop(stopped);
    let sending = server.send_rest(sent, LENGTH);
    let reading = client.check_pattern(0, LENGTH);
    tokio::join!(sending, reading);
    let record = records.only().await;
    assert!(record.is_whole(), "{:?}", record.bodies.map(|body| body.gaps));
    assert_eq!(record.body(Side::Response).length, LENGTH);
    underpass_tests::pattern::check(0, &record.body(Side::Response).bytes);
}

/// It does not wait for ever.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn after_max_wait_the_exchange_goes_on() {
    let served = Served::always(Reply::ok("ok")).await;
    let records = Records::default();
    let more = format!("max_wait = \"{}ms\"", Duration::from_millis(300).as_millis());
    let proxy = Proxy::config(config(&records, served.addr(), &more)).start();
    let Some(_stopped) = Stopped::thread(proxy.pid(), "recorder") else {
        return skip::say("the mode standard: threads cannot be traced here");
    };
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "ok");
}

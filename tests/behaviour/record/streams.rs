//! Streams: chunks keep their boundaries and times, over both versions, and what breaks off says so.

use mantra_macros::req_test;
use underpass::record::Side;
use underpass_tests::{HttpClient, Origin, Proxy, Records, Version, bytes_from, collect};

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[req_test("REQ-REC-001", "REQ-REC-003")]
#[tokio::test]
async fn events_keep_their_boundaries_and_order() {
    for version in [Version::H1, Version::H2] {
        let origin = Origin::bind().await;
        let records = Records::default();
        let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let (answer, mut server) = tokio::join!(client.get("/v1?x=1"), async {
            let mut server = origin.accept().await;
            server.read_request().await;
            server.send(HEAD).await;
            server
        });
        let mut body = answer.into_body();
        let mut events = Vec::new();
        // One after the other: each has to be at the client before the next is sent.
        for number in 0..20 {
            let event = format!("data: {{\"n\":{number},\"text\":\"é{number}\"}}\n\n");
            server.send(chunk(&event)).await;
            bytes_from(&mut body, &event).await;
            events.push(event);
        }
        server.send("0\r\n\r\n").await;
        assert!(collect(body).await.expect("a clean end").0.is_empty());
        drop(client);
        let record = records.only().await;
        assert!(record.is_whole(), "{record:?}");
        let body = record.body(Side::Response);
        assert_eq!(String::from_utf8_lossy(&body.bytes), events.concat());
        let lengths: Vec<usize> = body.chunks.iter().map(|chunk| chunk.len as usize).collect();
        assert_eq!(lengths, events.iter().map(String::len).collect::<Vec<_>>());
        assert!(body.chunks.windows(2).all(|pair| pair[0].at <= pair[1].at), "{:?}", body.chunks);
        let answered = record.answer.as_ref().expect("an answer").at;
        let ended = record.end.as_ref().expect("an end").at;
        assert!(body.chunks.iter().all(|chunk| (answered..=ended).contains(&chunk.at)));
    }
}

/// A long stream is on the disk while it goes on.
#[req_test("REQ-REC-002", "REQ-REC-005")]
#[tokio::test]
async fn a_stream_is_stored_while_it_goes_on() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(HEAD).await;
    client.read_head().await;
    server.send(chunk("data: first\n\n")).await;
    let stored = || records.all().first().map(|r| r.body(Side::Response).bytes.clone());
    underpass_tests::eventually("the first event on the disk", async || {
        stored().is_some_and(|bytes| bytes == b"data: first\n\n")
    })
    .await;
    assert!(records.all()[0].end.is_none());
    drop(server);
    client.read_to_end().await;
    let record = records.only().await;
    let end = record.end.as_ref().expect("an end");
    assert_eq!((end.how.as_str(), end.error.as_deref()), ("error", Some("response_body_broken")));
    assert!(record.is_whole(), "all that came is there");
}

#[req_test("REQ-REC-001")]
#[tokio::test]
async fn a_client_that_leaves_and_trailers_are_told() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let mut client = proxy.open("GET /gone HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(HEAD).await;
    client.read_head().await;
    drop(client);
    records.ended(1).await;

    let ask = "GET /trailers HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: te\r\n\r\n";
    let mut client = proxy.open(ask).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(format!("{HEAD}{}0\r\nX-Sum: 7\r\nX-Api-Key: s3cret\r\n\r\n", chunk("x"))).await;
    client.read_response().await;
    let found = records.ended(2).await;
    let by = |path: &str| {
        let begun = |r: &&underpass::record::read::Record| r.begin.as_ref().unwrap().target == path;
        found.iter().find(begun).expect("a record").clone()
    };
    assert_eq!(by("/gone").end.unwrap().how, "client_gone");
    let trailers = &by("/trailers").bodies[1].trailers.clone();
    let shown: Vec<String> = trailers
        .iter()
        .map(|(name, value)| format!("{}={}", name.lossy(), value.lossy()))
        .collect();
    assert_eq!(shown, ["x-sum=7", "x-api-key=***"]);
}

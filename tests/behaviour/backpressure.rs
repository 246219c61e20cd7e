//! A reader that does not read is felt by the sender, and the proxy keeps little.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Reply, Served, Version, Wire, clock::BOUND, collect,
    over_versions, pattern, process::Growth, within,
};

/// What the requirement allows beside a body of any size.
const ALLOWED: u64 = 5 << 20;
const HUNDRED_MB: u64 = 100 << 20;

over_versions!(
    a_download_of_100_mb_takes_no_memory,
    an_upload_of_100_mb_takes_no_memory,
    a_client_that_does_not_read_stops_the_origin,
    an_origin_that_does_not_read_stops_the_client,
);

/// A proxy that has served one exchange of each kind, so that what is allocated once is.
async fn warm(origin: &Origin, version: Version) -> (Proxy, HttpClient) {
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let out = OutBody::Full(pattern::bytes(64 << 10).into());
    let request = client.request(Method::POST, "/warm").body(out).unwrap();
    let (answer, ()) = tokio::join!(client.send(request), async {
        let mut server = origin.accept().await;
        let request = server.read_request().await;
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
        server.send(reply).await;
        server.send(request.body).await;
        // Keeps the pool empty, so that every test meets its connection by accept.
        server.finish().await;
        server.expect_end().await;
    });
    collect(answer.unwrap().into_body()).await.unwrap();
    (proxy, client)
}

#[req_test("REQ-CORE-001.F-002", "REQ-CTRL-004")]
async fn a_download_of_100_mb_takes_no_memory(version: Version) {
    let origin = Origin::bind().await;
    let (proxy, mut client) = warm(&origin, version).await;
    let mut growth = Growth::of(proxy.pid());
    let serving = async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUNDRED_MB}\r\n\r\n")).await;
        server.exchange_pattern(HUNDRED_MB, false, 0).await;
    };
    let reading = async { drain(client.get("/").await).await };
    let ((), read) = growth.during(async { tokio::join!(serving, reading) }).await;
    assert_eq!(read, HUNDRED_MB);
    growth.assert_below(ALLOWED);
}

#[req_test("REQ-CORE-001.F-002", "REQ-CTRL-004")]
async fn an_upload_of_100_mb_takes_no_memory(version: Version) {
    let origin = Origin::bind().await;
    let (proxy, mut client) = warm(&origin, version).await;
    let mut growth = Growth::of(proxy.pid());
    let (body, out) = OutBody::sized(HUNDRED_MB);
    let request = client.request(Method::POST, "/").header("content-length", HUNDRED_MB);
    let answer = client.send(request.body(out).unwrap());
    let sending = async {
        let mut sent = 0;
        while sent < HUNDRED_MB {
            let piece = pattern::at(sent, HUNDRED_MB - sent);
            body.send(piece).await;
            sent += piece.len() as u64;
        }
    };
    let serving = async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.check_pattern(0, HUNDRED_MB).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        server
    };
    let all = async { tokio::join!(sending, serving, answer) };
    let (_, _, answer) = growth.during(all).await;
    assert_eq!(answer.unwrap().status(), 200);
    growth.assert_below(ALLOWED);
}

#[req_test("REQ-CTRL-004")]
async fn a_client_that_does_not_read_stops_the_origin(version: Version) {
    let origin = Origin::bind().await;
    let (proxy, mut client) = warm(&origin, version).await;
    let mut growth = Growth::of(proxy.pid());
    let (answer, mut server) = tokio::join!(client.get("/"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUNDRED_MB}\r\n\r\n")).await;
        server
    });
    // Nobody polls the body: hyper's client stops reading, HTTP/2 stops granting window.
    let sent = growth.during(server.send_until_stalled(0, HUNDRED_MB)).await;
    assert!(sent < HUNDRED_MB, "the origin could send everything to a client that read nothing");
    growth.assert_below(ALLOWED);
    // And nothing is lost when the client reads at last.
    let sending = async { server.send_rest(sent, HUNDRED_MB).await };
    let (read, ()) = tokio::join!(drain(answer), sending);
    assert_eq!(read, HUNDRED_MB);
}

#[req_test("REQ-CTRL-004")]
async fn an_origin_that_does_not_read_stops_the_client(version: Version) {
    let origin = Origin::bind_narrow();
    let (proxy, mut client) = warm(&origin, version).await;
    let mut growth = Growth::of(proxy.pid());
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let sent = growth.during(body.send_until_stalled(0, HUNDRED_MB)).await;
    assert!(sent < HUNDRED_MB, "the client could send everything to an origin that read nothing");
    growth.assert_below(ALLOWED);
    drop(body);
    let mut upload = head.request_body();
    let (mut read, mut trailers) = (0, Vec::new());
    while let Some(piece) = upload.next(&mut server, &mut trailers).await.expect("not cut") {
        pattern::check(read, &piece);
        read += piece.len() as u64;
    }
    // One piece more may have been handed over when the sender was given up on.
    assert!(read >= sent && read <= sent + 64 * 1024, "{sent} bytes sent, {read} arrived");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer.await.unwrap().status(), 200);
}

/// One stream whose reader sleeps does not hold up another (RFC 9113 5.2).
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_stalled_h2_stream_does_not_stall_its_connection() {
    let origin = Origin::bind().await;
    let (_proxy, mut client) = warm(&origin, Version::H2).await;
    let (stalled, mut server) = tokio::join!(client.get("/stalled"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUNDRED_MB}\r\n\r\n")).await;
        server
    });
    server.send_until_stalled(0, HUNDRED_MB).await;
    let (answer, ()) = tokio::join!(client.get("/other"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    drop(stalled);
}

/// A hundred clients that do not read cost a hundred small buffers, not a hundred bodies.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn many_stalled_downloads_stay_small() {
    const CLIENTS: u64 = 40;
    let content = pattern::bytes(8 << 20);
    let origin = Served::always(Reply::ok(&content)).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    let mut growth = Growth::of(proxy.pid());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Wire::connect_narrow(proxy.addr()).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        growth.during(client.read_head()).await;
    }
    // Each may hold a read buffer and what hyper queues to write: far less than 8 MB.
    growth.assert_below(CLIENTS * (1 << 20));
}

async fn drain(answer: http::Response<hyper::body::Incoming>) -> u64 {
    use http_body_util::BodyExt;
    let (mut body, mut read) = (answer.into_body(), 0);
    while let Some(frame) = within(BOUND, "more of the body", body.frame()).await {
        if let Ok(data) = frame.expect("the body to go on").into_data() {
            pattern::check(read, &data);
            read += data.len() as u64;
        }
    }
    read
}

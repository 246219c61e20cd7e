//! The support tried on itself: clients against origins with no proxy between them.
//!
//! Says which side is to blame when a behaviour test fails.

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::{
    BodySender, End, HttpClient, Nginx, Origin, OutBody, Refusing, Reply, Saturated, Served,
    Version, Wire, collect,
    curl::{curl, peer},
    pattern, websocket,
};

#[tokio::test]
async fn wire_tells_fin_from_reset() {
    let origin = Origin::bind().await;
    let mut client = Wire::open(origin.addr(), "a").await;
    let mut server = origin.accept().await;
    server.expect("a").await;
    server.send("last").await;
    drop(server);
    assert_eq!(client.read_to_end().await, (b"last".to_vec(), End::Fin));

    let mut client = Wire::open(origin.addr(), "a").await;
    origin.accept().await.reset();
    assert_eq!(client.expect_end().await, End::Reset);
}

#[tokio::test]
async fn bodies_are_read_by_their_framing() {
    let origin = Origin::bind().await;
    let mut client = Wire::connect(origin.addr()).await;
    let mut server = origin.accept().await;
    client
        .send(
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
        )
        .await;
    let request = server.read_request().await;
    assert_eq!(request.body, b"abcde");
    assert_eq!(request.trailers, [("T".to_owned(), "1".to_owned())]);
    assert_eq!((request.head.method(), request.head.target()), ("POST", "/a"));

    server.send("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest").await;
    assert_eq!(client.expect_status(204).await.body, b"");
    drop(server);
    assert_eq!(client.expect_status(200).await.body, b"rest");
}

#[tokio::test]
async fn a_cut_body_is_not_a_whole_one() {
    let cuts = [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ];
    for cut in cuts {
        let origin = Served::always(Reply::from(cut).then_close()).await;
        let mut client = Wire::open(origin.addr(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let response = client.expect_status(200).await;
        assert_eq!((response.text().as_str(), response.cut), ("abc", Some(End::Fin)), "{cut}");
    }
}

#[tokio::test]
async fn hyper_client_streams_both_ways() {
    let origin = Origin::bind().await;
    let mut client = HttpClient::connect(origin.addr(), Version::H1).await;
    let mut server = origin.accept().await;
    let (body, out): (BodySender, OutBody) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let playing = async {
        let head = server.read_head().await;
        let mut reader = head.request_body();
        body.send("one").await;
        reader.expect(&mut server, "one").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("t", "v".parse().unwrap());
        body.trailers(trailers).await;
        reader.finish(&mut server).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    };
    let (answer, ()) = tokio::join!(answer, playing);
    assert_eq!(collect(answer.unwrap().into_body()).await.unwrap().0, b"ok");
}

#[tokio::test]
async fn served_origin_counts_connections_and_requests() {
    let origin = Served::ok().await;
    let mut client = HttpClient::connect(origin.addr(), Version::H1).await;
    let full = OutBody::Full(Bytes::from_static(b"xyz"));
    let request = client.request(Method::POST, "/p").body(full).unwrap();
    collect(client.send(request).await.unwrap().into_body()).await.unwrap();
    collect(client.get("/g").await.into_body()).await.unwrap();
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.targets(), ["/p", "/g"]);
    assert_eq!(origin.seen()[0].message.body, b"xyz");
}

#[tokio::test]
async fn a_stalled_reader_is_felt_and_recovers() {
    let origin = Origin::bind_narrow();
    let mut client = Wire::connect(origin.addr()).await;
    let mut server = origin.accept().await;
    let sent = client.send_until_stalled(0, 64 << 20).await;
    assert!(sent < 64 << 20);
    server.check_pattern(0, sent).await;
}

#[tokio::test]
async fn pattern_goes_both_ways_at_once() {
    const SIZE: u64 = 20 << 20;
    let origin = Origin::bind().await;
    let mut client = Wire::connect(origin.addr()).await;
    let mut server = origin.accept().await;
    tokio::join!(
        client.exchange_pattern(SIZE, true, SIZE),
        server.exchange_pattern(SIZE, true, SIZE)
    );
    client.expect_fin().await;
    server.expect_fin().await;
}

#[tokio::test]
async fn some_addresses_cannot_be_connected_to() {
    let refusing = Refusing::bind();
    assert!(std::net::TcpStream::connect(refusing.addr()).is_err());
    let saturated = Saturated::bind();
    let wait = std::time::Duration::from_millis(100);
    assert!(std::net::TcpStream::connect_timeout(&saturated.addr(), wait).is_err());
}

#[tokio::test]
async fn websocket_echoes() {
    let origin = Origin::bind().await;
    let address = origin.addr();
    let serving = tokio::spawn(async move { websocket::echo(origin.accept().await).await });
    let mut socket = websocket::open(address).await;
    websocket::round_trip(&mut socket, "hello").await;
    websocket::round_trip(&mut socket, pattern::bytes(1 << 20)).await;
    websocket::close(socket).await;
    serving.await.unwrap();
}

#[tokio::test]
async fn curl_reads_from_nginx() {
    if !peer("curl") {
        return;
    }
    let Some(nginx) = Nginx::serve(&[("a.txt", b"0123456789")]) else { return };
    let url = format!("http://{}/a.txt", nginx.addr());
    assert_eq!(curl(&["-r", "2-4", &url]).await.text(), "234");
    assert_eq!(nginx.access_log().len(), 1);
}

//! Bodies inside TLS: whole, bounded in memory, and never taken for whole where they are cut.

use mantra_macros::req_test;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Served, Version, collect, eventually, pattern,
    process::Growth,
    tls::{Authority, Folder, Secured, TlsClient, TlsEnd},
};

use super::{certificates, proxy};

struct Bed {
    authority: Authority,
    proxy: Proxy,
    _folder: Folder,
}

impl Bed {
    fn new(server: std::net::SocketAddr) -> Self {
        let (authority, folder) = (Authority::new("ca"), Folder::default());
        folder.put("site", &authority.server(&["a.test"]));
        let proxy = proxy("", &certificates(&folder, &["site"]), server).start();
        Self { authority, proxy, _folder: folder }
    }

    async fn connect(&self) -> Secured {
        let client = TlsClient::trusting(&self.authority);
        client.connect(self.proxy.listener("web"), "a.test").await
    }

    async fn http(&self, version: Version) -> HttpClient {
        let name = if version == Version::H2 { "h2" } else { "http/1.1" };
        let client = TlsClient::trusting(&self.authority).alpn(&[name]);
        let connection = client.connect(self.proxy.listener("web"), "a.test").await;
        HttpClient::over_tls(connection.0, "a.test", version).await
    }
}

/// More than anybody on the way may keep.
const LARGE: u64 = 64 << 20;
/// Buffers of both sides, of hyper and of TLS, many times over.
const MOST: u64 = 24 << 20;

#[req_test("REQ-EDGE-006", "REQ-CTRL-004")]
#[tokio::test]
async fn a_slow_reader_stops_the_server() {
    let origin = Origin::bind().await;
    let bed = Bed::new(origin.addr());
    let mut client = bed.connect().await;
    let mut growth = Growth::of(bed.proxy.pid());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    let sent = growth.during(server.send_until_stalled(0, LARGE)).await;
    assert!(sent < LARGE, "nothing stops the server");
    client.read_until("\r\n\r\n").await;
    let read = async {
        let (mut at, mut room) = (0, vec![0; 1 << 16]);
        while at < LARGE {
            let n = client.0.read(&mut room).await.unwrap();
            assert!(n > 0, "ended after {at}");
            pattern::check(at, &room[..n]);
            at += n as u64;
        }
    };
    let work = async { tokio::join!(server.send_rest(sent, LARGE), read) };
    growth.during(work).await;
    growth.assert_below(MOST);
    // The connection is as good as new after all that.
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.read_response().await.text(), "ok");
}

#[req_test("REQ-EDGE-006", "REQ-CTRL-004")]
#[tokio::test]
async fn a_slow_server_stops_the_client() {
    let origin = Origin::bind().await;
    let bed = Bed::new(origin.addr());
    let mut client = bed.connect().await;
    let mut growth = Growth::of(bed.proxy.pid());
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LARGE}\r\n\r\n"))
        .await;
    let mut server = origin.accept().await;
    server.read_head().await;
    let mut sent = 0;
    let stall = async {
        while sent < LARGE {
            let piece = pattern::at(sent, (1 << 16).min(LARGE - sent));
            client.0.write_all(piece).await.unwrap();
            sent += piece.len() as u64;
        }
    };
    let bounded = tokio::time::timeout(std::time::Duration::from_secs(2), stall);
    assert!(growth.during(bounded).await.is_err(), "nothing stops the client");
    growth.assert_below(MOST);
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    for version in [Version::H1, Version::H2] {
        let origin =
            Origin::bind().await.serve(|seen| underpass_tests::Reply::ok(&seen.message.body));
        let bed = Bed::new(origin.addr());
        let mut client = bed.http(version).await;
        let content = pattern::bytes(8 << 20);
        let body = OutBody::Full(content.clone().into());
        let request = client.request(http::Method::POST, "/").body(body).unwrap();
        let answer = client.send(request).await.unwrap();
        assert!(collect(answer.into_body()).await.unwrap().0 == content, "{version:?}");
    }
}

/// The server must not take for whole what somebody on the way has cut.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_request_that_is_cut_is_not_passed_on_as_whole() {
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let origin = Origin::bind().await;
        let bed = Bed::new(origin.addr());
        let mut client = bed.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n4\r\nhalf")).await;
        let mut server = origin.accept().await;
        server.read_until("half").await;
        let socket = client.0.get_ref().0;
        socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write).unwrap();
        let (rest, _) = server.read_to_end().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
        let log = bed.proxy.log_line(&["end=client_gone"]).await;
        assert!(log.contains("POST"), "{log}");
    }
}

/// A body that only the end of the connection ends is closed with a word where it is whole, and
/// without one where it is not.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn an_answer_that_breaks_off_ends_without_a_word() {
    for whole in [true, false] {
        let origin = Origin::bind().await;
        let bed = Bed::new(origin.addr());
        let mut client = bed.connect().await;
        client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        client.read_until("half").await;
        if whole {
            server.send("0\r\n\r\n").await;
        } else {
            server.finish().await;
        }
        let (_, end) = client.read_to_end().await;
        assert_eq!(end == TlsEnd::Closed, whole, "{end:?}");
    }
}

/// An answer with a length that breaks off is short, and no close_notify says otherwise.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_cut_answer_is_cut_for_the_client() {
    let origin = Origin::bind().await;
    let bed = Bed::new(origin.addr());
    let mut client = bed.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    client.read_until("half").await;
    server.finish().await;
    assert_ne!(client.read_to_end().await.1, TlsEnd::Closed);
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_drain_says_goodbye() {
    let origin = Served::ok().await;
    let mut bed = Bed::new(origin.addr());
    let mut idle = bed.connect().await;
    assert_eq!(idle.get("a.test").await.text(), "ok");
    let mut h2 = bed.http(Version::H2).await;
    collect(h2.get("/").await.into_body()).await.unwrap();
    bed.proxy.term();
    // close_notify; GOAWAY, after which hyper's client closes.
    assert_eq!(idle.read_to_end().await, (Vec::new(), TlsEnd::Closed));
    h2.closed().await;
    assert_eq!(bed.proxy.exited().await.code(), Some(0));
}

/// The last answer of a connection is whole before it ends, and one that idles ends with a word.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn an_end_between_requests_has_a_word() {
    let origin = Served::ok().await;
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let tls = certificates(&folder, &["site"]) + "[listener.limits]\nidle_timeout = \"300ms\"\n";
    let proxy = proxy("", &tls, origin.addr()).start();
    let client = TlsClient::trusting(&authority);
    let mut last = client.connect(proxy.listener("web"), "a.test").await;
    last.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(last.read_response().await.text(), "ok");
    assert_eq!(last.read_to_end().await, (Vec::new(), TlsEnd::Closed));
    let mut idle = client.connect(proxy.listener("web"), "a.test").await;
    assert_eq!(idle.get("a.test").await.text(), "ok");
    assert_eq!(idle.read_to_end().await, (Vec::new(), TlsEnd::Closed));
    // It is not parked: a session is more than a socket.
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_connections_parked", &[]), 0.0);
    eventually("all to be closed", async || {
        proxy.metrics().await.sum("underpass_connections_open", &[]) == 0.0
    })
    .await;
}

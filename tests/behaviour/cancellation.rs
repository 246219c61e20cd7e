//! Whoever goes away ends what was done for them, at once (REQ-CORE-001 F-003).

use std::time::Duration;

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    End, HttpClient, Origin, OutBody, Proxy, Saturated, Version, Wire, bytes_from, eventually,
    over_versions, process::connecting_to, within,
};

/// The requirement says 100 ms on a quiet machine; the suite shares two cores.
const AT_ONCE: Duration = Duration::from_secs(2);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

over_versions!(
    giving_up_before_the_answer,
    giving_up_during_the_answer,
    giving_up_during_the_upload
);

async fn ends_at_once(server: &mut Wire) -> End {
    let (end, took) = server.time_to_end().await;
    assert!(took < AT_ONCE, "the origin saw the end only after {took:?}");
    end
}

/// How a raw client leaves.
fn leave(client: Wire, reset: bool) {
    if reset { client.reset() } else { drop(client) }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_request() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for reset in [false, true] {
        let client = proxy.open(GET).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        leave(client, reset);
        ends_at_once(&mut server).await;
    }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_client_that_leaves_during_the_answer_ends_the_request() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for reset in [false, true] {
        let mut client = proxy.open(GET).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        client.read_until("hello").await;
        leave(client, reset);
        // The origin sends nothing more: the proxy has to notice by the client alone.
        ends_at_once(&mut server).await;
    }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_client_that_leaves_during_the_upload_breaks_it() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let heads = [
        ("Content-Length: 100", "half"),
        ("Transfer-Encoding: chunked", "9\r\nhalf"),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n"),
    ];
    for (framing, begin) in heads {
        for reset in [false, true] {
            let head = format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{begin}");
            let client = proxy.open(head).await;
            let mut server = origin.accept().await;
            let head = server.read_head().await;
            let mut upload = head.request_body();
            upload.expect(&mut server, "half").await;
            leave(client, reset);
            let waiting = upload.rest(&mut server);
            let (_, _, cut) = within(AT_ONCE, "the cut to reach the origin", waiting).await;
            assert!(cut.is_some(), "{framing}: half an upload was passed on as a whole one");
        }
    }
}

/// While the server takes nothing of an upload nobody reads from the client, and what it has sent
/// stands before its end; it is noticed when the server has had its time.
#[req_test("REQ-CORE-001.F-003", "REQ-CTRL-004")]
#[tokio::test]
async fn a_client_that_leaves_while_its_upload_is_held_up_is_noticed_in_time() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("body_idle_timeout", "1s").start();
    for reset in [false, true] {
        let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\n";
        let mut client = proxy.open(head).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        client.send_until_stalled(0, 1_000_000_000).await;
        leave(client, reset);
        eventually("the request to be over", async || {
            let metrics = proxy.metrics().await;
            let open = ["underpass_connections_open", "underpass_server_connections_open"];
            open.map(|name| metrics.sum(name, &[])) == [0.0; 2]
        })
        .await;
        drop(server);
    }
}

/// An incomplete head is nobody's business but ours.
#[tokio::test]
async fn a_client_that_leaves_in_the_head_never_reaches_the_origin() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for reset in [false, true] {
        leave(proxy.open("GET /half HTTP/1.1\r\nHos").await, reset);
        leave(proxy.connect().await, reset);
    }
    eventually("the connections to be closed", async || {
        let metrics = proxy.metrics().await;
        let of = |name: &str| metrics.sum(&format!("underpass_connections_{name}"), &[]);
        (of("accepted_total"), of("open")) == (4.0, 0.0)
    })
    .await;
    let _client = proxy.open("GET /marker HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(origin.accept().await.read_head().await.target(), "/marker");
}

/// Nobody is waiting for that connection any more: it is not waited for.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_client_that_leaves_ends_the_attempt_to_connect() {
    let saturated = Saturated::bind();
    let proxy = Proxy::reverse(saturated.addr()).limit("connect_timeout", "10m").start();
    let attempts = || connecting_to(saturated.addr());
    for reset in [false, true] {
        let client = proxy.open(GET).await;
        eventually("the attempt to connect", async || attempts() == 1).await;
        leave(client, reset);
        eventually("the attempt to be given up", async || attempts() == 0).await;
    }
}

/// Over HTTP/2 a stream is given up by RST_STREAM while its connection goes on.
#[req_test("REQ-CORE-001.F-003")]
async fn giving_up_before_the_answer(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let request = client.request(Method::GET, "/").body(OutBody::Empty).unwrap();
    let answer = client.send(request);
    let mut server = origin.accept().await;
    server.read_head().await;
    drop(answer);
    if version == Version::H1 {
        client.abort();
    }
    ends_at_once(&mut server).await;
    if version == Version::H2 {
        goes_on(client, &origin).await;
    }
}

#[req_test("REQ-CORE-001.F-003")]
async fn giving_up_during_the_answer(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (answer, mut server) = tokio::join!(client.get("/"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").await;
        server
    });
    let mut body = answer.into_body();
    bytes_from(&mut body, "hello").await;
    drop(body);
    ends_at_once(&mut server).await;
    if version == Version::H2 {
        goes_on(client, &origin).await;
    }
}

#[req_test("REQ-CORE-001.F-003")]
async fn giving_up_during_the_upload(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let mut upload = head.request_body();
    body.send("half").await;
    upload.expect(&mut server, "half").await;
    body.abort().await;
    let (_, _, cut) =
        within(AT_ONCE, "the cut to reach the origin", upload.rest(&mut server)).await;
    assert!(cut.is_some(), "half an upload was passed on as a whole one");
    assert!(answer.await.is_err());
    if version == Version::H2 {
        goes_on(client, &origin).await;
    }
}

/// All streams of an HTTP/2 connection end with it.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn the_end_of_an_h2_connection_ends_its_streams() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let mut servers = Vec::new();
    let mut answers = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let request = client.request(Method::GET, path).body(OutBody::Empty).unwrap();
        answers.push(client.send(request));
        let mut server = origin.accept().await;
        server.read_head().await;
        servers.push(server);
    }
    client.abort();
    for server in &mut servers {
        ends_at_once(server).await;
    }
}

/// The client need not send the rest of a body that nobody reads any more.
#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbegin";
    let mut client = proxy.open(head).await;
    let mut server = origin.accept().await;
    server.read_until("begin").await;
    let reply =
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    server.send(reply).await;
    drop(server);
    assert_eq!(client.expect_status(413).await.text(), "no");
}

async fn goes_on(mut client: HttpClient, origin: &Origin) {
    let (answer, ()) = tokio::join!(client.get("/next"), async {
        let mut server = origin.accept().await;
        assert_eq!(server.read_head().await.target(), "/next");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    });
    assert_eq!(answer.status(), 200);
}

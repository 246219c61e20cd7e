//! How long and how many: head, idle and body timeouts, number of connections.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Served, Version, eventually,
    h2_frames::{DATA, Fate, Frames},
    over_versions,
};

over_versions!(an_idle_connection_is_closed, a_stalled_upload_is_given_up);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn a_head_that_does_not_end_times_out() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("head_timeout", "300ms").start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHos").await;
    client.expect_status(408).await;
    client.expect_end().await;
    // The second head of a connection is timed like the first.
    let mut client = proxy.open(GET).await;
    client.expect_status(200).await;
    client.send("GET /half HT").await;
    client.expect_status(408).await;
    client.expect_end().await;
    assert_eq!(origin.targets(), ["/"]);
}

/// One byte now and then does not keep a head alive.
#[tokio::test]
async fn a_head_that_trickles_times_out() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("head_timeout", "500ms").start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nX: ").await;
    let mut sent = 0;
    while client.try_send("x").await.is_ok() && sent < 200 {
        sent += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(sent < 200, "the head was waited for although it had timed out");
}

/// A connection that never says anything ends too.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr())
        .limit("head_timeout", "300ms")
        .limit("idle_timeout", "300ms")
        .start();
    proxy.connect().await.read_to_end().await;
}

async fn an_idle_connection_is_closed(version: Version) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("idle_timeout", "300ms").start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    assert_eq!(client.get("/").await.status(), 200);
    client.closed().await;
}

/// It is closed without a word: an answer to nothing could be taken for that to the next
/// request.
#[tokio::test]
async fn an_idle_connection_is_closed_silently() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("idle_timeout", "300ms").start();
    let mut client = proxy.open(GET).await;
    client.expect_status(200).await;
    client.expect_fin().await;
}

/// An exchange under way is not idle, however slow the answer is.
#[tokio::test]
async fn a_slow_answer_is_not_idle() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("idle_timeout", "200ms").start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    // Another connection's idle end shows that the time has passed.
    let mut idle = proxy.connect().await;
    idle.send("GET /idle HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut other = origin.accept().await;
    other.read_head().await;
    other.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    idle.expect_status(200).await;
    idle.expect_fin().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.expect_status(200).await.text(), "ok");
}

async fn a_stalled_upload_is_given_up(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("body_idle_timeout", "300ms").start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (body, out) = OutBody::sized(100);
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    body.send("some").await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    let mut upload = head.request_body();
    upload.expect(&mut server, "some").await;
    assert_eq!(answer.await.unwrap().status(), 408);
    assert!(upload.rest(&mut server).await.2.is_some());
}

/// The client sends, but the origin takes nothing: the fault is the origin's.
#[tokio::test]
async fn an_upload_that_the_origin_does_not_take_is_504() {
    let origin = Origin::bind_narrow();
    let proxy = Proxy::reverse(origin.addr()).limit("body_idle_timeout", "500ms").start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H1).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    server.read_head().await;
    let flooding = async { while body.try_send(vec![b'x'; 64 * 1024]).await {} };
    let (answer, ()) = tokio::join!(answer, flooding);
    assert_eq!(answer.unwrap().status(), 504);
}

#[tokio::test]
async fn a_stalled_answer_is_cut() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("body_idle_timeout", "300ms").start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome").await;
    let answer = client.expect_status(200).await;
    assert_eq!(answer.text(), "some");
    assert!(answer.cut.is_some());
    server.expect_end().await;
}

/// Over HTTP/2, where a client may let its first bytes come and then no more: the last piece of an
/// answer is not done with when it is handed over.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn the_last_piece_of_an_answer_has_a_deadline_too() {
    // Together more than the window of a stream that says nothing of it, 65,535 bytes.
    let (first, last) = (vec![b'a'; 60_000], vec![b'b'; 10_000]);
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("body_idle_timeout", "2s").start();
    let mut client = Frames::open(proxy.connect().await).await;
    let authority = proxy.addr().to_string();
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", authority.as_bytes()),
    ];
    let stream = client.request(&fields, true).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n").await;
    server.send(first).await;
    assert_eq!(client.fate(stream).await, Fate::Answered(Some(200)));
    assert_eq!(client.until(DATA).await, stream);
    server.send(last).await;
    let fate = client.fate(stream).await;
    assert!(matches!(fate, Fate::Reset(_)), "{fate:?}");
    proxy.log_line(&["response_bytes=70000", "end=client_gone"]).await;
}

/// Beyond the limit connections wait in the kernel's queue; they are not refused.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn accepting_pauses_at_the_limit_and_goes_on() {
    for workers in ["1", "2"] {
        pauses_and_goes_on(workers).await;
    }
}

/// The limit is the listener's, however many workers share it.
async fn pauses_and_goes_on(workers: &str) {
    let origin = Served::ok().await;
    let proxy = Proxy::config(format!(
        "workers = {workers}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [listener.limits]\nmax_connections = 2\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        origin.addr()
    ));
    let proxy = proxy.start();
    let mut first = proxy.open(GET).await;
    let mut second = proxy.open(GET).await;
    first.expect_status(200).await;
    second.expect_status(200).await;
    let mut third = proxy.open("GET /third HTTP/1.1\r\nHost: test\r\n\r\n").await;
    eventually("the pause to be counted", async || {
        proxy.metrics().await.sum("underpass_accept_pauses_total", &[]) > 0.0
    })
    .await;
    // The first two are served as before.
    first.send(GET).await;
    first.expect_status(200).await;
    assert_eq!(origin.targets(), ["/", "/", "/"]);
    drop(second);
    third.expect_status(200).await;
    assert_eq!(origin.targets().last().map(String::as_str), Some("/third"));
}

/// A connection that was accepted and waits for a place is served when its listener goes, beyond
/// the limit: nobody else can.
#[tokio::test]
async fn a_connection_that_waits_for_a_place_is_served_when_its_listener_goes() {
    let origin = Served::ok().await;
    let text = |name: &str| {
        format!(
            "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n\
             [listener.limits]\nmax_connections = 1\n\
             [[route]]\nupstream = \"one\"\n\
             [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
            origin.addr()
        )
    };
    let mut proxy = Proxy::config(text("web")).start();
    let mut first = proxy.open(GET).await;
    first.expect_status(200).await;
    let mut waits = proxy.open("GET /waits HTTP/1.1\r\nHost: test\r\n\r\n").await;
    eventually("the pause to be counted", async || {
        proxy.metrics().await.sum("underpass_accept_pauses_total", &[]) > 0.0
    })
    .await;
    proxy.reload(&text("other")).await;
    assert_eq!(waits.expect_status(200).await.head.get("connection"), Some("close"));
    waits.expect_fin().await;
    assert_eq!(origin.targets(), ["/", "/waits"]);
}

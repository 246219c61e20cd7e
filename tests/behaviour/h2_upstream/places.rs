//! Places of shared connections among those that there may be: given back by each that takes no
//! more requests, so that a long stream, a reload or a busy worker keeps nobody out.

use std::time::Duration;

use h2::server::Builder;
use http::Response;
use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Version, Wire, bytes_from, collect, eventually,
    h2_frames::{self, Frames},
    h2_origin::{H2Origin, H2Served, H2Stream},
};

use super::{client, proxy};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn served() -> H2Served {
    let answer = |mut stream: H2Stream| async move { stream.ok("ok") };
    H2Origin::bind().await.serve(Builder::new(), answer)
}

/// Another pool comes for the one that there was; its connections end with it.
#[req_test("REQ-EDGE-005", "REQ-EDGE-008")]
#[tokio::test]
async fn a_reload_ends_the_connections_of_pools_that_are_gone() {
    let served = served().await;
    let mut proxy = proxy(served.addr(), "max_connections = 1");
    let text = std::fs::read_to_string(proxy.config_path()).expect("configuration");
    let mut wire = Wire::open(proxy.listener("web"), GET).await;
    wire.expect_status(200).await;
    for time in ["41s", "42s"] {
        let changed =
            text.replace("max_connections", &format!("idle_timeout = \"{time}\"\nmax_connections"));
        proxy.reload(&changed).await;
        wire.send(GET).await;
        wire.expect_status(200).await;
        eventually("one open connection", async || served.open() == 1).await;
    }
    assert_eq!(served.connections(), 3);
}

/// The server has said that it wants no more requests on a connection, and has one left.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_connection_that_only_finishes_keeps_no_place() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "max_connections = 1");
    let mut long = client(&proxy, Version::H1).await;
    let (answer, (mut first, stream)) = tokio::join!(long.get("/long"), async {
        let mut first = Frames::serve(origin.accept_raw().await).await;
        let stream = first.until(h2_frames::HEADERS).await;
        first.begin(stream).await;
        first.go_away(stream, 0).await;
        (first, stream)
    });
    let mut other = client(&proxy, Version::H1).await;
    let (answer_of_other, ()) = tokio::join!(other.get("/other"), async {
        origin.accept().await.next().await.ok("other");
    });
    assert_eq!(answer_of_other.status(), 200);
    first.data(stream, b"still here", true).await;
    bytes_from(&mut answer.into_body(), "still here").await;
}

/// One worker has the only connection and never lets go of it by itself.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_busy_worker_shares_with_others() {
    let origin = H2Origin::bind().await;
    let served = origin.serve(Builder::new(), |mut stream: H2Stream| async move {
        if stream.path() == "/long" {
            let _body = stream.begin(Response::new(()));
            stream.is_reset().await;
        } else {
            stream.ok("ok");
        }
    });
    let proxy = Proxy::config(format!(
        "workers = 2\n[limits]\nconnect_timeout = \"10s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nsteering = \"hash\"\n\
         [[route]]\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nprotocol = \"http2\"\n\
         [[upstream.server]]\naddress = \"{}\"\nmax_connections = 1\n",
        served.addr()
    ))
    .start();
    let long = Wire::open(proxy.addr(), GET.replace("/ ", "/long ")).await;
    eventually("the long answer", async || served.connections() == 1).await;
    // By the kernel's hash both workers have some of them.
    for _ in 0..16 {
        Wire::open(proxy.addr(), GET).await.expect_status(200).await;
    }
    assert!(served.connections() > 1, "all clients were at one worker");
    drop(long);
}

/// What a server allows is remembered from one connection to the next: a burst is not sent to
/// where most of it is refused.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_burst_goes_by_what_the_server_has_allowed_before() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(5);
    let served = H2Origin::bind().await.serve(builder, |mut stream: H2Stream| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.ok("ok");
    });
    let proxy = proxy(served.addr(), "");
    Wire::open(proxy.listener("web"), GET).await.expect_status(200).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let address = proxy.listener("web");
        clients.spawn(async move {
            let mut wire = Wire::open(address, GET).await;
            wire.read_response().await.status()
        });
    }
    assert_eq!(clients.join_all().await, [200; 60]);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_upstream_stale_retries_total", &[]), 0.0);
}

/// A connection from which nothing comes any more, not even an end, is one request's harm.
#[req_test("REQ-EDGE-005", "REQ-EDGE-003")]
#[tokio::test]
async fn a_dead_connection_is_not_asked_again() {
    let origin = H2Origin::bind().await;
    let mut proxy = proxy(origin.addr(), "");
    let text = std::fs::read_to_string(proxy.config_path()).expect("configuration");
    let limits = "[limits]\nresponse_timeout = \"2s\"";
    proxy.reload(&text.replace("[limits]", limits)).await;
    let mut client = client(&proxy, Version::H1).await;
    let (answer, _dead) = tokio::join!(client.get("/"), async {
        let mut frames = Frames::serve(origin.accept_raw().await).await;
        let stream = frames.until(h2_frames::HEADERS).await;
        frames.answer(stream, "ok").await;
        frames
    });
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    // Nobody reads there any more.
    assert_eq!(client.get("/").await.status(), 504);
    let mut client = super::client(&proxy, Version::H1).await;
    let (answer, ()) = tokio::join!(client.get("/"), async {
        origin.accept().await.next().await.ok("ok");
    });
    assert_eq!(answer.status(), 200);
}

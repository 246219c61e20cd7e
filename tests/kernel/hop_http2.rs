//! Local bypass of inspected HTTP/2: one connection carries many exchanges both ways at once, and
//! each of them arrives as it was sent.
//!
//! What the gate does with order, bounds and ends is the same as over HTTP/1.1 (`hop.rs`).

use bytes::Bytes;
use h2::server::Builder;
use http::{Method, Response};
use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{
    Engine, HttpClient, OutBody, Proxy, Version,
    client::collect,
    engine::ready,
    eventually,
    h2_origin::{H2Origin, H2Served, send_all},
    pattern,
};

/// Exchanges within which both connections bypass: that is tried before the second write, the fourth
/// and so on to the 256th, and fails where the peer has not read the one before. An exchange of its
/// own is one write, before which the peer has read all.
const WARM: usize = 250;

/// Bodies of a round, bytes: single frames, more than a frame, more than the windows hold.
const SIZES: [usize; 8] = [0, 1, 100, 16_384, 16_385, 65_536, 300_000, 2_000_000];

/// A server that sends back what it gets.
async fn echo() -> H2Served {
    H2Origin::bind().await.serve(Builder::new(), |mut stream| async move {
        let Ok((content, _)) = stream.body().await else { return };
        if content.is_empty() {
            return stream.end(Response::new(()));
        }
        let mut body = stream.begin(Response::new(()));
        send_all(&mut body, Bytes::from(content), true).await;
    })
}

/// A proxy in front of it that bypasses TCP on both sides.
fn proxy(server: &H2Served) -> Proxy {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nlocal_bypass = true\n\
         [[route]]\nlistener = \"web\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nprotocol = \"http2\"\nlocal_bypass = true\n\
         servers = [\"{}\"]\n",
        server.addr()
    ))
    .start()
}

/// Connections that bypass TCP now: with clients, with servers.
async fn open(proxy: &Proxy) -> [f64; 2] {
    let metrics = proxy.metrics().await;
    ["downstream", "upstream"]
        .map(|side| metrics.sum("underpass_hop_bypass_open", &[("side", side)]))
}

/// Sends all of these at once, and sees that each comes back.
async fn exchange(client: &mut HttpClient, sizes: &[usize]) {
    let mut answers = Vec::new();
    for size in sizes {
        let body = match size {
            0 => OutBody::Empty,
            size => OutBody::Full(Bytes::from(pattern::bytes(*size))),
        };
        let request = client.request(Method::POST, "/echo").body(body).unwrap();
        answers.push((size, client.send(request)));
    }
    // All of them at once: they share a window.
    let read = answers.into_iter().map(|(size, answer)| async move {
        let (content, _) = collect(answer.await.unwrap().into_body()).await.unwrap();
        assert_eq!(content.len(), *size);
        pattern::check(0, &content);
    });
    futures_util::future::join_all(read).await;
}

/// A client whose connection bypasses TCP; so does that of its server.
async fn warm(proxy: &Proxy) -> HttpClient {
    let mut client = HttpClient::connect(proxy.listener("web"), Version::H2).await;
    for _ in 0..WARM {
        exchange(&mut client, &[0]).await;
        if open(proxy).await == [1.0; 2] {
            return client;
        }
    }
    panic!("no bypass after {WARM} exchanges: {:?}", open(proxy).await);
}

#[req_test("REQ-CORE-001.F-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_all_sizes_go_both_ways_at_once() {
    if !ready(Engine::Bypass) {
        return;
    }
    let server = echo().await;
    let proxy = proxy(&server);
    let mut client = warm(&proxy).await;
    for round in 0..12 {
        let mut sizes = SIZES.repeat(4);
        sizes.rotate_left(round);
        exchange(&mut client, &sizes).await;
    }
    assert_eq!(server.connections(), 1, "all of it went over one connection");

    // The figures are complete when a connection is over.
    drop(client);
    eventually("the client's connection to be gone", async || open(&proxy).await[0] == 0.0).await;
    let metrics = proxy.metrics().await;
    let bytes = metrics.sum("underpass_hop_bypass_bytes_total", &[("side", "downstream")]);
    assert!(bytes > 100_000.0, "{bytes} bytes past TCP");
}

/// What was given past TCP before a connection ends is there to be read.
#[req_test("REQ-CORE-001.F-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_answers_end() {
    if !ready(Engine::Bypass) {
        return;
    }
    let (going, gone) = tokio::sync::watch::channel(false);
    let mut builder = Builder::new();
    builder.max_concurrent_streams(100);
    let server = H2Origin::bind().await.serve(builder, move |mut stream| {
        let mut gone = gone.clone();
        async move {
            if stream.path() == "/echo" {
                return stream.end(Response::new(()));
            }
            let mut body = stream.begin(Response::new(()));
            gone.wait_for(|gone| *gone).await.unwrap();
            send_all(&mut body, Bytes::from(pattern::bytes(100_000)), true).await;
        }
    });
    let proxy = proxy(&server);
    let mut client = warm(&proxy).await;
    let slow = client.get("/slow").await;
    proxy.signal(Signal::TERM);
    let address = proxy.listener("web");
    eventually("the drain", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    going.send(true).unwrap();
    let (content, _) = collect(slow.into_body()).await.unwrap();
    assert_eq!(content.len(), 100_000);
    pattern::check(0, &content);
    client.closed().await;
}

#[req_test("REQ-CORE-001.F-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_a_killed_proxy_see_the_end() {
    if !ready(Engine::Bypass) {
        return;
    }
    let server = echo().await;
    let mut proxy = proxy(&server);
    let client = warm(&proxy).await;
    proxy.signal(Signal::KILL);
    proxy.exited().await;
    client.closed().await;
    eventually("the server's connection to be gone", async || server.open() == 0).await;
}

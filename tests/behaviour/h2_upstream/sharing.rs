//! Requests that share a connection: how many, when another one is made, and how long it lasts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use h2::server::Builder;
use http::Response;
use mantra_macros::req_test;
use tokio::{sync::Semaphore, task::JoinSet};
use underpass_tests::{
    Version, Wire,
    client::collect,
    eventually,
    h2_origin::{H2Origin, H2Served},
};

use super::{client, configured, proxy};

/// Requests wait here until the test lets them be answered.
struct Gate {
    came: AtomicUsize,
    open: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { came: AtomicUsize::new(0), open: Semaphore::new(0) }
    }
}

/// A server of which each connection allows so many streams, and that answers each request with
/// `ok` once the test lets it.
async fn held(streams: u32) -> (H2Served, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let behind = Arc::clone(&gate);
    let mut builder = Builder::new();
    builder.max_concurrent_streams(streams);
    let served = H2Origin::bind().await.serve(builder, move |mut stream| {
        let gate = Arc::clone(&behind);
        async move {
            gate.came.fetch_add(1, SeqCst);
            gate.open.acquire().await.unwrap().forget();
            stream.ok("ok");
        }
    });
    (served, gate)
}

/// So many clients that each ask once; their statuses.
fn asking(address: std::net::SocketAddr, count: usize) -> JoinSet<u16> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        clients.spawn(async move {
            let mut wire = Wire::open(address, "GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            wire.read_response().await.status()
        });
    }
    clients
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn requests_share_one_connection_from_the_first_moment() {
    let (served, gate) = held(1000).await;
    let proxy = proxy(served.addr(), "");
    let clients = asking(proxy.listener("web"), 80);
    eventually("all requests at the server", async || gate.came.load(SeqCst) == 80).await;
    gate.open.add_permits(80);
    assert_eq!(clients.join_all().await, [200; 80]);
    assert_eq!(served.connections(), 1);
}

/// What the server allows holds, and so does what is configured.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn beyond_what_one_carries_there_is_another() {
    for (allowed, lines, connections) in
        [(1000, "[upstream.http2]\nmax_streams = 5\n", 4), (5, "", 4)]
    {
        let (served, gate) = held(allowed).await;
        let proxy = proxy(served.addr(), lines);
        // The server's settings are known from here on.
        gate.open.add_permits(1);
        assert_eq!(asking(proxy.listener("web"), 1).join_all().await, [200]);
        let clients = asking(proxy.listener("web"), 20);
        eventually("so many connections", async || served.connections() == connections).await;
        gate.open.add_permits(20);
        assert_eq!(clients.join_all().await, [200; 20]);
        assert_eq!(served.connections(), connections, "{lines}");
    }
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn where_no_more_connections_may_be_requests_wait_for_a_stream() {
    let (served, gate) = held(1000).await;
    let lines = "max_connections = 1\n[upstream.http2]\nmax_streams = 2\n";
    let proxy = proxy(served.addr(), lines);
    let clients = asking(proxy.listener("web"), 10);
    // Each that is over lets another one go.
    gate.open.add_permits(10);
    assert_eq!(clients.join_all().await, [200; 10]);
    assert_eq!(served.connections(), 1);
}

#[tokio::test]
async fn a_connection_ends_after_so_many_requests_or_so_long() {
    let (served, gate) = held(1000).await;
    gate.open.add_permits(1000);
    let proxy = proxy(served.addr(), "max_requests_per_connection = 3\nmax_idle_connections = 8\n");
    let mut client = client(&proxy, Version::H1).await;
    for _ in 0..9 {
        assert_eq!(collect(client.get("/").await.into_body()).await.unwrap().0, b"ok");
    }
    assert_eq!(served.connections(), 3);

    let (served, gate) = held(1000).await;
    gate.open.add_permits(1000);
    let proxy = super::proxy(served.addr(), "idle_timeout = \"100ms\"\n");
    let mut client = super::client(&proxy, Version::H1).await;
    client.get("/").await;
    eventually("the connection to be given up", async || served.open() == 0).await;
    client.get("/").await;
    assert_eq!(served.connections(), 2);
}

/// `least` counts requests, not connections: of which there is one to each server.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn load_is_counted_by_request() {
    let (a, gate_a) = held(1000).await;
    let (b, gate_b) = held(1000).await;
    let servers = format!("servers = [\"{}\", \"{}\"]\n", a.addr(), b.addr());
    let proxy = configured(&format!("{servers}balance = \"least_connections\"\n"));
    let clients = asking(proxy.listener("web"), 40);
    // Half of them went to either, before any was answered.
    let came = || [&gate_a, &gate_b].map(|gate| gate.came.load(SeqCst));
    eventually("all of them at the servers", async || came() == [20; 2]).await;
    gate_a.open.add_permits(20);
    gate_b.open.add_permits(20);
    assert_eq!(clients.join_all().await, [200; 40]);
    assert_eq!((a.connections(), b.connections()), (1, 1));
}

/// A stream that is slow does not hold up another one of the same connection.
#[tokio::test]
async fn a_slow_answer_holds_up_nobody() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut slow = client(&proxy, Version::H1).await;
    let waiting = slow.send(
        slow.request(http::Method::GET, "/slow").body(underpass_tests::OutBody::Empty).unwrap(),
    );
    let scripted = async {
        let mut peer = origin.accept().await;
        let mut first = peer.next().await;
        let mut fast = client(&proxy, Version::H2).await;
        for _ in 0..10 {
            let (answer, mut stream) = tokio::join!(fast.get("/fast"), async {
                let mut stream = peer.next().await;
                stream.ok("fast");
                stream
            });
            assert_eq!(collect(answer.into_body()).await.unwrap().0, b"fast");
            let _ = &mut stream;
        }
        let mut body = first.begin(Response::new(()));
        body.send_data(Bytes::from_static(b"slow"), true).unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, scripted);
    assert_eq!(collect(answer.unwrap().into_body()).await.unwrap().0, b"slow");
}

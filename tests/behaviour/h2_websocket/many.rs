//! Many of them on one connection: idle they cost little, and each gives back what it held.

use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Served, Wire, eventually,
    h2_origin::H2Origin,
    h2_tunnel::{H2Caller, extended, grant, grant_stream, upgrade},
    pattern,
};

use super::proxy;

/// In front of a server of HTTP/2; `lines` are of the upstream.
fn with_lines(server: std::net::SocketAddr, lines: &str) -> Proxy {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nconnect_timeout = \"10s\"\nmax_streams = 4000\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"app\"\n\
         [[upstream]]\nname = \"app\"\nservers = [\"{server}\"]\nprotocol = \"http2\"\n{lines}"
    ))
    .start()
}

/// From one connection of a client, over one to the server.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_are_idle_on_one_connection() {
    const COUNT: usize = 2000;
    let origin = H2Origin::bind().await;
    let proxy = with_lines(origin.addr(), "[upstream.http2]\nmax_streams = 4000\n");
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let first = caller.websocket("/0").await;
    let mut peer = origin.accept_with(extended().max_concurrent_streams(4000)).await;
    let mut open = vec![(first, grant(&mut peer).await.1)];
    let mut before = 0;
    for number in 1..COUNT {
        if number == 100 {
            before = proxy.resident_bytes();
        }
        open.push((caller.websocket(&format!("/{number}")).await, grant(&mut peer).await.1));
    }
    let mut legs = Vec::new();
    for (called, server) in open {
        legs.push((called.opened().await.1.into_leg(), server.into_leg()));
    }
    proxy.until_tunnels(COUNT).await;
    let each = proxy.resident_bytes().saturating_sub(before) / (COUNT as u64 - 100);
    assert!(each < 40 << 10, "{each} bytes for each");
    // Every hundredth is used, both ways.
    for (client, server) in legs.iter_mut().step_by(100) {
        client.send("there").await;
        server.expect("there").await;
        server.send("back").await;
        client.expect("back").await;
    }
    // They end in different ways, and all of them do.
    for (number, (mut client, mut server)) in legs.into_iter().enumerate() {
        match number % 3 {
            0 => client.reset(),
            1 => {
                server.reset();
                // Dropped, it would be taken back by the client at the same time: too often, within
                // its first second, for one that is no attack.
                client.expect_reset().await;
            }
            _ => {
                client.finish().await;
                server.expect_fin().await;
                server.finish().await;
                client.expect_fin().await;
            }
        }
    }
    proxy.until_tunnels(0).await;
}

/// A place among a server's streams is free again, however its tunnel ended or did not come about.
#[req_test("REQ-CTRL-001", "REQ-EDGE-005")]
#[tokio::test]
async fn places_are_given_back() {
    let origin = H2Origin::bind().await;
    let lines = "max_connections = 1\n[upstream.http2]\nmax_streams = 1\n";
    let proxy = with_lines(origin.addr(), lines);
    let mut peer = None;
    for round in 0..12 {
        let mut client = Wire::open(proxy.listener("web"), upgrade("/")).await;
        let peer = match &mut peer {
            Some(peer) => peer,
            none => none.insert(origin.accept_with(&extended()).await),
        };
        let mut stream = peer.next().await;
        match round % 6 {
            // Refused, with a body.
            0 => {
                let head = http::Response::builder().status(403).body(()).unwrap();
                let mut body = stream.begin(head);
                body.send_data("no".into(), true).unwrap();
                assert_eq!(client.expect_status(403).await.text(), "no");
            }
            // Given up before the answer.
            1 => {
                client.reset();
                stream.is_reset().await;
            }
            // Reset before the answer.
            2 => {
                stream.reset(h2::Reason::INTERNAL_ERROR);
                client.expect_status(502).await;
            }
            kind => {
                let (_, server) = grant_stream(stream);
                let mut server = server.into_leg();
                assert_eq!(client.read_head().await.status(), 101);
                client.send("hello").await;
                server.expect("hello").await;
                match kind {
                    3 => client.reset(),
                    4 => server.reset(),
                    _ => {
                        server.send(pattern::bytes(30_000)).await;
                        server.finish().await;
                        client.check_pattern(0, 30_000).await;
                        client.finish().await;
                        server.expect_fin().await;
                    }
                }
            }
        }
    }
    assert!(!origin.is_connected_to_again().await, "one connection for all");
}

/// With a client's own limit of streams the others wait for their turn.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_client_has_as_many_as_it_may_have_streams() {
    let server = Served::ok().await;
    let proxy = proxy(server.addr(), false, "max_streams = 3").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    for _ in 0..10 {
        // The server answers 200, which is a refusal.
        assert_eq!(caller.websocket("/").await.refused().await.0, 502);
    }
    eventually("nothing to be open", async || proxy.tunnels().await.is_empty()).await;
}

//! How they end: half by half, by reset, by idleness, by hand, with a drain, as all tunnels do.

use mantra_macros::req_test;
use underpass_tests::pattern;

use super::{Opened, Path};

const MEGABYTE: usize = 1 << 20;

#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn bytes_pass_both_ways_at_once_and_each_half_ends_by_itself() {
    for path in Path::ALL {
        let Opened { client, server, proxy, _kept } = path.open("").await;
        let (up, down) = (pattern::bytes(MEGABYTE), pattern::bytes(MEGABYTE + 17));
        let (mut client, mut server) = (client, server);
        client.send("hello").await;
        server.expect("hello").await;
        let tunnels = proxy.tunnels().await;
        let reason = match path {
            Path::SocketToStream => "h2 upstream",
            _ => "h2 downstream",
        };
        assert_eq!(tunnels[0]["engine"]["to_upstream"]["reason"], reason, "{tunnels:?}");
        assert_eq!(tunnels[0]["kind"], "websocket", "{tunnels:?}");
        // The client is through first, and gets the answer behind its end.
        tokio::join!(client.send(&up), server.expect(&up));
        client.finish().await;
        server.expect_fin().await;
        tokio::join!(server.send(&down), client.expect(&down));
        server.finish().await;
        client.expect_fin().await;
        proxy.until_tunnels(0).await;
        let line = proxy.log_line(&["tunnel_end=finished"]).await;
        assert!(line.contains(&format!("request_bytes={}", MEGABYTE + 5)), "{path:?}: {line}");
        assert!(line.contains(&format!("response_bytes={}", MEGABYTE + 17)), "{path:?}: {line}");
    }
}

#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn the_server_may_finish_first() {
    for path in Path::ALL {
        let Opened { mut client, mut server, proxy, _kept } = path.open("").await;
        server.send("greeting").await;
        server.finish().await;
        client.expect("greeting").await;
        client.expect_fin().await;
        let all = pattern::bytes(300_000);
        tokio::join!(client.send(&all), server.expect(&all));
        client.finish().await;
        server.expect_fin().await;
        proxy.until_tunnels(0).await;
    }
}

/// A reset is told as one, behind the bytes that came before it.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn a_reset_is_passed_on_either_way() {
    for path in Path::ALL {
        for client_resets in [true, false] {
            let Opened { mut client, mut server, proxy, _kept } = path.open("").await;
            client.send("there").await;
            server.expect("there").await;
            server.send("and back").await;
            client.expect("and back").await;
            let (gone, mut left, end) = match client_resets {
                true => (client, server, "client_reset"),
                false => (server, client, "upstream_reset"),
            };
            gone.reset();
            left.expect_reset().await;
            let line = proxy.log_line(&["tunnel=websocket"]).await;
            assert!(line.contains(&format!("tunnel_end={end}")), "{path:?}: {line}");
            proxy.until_tunnels(0).await;
        }
    }
}

/// Also where one half is over, and nothing but the other could be broken.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn a_reset_behind_the_others_end_is_no_end() {
    for path in Path::ALL {
        for client_resets in [true, false] {
            let Opened { client, server, proxy, _kept } = path.open("").await;
            let (mut gone, mut left, end) = match client_resets {
                true => (client, server, "client_reset"),
                false => (server, client, "upstream_reset"),
            };
            gone.send("half of it").await;
            left.expect("half of it").await;
            left.finish().await;
            gone.expect_fin().await;
            gone.reset();
            left.expect_reset().await;
            let line = proxy.log_line(&["tunnel=websocket"]).await;
            assert!(line.contains(&format!("tunnel_end={end}")), "{path:?}: {line}");
            proxy.until_tunnels(0).await;
        }
    }
}

/// Also while the tunnel is held up in that direction, so that nobody reads there.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn a_reset_ends_a_stalled_tunnel() {
    for path in Path::ALL {
        let Opened { mut client, mut server, proxy, _kept } = path.open("").await;
        assert!(client.send_until_stalled(64 << 20).await < 64 << 20, "{path:?}");
        client.reset();
        proxy.until_tunnels(0).await;
        server.expect_reset().await;
        proxy.log_line(&["tunnel_end=client_reset"]).await;
    }
}

#[req_test("REQ-TUN-004", "REQ-EDGE-005")]
#[tokio::test]
async fn an_idle_one_ends_on_both_sides_and_by_hand() {
    for path in Path::ALL {
        let limits = "tunnel_idle_timeout = \"1s\"";
        let Opened { mut client, mut server, proxy, _kept } = path.open(limits).await;
        client.expect_reset().await;
        server.expect_reset().await;
        proxy.log_line(&["tunnel_end=idle_timeout"]).await;

        let Opened { mut client, mut server, proxy, _kept } = path.open("").await;
        proxy.until_tunnels(1).await;
        let id = proxy.tunnels().await[0]["id"].as_u64().unwrap();
        proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await;
        client.expect_reset().await;
        server.expect_reset().await;
        proxy.log_line(&["tunnel_end=deleted"]).await;
    }
}

/// A drain lets it go on until its deadline.
#[req_test("REQ-TUN-005", "REQ-EDGE-005")]
#[tokio::test]
async fn a_drain_waits_for_it() {
    for path in Path::ALL {
        let Opened { mut client, mut server, mut proxy, _kept } = path.open("").await;
        proxy.term();
        proxy.log_line(&["drain"]).await;
        client.send("still").await;
        server.expect("still").await;
        server.finish().await;
        client.expect_fin().await;
        client.finish().await;
        server.expect_fin().await;
        // Connections of HTTP/2 have nothing to do any more, and may end.
        drop((client, server, _kept));
        assert_eq!(proxy.exited().await.code(), Some(0), "{path:?}");
    }
}

/// The end of the connection is that of all its tunnels.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn a_connection_that_breaks_resets_the_other_side() {
    let Opened { client, mut server, proxy, mut _kept } = Path::StreamToSocket.open("").await;
    drop(client);
    if let Some(super::Kept::Caller(caller)) = _kept.pop() {
        caller.abort();
    }
    server.expect_reset().await;
    proxy.until_tunnels(0).await;

    let Opened { mut client, server, proxy, mut _kept } = Path::SocketToStream.open("").await;
    drop(server);
    if let Some(super::Kept::Peer(peer)) = _kept.pop() {
        peer.cut();
    }
    client.expect_reset().await;
    proxy.until_tunnels(0).await;
}

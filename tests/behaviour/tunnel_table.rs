//! Tunnels are seen while they are open: `/tunnels`, metrics, access log (the law of
//! tunnels, 4 and 5).

use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request};
use hyper_util::rt::TokioIo;
use mantra_macros::req_test;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use underpass_tests::{
    Engine, HttpClient, Origin, OutBody, Proxy, Version,
    clock::BOUND,
    eventually, over_engines,
    tunnel::{Tunnel, Way},
};

over_engines!(
    an_open_tunnel_is_listed_with_its_bytes,
    the_log_says_what_moved_the_bytes,
    bytes_are_in_the_metrics_while_the_tunnel_runs,
);

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn an_open_tunnel_is_listed_with_its_bytes(engine: Engine) {
    for (way, kind) in [(Way::Upgrade, "upgrade"), (Way::Connect, "connect"), (Way::Tcp, "tcp")] {
        let mut tunnel = way.open(engine).await;
        tunnel.client.send([0; 100]).await;
        tunnel.server.read_exact(100).await;
        tunnel.server.send([0; 1000]).await;
        tunnel.client.read_exact(1000).await;
        let proxy = &tunnel.proxy;
        eventually("the bytes to be listed", async || {
            let list = proxy.tunnels().await;
            let bytes = &list[0]["bytes"];
            bytes["to_upstream"] == 100 && bytes["to_downstream"] == 1000
        })
        .await;
        let list = proxy.tunnels().await;
        let [row] = &list[..] else { panic!("{list:?}") };
        assert_eq!(row["kind"], kind);
        assert_eq!(row["client"], tunnel.client.local_addr().to_string());
        let upstream = row["upstream"].as_str().unwrap_or_default();
        assert!(upstream.contains(&tunnel.origin.addr().port().to_string()), "{row}");
        assert!(row["id"].is_u64() && row["started"].is_number(), "{row}");
        assert!(row["idle_seconds"].as_f64().is_some_and(|idle| idle < 60.0), "{row}");
        for direction in ["to_upstream", "to_downstream"] {
            let name = row["engine"][direction]["name"].as_str().unwrap_or_default();
            match engine {
                Engine::Auto => assert!(["copy", "pipe", "kernel"].contains(&name), "{row}"),
                engine => assert_eq!(name, engine.flag(), "{row}"),
            }
        }
        assert_eq!(proxy.metrics().await.sum("underpass_tunnels_open", &[]), 1.0);
        drop(tunnel.client);
        drop(tunnel.server);
        tunnel.proxy.until_tunnels(0).await;
        eventually("the tunnel to be counted as over", async || {
            tunnel.proxy.metrics().await.sum("underpass_tunnels_open", &[]) == 0.0
        })
        .await;
        let metrics = tunnel.proxy.metrics().await;
        assert_eq!(metrics.sum("underpass_tunnels_opened_total", &[]), 1.0);
        let up = metrics.sum("underpass_tunnel_bytes_total", &[("direction", "up")]);
        let down = metrics.sum("underpass_tunnel_bytes_total", &[("direction", "down")]);
        assert_eq!((up, down), (100.0, 1000.0));
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn the_log_says_what_moved_the_bytes(engine: Engine) {
    let mut tunnel = Way::Upgrade.open(engine).await;
    tunnel.client.send([0; 100]).await;
    tunnel.server.read_exact(100).await;
    drop(tunnel.client);
    tunnel.server.expect_fin().await;
    drop(tunnel.server);
    let line = tunnel.proxy.log_line(&["target=/tunnel", "end=tunnel"]).await;
    for part in ["status=101", "tunnel=", "engine_up=", "engine_down=", "tunnel_end=finished"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    if engine != Engine::Auto {
        assert!(line.contains(&format!("engine_up={engine}")), "{line}");
    }
}

#[req_test("REQ-TUN-004")]
async fn bytes_are_in_the_metrics_while_the_tunnel_runs(engine: Engine) {
    let mut tunnel = Way::Upgrade.open(engine).await;
    let sums = async |proxy: &Proxy| {
        let metrics = proxy.metrics().await;
        ["up", "down"].map(|way| metrics.sum("underpass_tunnel_bytes_total", &[("direction", way)]))
    };
    tunnel.client.send([0; 100]).await;
    tunnel.server.read_exact(100).await;
    tunnel.server.send([0; 1000]).await;
    tunnel.client.read_exact(1000).await;
    eventually("the metrics to have them", async || sums(&tunnel.proxy).await == [100.0, 1000.0])
        .await;
    let metrics = tunnel.proxy.metrics().await;
    for way in ["up", "down"] {
        let open = metrics.sum("underpass_tunnel_directions_open", &[("direction", way)]);
        assert_eq!(open, 1.0);
    }
    // Each byte once, also when the tunnel has ended.
    drop(tunnel.client);
    drop(tunnel.server);
    tunnel.proxy.until_tunnels(0).await;
    assert_eq!(sums(&tunnel.proxy).await, [100.0, 1000.0]);
    let metrics = tunnel.proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_tunnel_directions_open", &[]), 0.0);
}

#[req_test("REQ-TUN-004")]
#[tokio::test]
async fn a_long_tunnel_has_a_rate_and_lines_in_the_log() {
    let build = |builder: underpass_tests::ProxyBuilder| builder.limit("tunnel_log_interval", "1s");
    let tunnel = Way::Upgrade.open_with(Engine::Auto, Origin::bind().await, build).await;
    let Tunnel { mut client, mut server, origin: _origin, proxy } = tunnel;
    proxy.until_tunnels(1).await;
    let rate = async || {
        let row = &proxy.tunnels().await[0];
        row["bytes_per_second"]["to_upstream"].as_u64().expect("a number")
    };
    let begin = Instant::now();
    while rate().await == 0 {
        assert!(begin.elapsed() < BOUND, "no rate");
        client.send([0; 1000]).await;
        server.read_exact(1000).await;
    }
    let id = format!("id={}", proxy.tunnels().await[0]["id"]);
    let parts =
        ["tunnel open", &id, "kind=\"upgrade\"", "bytes_up=", "engine_down=", "age_seconds="];
    proxy.log_line(&parts).await;
    eventually("the rate to go", async || rate().await == 0).await;
}

/// A stream of HTTP/2 is no socket: its tunnel is copied, whatever was asked for.
#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
#[tokio::test]
async fn connect_over_h2_is_copied() {
    let origin = Origin::bind().await;
    let proxy = Proxy::forward().splice(Engine::Pipe).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(origin.addr().to_string())
        .version(http::Version::HTTP_2)
        .body(OutBody::Empty)
        .unwrap();
    let answer = client.send(request);
    let mut server = origin.accept().await;
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.expect("a tunnel"));
    tunnel.write_all(b"ping").await.unwrap();
    server.expect("ping").await;
    server.send("pong").await;
    let mut pong = [0; 4];
    tunnel.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"pong");
    let list = proxy.tunnels().await;
    assert_eq!(list[0]["engine"]["to_upstream"]["name"], "copy", "{list:?}");
    assert_eq!(list[0]["engine"]["to_downstream"]["name"], "copy", "{list:?}");

    // Half-close in both directions, over END_STREAM.
    tunnel.shutdown().await.unwrap();
    server.expect_fin().await;
    server.send("last").await;
    drop(server);
    let mut last = Vec::new();
    tunnel.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, b"last");
    proxy.until_tunnels(0).await;
}

/// A tunnel's stream that is given up resets the server's connection; others go on.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_dropped_h2_tunnel_ends_at_the_server() {
    let origin = Origin::bind().await;
    let proxy = Proxy::forward().start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let request = Request::connect(origin.addr().to_string()).version(http::Version::HTTP_2);
        let answer = client.send(request.body(OutBody::Empty).unwrap());
        let server = origin.accept().await;
        let upgraded = hyper::upgrade::on(answer.await.unwrap()).await.expect("a tunnel");
        open.push((TokioIo::new(upgraded), server));
    }
    let (tunnel, mut server) = open.remove(0);
    drop(tunnel);
    server.expect_end().await;
    let (mut tunnel, mut server) = open.remove(0);
    tunnel.write_all(&Bytes::from_static(b"on")).await.unwrap();
    server.expect("on").await;
}

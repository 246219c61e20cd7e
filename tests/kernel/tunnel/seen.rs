//! Engine, bytes and last activity are visible while the tunnel runs; idleness, a hand and
//! a drain end it.

use std::time::{Duration, Instant};

use mantra_macros::req_test;
use underpass_tests::{
    Bed, End, Engine, Plan, Proxy, Tunnel, bed::Topology, engine::joins_applications, eventually,
    over_all_engines,
};

use super::{MEGABYTE, SOON, all_cases, cases, each};

over_all_engines!(
    the_engine_that_was_asked_for_moves_the_bytes,
    bytes_are_exact_while_the_tunnel_runs,
    bytes_only_grow_and_never_run_ahead,
    the_reason_says_whose_socket_stays_out,
    a_tunnel_that_talks_does_not_idle,
    a_silent_tunnel_is_ended,
    a_busy_tunnel_is_ended_by_hand_soon,
    a_drain_lets_tunnels_go_on_to_its_deadline,
);

/// Before the first byte, under traffic, and after it.
#[req_test("REQ-TUN-002", "REQ-TUN-004")]
async fn the_engine_that_was_asked_for_moves_the_bytes(engine: Engine) {
    for (bed, way) in all_cases(&Bed::all()) {
        let plan = Plan::new(bed, way, engine);
        let mut tunnel = plan.open_settled().await;
        tokio::join!(
            tunnel.client.exchange_pattern(4 * MEGABYTE, false, 4 * MEGABYTE),
            tunnel.server.exchange_pattern(4 * MEGABYTE, false, 4 * MEGABYTE),
        );
        plan.settled(&tunnel.proxy).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn bytes_are_exact_while_the_tunnel_runs(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open().await;
        let (mut up, mut down) = (0, 0);
        for size in [1, 100, 70_000, 1, 3_000_000] {
            tokio::join!(
                tunnel.client.exchange_stretch(up..up + size, false, 0..0),
                tunnel.server.check_pattern(up, size)
            );
            up += size;
            tokio::join!(
                tunnel.server.exchange_stretch(down..down + 2 * size, false, 0..0),
                tunnel.client.check_pattern(down, 2 * size)
            );
            down += 2 * size;
            let expected = (up, down);
            eventually(&format!("{expected:?} bytes to be listed"), async || {
                bytes(&tunnel.proxy).await == expected
            })
            .await;
        }
        // Reading of them is no activity, and adds nothing.
        assert_eq!(bytes(&tunnel.proxy).await, (up, down));
        // The scrape has them as well, for the engines that moved them.
        let metrics = tunnel.proxy.metrics().await;
        let row = &tunnel.proxy.tunnels().await[0];
        for (way, direction, all) in [("up", "to_upstream", up), ("down", "to_downstream", down)] {
            let total = |engines: &[&str]| -> f64 {
                let labels = engines.iter().map(|engine| [("engine", *engine), ("direction", way)]);
                labels.map(|of| metrics.sum("underpass_tunnel_bytes_total", &of)).sum()
            };
            let moved = row["engine"][direction]["kernel"]["bytes"].as_u64().unwrap_or_default();
            assert_eq!(total(&["kernel", "bypass", "half_bypass"]), moved as f64, "{row}");
            assert_eq!(total(&["copy", "pipe"]), (all - moved) as f64, "{row}");
        }
        drop((tunnel.client, tunnel.server));
        tunnel.proxy.until_tunnels(0).await;
        let metrics = tunnel.proxy.metrics().await;
        let total = |way| metrics.sum("underpass_tunnel_bytes_total", &[("direction", way)]);
        assert_eq!((total("up"), total("down")), (up as f64, down as f64));
    }
}

/// Only where local bypass was asked for, and only where it is not whole.
#[req_test("REQ-TUN-004")]
async fn the_reason_says_whose_socket_stays_out(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let tunnel = Plan::new(bed, way, engine).open_settled().await;
        let expected = match (engine, bed.topology()) {
            (Engine::Bypass, Topology::RemoteClient) => ["client: not on this host"; 2].map(Some),
            (Engine::Bypass, Topology::RemoteBoth) => {
                ["client: not on this host", "server: not on this host"].map(Some)
            }
            (Engine::Bypass, _) if !joins_applications() => {
                ["local bypass does not work here, see doctor"; 2].map(Some)
            }
            _ => [None; 2],
        };
        tunnel.proxy.until_tunnels(1).await;
        let row = &tunnel.proxy.tunnels().await[0];
        let reason = |way: &str| row["engine"][way]["reason"].as_str();
        assert_eq!(["to_upstream", "to_downstream"].map(reason), expected, "{row}");
    }
}

#[req_test("REQ-TUN-002", "REQ-TUN-004")]
async fn bytes_only_grow_and_never_run_ahead(engine: Engine) {
    const SIZE: u64 = 64 * MEGABYTE;
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        let client = tokio::spawn(async move {
            client.exchange_pattern(SIZE, false, 0).await;
            client
        });
        let mut last = 0;
        let server = tokio::spawn(async move {
            server.check_pattern(0, SIZE).await;
            server
        });
        // Once at least, however soon it is over.
        loop {
            let is_over = server.is_finished();
            let (up, down) = bytes(&proxy).await;
            assert!(up >= last && up <= SIZE, "{up} after {last} of {SIZE}");
            assert_eq!(down, 0);
            last = up;
            if is_over {
                break;
            }
        }
        let ends = (client.await.unwrap(), server.await.unwrap());
        eventually("the sum to be right", async || bytes(&proxy).await == (SIZE, 0)).await;
        drop(ends);
    }
}

/// Longer than the timeout in each direction, with a few bytes in each fifth of it.
#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn a_tunnel_that_talks_does_not_idle(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).args(["--limit", "tunnel_idle_timeout=2s"]);
        let mut tunnel = plan.open_settled().await;
        for round in 0..14 {
            tokio::time::sleep(Duration::from_millis(350)).await;
            // One direction only, for longer than the timeout, then the other.
            let (from, to) = match round {
                0..7 => (&mut tunnel.client, &mut tunnel.server),
                _ => (&mut tunnel.server, &mut tunnel.client),
            };
            from.send("tick").await;
            to.expect("tick").await;
        }
        tunnel.proxy.until_tunnels(1).await;
        // And when it falls silent it ends.
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        assert_eq!(tunnel.server.expect_end().await, End::Reset);
        tunnel.proxy.log_line(&["tunnel_end=idle_timeout"]).await;
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn a_silent_tunnel_is_ended(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).args(["--limit", "tunnel_idle_timeout=1s"]);
        let mut tunnel = plan.open().await;
        let begin = Instant::now();
        tunnel.client.send("x").await;
        tunnel.server.expect("x").await;
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        assert_eq!(tunnel.server.expect_end().await, End::Reset);
        assert!(begin.elapsed() > Duration::from_millis(800), "ended before it was idle");
        tunnel.proxy.log_line(&["tunnel_end=idle_timeout"]).await;
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn a_busy_tunnel_is_ended_by_hand_soon(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { client, server, origin: _origin, proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        let busy = [(client, "client"), (server, "server")].map(|(wire, who)| {
            tokio::spawn(async move {
                let mut stream = wire.into_stream();
                let (mut reader, mut writer) = stream.split();
                let mut pieces = [vec![0; 65_536], vec![0; 65_536]];
                let [read, write] = &mut pieces;
                tokio::join!(
                    async {
                        use tokio::io::AsyncReadExt;
                        while matches!(reader.read(read).await, Ok(1..)) {}
                    },
                    async {
                        use tokio::io::AsyncWriteExt;
                        while writer.write_all(write).await.is_ok() {}
                    }
                );
                who
            })
        });
        eventually("bytes to flow", async || {
            let (up, down) = bytes(&proxy).await;
            up > MEGABYTE && down > MEGABYTE
        })
        .await;
        let id = proxy.tunnels().await[0]["id"].to_string();
        let begin = Instant::now();
        let answer = proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await;
        assert!((200..300).contains(&answer.status()), "{}", answer.head.start);
        for end in busy {
            end.await.unwrap();
        }
        proxy.until_tunnels(0).await;
        let took = begin.elapsed();
        assert!(took < SOON, "the tunnel ended after {took:?}");
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-005")]
async fn a_drain_lets_tunnels_go_on_to_its_deadline(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).args(["--drain-timeout", "2s"]);
        let mut tunnel = plan.open_settled().await;
        let begin = Instant::now();
        tunnel.proxy.term();
        for _ in 0..2 {
            tunnel.client.send("still").await;
            tunnel.server.expect("still").await;
            tunnel.server.send("open").await;
            tunnel.client.expect("open").await;
        }
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        assert_eq!(tunnel.server.expect_end().await, End::Reset);
        assert!(begin.elapsed() >= Duration::from_millis(1900), "ended before the deadline");
        assert_eq!(tunnel.proxy.exited().await.code(), Some(0));
        assert!(tunnel.proxy.stderr().contains("tunnel_end=drained"));
    })
    .await;
}

/// Bytes of the only tunnel: to the server, to the client.
async fn bytes(proxy: &Proxy) -> (u64, u64) {
    // The client may have the answer a moment before the tunnel is listed.
    proxy.until_tunnels(1).await;
    let row = &proxy.tunnels().await[0];
    let number = |way: &str| row["bytes"][way].as_u64().expect("a number");
    (number("to_upstream"), number("to_downstream"))
}

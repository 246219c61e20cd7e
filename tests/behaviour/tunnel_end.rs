//! How tunnels end: half by half, by reset, by idleness, by hand (the law of tunnels, 3 and 4).

use std::time::Duration;

use mantra_macros::req_test;
use underpass_tests::{
    End, Engine, Origin, eventually, over_engines, pattern, tunnel::Way, within,
};

over_engines!(
    the_client_may_finish_first,
    the_server_may_finish_first,
    fin_comes_behind_the_last_byte,
    a_reset_is_passed_on,
    a_reset_ends_a_stalled_tunnel,
    an_idle_tunnel_is_ended,
    traffic_one_way_keeps_a_tunnel_alive,
    a_tunnel_is_ended_by_hand,
);

const MEGABYTE: u64 = 1 << 20;

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn the_client_may_finish_first(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open(engine).await;
        tunnel.client.send("question").await;
        tunnel.client.finish().await;
        tunnel.server.expect("question").await;
        tunnel.server.expect_fin().await;
        // The answer comes after the end of the question.
        tokio::join!(
            tunnel.server.exchange_pattern(MEGABYTE, true, 0),
            tunnel.client.check_pattern(0, MEGABYTE)
        );
        tunnel.client.expect_fin().await;
        tunnel.proxy.until_tunnels(0).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn the_server_may_finish_first(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open(engine).await;
        tunnel.server.send("greeting").await;
        tunnel.server.finish().await;
        tunnel.client.expect("greeting").await;
        tunnel.client.expect_fin().await;
        tokio::join!(
            tunnel.client.exchange_pattern(MEGABYTE, true, 0),
            tunnel.server.check_pattern(0, MEGABYTE)
        );
        tunnel.server.expect_fin().await;
        tunnel.proxy.until_tunnels(0).await;
    }
}

/// FIN right behind the first bytes, in one segment with the request.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_client_may_finish_before_the_tunnel_is_open() {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let proxy = way.proxy(&origin).start();
        let mut client = proxy.open(way.request(&origin) + "early").await;
        client.finish().await;
        let mut server = way.accept(&origin).await;
        server.expect("early").await;
        server.expect_fin().await;
        way.opened(&mut client).await;
        server.send("late").await;
        drop(server);
        client.expect("late").await;
        client.expect_fin().await;
    }
}

/// Whoever closes at once has still sent everything that came before.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn fin_comes_behind_the_last_byte(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open_with(engine, Origin::bind_narrow(), |builder| builder).await;
        // More than the server's side holds: the end overtakes nothing that is under way.
        let sent = tunnel.client.send_until_stalled(0, 20 * MEGABYTE).await;
        drop(tunnel.client);
        tunnel.server.check_pattern(0, sent).await;
        tunnel.server.expect_fin().await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_is_passed_on(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open(engine).await;
        tunnel.client.send("x").await;
        tunnel.server.expect("x").await;
        tunnel.client.reset();
        assert_eq!(tunnel.server.expect_end().await, End::Reset);
        tunnel.proxy.until_tunnels(0).await;

        let mut tunnel = way.open(engine).await;
        tunnel.server.send("x").await;
        tunnel.client.expect("x").await;
        tunnel.server.reset();
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        tunnel.proxy.until_tunnels(0).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn an_idle_tunnel_is_ended(engine: Engine) {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let timeout =
            |builder: underpass_tests::ProxyBuilder| builder.limit("tunnel_idle_timeout", "1s");
        let mut tunnel = way.open_with(engine, origin, timeout).await;
        tunnel.client.send("x").await;
        tunnel.server.expect("x").await;
        tunnel.client.expect_end().await;
        tunnel.server.expect_end().await;
        tunnel.proxy.log_line(&["idle_timeout"]).await;
    }
}

/// Idle is who hears nothing from either side.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn traffic_one_way_keeps_a_tunnel_alive(engine: Engine) {
    let origin = Origin::bind().await;
    let timeout =
        |builder: underpass_tests::ProxyBuilder| builder.limit("tunnel_idle_timeout", "2s");
    let mut tunnel = Way::Upgrade.open_with(engine, origin, timeout).await;
    // Twice the timeout, with bytes from the server only.
    for n in 0..12 {
        tokio::time::sleep(Duration::from_millis(350)).await;
        tunnel.server.send(pattern::at(n, 1)).await;
        tunnel.client.check_pattern(n, 1).await;
    }
    tunnel.client.send("still here").await;
    tunnel.server.expect("still here").await;
    tunnel.client.expect_end().await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_tunnel_is_ended_by_hand(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open(engine).await;
        let proxy = &tunnel.proxy;
        proxy.until_tunnels(1).await;
        let id = proxy.tunnels().await[0]["id"].to_string();
        let answer = proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await;
        assert!((200..300).contains(&answer.status()), "{}", answer.head.start);
        tunnel.client.expect_end().await;
        tunnel.server.expect_end().await;
        proxy.until_tunnels(0).await;
        assert_eq!(proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await.status(), 404);
    }
}

/// What is stuck on its way to a reader that sleeps does not keep a dead tunnel.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_ends_a_stalled_tunnel(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open_with(engine, Origin::bind_narrow(), |builder| builder).await;
        tunnel.client.send_until_stalled(0, 100 * MEGABYTE).await;
        tunnel.client.reset();
        tunnel.proxy.until_tunnels(0).await;
        // It has been told, behind what it had got.
        tunnel.server.read_to_end().await;
    }
}

/// Whatever became of it, nothing of a tunnel stays behind in the process.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn ended_tunnels_leave_nothing_behind() {
    let origin = Origin::bind().await;
    let proxy = Way::Connect.proxy(&origin).start();
    let mut before = None;
    for round in 0..20 {
        let mut client = proxy.open(Way::Connect.request(&origin)).await;
        let mut server = Way::Connect.accept(&origin).await;
        Way::Connect.opened(&mut client).await;
        tokio::join!(client.send(pattern::bytes(100_000)), server.check_pattern(0, 100_000));
        match round % 4 {
            0 => {
                drop(client);
                server.expect_fin().await;
                drop(server);
            }
            1 => client.reset(),
            2 => server.reset(),
            _ => {
                client.finish().await;
                server.finish().await;
            }
        }
        proxy.until_tunnels(0).await;
        if round == 3 {
            // Whatever is allocated once is there by now: pooled pipes, for one.
            before = Some(proxy.descriptors());
        }
    }
    let before = before.expect("taken in round 3");
    let settled =
        eventually("the descriptors to be closed", async || proxy.descriptors() <= before + 4);
    within(underpass_tests::clock::BOUND, "descriptors", settled).await;
}
